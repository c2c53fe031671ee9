"""Sampling: one frame's denoising steps, and the loop over frames in lanes.

Functions are Python generators: control returns to the caller after each step, to show progress or to stop. The
previous generated frame is an input, so frames cannot simply be batched. Instead the clip is cut into lanes of LANE
frames that run side by side, each after WARM_UP frames that are generated and discarded. The lanes lie on a fixed grid,
and a frame's noise depends on the seed and its index alone: the same seed gives the same video whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Tensor

LANE, WARM_UP, LANES = 16, 2, 8  # frames, frames, lanes
SHARED_NOISE = 0.9  # share of the noise variance that all frames of a clip have in common: skin flickers less

Denoise = Callable[[Tensor, Tensor], Tensor]  # (noisy [B, C, h, w], timestep [B]) -> the network's prediction


def frame_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Unit Gaussian noise of one frame, a share of SHARED_NOISE of its variance common to the clip."""
    clip = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    frame = torch.randn(shape, generator=torch.Generator().manual_seed((seed + 1) * 1_000_003 + index))
    return SHARED_NOISE**0.5 * clip + (1 - SHARED_NOISE) ** 0.5 * frame


def sample(denoise: Denoise, noise: Tensor, scheduler: DDIMScheduler, steps: int) -> Iterator[Tensor]:
    """DDIM sampling from `noise` [B, C, h, w]; yields the estimate of the clean frames after each of `steps` steps."""
    scheduler = copy(scheduler)  # it keeps the number of steps: two jobs at a time must not share one
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        out = scheduler.step(denoise(x, t.expand(len(x)).to(x.device)), int(t), x)
        assert isinstance(out, DDIMSchedulerOutput)  # and not its tuple
        x = out.prev_sample
        yield cast(Tensor, out.pred_original_sample)


@dataclass(frozen=True)
class SamplerStep:
    """One evaluation of the denoiser."""

    frames: tuple[int, ...]  # output frames that it worked on
    clean: Tensor  # [len(frames), C, h, w] estimate of the clean frames
    finished: bool  # whether it was their last; always False for warm-up frames, which belong to another lane


def draw_frames(
    to_redraw: np.ndarray,
    start: int,
    denoiser: Callable[[tuple[int, ...], Tensor, Tensor, Tensor], Tensor],
    to_previous: Callable[[Tensor, tuple[int, ...]], Tensor],
    shape: tuple[int, int, int],
    scheduler: DDIMScheduler,
    *,
    steps: int,
    seed: int,
) -> Iterator[SamplerStep]:
    """Generate the frames to redraw of the chunk that begins at `start` and holds LANE * LANES frames.

    Args:
        to_redraw: [T] bool over the whole video; a frame after one that is left alone has no previous frame.
        start: a multiple of LANE * LANES.
        denoiser: (frame indices, previous [B, C, h, w], noisy [B, C, h, w], timestep [B]) -> prediction [B, C, h, w].
            `previous` is zeros where there is none.
        to_previous: (clean estimate, frame indices) -> what the next frames get as their previous frame.
        shape: C, h, w.
        scheduler: the noise schedule; left unchanged.
        steps: denoising steps a frame.
        seed: of the noise.

    Yields:
        A SamplerStep after every evaluation.

    Raises:
        ValueError: `start` is no multiple of LANE * LANES.
    """
    if start % (LANE * LANES):
        raise ValueError(f"a chunk starts at a multiple of {LANE * LANES}, not at {start}")
    starts = range(start, min(start + LANE * LANES, len(to_redraw)), LANE)
    previous = torch.zeros(len(starts), *shape)
    for offset in range(-WARM_UP, LANE):
        before, previous = previous, torch.zeros_like(previous)
        in_lane = {lane: first + offset for lane, first in enumerate(starts)}
        in_lane = {lane: i for lane, i in in_lane.items() if 0 <= i < len(to_redraw) and to_redraw[i]}
        if not in_lane:
            continue
        lanes, frames = list(in_lane), tuple(in_lane.values())
        noise = torch.stack([frame_noise(seed, i, shape) for i in frames])
        denoise = partial(denoiser, frames, before[lanes])
        for step, clean in enumerate(sample(denoise, noise, scheduler, steps), start=1):
            yield SamplerStep(frames, clean, finished=step == steps and offset >= 0)
        previous[lanes] = to_previous(clean, frames)
