"""crops against known answers: transforms that were put in, patterns with a formula, frames that must not change."""

import cv2
import numpy as np
import pytest

from syncdiff.faces import FaceTrack, make_track, track_faces
from syncdiff.geometry import crops
from syncdiff.geometry.crops import FEATHER, WINDOW, S, align, cut, mouth_mask, paste_crop
from syncdiff.media import Patch
from syncdiff.progress import finished
from tests.heads import SIDE, background, heads, paste_head

NAN = float("nan")
TIMES = np.arange(40) / 25
LIPS = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
        78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]  # fmt: skip
CHIN_AND_JAW = [152, 148, 176, 149, 150, 136, 172, 58, 132, 377, 400, 378, 379, 365, 397, 288, 361, 175, 199, 200, 18]


def similarity(scale: float = 1.0, degrees: float = 0.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """[2, 3] float32: crop pixels -> frame pixels."""
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[c, -s, x], [s, c, y]], np.float32)


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def track_of(transforms: list[np.ndarray | None], cuts: tuple[int, ...] = ()) -> FaceTrack:
    """A face whose steady points stand exactly where each transform puts the template's; None: not seen."""
    crop_points = np.random.default_rng(1).uniform(20, 108, (478, 2))
    index, template, _ = crops._steady_points(478)
    crop_points[index] = template
    missing = np.full((478, 2), NAN)
    points = np.stack([missing if m is None else apply(m, crop_points) for m in transforms])
    return make_track(points.astype(np.float32), cuts)


def test_the_68_points_of_face_alignment_place_the_same_crop():
    turned = similarity(1.7, 12, 90, 40)
    index, template, weight = crops._steady_points(68)
    assert len(index) == 9
    assert weight.sum() == pytest.approx(1)
    points = np.random.default_rng(1).uniform(20, 108, (68, 2))
    points[index] = template
    track = make_track(np.stack([apply(turned, points)] * 3).astype(np.float32))
    assert np.allclose(crops.align(track, np.arange(3) / 25), turned, atol=1e-3)


def pattern(height: int, width: int) -> np.ndarray:
    """A picture with a formula, see at()."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.rint(at(x, y)).astype(np.uint8)


def at(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([x / 3, y / 3, 120 + 60 * np.sin(x / 25) * np.cos(y / 31)], axis=-1)


def put_back(image: np.ndarray, patch: Patch) -> np.ndarray:
    out = image.copy()
    height, width = patch.rgb.shape[:2]
    out[patch.y : patch.y + height, patch.x : patch.x + width] = patch.rgb
    return out


def mask_in_frame(matrix: np.ndarray, shape: tuple[int, ...], grow: int = 0) -> np.ndarray:
    """[H, W] bool: frame pixels that belong to the mask, found by asking each for its place in the crop."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    place = np.rint(apply(cv2.invertAffineTransform(matrix), np.stack([x, y], -1))).astype(int)
    mask = cv2.dilate(mouth_mask().astype(np.uint8), np.ones((2 * grow + 1, 2 * grow + 1), np.uint8)).astype(bool)
    inside = ((place >= 0) & (place < S)).all(-1)
    return inside & mask[place[..., 1].clip(0, S - 1), place[..., 0].clip(0, S - 1)]


# ---- the mask


def test_the_mask_is_symmetrical_and_within_the_window() -> None:
    mask = mouth_mask()
    assert (mask == mask[:, ::-1]).all()
    outside = mask.copy()
    outside[WINDOW] = False
    assert not outside.any()
    assert not mask[127].any(), "the mask's last row is at most 126: mask_alpha() needs an outside to fade towards"
    assert 0.2 < mask.mean() < 0.4


def test_lips_and_chin_of_talking_heads_lie_within_the_mask() -> None:
    head = heads()[0]
    images = []
    for t in range(0, 40, 2):
        images.append(background())
        paste_head(images[-1], head[t], 400, 150, 2.5)
    (track,) = finished(track_faces(images))
    to_frame = align(track, TIMES[:20])
    for points, matrix in zip(track.points, to_frame, strict=True):
        there = apply(cv2.invertAffineTransform(matrix), points[[*LIPS, 152]])
        assert mouth_mask()[np.rint(there[:, 1]).astype(int).clip(0, S - 1), np.rint(there[:, 0]).astype(int)].all()


# ---- align


def test_align_finds_the_transform_that_was_put_in(subtests) -> None:
    for placed in [(), (3.7, 0, 500, 80), (0.3, 25, 40.5, 900), (1.4, -160, 700, 300)]:
        with subtests.test(placed=placed):
            matrix = similarity(*placed)
            to_frame = align(track_of([matrix]), TIMES[:1])
            assert to_frame.shape == (1, 2, 3)
            assert to_frame.dtype == np.float32
            np.testing.assert_allclose(to_frame[0], matrix, rtol=1e-4, atol=2e-3)


