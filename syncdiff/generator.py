"""The generator of the compact profile: a frame plan and a voice in, finished patches of the redrawn mouth out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler

from syncdiff.conditioning import BaseFaceClip, CropFile, FaceClip, FrameInputs, FramePlan, MouthPlan, condition
from syncdiff.devices import autocast
from syncdiff.diffusion import sampler
from syncdiff.faces import FaceTrack
from syncdiff.faces.tracker import Backend
from syncdiff.geometry import crops
from syncdiff.geometry.crops import WINDOW
from syncdiff.geometry.reference import MouthWarps, with_difference
from syncdiff.media import Clip, Patch
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder, SpeechFeatures, speech_features
from syncdiff.sync.film_offset import film_offset
from syncdiff.sync.scoring import FPS

PREVIOUS_STRENGTH = 0.4  # of the previous drawn frame: at full strength errors grew (docs/training-log.md)
CHUNK = sampler.LANE * sampler.LANES  # output frames that are generated in one go


@dataclass(frozen=True)
class DrawnFrame:
    """One finished output frame."""

    crop: np.ndarray  # [side, side, 3] uint8
    patch: Callable[[np.ndarray, np.ndarray], Patch]  # a frame [H, W, 3] and this crop, marked or not -> its patch


@dataclass(frozen=True)
class GeneratorStep:
    """One evaluation of a generator."""

    frames: tuple[int, ...]  # output frames that it worked on
    preview: np.ndarray | None = None  # [side, side, 3] uint8: the first of them as it stands
    finished: Mapping[int, DrawnFrame] | None = None  # by output frame, once they are done


class FaceGenerator(Protocol):
    """What a profile offers to a job."""

    side: int  # px, of its crops
    finder: Backend  # of faces
    upright: bool  # whether its crops are those that the judge sees and the invisible mark lies in

    def cut(self, image: np.ndarray, to_frame: np.ndarray) -> np.ndarray:
        """Frame [H, W, 3] and crop -> frame transform [2, 3] -> crop [side, side, 3]."""
        ...

    def align(self, clip: Clip, track: FaceTrack, /) -> np.ndarray:
        """Crop -> frame transforms [T, 2, 3] of a track; NaN where the face is missing."""
        ...

    def face_clip(self, clip: Clip, track: FaceTrack, to_frame: np.ndarray, crops: CropFile, /) -> BaseFaceClip:
        """The face that a FramePlan refers to."""
        ...

    def encode(self, samples: np.ndarray) -> Any:
        """Voice [N] at 16 kHz -> this profile's speech features."""
        ...

    def generate(self, plan: FramePlan, speech: Any, start: int, *, steps: int, seed: int) -> Iterator[GeneratorStep]:
        """Redraw the CHUNK of output frames that begins at `start`; chunks are asked for in order."""
        ...


def drawn_frames(
    generator: FaceGenerator, plan: FramePlan, speech: Any, *, steps: int, seed: int
) -> Iterator[tuple[int, DrawnFrame]]:
    """Every redrawn frame of a plan by its number, chunk by chunk."""
    for start in range(0, len(plan), CHUNK):
        for step in generator.generate(plan, speech, start, steps=steps, seed=seed):
            yield from (step.finished or {}).items()


