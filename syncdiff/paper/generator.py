"""Autoregressive generation (section 3.3): every frame is conditioned on the one generated before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import torch
from diffusers import DDIMScheduler, LCMScheduler, VQModel
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_lcm import LCMSchedulerOutput
from torch import Tensor

from syncdiff.conditioning import BaseFaceClip, CropFile, FramePlan
from syncdiff.devices import autocast
from syncdiff.faces import OK, FaceTrack
from syncdiff.faces.tracker import Backend
from syncdiff.generator import CHUNK, DrawnFrame, GeneratorStep
from syncdiff.media import Clip
from syncdiff.models.speech_encoder import token_window
from syncdiff.paper import frames
from syncdiff.paper.avhubert import AVHubert
from syncdiff.paper.denoiser import PaperDenoiser, Priors, sampling_schedule, to_latents, to_pixels


@dataclass(frozen=True)
class FaceFrames(BaseFaceClip):
    """The squares of one face, and where its box lies in them."""

    boxes: np.ndarray  # [T, 4] px of the square, NaN rows where the face is missing
    usable: np.ndarray  # [T] bool


@dataclass
class _FilmState:
    """The state of one film's generation."""

    plan: FramePlan
    speech: Tensor  # [T25, D]
    identity: Tensor | None = None  # [1, 3, h, w]
    latents: dict[int, Tensor] = field(default_factory=dict)  # of the last generated frames, by output frame


