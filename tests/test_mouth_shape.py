"""Lip shapes, a talker's own units, and the mouth bent to a shape, on a face that was drawn for it."""

from __future__ import annotations

import numpy as np
import pytest

from syncdiff.geometry.mouth_shape import MET, SHAPE, SpeakerScale, calibrate_forecast, lip_shape
from syncdiff.geometry.warp import CONTOURS, CORNERS, blend_mouth, moved, open_share

GAP, LOWER_LIP = 8, 6


def face(gap: float = GAP) -> tuple[np.ndarray, np.ndarray]:
    """A grey crop with red lips around a black gap, and its landmarks."""
    points, across = np.full((478, 2), np.nan), np.linspace(-1, 1, 11)
    heights = (-gap / 2 - LOWER_LIP, -gap / 2, gap / 2, gap / 2 + LOWER_LIP)
    for contour, height in zip(np.reshape(CONTOURS[:-1], (4, 11)), heights, strict=True):
        points[contour] = np.stack([64 + 18 * across, 90 + height * (1 - across**2)], 1)
    points[152] = (64, 118)
    crop = np.full((128, 128, 3), 128, np.uint8)
    crop[int(90 - gap / 2 - LOWER_LIP) : int(90 + gap / 2 + LOWER_LIP), 60:69] = (200, 40, 40)
    crop[int(90 - gap / 2) : int(90 + gap / 2), 60:69] = 0
    return crop, points


def dark_rows(crop: np.ndarray) -> np.ndarray:
    return np.flatnonzero(crop[:, 64].max(-1) < 100)  # half way from lip to gap


def test_shape_is_read_off_the_landmarks():
    assert lip_shape(face()[1]) == pytest.approx([GAP, LOWER_LIP, LOWER_LIP, 36, 36])


@pytest.mark.parametrize("gap", [2, 14])
def test_the_mouth_opens_as_far_as_it_is_told(gap):
    crop, points = face()
    wanted = lip_shape(points)
    wanted[0] = gap
    bent = moved(crop, points, wanted)
    assert len(dark_rows(bent)) == pytest.approx(gap, abs=1.5)
    assert (bent[:60] == crop[:60]).all()  # eyes and nose stay
    assert (bent[:, :20] == crop[:, :20]).all()


def test_the_same_shape_changes_nothing():
    crop, points = face()
    assert np.abs(moved(crop, points, lip_shape(points)).astype(int) - crop).max() <= 1


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


def test_corners_sink_with_a_jaw_that_opens():
    crop, points = face()
    crop[:, 46] = np.arange(128, dtype=np.uint8)[:, None]  # a ruler at the corner
    wanted = lip_shape(points)
    wanted[0] += 10
    assert moved(crop, points, wanted)[90, 46, 0] == pytest.approx(90 - 10 * CORNERS, abs=0.6)


def test_implanted_lips_lie_on_the_others_mouth_in_its_tone():
    crop, points = face()
    other = np.full_like(crop, 160)
    set_in = blend_mouth(crop, points, other, points + np.array([3, 5]), lip_shape(points))
    assert np.abs(set_in[:, 67].astype(int)[5:] - crop[:, 64].astype(int)[:-5] - 32)[88:105].max() <= 1
    assert (set_in[:70] == 160).all()
    assert (set_in[:, :35] == 160).all()


def test_the_open_mouth_fades_in_with_the_gap():
    closed, opened = np.array([1.0, 5, 6, 34, 30]), np.array([11.0, 5, 6, 34, 30])
    shapes = np.tile(closed, (4, 1))
    shapes[:, 0] = (1, 1.5, 2.5, 3.5)
    assert open_share(shapes, closed, opened) == pytest.approx([0, 0, 0.5, 1])
    assert open_share(closed, closed, closed) == 0  # one frame for both, as of a photo: no matter


def test_a_forecast_mean_is_raised_most_where_lips_part():
    forecast = np.zeros((5, SHAPE), np.float32)
    forecast[:, 0] = (-0.2, MET, 0.2, 0.5, 1)
    forecast[:, 3] = 0.5
    spoken = calibrate_forecast(forecast)
    assert spoken[:, 0] == pytest.approx([0, 0, 0.330, 0.744, 2 / 1.8], abs=1e-3)
    assert spoken[:, 3] == pytest.approx(0.65)  # a width moves as far both ways
    assert forecast[0, 0] == pytest.approx(-0.2)  # what was given is left alone
