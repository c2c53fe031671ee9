"""Face crops and the way back: cut() and paste_crop(), and the mask between them.

The crop is upright and steady: a similarity transform fitted to the eyes and the nose, which the mouth does not move,
and smoothed over time. Everything the model may redraw lies inside one fixed shape in crop space, so that neither the
mask nor the alignment can tell the network how the lips stood (the leak that DiffTalk's authors warn of).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import cv2
import numpy as np

from syncdiff.faces import FaceTrack
from syncdiff.media import Patch

S = 128  # crop side, px

# Where the steady points of the mean FaceMesh stand in the crop: measured over 80 frontal faces of the training corpus,
# in units of the distance between the outer eye corners, from their middle. Low weights where speech moves the skin.
_EYE_DISTANCE, _EYE_ROW = 58.0, 22.0
_STEADY_POINTS = np.array([
    # FaceMesh index, x, y, weight
    (33, -0.500, 0.000, 1.0), (263, 0.500, 0.000, 1.0), (133, -0.195, 0.018, 1.0), (362, 0.197, 0.021, 1.0),
    (168, 0.0, -0.034, 1.0), (6, 0.0, 0.054, 1.0), (197, 0.0, 0.137, 1.0), (195, 0.0, 0.213, 1.0),
    (5, 0.0, 0.296, 0.5), (4, 0.0, 0.396, 0.5), (2, 0.0, 0.539, 0.5),
    (98, -0.207, 0.508, 0.3), (327, 0.207, 0.508, 0.3),
])  # fmt: skip
# The same places among the 68 points of 2DFAN4, where it has them: eye corners, bridge, tip and foot of the nose.
_AMONG_68 = {33: 36, 263: 45, 133: 39, 362: 42, 168: 27, 4: 30, 2: 33, 98: 31, 327: 35}

SMOOTHING = 0.05  # s, standard deviation of the Gaussian over time: below it FaceMesh jitters by about half a pixel
FEATHER = 7.0  # crop px over which paste_crop() fades in from the mask's edge
LIP_BOX = (slice(58, 112), slice(34, 94))  # crop px: where lips, teeth and their motion are
WINDOW = (slice(48, 128), slice(16, 112))  # the part of the crop that the network sees: mask plus a margin
# The mouth mask, crop px (fractions too): a rounded rectangle inside WINDOW, hidden from the network. The shipped
# denoiser and the cover check were trained with this one, and `provenance.watermark.BOX` is its rectangle. Its bottom
# is at most 127: `mask_alpha` fades towards pixels outside, and beyond row 127 there are none.
MASK_TOP, MASK_BOTTOM, MASK_LEFT, MASK_RIGHT = 57, 125, 24, 104


@cache
def _steady_points(points: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Of landmarks that are 478 or 68: which are steady [P], where they stand in the crop [P, 2] px, their weights."""
    rows = [row for row in _STEADY_POINTS if points == 478 or row[0] in _AMONG_68]
    index = [int(row[0]) if points == 478 else _AMONG_68[int(row[0])] for row in rows]
    kept = np.stack(rows)
    return index, kept[:, 1:3] * _EYE_DISTANCE + (S / 2, _EYE_ROW), kept[:, 3] / kept[:, 3].sum()


@cache
def mouth_mask() -> np.ndarray:
    """[S, S] bool, True where the frame is hidden from the network and what it draws may be pasted: lips, chin and jaw.

    The same for everyone, as far as the widest opening. Where the network's output counts is the blend mask's, around
    the lips.
    """
    y, x = np.mgrid[:S, :S] + 0.5
    across = (2 * x - MASK_LEFT - MASK_RIGHT) / (MASK_RIGHT - MASK_LEFT)  # -1..1
    down = (2 * y - MASK_TOP - MASK_BOTTOM) / (MASK_BOTTOM - MASK_TOP)
    return across**4 + down**4 < 1