def test_align_is_not_moved_by_the_mouth() -> None:
    track = track_of([similarity(2, 5, 300, 200)] * 20)
    before = align(track, TIMES[:20])
    track.points[:, LIPS + CHIN_AND_JAW] += np.random.default_rng(0).normal(0, 30, (20, 1, 2))
    np.testing.assert_array_equal(align(track, TIMES[:20]), before)


def test_align_steadies_what_trembles_and_follows_what_moves() -> None:
    rng = np.random.default_rng(0)
    trembling = [similarity(2, 0, 300 + dx, 200 + dy) for dx, dy in rng.normal(0, 1, (400, 2))]
    left = align(track_of(trembling), np.arange(400) / 25)[:, :, 2].std(0).mean()
    # A Gaussian of s frames leaves white noise 1 / sqrt(2 sqrt(pi) s) of its spread.
    assert left == pytest.approx((2 * np.sqrt(np.pi) * crops.SMOOTHING * 25) ** -0.5, rel=0.15)
    moving = [similarity(2, 0, 300 + 6 * t, 200) for t in range(40)]
    np.testing.assert_allclose(align(track_of(moving), TIMES)[5:-5, 0, 2], 300 + 6 * np.arange(5, 35), atol=0.01)


def test_align_smooths_by_time_and_not_by_frames() -> None:
    step = [similarity(2, 0, 300 + 50 * (t >= 20), 200) for t in range(40)]
    slow, fast = align(track_of(step), TIMES)[:, 0, 2], align(track_of(step), TIMES / 2)[:, 0, 2]
    width = [((x > 301) & (x < 349)).sum() for x in (slow, fast)]
    assert width[1] > 1.5 * width[0] > 0


def test_align_does_not_smooth_across_gaps_or_cuts() -> None:
    here, there = similarity(2, 0, 100, 100), similarity(3, 10, 700, 400)
    for transforms, cuts in [
        ([here] * 15 + [None] * 5 + [there] * 20, ()),
        ([here] * 20 + [there] * 20, (20,)),
    ]:
        to_frame = align(track_of(transforms, cuts), TIMES)
        for t, expected in enumerate(transforms):
            if expected is None:
                assert np.isnan(to_frame[t]).all()
            else:
                np.testing.assert_allclose(to_frame[t], expected, rtol=1e-4, atol=5e-3)


# ---- cut


def test_cut_shows_the_frame_where_the_transform_says(subtests) -> None:
    for matrix in [similarity(), similarity(1.4, 20, 200, 100), similarity(0.4, -70, 200, 250)]:
        with subtests.test(matrix=matrix):
            crop = cut(pattern(400, 500), matrix)
            y, x = np.mgrid[:S, :S].astype(np.float64)
            place = apply(matrix, np.stack([x, y], -1))
            assert np.abs(crop - at(place[..., 0], place[..., 1])).max() < 1.6
            assert crop.dtype == np.uint8


def test_cut_of_a_large_face_does_not_alias() -> None:
    board = (np.indices((800, 800)).sum(0) % 2 * 255).astype(np.uint8)
    crop = cut(np.repeat(board[..., None], 3, 2), similarity(4, 3, 80, 80))
    assert np.abs(crop.astype(float) - 127.5).max() < 6


def test_a_part_of_a_crop_is_what_the_whole_has_there():
    image = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    for matrix in (similarity(2.7, 12, 60, 20), similarity(4, -5, -90, -60), similarity(1.1, 30, 300, 200)):
        whole, some = cut(image, matrix), cut(image, matrix, WINDOW)
        assert (some[WINDOW] == whole[WINDOW]).all()
        assert (some != whole).any() == (matrix[0, 0] > 1.5)  # the rest is not filtered


def test_cut_beyond_the_frame_repeats_its_edge() -> None:
    image = pattern(200, 300)
    crop = cut(image, similarity(1, 0, -40, 150))
    assert (crop[10, :40] == image[160, 0]).all()
    assert (crop[50:, 60] == image[199, 20]).all()
    assert np.array_equal(crop[:50, 40:], image[150:, :88])


# ---- paste


def test_paste_of_the_cut_returns_every_pixel_outside_the_mask(subtests) -> None:
    for matrix in [similarity(1, 0, 100, 60), similarity(2.6, 12, 60, 20), similarity(0.35, -30, 200, 200)]:
        with subtests.test(matrix=matrix):
            image = np.random.default_rng(0).integers(0, 255, (400, 520, 3)).astype(np.uint8)
            out = put_back(image, paste_crop(image, cut(image, matrix), matrix))
            outside = ~mask_in_frame(matrix, image.shape, grow=1)
            assert np.array_equal(out[outside], image[outside])


