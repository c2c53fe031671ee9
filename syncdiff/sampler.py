"""Noise -> frames: the schedule, one frame's steps, and the frame-after-frame loop. Knows no network and no files.

Everything here is a generator: after every evaluation the caller has the word, to show progress or to stop. The previous
generated frame is an input, so frames cannot simply be batched; instead the clip is cut into lanes of `LANE` frames that
run side by side, each after `WARM_UP` frames that are drawn and thrown away. The lanes lie on a fixed grid, and a frame's
noise depends on the seed and its index alone, so the same seed gives the same video whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor

LANE, WARM_UP, LANES = 16, 2, 8
SHARED_NOISE = (
    0.9  # share of the noise's variance that all frames of a clip have in common: what keeps skin from boiling
)

Denoise = Callable[[Tensor, Tensor], Tensor]  # (noisy [B, C, h, w], timestep [B]) -> the network's prediction


def compact_schedule() -> DDIMScheduler:
    """Cosine schedule down to pure noise, v-prediction, steps counted from the end: sound from one step on (Lin et al. 2024)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def frame_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Unit Gaussian noise of one frame: most of it the clip's own (see SHARED_NOISE), the rest the frame's."""
    clip = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    frame = torch.randn(shape, generator=torch.Generator().manual_seed((seed + 1) * 1_000_003 + index))
    return SHARED_NOISE**0.5 * clip + (1 - SHARED_NOISE) ** 0.5 * frame


def sample(denoise: Denoise, noise: Tensor, scheduler: DDIMScheduler, steps: int) -> Iterator[Tensor]:
    """Draw from `noise` [B, C, h, w]; yields the estimate of the clean frames after each of `steps` evaluations."""
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        out = scheduler.step(denoise(x, t.expand(len(x)).to(x.device)), t, x)
        x = out.prev_sample
        yield out.pred_original_sample


@dataclass(frozen=True)
class Drawn:
    """Where the loop stands: `done` of `total` evaluations, the newest estimate, and any frames that have just been finished."""

    done: int
    total: int
    frames: tuple[int, ...]  # output indices that this evaluation finished
    latents: Tensor  # [len(frames), C, h, w] clean estimate


def draw_frames(
    indices: range,
    denoiser: Callable[[Tensor, Tensor, tuple[int, ...], Tensor], Tensor],
    shape: tuple[int, int, int],
    scheduler: DDIMScheduler,
    *,
    steps: int,
    seed: int,
) -> Iterator[Drawn]:
    """Draw the frames of one chunk, whose start must be a multiple of LANE, in lanes side by side.

    Args:
        indices: output frames to draw.
        denoiser: (noisy, timestep, frame indices, previous [B, C, h, w]) -> prediction. `previous` is zeros before the clip.
        shape: C, h, w.
    """
    assert indices.start % LANE == 0 and indices.step == 1
    starts = range(indices.start, indices.stop, LANE)
    previous = torch.zeros(len(starts), *shape)
    total = (LANE + WARM_UP) * steps
    for place in range(-WARM_UP, LANE):
        rows = [row for row, start in enumerate(starts) if 0 <= start + place < indices.stop]
        if not rows:
            continue
        frames = tuple(starts[row] + place for row in rows)
        noise = torch.stack([frame_noise(seed, i, shape) for i in frames])
        prior = previous[rows]
        for step, clean in enumerate(
            sample(lambda x, t: denoiser(x, t, frames, prior), noise, scheduler, steps), start=1
        ):  # noqa: B023
            finished = step == steps and place >= 0
            yield Drawn(
                (place + WARM_UP) * steps + step, total, frames if finished else (), clean if finished else clean[:0]
            )
        previous[rows] = clean
