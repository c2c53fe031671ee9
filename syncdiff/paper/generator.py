"""The paper's way of drawing (section 3.3): one frame after the other, each told of the one generated before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from diffusers import DDIMScheduler, VQModel
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Tensor

from syncdiff.conditioning import BaseFaceClip, CropFile, FramePlan
from syncdiff.devices import autocast
from syncdiff.faces import OK, FaceTrack
from syncdiff.generator import CHUNK, DrawnFrame, GeneratorStep
from syncdiff.media import Clip, Patch
from syncdiff.models.speech_encoder import token_window
from syncdiff.paper import frames
from syncdiff.paper.avhubert import AVHubert
from syncdiff.paper.denoiser import PaperDenoiser, Priors, sampling_schedule, to_latents, to_pixels


@dataclass(frozen=True)
class FaceFrames(BaseFaceClip):
    """The squares of one face, and where its box lies in them."""

    boxes: np.ndarray  # [T, 4] px of the square, NaN rows where the face is missing
    usable: np.ndarray  # [T] bool


class PaperGenerator:
    """Draws one job, chunk after chunk in order: it remembers the last frames it generated."""

    side = frames.SIDE
    finder = "face-alignment"  # section 4.2: S3FD's boxes
    upright = False  # squares of whole faces: judge and mark look at the upright crops beside them
    cut = staticmethod(frames.cut)

    def __init__(self, denoiser: PaperDenoiser, speech: AVHubert, vae: VQModel, scheduler: DDIMScheduler) -> None:
        self.denoiser, self.speech, self.vae, self.scheduler = denoiser, speech, vae, scheduler
        self._made: dict[int, Tensor] = {}  # latents of the last frames that were generated, by output frame

    def align(self, clip: Clip, track: FaceTrack) -> np.ndarray:
        return frames.place_frames(frames.face_boxes(track), clip.times, clip.width, clip.height)

    def face_clip(self, _clip: Clip, track: FaceTrack, to_frame: np.ndarray, crops: CropFile) -> FaceFrames:
        return FaceFrames(crops, to_frame, frames.to_square(frames.face_boxes(track), to_frame), track.state == OK)

    def encode(self, samples: np.ndarray) -> Tensor:
        """[N] at 16 kHz -> [T25, D], the whole utterance at once."""
        with autocast(self.speech.device):
            return self.speech.encode(samples)

    @torch.inference_mode()
    def generate(
        self, plan: FramePlan, speech: Tensor, start: int, *, steps: int, seed: int
    ) -> Iterator[GeneratorStep]:
        """Draw the wanted frames of the chunk that begins at output frame `start`.

        The identity frame is the first that is to be drawn, as given (section 3.3). The very first frame has no frame
        before it, of which the paper does not speak: it is told of itself as given. After a gap the frame before is the
        source's own, which is what the gap showed.
        """
        source: FaceFrames = plan.face
        wanted, told_of = plan.to_redraw, self.denoiser.config["previous"]
        given = int(plan.indices[np.flatnonzero(wanted)[0]]) if wanted.any() else 0
        identity = self._encoded(source.crops[given])
        for i in range(start, min(start + CHUNK, len(plan))):
            self._made = {j: latents for j, latents in self._made.items() if i - told_of <= j < i}
            if not wanted[i]:
                continue
            at = int(plan.indices[i])
            before = [max(0, i - k) for k in range(1, told_of + 1)]
            pose = [self._made[j] if j in self._made else self._encoded(source.crops[plan.indices[j]]) for j in before]
            when = torch.from_numpy(plan.middles[[i]])
            told = Priors(
                masked=self._encoded(frames.masked(source.crops[at], source.boxes[at])),
                identity=identity,
                pose=torch.cat(pose, dim=1),
                speech=token_window(speech, when, tokens=self.denoiser.config["tokens"], rate=self.speech.rate),
            ).to(self.denoiser.device)
            for done, latents in enumerate(self._denoised(told, identity.shape, steps, seed, i), start=1):
                yield GeneratorStep((i,)) if done < steps else self._finished(plan, i, latents)

    def _finished(self, plan: FramePlan, i: int, latents: Tensor) -> GeneratorStep:
        with autocast(self.vae.device):
            pixels = to_pixels(self.vae, latents)
        self._made[i] = self._encoded(pixels[0])

        def paste(image: np.ndarray, square: np.ndarray) -> Patch:
            return frames.paste(image, square, plan.matrix(i), plan.weight[i])

        return GeneratorStep((i,), pixels[0], {i: DrawnFrame(pixels[0], paste)})

    def _denoised(self, told: Priors, shape: torch.Size, steps: int, seed: int, i: int) -> Iterator[Tensor]:
        """DDIM with eta 0 from the frame's own noise; yields the latents after every step."""
        scheduler = sampling_schedule(self.scheduler, steps)
        x = torch.randn(shape, generator=torch.Generator().manual_seed((seed + 1) * 1_000_003 + i))
        x = x.to(self.denoiser.device)
        for t in scheduler.timesteps:
            with autocast(self.denoiser.device):
                noise = self.denoiser(x, t.expand(1).to(x.device), told).float()
            x = cast(DDIMSchedulerOutput, scheduler.step(noise, int(t), x, eta=0.0)).prev_sample
            yield x

    def _encoded(self, square: np.ndarray) -> Tensor:
        with torch.inference_mode(), autocast(self.vae.device):
            return to_latents(self.vae, square[None])
