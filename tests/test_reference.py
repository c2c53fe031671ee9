"""The reference mouth: what it takes from where, at any scale, and what it leaves alone bit for bit."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from syncdiff.geometry.crops import S
from syncdiff.geometry.interior import DEPTHS, LAYERS, OVERBITE, UPPER_EDGE, Interior
from syncdiff.geometry.mouth_shape import lip_shape
from syncdiff.geometry.reference import (
    UPRIGHT,
    FaceView,
    interior_of,
    reference_mouth,
    softness,
    with_difference,
)
from syncdiff.geometry.warp import WINDOW_SIZE, lip_line, lip_mask, mouth_pose
from tests.mouths import MIDDLE, crop, landmarks


def view(scale: int = 1, skin: int = 128, noise: float = 0, **shape) -> FaceView:
    """A drawn face `scale` px to a crop px, with grain."""
    points = landmarks(**shape)
    image = crop(points, skin, scale).astype(np.float32)
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return FaceView(np.clip(image, 0, 255).astype(np.uint8), UPRIGHT * scale, points)


def dark(pixels: np.ndarray, column: int) -> int:
    """Rows of the gap in a column."""
    return int((pixels[:, column].max(-1) < 100).sum())


def test_lips_of_a_moment_open_as_wanted_at_the_pictures_scale(subtests) -> None:
    for scale in [1, 3]:
        for gap in [3, 12]:
            with subtests.test(scale=scale, gap=gap):
                frame, moment = view(scale, gap=1), view(scale, gap=8)
                wanted = lip_shape(moment.points)
                wanted[0] = gap
                made = reference_mouth(frame, [(moment, 1.0)], wanted)
                assert made.pixels.shape[:2] == tuple(s.stop - s.start for s in frame.box)
                column = int(MIDDLE[0] * scale) - frame.box[1].start
                assert dark(made.pixels, column) == pytest.approx(gap * scale, abs=1.0 * scale)


def test_skin_that_does_not_move_stays_bit_for_bit() -> None:
    frame, moment = view(2, noise=20, gap=1), view(2, gap=8)
    wanted = lip_shape(frame.points)
    wanted[0] = 9
    made = reference_mouth(frame, [(moment, 1.0)], wanted).pixels
    own = frame.image[frame.box]
    chin = int((frame.points[152, 1] + 16) * 2) - frame.box[0].start
    assert np.array_equal(made[chin:], own[chin:])  # neck and collar
    assert np.array_equal(made[:, :2], own[:, :2])
    assert not np.array_equal(made[40:100, 80:110], own[40:100, 80:110])


def test_lips_take_the_light_of_the_frame() -> None:
    frame, moment = view(2, skin=120, gap=6), view(2, skin=130, gap=6)
    made = reference_mouth(frame, [(moment, 1.0)], lip_shape(frame.points)).pixels
    row, column = int((MIDDLE[1] + 5) * 2) - frame.box[0].start, int(MIDDLE[0] * 2) - frame.box[1].start
    assert made[row, column].astype(int) == pytest.approx(np.array([190, 30, 30]), abs=8)


def test_a_faded_frame_keeps_its_contrast(subtests) -> None:
    for share in [0.5, 0.25, 0.1]:
        with subtests.test(share=share):
            bright, moment = view(2, skin=140, gap=6), view(2, skin=140, gap=8)
            faded = FaceView(np.rint(bright.image * share).astype(np.uint8), bright.to_image, bright.points)
            wanted = lip_shape(moment.points)
            whole, dim = (reference_mouth(frame, [(moment, 1.0)], wanted).pixels for frame in (bright, faded))
            np.testing.assert_allclose(dim, whole * share, atol=3)
            darker = FaceView(np.rint(moment.image * share).astype(np.uint8), moment.to_image, moment.points)
            lit = reference_mouth(bright, [(darker, 1.0)], wanted).pixels
            np.testing.assert_allclose(lit, whole, atol=3 / share)


def test_a_frame_under_white_keeps_its_contrast(subtests) -> None:
    """A fade to white: brighter, with less contrast, where more light has more."""
    for share in [0.7, 0.5, 0.25]:
        with subtests.test(share=share):
            clear, moment = (
                FaceView(np.rint(each.image * (1, 0.8, 0.7)).astype(np.uint8), each.to_image, each.points)
                for each in (view(2, skin=140, gap=6), view(2, skin=140, gap=8))
            )
            pale = np.rint(clear.image * share + 255 * (1 - share)).astype(np.uint8)
            white = FaceView(pale, clear.to_image, clear.points)
            wanted = lip_shape(moment.points)
            whole, made = (reference_mouth(frame, [(moment, 1.0)], wanted).pixels for frame in (clear, white))
            np.testing.assert_allclose(made, whole * share + 255 * (1 - share), atol=4)


def test_a_mixture_keeps_the_detail_of_its_pictures() -> None:
    frame = view(2, gap=6)
    moments = []
    for seed in (1, 2):
        image = frame.image + np.random.default_rng(seed).normal(0, 25, frame.image.shape)
        moments.append(FaceView(np.clip(image, 0, 255).astype(np.uint8), frame.to_image, frame.points))
    wanted = lip_shape(frame.points)
    one, both = (
        reference_mouth(frame, mouths, wanted).pixels.astype(np.float32)
        for mouths in ([(moments[0], 1.0)], [(moments[0], 0.5), (moments[1], 0.5)])
    )
    lip = slice(int((MIDDLE[1] + 4) * 2) - frame.box[0].start, None), slice(60, 130)
    box = tuple(slice(s.start, s.start + 8) if s.stop is None else s for s in lip)
    assert both[box].std(0).mean() == pytest.approx(one[box].std(0).mean(), rel=0.35)


def test_what_the_network_leaves_is_left_bit_for_bit() -> None:
    frame = view(3, noise=9)
    pixels = reference_mouth(frame, [(view(3, gap=9), 1.0)], lip_shape(frame.points)).pixels
    assert np.array_equal(with_difference(frame, pixels, np.zeros((*WINDOW_SIZE[::-1], 3), np.float32)), pixels)


def test_what_the_network_draws_is_added_at_the_frames_scale() -> None:
    frame = view(3)
    pixels = frame.image[frame.box]
    brighter = np.zeros((*WINDOW_SIZE[::-1], 3), np.float32)
    brighter[20:50, 30:66] = 20
    made = with_difference(frame, pixels, brighter).astype(int) - pixels
    assert made[3 * 25 : 3 * 45, 3 * 35 : 3 * 60].min() == 20
    assert made[: 3 * 15].max() == 0


def test_a_mouth_outside_the_picture_is_left_alone() -> None:
    whole = view(2)
    cut = FaceView(whole.image[: (60 * 2)], whole.to_image, whole.points)  # the picture ends above the lips
    made = reference_mouth(cut, [(whole, 1.0)], lip_shape(whole.points)).pixels
    assert made.shape[0] == cut.box[0].stop - cut.box[0].start
    assert np.array_equal(made[:10], cut.image[cut.box][:10])


def test_moments_hold_no_more_than_their_window() -> None:
    big = view(4)
    part = big.part(8)
    assert part.image.nbytes < 0.6 * big.image.nbytes
    assert part.image.base is None  # a copy: the frame itself is let go
    wanted = lip_shape(big.points)
    wanted[0] += 3
    whole, small = (reference_mouth(big, [(v, 1.0)], wanted).pixels for v in (big, part))
    assert np.abs(whole.astype(int) - small).max() <= 1


def test_teeth_stand_where_they_are_put() -> None:
    closed = view(4, gap=0)
    rest = lip_shape(closed.points)
    inside = interior_of(closed, rest)
    assert inside.unit == pytest.approx(58)
    wanted = rest.copy()
    wanted[0] = 12
    made = reference_mouth(closed, [(closed, 1.0)], wanted, (inside, 1.0))
    resting_line = mouth_pose(closed.points)[1] + lip_line(rest)
    assert resting_line == pytest.approx(MIDDLE[1], abs=0.1)
    upper, lower = inside.edges(made.warps.contours)
    assert upper == pytest.approx(resting_line + UPPER_EDGE * 58)
    assert lower - upper == pytest.approx(0.75 * (12 - 5.8))
    wanted[0] = 4  # teeth part later than lips
    upper, lower = inside.edges(reference_mouth(closed, [(closed, 1.0)], wanted).warps.contours)
    assert lower - upper == pytest.approx(OVERBITE * 58)


def test_the_inside_is_drawn_between_the_lips_only() -> None:
    closed = view(3, gap=0)
    wanted = lip_shape(closed.points)
    wanted[0] = 10
    bare, drawn = (
        reference_mouth(closed, [(closed, 1.0)], wanted, inside).pixels.astype(int)
        for inside in (None, (interior_of(closed, lip_shape(closed.points)), 1.0))
    )
    changed = (np.abs(bare - drawn).max(-1) > 4).nonzero()
    upper, lower = (reference_mouth(closed, [(closed, 1.0)], wanted).warps.contours.lines[k, 48] for k in (1, 2))
    rows = (changed[0] + closed.box[0].start) / 3
    assert upper - 1 <= rows.min()
    assert rows.max() <= lower + 1
    assert rows.max() - rows.min() > 6


def test_the_same_person_has_the_same_teeth_at_every_scale() -> None:
    shape = lip_shape(landmarks(gap=0))
    shape[0] = 11
    small, large = (
        reference_mouth(v, [(v, 1.0)], shape, (interior_of(v, lip_shape(v.points)), 1.0)).pixels
        for v in (view(1, gap=0), view(4, gap=0))
    )
    shrunk = cv2.resize(large[: 4 * 80, : 4 * 96], WINDOW_SIZE, interpolation=cv2.INTER_AREA).astype(int)
    inside = lip_mask(reference_mouth(view(1, gap=0), [(view(1, gap=0), 1.0)], shape).warps.contours) > 0.5
    assert np.abs(shrunk - small)[inside].mean() < 12


def test_layers_are_all_there_with_their_licence() -> None:
    names = {f"{kind}_{y}.png" for kind in ("cavity", *DEPTHS) for y in ("y00p00", "y-25p00", "y+25p00")}
    assert names <= {path.name for path in LAYERS.glob("*.png")}
    assert names <= set(json.loads((LAYERS / "anchors.json").read_text()))
    assert "MIT" in (LAYERS / "LICENSE-ICT-FaceKit.txt").read_text()


def test_teeth_are_lighter_than_dark_skin_and_never_glow() -> None:
    for skin in (0.03, 0.2, 0.6):
        inside = Interior.of(58, 20, 0, np.full(3, skin), np.full(3, skin * 0.74), 0.5)
        brightness = inside.teeth * (np.array([228, 214, 196]) / 255) ** 2.2
        assert (brightness > skin).all() or skin == 0.6
        assert brightness.max() <= 0.9


def test_softness_is_read_off_edges() -> None:
    image = np.zeros((S * 2, S * 2, 3), np.uint8)
    image[:, ::40] = 255
    for row in range(0, S * 2, 40):
        image[row] = 255
    steps = np.repeat(np.repeat(np.random.default_rng(1).integers(0, 255, (16, 16, 3)), 16, 0), 16, 1).astype(np.uint8)
    for sigma in (1.0, 2.0):
        blurred = cv2.GaussianBlur(steps, (0, 0), sigma)
        assert softness(FaceView(blurred, UPRIGHT * 2, landmarks())) == pytest.approx(sigma, rel=0.25)