@cache
def mask_alpha() -> np.ndarray:
    """[S, S] float32 blend weight: 0 at the mask's edge and outside, 1 from FEATHER px inwards."""
    inside = cv2.distanceTransform(mouth_mask().astype(np.uint8), cv2.DIST_L2, 5) - 1
    ramp = np.clip(inside / FEATHER, 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def align(track: FaceTrack, times: np.ndarray) -> np.ndarray:
    """Similarity transforms [T, 2, 3] float32, crop pixels -> frame pixels; NaN where the face is missing.

    Weighted least squares (Umeyama 1991 without reflection), then a Gaussian over time that does not reach across gaps.
    """
    index, template, weight = _steady_points(track.points.shape[1])
    points = track.points[:, index].astype(np.float64)
    mean, origin = np.einsum("p,tpc->tc", weight, points), weight @ template
    source = template - origin
    target = points - mean[:, None]
    a = np.einsum("p,pc,tpc->t", weight, source, target)
    b = np.einsum("p,tp->t", weight, source[:, 0] * target[..., 1] - source[:, 1] * target[..., 0])
    norm = (weight[:, None] * source**2).sum()
    params = np.stack(
        [a / norm, b / norm, *(mean.T)], axis=1
    )  # [T, 4]: scale*cos, scale*sin, x, y of their middle
    params = smoothed(params, times, track.run, SMOOTHING)
    c, s, x, y = params.T
    shift = np.stack([x - c * origin[0] + s * origin[1], y - s * origin[0] - c * origin[1]], axis=1)
    return np.concatenate([np.stack([c, -s, s, c], axis=1).reshape(-1, 2, 2), shift[..., None]], axis=2).astype(
        np.float32
    )


def smoothed(rows: np.ndarray, times: np.ndarray, run: np.ndarray, spread: float) -> np.ndarray:
    """Rows [T, D] through a Gaussian over time, frame by frame of the same unbroken run; NaN where there is none.

    Args:
        times: [T] s.
        run: [T] int, -1 where there is no run (see `FaceTrack.run`).
        spread: s, the Gaussian's standard deviation; it is cut off at three of them, so memory grows with T alone.
    """
    times = np.asarray(times)
    step = np.median(np.diff(times)) if len(times) > 1 else 1.0
    reach = min(len(times) - 1, int(3 * spread / step))
    total, weight = np.zeros_like(rows), np.zeros(len(rows))
    for shift in range(-reach, reach + 1):
        here = np.arange(max(0, -shift), len(rows) - max(0, shift))
        there = here + shift
        w = np.exp(-0.5 * ((times[there] - times[here]) / spread) ** 2)
        w *= (run[here] == run[there]) & (run[here] >= 0)
        total[here] += np.nan_to_num(rows[there]) * w[:, None]
        weight[here] += w
    return np.where(run[:, None] >= 0, total / np.maximum(weight, 1e-9)[:, None], np.nan)


def cut(image: np.ndarray, to_frame: np.ndarray, part: tuple[slice, slice] | None = None) -> np.ndarray:
    """Frame [H, W, 3] uint8 -> upright crop [S, S, 3] uint8; pixels beyond the frame repeat its edge.

    part: rows and columns of the crop that are needed; the others then come out unfiltered, in less time.
    """
    scale = float(np.hypot(to_frame[0, 0], to_frame[1, 0]))
    if scale > 1.5:  # a plain warp would alias: low-pass to the crop's own Nyquist first, around the face only
        y, x, height, width = _box(to_frame, image.shape, margin=4 * scale)
        around = image[y : y + height, x : x + width]
        if part is None:
            around = _blurred(around, 0.45 * scale)
        else:
            rows, columns = part
            region = columns.start, rows.start, columns.stop, rows.stop
            top, left, height, width = _box(to_frame, image.shape, region, margin=4 * scale)
            needed = slice(top - y, top - y + height), slice(left - x, left - x + width)
            around = around.copy()
            around[needed] = _blurred(around[needed], 0.45 * scale)
        to_part = to_frame - np.array([[0, 0, x], [0, 0, y]], np.float32)
        return _warp(around, to_part, (S, S))
    return _warp(image, to_frame, (S, S))


def cut_all(images: Iterable[np.ndarray], to_frame: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """T frames -> crops [T, S, S, 3] uint8, black where they are not usable [T] bool; to_frame [T, 2, 3]."""
    black = np.zeros((S, S, 3), np.uint8)
    return np.stack([cut(image, m) if ok else black for image, m, ok in zip(images, to_frame, usable, strict=True)])


def _blurred(image: np.ndarray, spread: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), spread, borderType=cv2.BORDER_REPLICATE)


def within(to_frame: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a crop whose middles lie in a frame of `shape` (H, W): beyond it `cut` repeats its edge."""
    along, middle = np.arange(S), (S - 1) / 2
    x = to_frame[0, 0] * along + to_frame[0, 1] * middle + to_frame[0, 2]
    y = to_frame[1, 0] * middle + to_frame[1, 1] * along + to_frame[1, 2]
    columns, rows = (np.flatnonzero((at >= 0) & (at <= side - 1)) for at, side in ((x, shape[1]), (y, shape[0])))
    if not (len(rows) and len(columns)):
        return slice(None), slice(None)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def paste_crop(image: np.ndarray, crop: np.ndarray, to_frame: np.ndarray, weight: float = 1.0) -> Patch:
    """The way back: the frame's rectangle around the mask with `crop` [S, S, 3] uint8 blended in, outside it untouched.

    `weight` 0..1 fades the whole patch (soft ends of a gap). The seam is feathered inside the mask, and the crop's
    colour is shifted by the difference to the frame in a ring around the mask, where both show the same skin.
    """
    mask = mouth_mask()
    corners = np.argwhere(mask)
    (y0, x0), (y1, x1) = corners.min(0), corners.max(0) + 1
    y, x, height, width = _box(to_frame, image.shape, region=(x0, y0, x1, y1), margin=2)
    here = image[y : y + height, x : x + width]
    ring = _ring()
    source = cut(image, to_frame)
    shift = source[ring].astype(np.float32).mean(0) - crop[ring].astype(np.float32).mean(0)
    to_part = to_frame - np.array([[0, 0, x], [0, 0, y]], np.float32)
    from_part = cv2.invertAffineTransform(to_part)
    drawn = np.clip(crop.astype(np.float32) + shift, 0, 255)
    scale = float(np.hypot(to_frame[0, 0], to_frame[1, 0]))
    if scale < 1 / 1.5:  # as in cut(), the other way round: a small face holds fewer pixels than the crop
        drawn = cv2.GaussianBlur(drawn, (0, 0), 0.45 / scale)
    drawn = _warp(drawn, from_part, (width, height), interpolation=cv2.INTER_CUBIC)
    alpha = _warp(mask_alpha(), from_part, (width, height), border=cv2.BORDER_CONSTANT)[..., None] * weight
    blend = np.rint(here * (1 - alpha) + np.clip(drawn, 0, 255) * alpha).astype(np.uint8)
    return Patch(y=y, x=x, rgb=blend)


@cache
def _ring() -> np.ndarray:
    """[S, S] bool: 6 px around the mask's upper half, where the skin of the cheeks is (below lies the collar)."""
    grown = cv2.dilate(mouth_mask().astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool)
    ring = grown & ~mouth_mask()
    ring[100:] = False
    return ring


def _warp(image, matrix, size, interpolation=cv2.INTER_LINEAR, border=cv2.BORDER_REPLICATE) -> np.ndarray:
    """Sample `image` so that output pixel p shows image pixel `matrix` @ p."""
    return cv2.warpAffine(image, matrix, size, flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=border)


def _box(to_frame, shape, region=(0, 0, S, S), *, margin) -> tuple[int, int, int, int]:
    """y, x, height, width of the frame's rectangle around a crop region, clipped to the frame, never empty."""
    x0, y0, x1, y1 = region
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]]) @ np.asarray(to_frame, np.float64).T
    low, high = corners.min(0) - margin, corners.max(0) + margin
    x, y = (int(np.clip(np.floor(v), 0, limit - 1)) for v, limit in zip(low, (shape[1], shape[0]), strict=True))
    x_end, y_end = (int(np.clip(np.ceil(v), 1, limit)) for v, limit in zip(high, (shape[1], shape[0]), strict=True))
    return y, x, max(1, y_end - y), max(1, x_end - x)
