"""Noise -> frames: the schedule, one frame's steps, and the frame-after-frame loop. Knows no network and no files.

Everything here is a generator: after every evaluation the caller has the word, to show progress or to stop. The
previous generated frame is an input, so frames cannot simply be batched; instead the clip is cut into lanes of `LANE`
frames that run side by side, each after `WARM_UP` frames that are drawn and thrown away. The lanes lie on a fixed grid,
and a frame's noise depends on the seed and its index alone: the same seed gives the same video whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

LANE, WARM_UP, LANES = 16, 2, 8
SHARED_NOISE = 0.9  # of the noise variance, what all frames of a clip have in common: it keeps skin from boiling

Denoise = Callable[[Tensor, Tensor], Tensor]  # (noisy [B, C, h, w], timestep [B]) -> the network's prediction


def frame_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Unit Gaussian noise of one frame: most of it the clip's own (see SHARED_NOISE), the rest the frame's."""
    clip = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    frame = torch.randn(shape, generator=torch.Generator().manual_seed((seed + 1) * 1_000_003 + index))
    return SHARED_NOISE**0.5 * clip + (1 - SHARED_NOISE) ** 0.5 * frame


def sample(denoise: Denoise, noise: Tensor, scheduler: DDIMScheduler, steps: int) -> Iterator[Tensor]:
    """Draw from `noise` [B, C, h, w]; yields the estimate of the clean frames after each of `steps` evaluations."""
    scheduler = copy(scheduler)  # it keeps the number of steps: two draws at a time must not share one
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        out = scheduler.step(denoise(x, t.expand(len(x)).to(x.device)), t, x)
        x = out.prev_sample
        yield out.pred_original_sample


@dataclass(frozen=True)
class SamplerStep:
    """One evaluation of the loop: which frames it worked on, its estimate of them, and whether it was their last."""

    frames: tuple[int, ...]
    clean: Tensor  # [len(frames), C, h, w]
    finished: bool  # False also for warm-up frames, which are drawn again by the lane they belong to


def draw_frames(
    wanted: np.ndarray,
    start: int,
    denoiser: Callable[[Tensor, Tensor, tuple[int, ...], Tensor], Tensor],
    complete: Callable[[Tensor, tuple[int, ...]], Tensor],
    shape: tuple[int, int, int],
    scheduler: DDIMScheduler,
    *,
    steps: int,
    seed: int,
) -> Iterator[SamplerStep]:
    """Draw the wanted frames of the chunk that begins at `start` and holds LANE * LANES frames.

    Args:
        wanted: [T] bool over the whole video; a frame after an unwanted one has no previous frame.
        start: a multiple of LANE * LANES.
        denoiser: (noisy, timestep, frame indices, previous [B, C, h, w]) -> prediction [B, C, h, w]. `previous` is
            zeros where there is none.
        complete: (clean estimate, frame indices) -> the whole frames, as the next ones are told of them.
        shape: C, h, w.
    """
    if start % (LANE * LANES):
        raise ValueError(f"a chunk starts at a multiple of {LANE * LANES}, not at {start}")
    starts = range(start, min(start + LANE * LANES, len(wanted)), LANE)
    previous = torch.zeros(len(starts), *shape)
    for place in range(-WARM_UP, LANE):
        rows = [row for row, first in enumerate(starts) if 0 <= first + place < len(wanted) and wanted[first + place]]
        if rows:
            frames = tuple(starts[row] + place for row in rows)
            noise = torch.stack([frame_noise(seed, i, shape) for i in frames])
            denoise = partial(_with, denoiser, frames, previous[rows])
            for step, clean in enumerate(sample(denoise, noise, scheduler, steps), start=1):
                yield SamplerStep(frames, clean, finished=step == steps and place >= 0)
            drawn = complete(clean, frames)
        previous = torch.zeros_like(previous)
        if rows:
            previous[rows] = drawn


def _with(denoiser: Callable, frames: tuple[int, ...], previous: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
    return denoiser(noisy, timestep, frames, previous)
