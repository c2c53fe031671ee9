"""Lip shapes, a speaker's own units, and how far this person's lips go where a forecast goes."""

from __future__ import annotations

import numpy as np
import pytest

from syncdiff.geometry.mouth_shape import (
    COMMON_GAINS,
    MET,
    SHAPE,
    Articulation,
    SpeakerScale,
    agreement,
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


def test_a_forecast_mean_is_raised_most_where_lips_part():
    forecast = np.zeros((5, SHAPE), np.float32)
    forecast[:, 0] = (-0.2, MET, 0.2, 0.5, 1)
    forecast[:, 3] = 0.5
    spoken = calibrate_forecast(forecast)
    assert spoken[:, 0] == pytest.approx([0, 0, 0.330, 0.744, 2 / 1.8], abs=1e-3)
    assert spoken[:, 3] == pytest.approx(0.65)  # a width moves as far both ways
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
    wanted = Articulation.of(forecast, own, REST, 0.9)(forecast)
    assert wanted.std(0)[[0, 3, 4]] == pytest.approx(own.std(0)[[0, 3, 4]], rel=0.08)
    assert wanted.mean(0)[3] == pytest.approx(own.mean(0)[3], abs=0.2)
    closed = forecast[:, 0] == 0
    assert wanted[closed, 0].max() < 0.5  # p, b and m still close
    assert np.corrcoef(wanted[:, 0], own[:, 0])[0, 1] > 0.99


@pytest.mark.parametrize(("frames", "related"), [(300, 0.1), (40, 0.9)])
def test_a_film_that_tells_nothing_leaves_what_is_common(frames, related):
    forecast = talk(frames)
    wanted = Articulation.of(forecast, 3 * forecast, REST, related)(forecast)
    assert wanted == pytest.approx(Articulation.common(REST)(forecast))
    assert wanted[:, 0] == pytest.approx(COMMON_GAINS[0] * forecast[:, 0], abs=1e-5)
    assert (wanted[:, 3] - REST[3]).std() == pytest.approx(COMMON_GAINS[3] * forecast[:, 3].std(), rel=1e-4)


def test_rest_stays_at_rest():
    assert Articulation.common(REST)(REST[None])[0] == pytest.approx(REST * [1.1, 1, 1, 1, 1], abs=1e-5)


def test_agreement_is_found_at_the_films_own_offset():
    own, noise = talk()[:, 0], np.random.default_rng(0).normal(size=300)
    assert agreement(np.roll(own, 3), own) > 0.97
    assert agreement(noise, own) < 0.25
    assert agreement(np.zeros(300), own) == 0


def test_chatter_is_calmed_and_closures_are_kept():
    shapes = np.tile(REST, (30, 1)).astype(np.float32)
    shapes[:, 0] = np.where(np.arange(30) % 2, 4.0, 7.0)
    shapes[15, 0] = 0.0
    calm = steadied(shapes)
    assert np.abs(np.diff(calm[:12, 0])).max() < 1
    assert calm[15, 0] == 0
    assert calm.shape == shapes.shape
