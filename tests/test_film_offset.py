"""A film's own offset, planted: lips that follow the sound, moved against it by a known time."""

from __future__ import annotations

import numpy as np
import pytest

from syncdiff.sync.film_offset import film_offset


def spoken(seed: int):
    """Seconds -> a lip opening that changes about five times a second, 12 s of it."""
    rng = np.random.default_rng(seed)
    knots = np.abs(np.convolve(rng.normal(0, 1, 124), np.ones(4) / 4, "same"))
    return lambda seconds: np.interp(np.asarray(seconds) * 10, np.arange(124), knots)


def film(seed: int, sound_ahead: float, *, seconds: float = 6, fps: float = 25, noise: float = 0.2):
    """Times of frames and the lips in them; `sound_ahead` frames of 1/25 s before the lips."""
    times = 2 + (np.arange(int(seconds * fps)) + 0.5) / fps
    lips = spoken(seed)(times - sound_ahead / 25)
    return times, 3 + 0.1 * lips + noise * 0.1 * lips.std() * np.random.default_rng(seed).normal(0, 1, len(times))


@pytest.mark.parametrize("fps", [24, 25, 30, 60])
@pytest.mark.parametrize("ahead", [-3.4, -1.0, 0.0, 0.5, 2.25])
def test_a_planted_offset_is_found_to_a_quarter_of_a_frame(fps, ahead):
    found = film_offset(spoken(1), *film(1, ahead, fps=fps))
    assert found.frames == pytest.approx(ahead, abs=0.25)
    assert found.sure
    assert found.r > 0.9


def test_frames_without_a_face_are_left_out():
    times, lips = film(2, 1.5)
    lips[40:80] = np.nan
    assert film_offset(spoken(2), times, lips).frames == pytest.approx(1.5, abs=0.25)


def test_nothing_is_claimed_of_another_talkers_sound():
    found = [film_offset(spoken(seed + 100), *film(seed, 0.0)) for seed in range(40)]
    assert sum(offset is not None and offset.sure for offset in found) <= 2


def test_nothing_is_said_of_short_flat_or_far_off_films():
    times, lips = film(3, 0.0)
    assert film_offset(spoken(3), times[:50], lips[:50]) is None  # two seconds
    assert film_offset(spoken(3), times, np.full_like(lips, 3.0)) is None
    assert film_offset(np.zeros_like, times, lips) is None
    assert film_offset(spoken(3), times, np.full_like(lips, np.nan)) is None
    far = film_offset(spoken(4), *film(4, 9.0))  # beyond REACH
    assert far is None or not far.sure
