"""The warp of a mouth: from where its lips stand in a crop to where a target shape has them.

Column by column the four contours of the lips and the chin are moved, and what lies between them is stretched: the map
is monotone along both axes, so it cannot fold, and lips that meet can be parted. It covers the crop's WINDOW, is given
in crop pixels, and comes to rest before the window's edge, so it can be enlarged to whatever scale a picture has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from syncdiff.geometry.crops import WINDOW
from syncdiff.geometry.mouth_shape import lip_shape

# The contours of the lips from the picture's left to its right, as FaceMesh numbers them, from top to bottom.
_CONTOURS = (
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
)
_CONTOUR_POINTS = np.array(_CONTOURS)
_CORNERS, _TOP_OF_LIP, _NOSE, _CHIN = [61, 291], 0, 2, 152
READ_POINTS = tuple(sorted({*(p for contour in _CONTOURS for p in contour), _NOSE, _CHIN}))  # all that is read here

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
_FIRM = 0.35, 0.75  # shares of the corners' fall and of their tilt
NECK = 14.0  # px below the chin from which on nothing moves: collars stay where they are
STILL = 0.02  # crop px: what would move less stays as it is
_CHEEK = 0.7  # half mouth widths over which the cheek follows a corner, a standard deviation times sqrt(2)

_COLUMNS = np.arange(WINDOW[1].start, WINDOW[1].stop, dtype=np.float32)
_ROWS = np.arange(WINDOW[0].start, WINDOW[0].stop, dtype=np.float32)[:, None]
WINDOW_ORIGIN = np.array([WINDOW[1].start, WINDOW[0].start], np.float32)  # x, y
WINDOW_SIZE = (len(_COLUMNS), len(_ROWS))  # width, height
WINDOW_GRID = np.stack(np.broadcast_arrays(_COLUMNS, _ROWS), axis=-1)  # [80, 96, 2] crop px


def mouth_pose(points: np.ndarray) -> np.ndarray:
    """Position and slope of the mouth less the effect of its shape: points [..., 478, 2] -> [..., 4].

    x of the middle between the corners and y of the top of the upper lip, crop px; the slope from corner to corner; and
    how far the corners lie below the top of the lip, crop px. The two heights are those of a shape of zeros.
    """
    corners, shape = points[..., _CORNERS, :], lip_shape(points)
    top, across = points[..., _TOP_OF_LIP, 1], corners[..., 1, :] - corners[..., 0, :]
    drop = corners[..., 1].mean(-1) - top - shape @ (_CORNER - _TOP)
    slope = across[..., 1] / np.maximum(across[..., 0], 1.0)
    return np.stack([corners[..., 0].mean(-1), top - shape @ _TOP, slope, drop], axis=-1).astype(np.float32)


def lip_line(shape: np.ndarray) -> float:
    """y of the inner contour of the upper lip in a shape [SHAPE] px, below the y of the mouth's pose."""
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
    now = lip_shape(points)
    change = shape - now
    half = max(3.0, float(shape[3]) / 2)
    inner = float(np.clip(shape[4] / 2, 2.0, half))
    centre, apart = points[_CORNERS, 0].mean(), _COLUMNS - pose[0]
    outer = _contours(points, centre + apart * now[3] / (2 * half))
    gap = np.subtract(*_contours(points, centre + apart * now[4] / (2 * inner))[[2, 1]])
    if change[0] >= 0:
        gap = gap + change[0] * (1 - np.minimum(np.abs(apart / inner), 1) ** _ROUNDNESS)
    else:
        gap = gap * (max(float(shape[0]), 0.0) / now[0])
    arch = 1 - np.minimum(np.abs(apart / half), 1) ** 2  # 1 in the middle, 0 at the corners
    upper, lower = (np.maximum(outer[k + 1] - outer[k] + change[1 + k // 2] * arch, 0) for k in (0, 2))
    flat = 1 - np.minimum(np.abs(apart / half), 1) ** 10
    lower += float(np.clip(_FULLER * change[0], -0.5, 1)) * (lower.max() * flat - lower)
    _, _, slope, drop = pose - mouth_pose(points)
    sunk, tilt = (change @ (_CORNER - _TOP) + drop) * (1 - arch), slope * np.clip(apart, -half, half)
    firm = (_FIRM[0] * sunk + _FIRM[1] * tilt) * flat  # that much of what the corners do the edge of the lip does not
    top = outer[0] - points[_TOP_OF_LIP, 1] + pose[1] + shape @ _TOP + sunk + tilt - firm
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
        whole: the face around the mouth goes along, the chin falls, and all is at rest at the window's edge. Otherwise
            only the lips are meant, and the face that they come from may stand elsewhere.

    Returns:
        [80, 96, 2] float32, x and y in crop px.
    """
    now, half = lip_shape(points), contours.half
    centre, apart = points[_CORNERS, 0].mean(), _COLUMNS - contours.pose[0]
    u, narrower = apart / half, now[3] / (2 * half) - 1
    shift = centre - contours.pose[0] + apart * narrower
    if whole:
        edge = _ease(((WINDOW_SIZE[0] - 1) / 2 - np.abs(_COLUMNS - _COLUMNS.mean())) / 10)
        near = np.exp(-((np.maximum(np.abs(u) - 1, 0) / _CHEEK) ** 2)) * edge
        lines = _contours(points, _COLUMNS + shift * near)
        fall = ((contours.shape - now) @ _CHIN_FALL) * np.exp(-((u / 1.6) ** 2)) * edge
    else:
        near, fall = 1.0, np.zeros_like(_COLUMNS)
        lines = _contours(points, _COLUMNS + shift)
    ends = np.ones_like(_COLUMNS)
    nose = min(float(points[_NOSE, 1]) + 1, float(lines[0].min()) - 2)
    chin = max(float(points[_CHIN, 1]), float(lines[3].max()) + 4)
    if whole:
        top, low = min(lines[0].min(), contours.lines[0].min()), max(lines[3].max(), contours.lines[3].max())
        above, below = (_ROWS - nose) / max(top - nose, 1), (chin + NECK - _ROWS) / (chin + NECK - low)
        columns = shift * near * _ease(above) * _ease(below)
    else:
        columns = shift
    bottom = [(chin + NECK) * ends, (chin + NECK + 400) * ends]
    source = np.stack([(nose - 400) * ends, nose * ends, *lines, chin * ends, *bottom])
    moved = lines + (contours.lines - lines) * near
    target = np.stack([source[0], source[1], *moved, chin + fall, *bottom])
    order = 1e-2 * np.arange(len(source))[:, None]  # lines that meet stay in order
    source, target = (np.maximum.accumulate(knots, axis=0) + order for knots in (source, target))
    piece = np.diff(target, axis=0)
    slope = np.diff(source, axis=0) / piece
    rows, along = np.tile(source[0], (len(_ROWS), 1)), np.empty((len(_ROWS), len(_COLUMNS)))
    for a in range(len(source) - 1):  # piece by piece of the columns, all columns at once, in one array: half the time
        np.subtract(_ROWS, target[a], out=along)
        np.minimum(np.maximum(along, 0, out=along), piece[a], out=along)
        rows += np.multiply(along, slope[a], out=along)
    field = np.empty((len(_ROWS), len(_COLUMNS), 2), np.float32)
    field[..., 0], field[..., 1] = columns, np.subtract(rows, _ROWS, out=rows)
    field[np.abs(field) < STILL] = 0
    return field


def lip_mask(contours: LipContours, grown: float = 1.5, soft: float = 5.0) -> np.ndarray:
    """Where lips of these contours lie: [80, 96] float32, 1 on and `grown` px around them, 0 from `soft` px more on."""
    inside = np.abs(_COLUMNS - contours.pose[0]) <= contours.half
    above, below = (np.stack([_COLUMNS, contours.lines[k]], axis=1)[inside] for k in (0, 3))
    ring = np.concatenate([above, below[::-1]]) - WINDOW_ORIGIN
    outside = np.ones(WINDOW_SIZE[::-1], np.uint8)
    if len(above):
        cv2.fillPoly(outside, [np.rint(ring * 16).astype(np.int32)], 0, shift=4)  # pyright: ignore[reportCallIssue, reportArgumentType]
    far = cv2.distanceTransform(outside, cv2.DIST_L2, 5)
    return _ease((grown + soft - far) / soft).astype(np.float32)


def _contours(points: np.ndarray, x: np.ndarray) -> np.ndarray:
    """[4, n] y of the contours at x [n], in order from top to bottom; beyond the corners those of the corners."""
    lines = np.stack([np.interp(x, *contour.T) for contour in points[_CONTOUR_POINTS]])
    lines[:, 1:-1] = (lines[:, :-2] + 2 * lines[:, 1:-1] + lines[:, 2:]) / 4  # eleven points make corners on the way
    return np.maximum.accumulate(lines, axis=0)


def _ease(x: np.ndarray) -> np.ndarray:
    x = np.minimum(np.maximum(x, 0), 1)  # what np.clip does, in half the time
    return x * x * (3 - 2 * x)
