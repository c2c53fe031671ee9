"""Lip shapes, a speaker's own units, and how far this person's lips go where a forecast goes."""

from __future__ import annotations

import numpy as np
import pytest

from syncdiff.geometry.mouth_shape import (
    CLOSED_FORECAST,
    SHAPE,
    Articulation,
    SpeakerScale,
    best_correlation,
    calibrate_forecast,
    lip_shape,
    steadied,
)
from tests.mouths import landmarks


def test_shape_is_read_off_the_landmarks():
    assert lip_shape(landmarks(gap=8, lips=6, width=36, inner=30)) == pytest.approx([8, 6, 6, 36, 30])


def test_units_and_pixels_are_each_others_inverse():
    gaps = np.linspace(0, 10, 101)
    shapes = np.tile(np.array([0, 5, 6, 34, 30.0]), (101, 1))
    shapes[:, 0] = gaps
    talker = SpeakerScale.of(shapes)
    assert talker.pixels(talker.units(shapes)) == pytest.approx(shapes, abs=1e-4)
    assert talker.units(shapes)[95, 0] == pytest.approx(1, abs=1e-6)


def test_a_silent_sitter_is_taken_to_speak_as_people_do():
    still = np.tile(np.array([3.0, 5, 6, 34, 30]), (10, 1))  # a photograph with its mouth a little open
    talker = SpeakerScale.of(still).speaking()
    assert talker.reach == 7.0
    assert talker.pixels(np.zeros(SHAPE))[0] <= 0.5


def test_a_forecast_is_spread_as_lips_are():
    forecast = np.zeros((4, SHAPE), np.float32)
    forecast[:, 0] = (-0.2, CLOSED_FORECAST, 0.62, 1.02)
    forecast[:, 1:] = 0.5
    shapes = calibrate_forecast(forecast)
    assert shapes[:, 0] == pytest.approx([0, 0, 0.6, 1.2], abs=1e-3)
    assert shapes[0, 1:] == pytest.approx([0.125, 0.2, 0.55, 0.55])  # a width moves as far both ways
    assert forecast[0, 0] == pytest.approx(-0.2)  # what was given is left alone


REST = np.array([0.3, 5, 6, 33, 29])


def talk(frames: int = 300) -> np.ndarray:
    """Shapes [T, SHAPE] px of somebody who opens, closes and rounds the lips."""
    t = np.arange(frames) / 25
    shapes = np.tile(REST, (frames, 1))
    shapes[:, 0] = np.maximum(5 * np.sin(7 * t) + 2 * np.sin(11 * t), 0)
    shapes[:, 3:] += 1.5 * np.sin(5 * t)[:, None]
    return shapes.astype(np.float32)


def test_lips_go_as_far_as_their_own_film_shows():
    forecast, own = talk(), talk()
    own[:, 0] *= 1.6
    own[:, 3:] = 32 + 2 * (own[:, 3:] - 33)
    wanted = Articulation.of(forecast, own)(forecast)
    assert wanted.std(0)[[0, 3, 4]] == pytest.approx(own.std(0)[[0, 3, 4]], rel=0.08)
    assert wanted.mean(0)[3] == pytest.approx(own.mean(0)[3], abs=0.2)
    closed = forecast[:, 0] == 0
    assert wanted[closed, 0].max() < 0.5  # p, b and m still close
    assert np.corrcoef(wanted[:, 0], own[:, 0])[0, 1] > 0.99


@pytest.mark.parametrize("frames", [300, 40])
def test_a_film_that_tells_nothing_leaves_what_is_forecast(frames):
    forecast, own = talk(frames), talk(frames)
    if frames > 100:
        own = np.random.default_rng(0).permutation(own)  # these lips have nothing to do with that sound
    assert Articulation.of(forecast, own)(forecast) == pytest.approx(forecast)


def test_thickness_moves_as_far_as_it_is_known():
    forecast, own = talk(), talk()
    forecast[:, 1] += np.sin(np.arange(300))
    own[:, 1] += 0.5 * np.sin(np.arange(300))
    own[:, 2] += np.random.default_rng(0).normal(size=300).astype(np.float32)
    forecast[:, 2] += np.random.default_rng(1).normal(size=300).astype(np.float32)
    wanted = Articulation.of(forecast, own)(forecast)
    assert wanted[:, 1].std() == pytest.approx(own[:, 1].std(), rel=0.1)
    assert wanted[:, 2].std() < 0.3


def test_correlation_is_found_at_the_films_own_offset():
    own, noise = talk()[:, 0], np.random.default_rng(0).normal(size=300)
    assert best_correlation(np.roll(own, 3), own) > 0.97
    assert best_correlation(noise, own) < 0.25
    assert best_correlation(np.zeros(300), own) == 0


def test_chatter_is_calmed_and_closures_are_kept():
    shapes = np.tile(REST, (30, 1)).astype(np.float32)
    shapes[:, 0] = np.where(np.arange(30) % 2, 4.0, 7.0)
    shapes[15, 0] = 0.0
    calm = steadied(shapes)
    assert np.abs(np.diff(calm[:12, 0])).max() < 1
    assert calm[15, 0] == 0
    assert calm.shape == shapes.shape