def test_paste_of_the_cut_returns_a_soft_picture_inside_as_well() -> None:
    image, matrix = pattern(400, 500), similarity(1.2, 15, 150, 100)
    out = put_back(image, paste_crop(image, cut(image, matrix), matrix))
    assert np.abs(out.astype(int) - image).max() <= 3


def test_paste_draws_the_crop_within_the_mask() -> None:
    image, matrix = np.full((300, 300, 3), 120, np.uint8), similarity(1.5, 0, 50, 50)
    crop = cut(image, matrix)
    crop[80:100, 50:78] = (250, 20, 30)
    out = put_back(image, paste_crop(image, crop, matrix))
    y, x = np.rint(apply(matrix, np.array([64, 90]))[::-1]).astype(int)
    assert np.abs(out[y, x].astype(int) - (250, 20, 30)).max() <= 2
    deep = cv2.erode(mouth_mask().astype(np.uint8), np.ones((2 * int(FEATHER) + 5,) * 2)).astype(bool)
    assert deep[80:100, 50:78].all()


def test_paste_matches_the_colour_around_the_seam() -> None:
    image, matrix = pattern(400, 500), similarity(1.2, 0, 150, 100)
    tinted = np.clip(cut(image, matrix) + np.array([14, -9, 6]), 0, 255).astype(np.uint8)
    out = put_back(image, paste_crop(image, tinted, matrix))
    assert np.abs(out.astype(int) - image).max() <= 4


def test_paste_of_no_weight_changes_nothing_and_of_half_weight_half() -> None:
    image, matrix = pattern(400, 500), similarity(1.2, 8, 150, 100)
    crop = cut(image, matrix)
    crop[75:105, 45:83] = 255
    frames = [put_back(image, paste_crop(image, crop, matrix, weight)).astype(int) for weight in (0.0, 0.5, 1.0)]
    assert np.array_equal(frames[0], image)
    assert np.abs(frames[1] - (frames[0] + frames[2]) / 2).max() <= 1
    assert np.abs(frames[2] - image).max() > 50


def test_paste_at_the_frames_borders(subtests) -> None:
    for turn, x, y in [(0, -150, 20), (0, 250, 100), (20, 90, -190), (0, 70, 180)]:
        with subtests.test(turn=turn, x=x, y=y):
            image, matrix = pattern(300, 400), similarity(2, turn, x, y)
            crop = cut(image, matrix)
            crop[60:125, 24:104] = 255
            patch = paste_crop(image, crop, matrix)
            assert patch.rgb.shape[0] + patch.y <= 300
            assert patch.rgb.shape[1] + patch.x <= 400
            out = put_back(image, patch)
            mask = mask_in_frame(matrix, image.shape, grow=1)
            assert mask.any()
            assert np.array_equal(out[~mask], image[~mask])
            assert (out[mask] != image[mask]).any()


def test_paste_of_a_face_wholly_out_of_the_frame_changes_nothing() -> None:
    image = pattern(300, 400)
    for matrix in (similarity(1, 0, 600, 50), similarity(1, 0, 50, -500), similarity(1, 0, -400, 900)):
        patch = paste_crop(image, np.full((S, S, 3), 255, np.uint8), matrix)
        assert np.array_equal(put_back(image, patch), image)


def test_paste_onto_a_small_face_does_not_alias() -> None:
    image, matrix = np.full((200, 200, 3), 127, np.uint8), similarity(0.3, 2, 60, 60)
    crop = np.repeat((np.indices((S, S)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    out = put_back(image, paste_crop(image, crop, matrix))
    assert np.abs(out.astype(float) - 127).max() < 8


def test_a_head_comes_back_as_it_was() -> None:
    head = heads()[1]
    image = background()
    paste_head(image, head[0], 300, 100, 2)
    (track,) = finished(track_faces([image]))
    matrix = align(track, TIMES[:1])[0]
    out = put_back(image, paste_crop(image, cut(image, matrix), matrix))
    outside = ~mask_in_frame(matrix, image.shape, grow=1)
    assert np.array_equal(out[outside], image[outside])
    changed = np.abs(out.astype(float) - image)[~outside]
    assert 10 * np.log10(255**2 / np.mean(changed**2)) > 34
    assert 0.8 * SIDE < np.ptp(np.argwhere(~outside)[:, 1]) < 2 * SIDE


def test_a_crop_tells_which_of_its_rows_and_columns_lie_in_the_picture():
    assert crops.within(similarity(), (S, S)) == (slice(0, S), slice(0, S))
    beyond_left_and_below = similarity(2.0, 0.0, x=-20.0, y=300.0)
    assert crops.within(beyond_left_and_below, (400, 1000)) == (slice(0, 50), slice(10, S))
