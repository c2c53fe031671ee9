"""The warp of a mouth: where it leads, that it never folds, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from syncdiff.geometry.mouth_shape import lip_shape
from syncdiff.geometry.warp import (
    NECK,
    WINDOW_GRID,
    WINDOW_ORIGIN,
    lip_mask,
    mixed_contours,
    mouth_pose,
    shaped_contours,
    warp_field,
)
from tests.mouths import MIDDLE, crop, landmarks

SHAPES = [(0, 6, 7, 34, 30), (14, 4, 6, 30, 26), (3, 7, 7, 24, 14), (8, 4, 5, 44, 40), (0.5, 3, 4, 42, 39)]


def contours_at(points: np.ndarray, wanted: np.ndarray):
    return shaped_contours(points, wanted, mouth_pose(points))


def test_the_present_shape_moves_nothing(subtests) -> None:
    for whole in [True, False]:
        with subtests.test(whole=whole):
            points = landmarks()
            field = warp_field(points, contours_at(points, lip_shape(points)), whole=whole)
            assert np.abs(field).max() < 0.1


def test_a_planted_shape_is_reached(subtests) -> None:
    """Through the middle of the mouth the field leads from the wanted contours to those of the landmarks."""
    for shape in SHAPES:
        for gap in [0.0, 6.0]:
            with subtests.test(shape=shape, gap=gap):
                points, wanted = landmarks(gap=gap), np.array(shape, np.float32)
                contours = contours_at(points, wanted)
                field = warp_field(points, contours, whole=True)
                top = contours.lines[0, 48]
                expected = np.cumsum([top, wanted[1], wanted[0], wanted[2]])
                assert contours.lines[:, 48] == pytest.approx(expected, abs=0.5)
                came_from = (WINDOW_GRID + field)[:, 48, 1]
                rows = WINDOW_GRID[:, 48, 1]
                for line, source in zip(contours.lines[:, 48], points[[0, 13, 14, 17], 1], strict=True):
                    if gap and wanted[0] > 1:  # a gap that was nothing has no inside to be found
                        assert np.interp(line, rows, came_from) == pytest.approx(source, abs=0.7)
                columns = (WINDOW_GRID + field)[int(points[61, 1] - WINDOW_ORIGIN[1]), :, 0]
                left, right = (float(MIDDLE[0] + side * wanted[3] / 2 - WINDOW_ORIGIN[0]) for side in (-1, 1))
                assert np.interp([left, right], np.arange(96), columns) == pytest.approx(points[[61, 291], 0], abs=0.5)


def test_the_map_never_folds(subtests) -> None:
    for wanted in SHAPES:
        for whole in [True, False]:
            with subtests.test(wanted=wanted, whole=whole):
                points = landmarks()
                at = WINDOW_GRID + warp_field(points, contours_at(points, np.array(wanted, np.float32)), whole=whole)
                assert (np.diff(at[..., 0], axis=1) > 0).all()
                assert (np.diff(at[..., 1], axis=0) >= 0).all()


def test_window_edge_nose_and_neck_stand_still(subtests) -> None:
    for wanted in SHAPES:
        with subtests.test(wanted=wanted):
            points = landmarks(at=MIDDLE - (0, 7))
            field = warp_field(points, contours_at(points, np.array(wanted, np.float32)), whole=True)
            assert not field[:, [0, -1]].any()
            assert not field[0].any()
            neck = int(points[152, 1] + NECK - WINDOW_ORIGIN[1]) + 2
            assert not field[neck:].any()


def test_the_chin_falls_with_the_jaw() -> None:
    points, wanted = landmarks(), lip_shape(landmarks())
    wanted[0] += 10
    came_from = (WINDOW_GRID + warp_field(points, contours_at(points, wanted), whole=True))[:, 48, 1]
    assert np.interp(points[152, 1] + 4.2, WINDOW_GRID[:, 48, 1], came_from) == pytest.approx(points[152, 1], abs=0.3)


def test_an_anchor_does_not_depend_on_the_shape() -> None:
    points = landmarks()
    for wanted in SHAPES:
        contours = contours_at(points, np.array(wanted, np.float32))
        moved = points.copy()
        moved[[61, 291], 0] = MIDDLE[0] + np.array([-0.5, 0.5]) * wanted[3]
        for index, line in zip((0, 13, 14, 17), contours.lines[:, 48], strict=True):
            moved[index, 1] = line
        moved[[78, 308], 0] = MIDDLE[0] + np.array([-0.5, 0.5]) * wanted[4]
        moved[[61, 291], 1] = contours.at(moved[[61, 291], 0], 0)
        assert mouth_pose(moved)[:3] == pytest.approx(mouth_pose(points)[:3], abs=0.1)
        assert mouth_pose(moved)[3] == pytest.approx(mouth_pose(points)[3], abs=0.5)  # corners are smoothed


def test_a_mouth_hangs_as_the_face_does_that_it_is_set_into() -> None:
    points, wanted = landmarks(), lip_shape(landmarks())
    pose = mouth_pose(points) + np.float32([1, 2, 0.1, 3])
    moved = shaped_contours(points, wanted, pose).lines - contours_at(points, wanted).lines
    assert moved[:, 48] == pytest.approx(2, abs=0.3)
    assert moved[1, [30, 66]] == pytest.approx([2 + 3 - 1.8, 2 + 3 + 1.8], abs=1.2)  # near the corners
    edge, line = moved[0], moved[1]
    assert abs(edge[66] - edge[30]) < 0.5 * abs(line[66] - line[30])  # a lip's edge tilts less than the line of lips


def test_the_lower_lip_gets_fuller_beside_its_middle_as_the_mouth_opens() -> None:
    points = landmarks(gap=1)
    wanted = lip_shape(points)
    before, after = (contours_at(points, wanted + np.float32([gap, 0, 0, 0, 0])).lines for gap in (0, 6))
    thick = [(lines[3] - lines[2])[[32, 48, 64]] for lines in (before, after)]
    assert thick[1][1] == pytest.approx(thick[0][1], abs=0.3)
    assert (thick[1] > thick[0] + 0.5)[[0, 2]].all()


def test_contours_of_a_mixture_lie_between() -> None:
    flat, round_ = (contours_at(landmarks(gap=g), np.array(SHAPES[1], np.float32)) for g in (1, 9))
    mean = mixed_contours([flat, round_], [0.5, 0.5])
    assert mean.lines == pytest.approx((flat.lines + round_.lines) / 2, abs=1e-4)


def test_the_mask_covers_the_lips_and_ends_around_them() -> None:
    points = landmarks()
    mask = lip_mask(contours_at(points, lip_shape(points)))
    red = (crop(points) != 128).any(-1)[48:128, 16:112]
    assert mask[red].min() == 1
    far = np.abs(WINDOW_GRID - MIDDLE).max(-1) > 26
    assert mask[far].max() == 0