class PaperGenerator:
    """Generates the frames of one job, chunk after chunk in order, or those of several films side by side."""

    side = frames.SIDE
    finder: Backend = "face-alignment"  # section 4.2: S3FD's boxes
    upright = False  # squares of whole faces: judge and mark take the upright crops beside them
    cut = staticmethod(frames.cut)

    def __init__(
        self, denoiser: PaperDenoiser, speech: AVHubert, vae: VQModel, scheduler: DDIMScheduler | LCMScheduler
    ) -> None:
        self.denoiser, self.speech, self.vae, self.scheduler = denoiser, speech, vae, scheduler
        self._film: _FilmState | None = None  # of the latest call of `generate`

    def align(self, clip: Clip, track: FaceTrack) -> np.ndarray:
        """Where the square stands in every frame: [T, 2, 3], square px -> frame px."""
        return frames.place_frames(frames.face_boxes(track), clip.times, clip.width, clip.height)

    def face_clip(self, _clip: Clip, track: FaceTrack, to_frame: np.ndarray, crops: CropFile) -> FaceFrames:
        """The squares of a track that were cut at `to_frame` [T, 2, 3]."""
        return FaceFrames(crops, to_frame, frames.to_square(frames.face_boxes(track), to_frame), track.state == OK)

    def encode(self, samples: np.ndarray) -> Tensor:
        """[N] at 16 kHz -> [T25, D], the whole utterance at once."""
        with autocast(self.speech.device):
            return self.speech.encode(samples)

    @torch.inference_mode()
    def generate(
        self, plan: FramePlan, speech: Tensor, start: int, *, steps: int, seed: int
    ) -> Iterator[GeneratorStep]:
        """Generate the frames to redraw of the chunk that begins at output frame `start`.

        Args:
            speech: [T25, D] of `encode`.
            steps: 1 to 1000; of distilled weights 1 to 50. Raises InputError for others.
            seed: with the frame's number it decides the noise.
        """
        if self._film is None or self._film.plan is not plan:
            self._film = _FilmState(plan, speech)
        film = self._film
        for i in range(start, min(start + CHUNK, len(plan))):
            if not plan.to_redraw[i]:
                continue
            priors = self._priors(film, i)
            for done, latents in enumerate(self._denoised(priors, steps, seed, i), start=1):
                if done < steps:
                    yield GeneratorStep((i,))
                else:
                    (square,) = self._finished([film], i, latents)
                    patch = partial(frames.paste_square, to_frame=plan.matrix(i), weight=plan.weight[i])
                    yield GeneratorStep((i,), square, {i: DrawnFrame(square, patch)})

    @torch.inference_mode()
    def generate_together(
        self, plans: Sequence[FramePlan], speech: Sequence[Tensor], *, steps: int, seed: int
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Generate several films frame by frame in one batch, each as `generate` would alone.

        Yields (film, output frame, square [256, 256, 3] uint8), every film's frames in order."""
        films = [_FilmState(plan, features) for plan, features in zip(plans, speech, strict=True)]
        for i in range(max(map(len, plans))):
            rows = [n for n, plan in enumerate(plans) if i < len(plan) and plan.to_redraw[i]]
            if rows:
                priors = Priors.stacked([self._priors(films[n], i) for n in rows])
                *_, latents = self._denoised(priors, steps, seed, i)
                for n, square in zip(rows, self._finished([films[n] for n in rows], i, latents), strict=True):
                    yield n, i, square

    def _priors(self, film: _FilmState, i: int) -> Priors:
        """Conditioning of output frame `i`, [1, ...].

        The identity frame is the source of the first redrawn frame (section 3.3). The very first frame has no previous
        one, which the paper does not discuss: its own source is used. After a gap the previous frame is the source's,
        as in the output.
        """
        plan, source, count = film.plan, film.plan.face, self.denoiser.config["previous"]
        if film.identity is None:
            film.identity = self._encoded(source.crops[plan.indices[np.flatnonzero(plan.to_redraw)[0]]])
        film.latents = {j: latents for j, latents in film.latents.items() if i - count <= j < i}
        previous = [max(0, i - k) for k in range(1, count + 1)]
        pose = [
            film.latents[j] if j in film.latents else self._encoded(source.crops[plan.indices[j]]) for j in previous
        ]
        index = int(plan.indices[i])
        middle = torch.from_numpy(plan.middles[[i]])
        return Priors(
            masked=self._encoded(frames.masked(source.crops[index], source.boxes[index])),
            identity=film.identity,
            pose=torch.cat(pose, dim=1),
            speech=token_window(film.speech, middle, tokens=self.denoiser.config["tokens"], rate=self.speech.rate),
        ).to(self.denoiser.device)

    def _denoised(self, priors: Priors, steps: int, seed: int, i: int) -> Iterator[Tensor]:
        """DDIM with eta 0, or a distilled network's steps, from the frame's own noise; yields [B, 3, h, w] latents.

        The noise depends on the seed and the frame's number alone, so all films of a batch share it."""
        scheduler = sampling_schedule(self.scheduler, steps)
        random, rows = torch.Generator().manual_seed((seed + 1) * 1_000_003 + i), len(priors.identity)

        def noise() -> Tensor:
            fresh = torch.randn(priors.identity.shape[1:], generator=random).to(self.denoiser.device)
            return fresh.expand(rows, -1, -1, -1)

        x = noise()
        for t in scheduler.timesteps:
            with autocast(self.denoiser.device):
                guess = self.denoiser(x, t.expand(rows).to(x.device), priors).float()
            if isinstance(scheduler, LCMScheduler):  # clean estimate, then noise anew (Song et al. 2023, algorithm 1)
                x = cast(Tensor, cast(LCMSchedulerOutput, scheduler.step(guess, int(t), x)).denoised)
                yield x
                if t > scheduler.timesteps[-1]:
                    later = scheduler.timesteps[(scheduler.timesteps == t).nonzero()[0, 0] + 1]
                    x = scheduler.add_noise(x, noise(), cast(torch.IntTensor, later[None]))
            else:
                x = cast(DDIMSchedulerOutput, scheduler.step(guess, int(t), x, eta=0.0)).prev_sample
                yield x

    def _finished(self, films: Sequence[_FilmState], i: int, latents: Tensor) -> np.ndarray:
        """Latents [B, 3, h, w] of frame `i` -> squares [B, 256, 256, 3]; re-encoded, they condition the next frames."""
        with autocast(self.vae.device):
            squares = to_pixels(self.vae, latents)
            encoded = to_latents(self.vae, squares)
        for film, own in zip(films, encoded.split(1), strict=True):
            film.latents[i] = own
        return squares

    def _encoded(self, square: np.ndarray) -> Tensor:
        with torch.inference_mode(), autocast(self.vae.device):
            return to_latents(self.vae, square[None])