class CompactGenerator:
    """Generates any chunk of a job on its own, lanes of frames side by side (`diffusion.sampler`)."""

    side = crops.S
    finder: Backend = "mediapipe"
    upright = True
    cut = staticmethod(crops.cut)

    def __init__(self, denoiser: Denoiser, speech: SpeechEncoder, scheduler: DDIMScheduler) -> None:
        self.denoiser, self.speech, self.scheduler = denoiser, speech, scheduler
        self._planned: tuple[FramePlan, SpeechFeatures, MouthPlan] | None = None

    def align(self, clip: Clip, track: FaceTrack) -> np.ndarray:
        return crops.align(track, clip.times)

    def face_clip(self, clip: Clip, track: FaceTrack, to_frame: np.ndarray, crops: CropFile) -> FaceClip:
        film = {
            "film": lambda frames: (frame.rgb() for frame in clip.frames(frames)),
            "picture": (clip.height, clip.width),
        }
        face = FaceClip.of(track, to_frame, crops, **film)
        if clip.speech is None:
            return face
        own, middles = self.encode(clip.speech.samples()), (clip.times + np.append(clip.times[1:], clip.seconds)) / 2
        gap = np.where(face.usable, face.shapes[:, 0], np.nan)
        offset = film_offset(lambda times: self.forecast(own, times)[:, 0], middles, gap)
        late = offset.frames / FPS if offset is not None and offset.sure else 0.0
        return replace(face, own_forecast=self.forecast(own, middles - late), offset=offset)

    @staticmethod
    def forecast(speech: SpeechFeatures, times: np.ndarray) -> np.ndarray:
        """Lips [T, SHAPE] in a speaker's units at times [T] s."""
        return speech.lips_at(torch.from_numpy(times)).numpy()

    def mouths(self, plan: FramePlan, speech: SpeechFeatures) -> MouthPlan:
        """The mouths of all output frames, planned once."""
        if self._planned is None or self._planned[0] is not plan or self._planned[1] is not speech:
            mouths = plan.face.plan_mouths(plan.indices, self.forecast(speech, plan.middles))
            self._planned = plan, speech, mouths
        return self._planned[2]

    def encode(self, samples: np.ndarray) -> SpeechFeatures:
        return speech_features(self.speech, samples)

    def conditioning(
        self, plan: FramePlan, speech: SpeechFeatures, frames: tuple[int, ...]
    ) -> tuple[Conditioning, list[FrameInputs]]:
        """Conditioning of output frames without a previous frame, and what it was made from."""
        when, mouths = torch.from_numpy(plan.middles[list(frames)]), self.mouths(plan, speech)
        inputs = [plan.face.inputs(int(plan.indices[i]), mouths, i).windowed() for i in frames]
        nothing = torch.zeros(len(frames), pixel_codec.CHANNELS, pixel_codec.HEIGHT, pixel_codec.WIDTH)
        built = condition(inputs, nothing, speech.window(when, self.denoiser.config["tokens"]))
        return built, inputs

    def generate(
        self, plan: FramePlan, speech: SpeechFeatures, start: int, *, steps: int, seed: int
    ) -> Iterator[GeneratorStep]:
        """Redraw the CHUNK of output frames that begins at `start`."""
        device, mask = self.denoiser.device, pixel_codec.latent_mask()

        @lru_cache(maxsize=1)  # every step of a frame has the same
        def conditioning(frames: tuple[int, ...]) -> tuple[Conditioning, list[FrameInputs]]:
            return self.conditioning(plan, speech, frames)

        def denoise(noisy, timestep, frames, previous):
            noisy = noisy.to(device, memory_format=torch.channels_last)
            with torch.inference_mode(), autocast(device):
                drawn = self.denoiser(noisy, timestep, replace(conditioning(frames)[0], previous=previous).to(device))
            return drawn.float().cpu()

        def complete(clean, frames):
            return PREVIOUS_STRENGTH * (clean.clamp(-1, 1) * mask + conditioning(frames)[0].masked)

        shape = (pixel_codec.CHANNELS, pixel_codec.HEIGHT, pixel_codec.WIDTH)
        for part in sampler.draw_frames(
            plan.to_redraw, start, denoise, complete, shape, self.scheduler, steps=steps, seed=seed
        ):
            shown = len(part.frames) if part.finished else 1
            drawn = plan.complete(part.frames[:shown], pixel_codec.decode(part.clean[:shown]))
            if part.finished:
                inputs, mouths = conditioning(part.frames)[1], self.mouths(plan, speech)
                done = {
                    i: DrawnFrame(crop, FilmScalePaste(plan, mouths, i, seen.reference.copy(), seen.warps))
                    for i, crop, seen in zip(part.frames, drawn, inputs, strict=True)
                }
                yield GeneratorStep(part.frames, drawn[0], done)
            else:
                yield GeneratorStep(part.frames, drawn[0])


@dataclass(frozen=True)
class FilmScalePaste:
    """The way of one drawn crop into its frame: what it differs by is added to the reference at the film's scale."""

    plan: FramePlan
    mouths: MouthPlan
    i: int  # output frame
    reference: np.ndarray  # [80, 96, 3] uint8: what the network saw
    warps: MouthWarps | None = None  # of that reference

    def __call__(self, image: np.ndarray, crop: np.ndarray) -> Patch:
        plan, frame = self.plan, int(self.plan.indices[self.i])
        view = plan.face.in_film(frame, image)
        made = plan.face.reference(view, frame, self.mouths, self.i, self.warps)
        difference = crop[WINDOW].astype(np.float32) - self.reference
        drawn = with_difference(view, made.pixels, min(1.0, made.gain) * difference)  # a faded frame has less contrast
        rows, columns = view.box
        weight = float(plan.weight[self.i])
        if weight < 1:
            own = image[view.box].astype(np.float32)
            drawn = np.rint(own + weight * (drawn - own)).astype(np.uint8)
        return Patch(y=rows.start, x=columns.start, rgb=drawn)
