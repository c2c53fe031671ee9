"""The compact profile's generator: takes a frame plan and speech features, yields patches of the redrawn mouth."""

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

PREVIOUS_STRENGTH = 0.4  # factor of the previous drawn frame: at full strength errors grew (docs/training-log.md)
CHUNK = sampler.LANE * sampler.LANES  # output frames that one call of `generate` draws


@dataclass(frozen=True)
class DrawnFrame:
    """One finished output frame."""

    crop: np.ndarray  # [side, side, 3] uint8
    patch: Callable[[np.ndarray, np.ndarray], Patch]  # frame [H, W, 3] and this crop, watermarked or not -> patch


@dataclass(frozen=True)
class GeneratorStep:
    """One evaluation of a generator."""

    frames: tuple[int, ...]  # output frames that it worked on
    preview: np.ndarray | None = None  # [side, side, 3] uint8: estimate of the first of them
    finished: Mapping[int, DrawnFrame] | None = None  # by output frame, after their last step


class FaceGenerator(Protocol):
    """Interface of a profile's generator."""

    side: int  # px, of its crops
    finder: Backend  # face detector that its crops need
    upright: bool  # whether the judge and the watermark use its crops; else upright crops are cut for them

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
        face = FaceClip.of(
            track,
            to_frame,
            crops,
            film=lambda frames: (frame.rgb() for frame in clip.frames(frames)),
            picture=(clip.height, clip.width),
        )
        if clip.speech is None:
            return face
        speech = self.encode(clip.speech.samples())
        middles = (clip.times + np.append(clip.times[1:], clip.seconds)) / 2
        gap = np.where(face.usable, face.shapes[:, 0], np.nan)
        offset = film_offset(lambda times: self.forecast(speech, times)[:, 0], middles, gap)
        late = offset.frames / FPS if offset is not None and offset.sure else 0.0
        return replace(face, own_forecast=self.forecast(speech, middles - late), offset=offset)

    @staticmethod
    def forecast(speech: SpeechFeatures, times: np.ndarray) -> np.ndarray:
        """Forecast lip shapes [T, SHAPE] in the speaker's units at times [T] s."""
        return speech.lips_at(torch.from_numpy(times)).numpy()

    def mouths(self, plan: FramePlan, speech: SpeechFeatures) -> MouthPlan:
        """The mouth plan of all output frames; kept for the next call."""
        if self._planned is None or self._planned[0] is not plan or self._planned[1] is not speech:
            mouths = plan.face.plan_mouths(plan.indices, self.forecast(speech, plan.middles))
            self._planned = plan, speech, mouths
        return self._planned[2]

    def encode(self, samples: np.ndarray) -> SpeechFeatures:
        return speech_features(self.speech, samples)

    def conditioning(
        self, plan: FramePlan, speech: SpeechFeatures, frames: tuple[int, ...]
    ) -> tuple[Conditioning, list[FrameInputs]]:
        """Conditioning of output frames, with zeros for the previous frame, and the FrameInputs that it is made of."""
        times, mouths = torch.from_numpy(plan.middles[list(frames)]), self.mouths(plan, speech)
        inputs = [plan.face.inputs(int(plan.indices[i]), mouths, i).windowed() for i in frames]
        no_previous = torch.zeros(len(frames), *pixel_codec.LATENT_SHAPE)
        return condition(inputs, no_previous, speech.window(times, self.denoiser.config["tokens"])), inputs

    def generate(
        self, plan: FramePlan, speech: SpeechFeatures, start: int, *, steps: int, seed: int
    ) -> Iterator[GeneratorStep]:
        """Redraw the CHUNK of output frames that begins at `start`."""
        device, mask = self.denoiser.device, pixel_codec.latent_mask()

        @lru_cache(maxsize=1)  # all steps of a frame have the same
        def conditioning(frames: tuple[int, ...]) -> tuple[Conditioning, list[FrameInputs]]:
            return self.conditioning(plan, speech, frames)

        def denoise(frames, previous, noisy, timestep):
            noisy = noisy.to(device, memory_format=torch.channels_last)
            with torch.inference_mode(), autocast(device):
                drawn = self.denoiser(noisy, timestep, replace(conditioning(frames)[0], previous=previous).to(device))
            return drawn.float().cpu()

        def to_previous(clean, frames):
            return PREVIOUS_STRENGTH * (clean.clamp(-1, 1) * mask + conditioning(frames)[0].masked)

        shape = pixel_codec.LATENT_SHAPE
        for step in sampler.draw_frames(
            plan.to_redraw, start, denoise, to_previous, shape, self.scheduler, steps=steps, seed=seed
        ):
            count, finished = len(step.frames) if step.finished else 1, None
            crops = plan.complete(step.frames[:count], pixel_codec.decode(step.clean[:count]))
            if step.finished:
                all_inputs, mouths = conditioning(step.frames)[1], self.mouths(plan, speech)
                finished = {
                    i: DrawnFrame(crop, FilmScalePaste(plan, mouths, i, inputs.reference.copy(), inputs.warps))
                    for i, crop, inputs in zip(step.frames, crops, all_inputs, strict=True)
                }
            yield GeneratorStep(step.frames, crops[0], finished)


@dataclass(frozen=True)
class FilmScalePaste:
    """Pastes one drawn crop into its frame: its difference to the reference is added to a reference at film scale."""

    plan: FramePlan
    mouths: MouthPlan
    i: int  # output frame
    reference: np.ndarray  # [80, 96, 3] uint8: the reference that the network got
    warps: MouthWarps | None = None  # of that reference

    def __call__(self, image: np.ndarray, crop: np.ndarray) -> Patch:
        plan, frame = self.plan, int(self.plan.indices[self.i])
        view = plan.face.in_film(frame, image)
        reference = plan.face.reference(view, frame, self.mouths, self.i, self.warps)
        difference = crop[WINDOW].astype(np.float32) - self.reference
        difference = min(1.0, reference.gain) * difference  # a faded frame has less contrast
        drawn = with_difference(view, reference.pixels, difference)
        rows, columns = view.box
        weight = float(plan.weight[self.i])
        if weight < 1:
            source = image[view.box].astype(np.float32)
            drawn = np.rint(source + weight * (drawn - source)).astype(np.uint8)
        return Patch(y=rows.start, x=columns.start, rgb=drawn)
