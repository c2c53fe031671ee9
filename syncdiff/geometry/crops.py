"""Face crops: align() and cut(), their inverse paste_crop(), and the mouth mask.

The crop is upright and steady: a similarity transform fitted to the eyes and the nose, which the mouth does not move,
and smoothed over time. Everything the model may redraw lies inside one fixed shape in crop space, so that neither the
mask nor the alignment can tell the network how the lips stood (the leak that DiffTalk's authors warn of).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import cv2
import numpy as np

from syncdiff.faces import FaceTrack
from syncdiff.media import Patch

S = 128  # crop side, px

# The template that faces are aligned to: steady points of the mean FaceMesh, measured over 80 frontal faces of the
# training corpus. Unit: the distance between the outer eye corners; origin: their middle. Weights are low where speech
# moves the skin.
_EYE_DISTANCE, _EYE_ROW = 58.0, 22.0
_STEADY_POINTS = np.array([
    # FaceMesh index, x, y, weight
    (33, -0.500, 0.000, 1.0), (263, 0.500, 0.000, 1.0), (133, -0.195, 0.018, 1.0), (362, 0.197, 0.021, 1.0),
    (168, 0.0, -0.034, 1.0), (6, 0.0, 0.054, 1.0), (197, 0.0, 0.137, 1.0), (195, 0.0, 0.213, 1.0),
    (5, 0.0, 0.296, 0.5), (4, 0.0, 0.396, 0.5), (2, 0.0, 0.539, 0.5),
    (98, -0.207, 0.508, 0.3), (327, 0.207, 0.508, 0.3),
])  # fmt: skip
# FaceMesh index -> index among the 68 points of 2DFAN4, which lack some: eye corners, bridge, tip and base of the nose.
_FAN_INDEX = {33: 36, 263: 45, 133: 39, 362: 42, 168: 27, 4: 30, 2: 33, 98: 31, 327: 35}

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
    """Indices of the steady ones among 478 or 68 landmarks, their places in the crop [P, 2] px, their weights [P]."""
    rows = np.stack([row for row in _STEADY_POINTS if points == 478 or row[0] in _FAN_INDEX])
    index = [int(i) if points == 478 else _FAN_INDEX[int(i)] for i in rows[:, 0]]
    return index, rows[:, 1:3] * _EYE_DISTANCE + (S / 2, _EYE_ROW), rows[:, 3] / rows[:, 3].sum()


@cache
def mouth_mask() -> np.ndarray:
    """[S, S] bool, True where the frame is hidden from the network and may be redrawn: lips, chin and jaw.

    The same for everyone, large enough for the widest opening. Not the blend mask, which lies closer around the lips.
    """
    y, x = np.mgrid[:S, :S] + 0.5
    across = (2 * x - MASK_LEFT - MASK_RIGHT) / (MASK_RIGHT - MASK_LEFT)  # -1..1
    down = (2 * y - MASK_TOP - MASK_BOTTOM) / (MASK_BOTTOM - MASK_TOP)
    return across**4 + down**4 < 1


@cache
def mask_alpha() -> np.ndarray:
    """[S, S] float32 blend weight: 0 at the mask's edge and outside, 1 from FEATHER px inwards."""
    inside = cv2.distanceTransform(mouth_mask().astype(np.uint8), cv2.DIST_L2, 5) - 1
    return smoothstep(inside / FEATHER).astype(np.float32)


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 up to 0, 1 from 1 on, and 3 x^2 - 2 x^3 in between."""
    x = np.minimum(np.maximum(x, 0), 1)  # what np.clip does, in half the time
    return x * x * (3 - 2 * x)


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
    params = np.stack([a / norm, b / norm, *mean.T], axis=1)  # [T, 4]: scale cos, scale sin, x and y of the mean
    c, s, x, y = smoothed(params, times, track.run, SMOOTHING).T
    shift = x - c * origin[0] + s * origin[1], y - s * origin[0] - c * origin[1]
    return np.stack([c, -s, shift[0], s, c, shift[1]], axis=1).reshape(-1, 2, 3).astype(np.float32)


def smoothed(values: np.ndarray, times: np.ndarray, run: np.ndarray, sigma: float) -> np.ndarray:
    """Values [T, D] smoothed by a Gaussian over time, within each unbroken run; NaN outside of runs.

    Args:
        times: [T], in the unit of `sigma`.
        run: [T] int, -1 where there is no run (see `FaceTrack.run`).
        sigma: the Gaussian's standard deviation; the kernel ends at three of them.
    """
    times = np.asarray(times)
    step = np.median(np.diff(times)) if len(times) > 1 else 1.0
    radius = min(len(times) - 1, int(3 * sigma / step))
    total, weight = np.zeros_like(values), np.zeros(len(values))
    for shift in range(-radius, radius + 1):  # not all pairs of frames at once: memory grows with T alone
        frames = np.arange(max(0, -shift), len(values) - max(0, shift))
        shifted = frames + shift
        w = np.exp(-0.5 * ((times[shifted] - times[frames]) / sigma) ** 2)
        w *= (run[frames] == run[shifted]) & (run[frames] >= 0)
        total[frames] += np.nan_to_num(values[shifted]) * w[:, None]
        weight[frames] += w
    return np.where(run[:, None] >= 0, total / np.maximum(weight, 1e-9)[:, None], np.nan)


def cut(image: np.ndarray, to_frame: np.ndarray, part: tuple[slice, slice] | None = None) -> np.ndarray:
    """Frame [H, W, 3] uint8 -> upright crop [S, S, 3] uint8; pixels beyond the frame repeat its edge.

    part: rows and columns of the crop that are needed; the others then come out unfiltered, in less time.
    """
    scale = float(np.hypot(to_frame[0, 0], to_frame[1, 0]))
    if scale <= 1.5:
        return _warp(image, to_frame, (S, S))
    # A plain warp would alias: low-pass to the crop's own Nyquist first, around the face only.
    y, x, height, width = _box(to_frame, image.shape, margin=4 * scale)
    around = image[y : y + height, x : x + width].copy()
    needed = slice(None), slice(None)
    if part is not None:
        rows, columns = part
        region = columns.start, rows.start, columns.stop, rows.stop
        top, left, height, width = _box(to_frame, image.shape, region, margin=4 * scale)
        needed = slice(top - y, top - y + height), slice(left - x, left - x + width)
    around[needed] = cv2.GaussianBlur(around[needed], (0, 0), 0.45 * scale, borderType=cv2.BORDER_REPLICATE)
    return _warp(around, to_frame - np.array([[0, 0, x], [0, 0, y]], np.float32), (S, S))


def cut_all(images: Iterable[np.ndarray], to_frame: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """T frames and transforms [T, 2, 3] -> crops [T, S, S, 3] uint8, black where `usable` [T] is False."""
    black = np.zeros((S, S, 3), np.uint8)
    return np.stack([cut(image, m) if ok else black for image, m, ok in zip(images, to_frame, usable, strict=True)])


def within(to_frame: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a crop that show a frame of `shape` (H, W), judged on the crop's two middle lines."""
    along, middle = np.arange(S), (S - 1) / 2
    x = to_frame[0, 0] * along + to_frame[0, 1] * middle + to_frame[0, 2]
    y = to_frame[1, 0] * middle + to_frame[1, 1] * along + to_frame[1, 2]
    columns, rows = (np.flatnonzero((at >= 0) & (at <= side - 1)) for at, side in ((x, shape[1]), (y, shape[0])))
    if not (len(rows) and len(columns)):
        return slice(None), slice(None)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def paste_crop(image: np.ndarray, crop: np.ndarray, to_frame: np.ndarray, weight: float = 1.0) -> Patch:
    """The inverse of `cut`: the frame's rectangle around the mask, with `crop` [S, S, 3] uint8 blended in.

    The seam is feathered inside the mask. The crop's colour is shifted by the difference to the frame in a ring around
    the mask, where both show the same skin.

    Args:
        weight: 0..1, of the whole patch; less than 1 near the ends of a gap.
    """
    rows, columns = np.nonzero(mouth_mask())
    region = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    y, x, height, width = _box(to_frame, image.shape, region, margin=2)
    ring = _ring()
    source = cut(image, to_frame)
    shift = source[ring].astype(np.float32).mean(0) - crop[ring].astype(np.float32).mean(0)
    to_part = to_frame - np.array([[0, 0, x], [0, 0, y]], np.float32)
    from_part = cv2.invertAffineTransform(to_part)
    drawn = np.clip(crop.astype(np.float32) + shift, 0, 255)
    scale = float(np.hypot(to_frame[0, 0], to_frame[1, 0]))
    if scale < 1 / 1.5:  # low-pass as in cut(): a small face holds fewer pixels than the crop
        drawn = cv2.GaussianBlur(drawn, (0, 0), 0.45 / scale)
    drawn = _warp(drawn, from_part, (width, height), interpolation=cv2.INTER_CUBIC)
    alpha = _warp(mask_alpha(), from_part, (width, height), border=cv2.BORDER_CONSTANT)[..., None] * weight
    blend = image[y : y + height, x : x + width] * (1 - alpha) + np.clip(drawn, 0, 255) * alpha
    blend = np.rint(blend).astype(np.uint8)
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


def bounding_box(matrix: np.ndarray, region: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest (x, y) of a region's corners after the transform `matrix` [2, 3]; region: x0, y0, x1, y1."""
    x0, y0, x1, y1 = region
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]]) @ np.asarray(matrix, np.float64).T
    return corners.min(0), corners.max(0)


def _box(to_frame, shape, region=(0, 0, S, S), *, margin) -> tuple[int, int, int, int]:
    """y, x, height, width of the frame's rectangle around a crop region, clipped to the frame, never empty."""
    low, high = bounding_box(to_frame, region)
    low, high = low - margin, high + margin
    x, y = (int(np.clip(np.floor(v), 0, limit - 1)) for v, limit in zip(low, (shape[1], shape[0]), strict=True))
    x_end, y_end = (int(np.clip(np.ceil(v), 1, limit)) for v, limit in zip(high, (shape[1], shape[0]), strict=True))
    return y, x, max(1, y_end - y), max(1, x_end - x)
