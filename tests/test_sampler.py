"""The sampler against a case whose answer is known, and its promises about seeds, lanes and gaps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from syncdiff.diffusion import sampler
from syncdiff.diffusion.schedule import compact_schedule

SPREAD = 0.5


def ideal(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The best estimate of Gaussian data of standard deviation SPREAD: linear in x, from the joint Gaussian."""
    alpha = compact_schedule().alphas_cumprod[t].double().view(-1, 1, 1, 1)
    return x * alpha.sqrt() * SPREAD**2 / (alpha * SPREAD**2 + 1 - alpha)


def final_spread(steps: int) -> float:
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    *_, clean = sampler.sample(ideal, x, compact_schedule(), steps)
    return clean.item()


def test_lands_on_the_known_spread_at_first_order():
    errors = [abs(final_spread(steps) - SPREAD) for steps in (25, 50, 100)]
    assert errors[-1] < 0.01
    for coarse, fine in itertools.pairwise(errors):
        assert 1.9 < coarse / fine < 2.1  # DDIM is Euler's method in disguise: half the step, half the error


def test_one_step_from_pure_noise_is_the_mean():
    *_, clean = sampler.sample(ideal, torch.ones(1, 1, 1, 1, dtype=torch.float64), compact_schedule(), 1)
    assert clean.abs().item() < 1e-6  # pure noise says nothing about zero-mean data


def test_yields_after_every_evaluation():
    calls = []
    steps = sampler.sample(lambda x, t: calls.append(int(t[0])) or x, torch.ones(1, 1, 1, 1), compact_schedule(), 5)
    next(steps)
    assert calls == [999]  # a caller that stops here has paid for one evaluation
    assert len(list(steps)) == 4


def test_frame_noise_is_unit_and_depends_on_seed_and_index_alone():
    shape = (48, 20, 24)
    a, b, other = sampler.frame_noise(3, 7, shape), sampler.frame_noise(3, 8, shape), sampler.frame_noise(4, 7, shape)
    assert torch.equal(a, sampler.frame_noise(3, 7, shape))
    assert a.std().item() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item() == pytest.approx(
        sampler.SHARED_NOISE, abs=0.02
    )
    assert abs(torch.corrcoef(torch.stack([a.flatten(), other.flatten()]))[0, 1].item()) < 0.03


def frames_of(wanted: np.ndarray, seen: list | None = None) -> dict[int, torch.Tensor]:
    """Draw with a made-up denoiser whose answer depends on the frame and on the previous frame."""

    def denoiser(frames, previous, noisy, timestep):
        if seen is not None:
            seen.append((frames, previous.abs().sum((1, 2, 3)) > 0))
        return 0.3 * noisy - 0.2 * previous + torch.tensor(frames).view(-1, 1, 1, 1) / 100

    out = {}
    for start in range(0, len(wanted), sampler.LANE * sampler.LANES):
        for part in sampler.draw_frames(
            wanted, start, denoiser, lambda x, _: x, (1, 2, 2), compact_schedule(), steps=2, seed=1
        ):
            if part.finished:
                out |= dict(zip(part.frames, part.clean, strict=True))
    return out


def test_every_wanted_frame_is_drawn_once_and_no_other():
    wanted = np.ones(300, bool)
    wanted[40:70] = False
    assert sorted(frames_of(wanted)) == np.flatnonzero(wanted).tolist()


def test_the_end_of_the_video_does_not_change_its_beginning():
    whole, short = frames_of(np.ones(200, bool)), frames_of(np.ones(90, bool))
    assert all(torch.equal(whole[i], short[i]) for i in short)


def test_a_frame_after_a_gap_has_no_previous_frame():
    seen: list = []
    wanted = np.ones(64, bool)
    wanted[20:25] = False
    frames_of(wanted, seen)
    has_previous = {
        (i, lane): bool(p)
        for frames, previous in seen
        for lane, (i, p) in enumerate(zip(frames, previous, strict=True))
    }
    assert not any(p for (i, _), p in has_previous.items() if i in {0, 25})
    assert any(p for (i, _), p in has_previous.items() if i == 26)


def test_chunks_start_on_the_grid():
    with pytest.raises(ValueError, match="multiple of 128, not at 5"):
        next(sampler.draw_frames(np.ones(9, bool), 5, None, None, (1, 1, 1), compact_schedule(), steps=1, seed=0))
