"""What evaluate measures, on crops and landmarks whose figures are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from syncdiff.training import measures
from syncdiff.training.evaluate import Filmed, frozen, left_alone, table


@pytest.fixture
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, (3, 128, 128, 3), dtype=np.uint8)


def mouth(gap: np.ndarray) -> np.ndarray:
    """Landmarks [T, 478, 2] of a mouth whose inner lips stand `gap` px apart."""
    points = np.tile(np.random.default_rng(1).uniform(20, 110, (478, 2)), (len(gap), 1, 1))
    points[:, 13] = (64, 90)
    points[:, 14] = np.stack([np.full(len(gap), 64.0), 90 + gap], 1)
    return points


def test_pixels_one_level_off_are_48_db_apart(crops):
    assert measures.psnr(crops + 1, crops) == pytest.approx(20 * np.log10(255), abs=1e-3)
    assert measures.ssim(crops, crops) == pytest.approx(1)
    assert measures.ssim(255 - crops, crops) < 0


def test_a_mouth_moved_as_a_whole_has_no_lip_distance():
    points = mouth(np.full(4, 5.0))
    assert measures.lip_distance(points + 7, points) == pytest.approx(0)
    wider = points.copy()
    wider[:, measures.LIPS] *= 2
    assert measures.lip_distance(wider, points) > 1


def test_a_gap_that_grows_evenly_does_not_jitter():
    steady, shaky = mouth(np.arange(20.0)), mouth(np.arange(20) % 2 * 3.0)
    assert measures.jitter(steady) == pytest.approx(0)
    assert measures.jitter(shaky) == pytest.approx(6 / 8)  # |second difference| 6 px, in y of one point of four


def test_closure_counts_moments_not_frames():
    gap = np.array([8.0, 0.2, 8, 8, 8, 5, 5, 8, 8, 8])
    closed = np.array([0, 1, 0, 0, 0, 0.9, 1, 0, 0, 0])
    assert measures.closure(mouth(gap), closed, reach=8) == 0.5
    assert measures.closure(mouth(gap), np.zeros(10), reach=8) is None


def test_baselines_keep_what_lies_around_the_mouth(crops):
    clip = Filmed("a clip", crops, mouth(np.array([1.0, 5.0, 9.0])), np.zeros(1920, np.float32))
    assert left_alone(clip, clip.sound) is crops
    held = frozen(clip, clip.sound)
    assert (held[:, :40] == crops[:, :40]).all()
    assert (held[0, 90, 64] == held[2, 90, 64]).all()


def test_table_averages_over_clips_that_have_a_figure():
    rows = [
        {"maker": "m", "set": "s", "clip": c, "frames": 1, "r": r} for c, r in (("a", 0.5), ("b", 1.0), ("c", None))
    ]
    assert table(rows).splitlines()[-1] == "| m | all | 3 | 0.75 |"
