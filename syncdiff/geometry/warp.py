"""The warp of a mouth to a target shape: a field of displacements over the crop's WINDOW.

In every column the four contours of the lips and the chin are moved, and what lies between them is stretched. The map
is monotone along both axes, so it cannot fold, and lips that meet can be parted. It is given in crop pixels, so it can
be enlarged to the scale of any picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from syncdiff.geometry.crops import WINDOW, smoothstep
from syncdiff.geometry.mouth_shape import lip_shape

# FaceMesh indices of the lips' four contours, from top to bottom, each from the picture's left to its right.
_CONTOURS = np.array([
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
])
_CORNERS, _TOP_OF_LIP, _NOSE, _CHIN = [61, 291], 0, 2, 152
READ_POINTS = tuple(sorted({*_CONTOURS.ravel().tolist(), _NOSE, _CHIN}))  # all landmarks that this module reads

# How far parts of a face go down for every px of gap, thickness of upper and lower lip, outer and inner width: the top
# of the upper lip, the corners, the chin. Least squares over changes within 3 frames, medians of 14 filmed people who
# talk freely; GRID's 13 speakers are within 0.12 of them.
_TOP = np.array([-0.13, -0.13, 0.0, -0.10, 0.0], np.float32)
_CORNER = np.array([0.23, 0.33, 0.0, -0.23, 0.0], np.float32)
_CHIN_FALL = np.array([0.42, 0.70, 0.25, -0.05, 0.0], np.float32)
_ROUNDNESS = 2.5  # a gap at u, -1..1 between the inner corners, is 1 - |u|**2.5 of that in the middle (same people)
# The lower lip gets fuller beside its middle: three quarters of the way to the corners its thickness is 0.59 of that in
# the middle where lips meet, and 0.028 more for every px of gap (quartiles of 39 clips: 0.026 and 0.032). The edge of
# the upper lip follows corners that fall, or tilt, less than the lip line does. Together they put the outer contours of
# lips a fifth closer to the true ones in the 14 clips they were chosen on, by 6 to 41 % in others (docs/mouth.md).
_FULLER = 0.08  # 1/px of gap, how fast a thickness of 1 - |u|**10 of that in the middle is reached
_FIRM = 0.35, 0.75  # shares of the corners' fall and of their tilt that the upper lip's edge does not follow
NECK = 14.0  # crop px below the chin from which on nothing moves: collars stay where they are
MIN_DISPLACEMENT = 0.02  # crop px: smaller displacements are set to 0
_CHEEK = 0.7  # half mouth widths over which the cheek follows a corner, a standard deviation times sqrt(2)

_COLUMNS = np.arange(WINDOW[1].start, WINDOW[1].stop, dtype=np.float32)
_ROWS = np.arange(WINDOW[0].start, WINDOW[0].stop, dtype=np.float32)[:, None]
WINDOW_ORIGIN = np.array([WINDOW[1].start, WINDOW[0].start], np.float32)  # x, y
WINDOW_SIZE = (len(_COLUMNS), len(_ROWS))  # width, height
WINDOW_GRID = np.stack(np.broadcast_arrays(_COLUMNS, _ROWS), axis=-1)  # [80, 96, 2] crop px


def mouth_pose(points: np.ndarray) -> np.ndarray:
    """Position and slope of the mouth, with the effect of its shape removed: points [..., 478, 2] -> [..., 4].

    x of the middle between the corners and y of the top of the upper lip, crop px; the slope from corner to corner; and
    how far the corners lie below the top of the lip, crop px. The two heights are those of a shape of zeros.
    """
    corners, shape = points[..., _CORNERS, :], lip_shape(points)
    top, across = points[..., _TOP_OF_LIP, 1], corners[..., 1, :] - corners[..., 0, :]
    drop = corners[..., 1].mean(-1) - top - shape @ (_CORNER - _TOP)
    slope = across[..., 1] / np.maximum(across[..., 0], 1.0)
    return np.stack([corners[..., 0].mean(-1), top - shape @ _TOP, slope, drop], axis=-1).astype(np.float32)


def lip_line(shape: np.ndarray) -> float:
    """How far the upper lip's inner contour lies below the y of the mouth's pose, px, in a shape [SHAPE] px."""
    return float(shape @ _TOP + shape[1])


@dataclass(frozen=True)
class LipContours:
    """The contours of one mouth over the columns of the window."""

    shape: np.ndarray  # [SHAPE] px
    pose: np.ndarray  # [4] (see `mouth_pose`)
    lines: np.ndarray  # [4, 96] y, crop px: upper lip's outer and inner contour, lower lip's inner and outer

    @property
    def half(self) -> float:
        """Half the outer width, px."""
        return max(3.0, float(self.shape[3]) / 2)

    def at(self, x: np.ndarray, line: int) -> np.ndarray:
        """y of one of the lines at any x, crop px."""
        return np.interp(x, _COLUMNS, self.lines[line]).astype(np.float32)


def shaped_contours(points: np.ndarray, shape: np.ndarray, pose: np.ndarray) -> LipContours:
    """The contours that the mouth of `points` [478, 2] has in another shape [SHAPE] px and pose [4]."""
    current = lip_shape(points)
    change = shape - current
    half = max(3.0, float(shape[3]) / 2)
    inner = float(np.clip(shape[4] / 2, 2.0, half))
    centre, x = points[_CORNERS, 0].mean(), _COLUMNS - pose[0]  # x: from the middle of the mouth
    outer = _contours(points, centre + x * current[3] / (2 * half))
    gap = np.subtract(*_contours(points, centre + x * current[4] / (2 * inner))[[2, 1]])
    if change[0] >= 0:
        gap = gap + change[0] * (1 - np.minimum(np.abs(x / inner), 1) ** _ROUNDNESS)
    else:
        gap = gap * (max(float(shape[0]), 0.0) / current[0])
    arch = 1 - np.minimum(np.abs(x / half), 1) ** 2  # 1 in the middle, 0 at the corners
    upper, lower = (np.maximum(outer[k + 1] - outer[k] + change[1 + k // 2] * arch, 0) for k in (0, 2))
    flat = 1 - np.minimum(np.abs(x / half), 1) ** 10
    lower += float(np.clip(_FULLER * change[0], -0.5, 1)) * (lower.max() * flat - lower)
    _, _, slope, drop = pose - mouth_pose(points)
    fall, tilt = (change @ (_CORNER - _TOP) + drop) * (1 - arch), slope * np.clip(x, -half, half)
    firm = (_FIRM[0] * fall + _FIRM[1] * tilt) * flat
    top = outer[0] - points[_TOP_OF_LIP, 1] + pose[1] + shape @ _TOP + fall + tilt - firm
    upper = np.maximum(upper + firm, 0)
    lines = np.cumsum(np.stack([top, upper, gap, lower]), axis=0)
    return LipContours(np.asarray(shape, np.float32), np.asarray(pose, np.float32), lines.astype(np.float32))


def mixed_contours(contours: Sequence[LipContours], shares: Sequence[float]) -> LipContours:
    """The mean of contours of one shape and pose; shares sum to 1."""
    lines = sum(share * each.lines for each, share in zip(contours, shares, strict=True))
    return LipContours(contours[0].shape, contours[0].pose, np.asarray(lines, np.float32))


def warp_field(points: np.ndarray, contours: LipContours, *, whole: bool) -> np.ndarray:
    """Backward displacements: pixel p of the warped window is read at p + field[p], which gives `points` the contours.

    Args:
        points: landmarks in crop px; only READ_POINTS are read.
        whole: also moves the cheeks and the chin, less and less towards the window's edge, where all is 0. Without it
            only the displacements between the lips' contours are meant.

    Returns:
        [80, 96, 2] float32, x and y in crop px.
    """
    current, half = lip_shape(points), contours.half
    centre, x = points[_CORNERS, 0].mean(), _COLUMNS - contours.pose[0]  # x: from the middle of the mouth
    u, narrower = x / half, current[3] / (2 * half) - 1
    shift = centre - contours.pose[0] + x * narrower
    near, fall = 1.0, np.zeros_like(_COLUMNS)
    if whole:
        edge = smoothstep(((WINDOW_SIZE[0] - 1) / 2 - np.abs(_COLUMNS - _COLUMNS.mean())) / 10)
        near = np.exp(-((np.maximum(np.abs(u) - 1, 0) / _CHEEK) ** 2)) * edge
        fall = ((contours.shape - current) @ _CHIN_FALL) * np.exp(-((u / 1.6) ** 2)) * edge
    shift = shift * near
    lines = _contours(points, _COLUMNS + shift)
    nose = min(float(points[_NOSE, 1]) + 1, float(lines[0].min()) - 2)
    chin = max(float(points[_CHIN, 1]), float(lines[3].max()) + 4)
    if whole:
        top, low = min(lines[0].min(), contours.lines[0].min()), max(lines[3].max(), contours.lines[3].max())
        above, below = (_ROWS - nose) / max(top - nose, 1), (chin + NECK - _ROWS) / (chin + NECK - low)
        shift = shift * smoothstep(above) * smoothstep(below)
    ends = np.ones_like(_COLUMNS)
    bottom = [(chin + NECK) * ends, (chin + NECK + 400) * ends]
    source = np.stack([(nose - 400) * ends, nose * ends, *lines, chin * ends, *bottom])
    moved = lines + (contours.lines - lines) * near
    target = np.stack([source[0], source[1], *moved, chin + fall, *bottom])
    field = np.empty((len(_ROWS), len(_COLUMNS), 2), np.float32)
    field[..., 0], field[..., 1] = shift, _interpolated_rows(source, target) - _ROWS
    field[np.abs(field) < MIN_DISPLACEMENT] = 0
    return field


def _interpolated_rows(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """y at which each pixel of the window is read, crop px [80, 96], so that knots at `source` come to `target`.

    Piecewise linear in every column. source, target: [K, 96] y of the knots, crop px.
    """
    order = 1e-2 * np.arange(len(source))[:, None]  # knots that coincide stay in order
    source, target = (np.maximum.accumulate(knots, axis=0) + order for knots in (source, target))
    length = np.diff(target, axis=0)
    slope = np.diff(source, axis=0) / length
    rows, along = np.tile(source[0], (len(_ROWS), 1)), np.empty((len(_ROWS), len(_COLUMNS)))
    for k in range(len(source) - 1):  # all columns at once, in one array: half the time
        np.subtract(_ROWS, target[k], out=along)
        np.minimum(np.maximum(along, 0, out=along), length[k], out=along)
        rows += np.multiply(along, slope[k], out=along)
    return rows


def lip_mask(contours: LipContours, grown: float = 1.5, soft: float = 5.0) -> np.ndarray:
    """[80, 96] float32: 1 within the outer contours of the lips and `grown` px around, 0 from `soft` px more on."""
    inside = np.abs(_COLUMNS - contours.pose[0]) <= contours.half
    above, below = (np.stack([_COLUMNS, contours.lines[k]], axis=1)[inside] for k in (0, 3))
    outline = np.concatenate([above, below[::-1]]) - WINDOW_ORIGIN
    outside = np.ones(WINDOW_SIZE[::-1], np.uint8)
    if len(above):
        cv2.fillPoly(outside, [np.rint(outline * 16).astype(np.int32)], 0, shift=4)  # pyright: ignore[reportCallIssue, reportArgumentType]
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, 5)
    return smoothstep((grown + soft - distance) / soft).astype(np.float32)


def _contours(points: np.ndarray, x: np.ndarray) -> np.ndarray:
    """[4, n] y of the contours at x [n], in order from top to bottom; beyond the corners those of the corners."""
    lines = np.stack([np.interp(x, *contour.T) for contour in points[_CONTOURS]])
    lines[:, 1:-1] = (lines[:, :-2] + 2 * lines[:, 1:-1] + lines[:, 2:]) / 4  # rounds the polygon of eleven points
    return np.maximum.accumulate(lines, axis=0)
