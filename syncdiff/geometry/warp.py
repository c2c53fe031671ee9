"""Mouths bent to another shape, and set into another frame of the same face."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from syncdiff.geometry.mouth_shape import lip_shape

MARGIN = 3.0  # px around the lips that go with them


# The two contours of each lip from the picture's left to its right, as FaceMesh numbers them, and the chin.
_OUTER_UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)


_INNER_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)


_INNER_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)


_OUTER_LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)


_CHIN = 152


# Shares of a gap that grows, about as filmed and synthetic talkers have them (docs/training-log.md): how far the upper
# lip rises, the corners fall, the chin falls. The lower lip makes the rest of the gap.
RAISED, CORNERS, CHIN = 0.25, 0.14, 0.32


CONTOURS = (*_OUTER_UPPER, *_INNER_UPPER, *_INNER_LOWER, *_OUTER_LOWER, _CHIN)


def moved(crop: np.ndarray, points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """A crop [S, S, 3] uint8 with its mouth bent to another shape [SHAPE] px: a hint for the network.

    Teeth that the crop does not show are not invented here. `points` are its landmarks [478, 2].
    """
    return cv2.remap(crop, bend(points, wanted, len(crop)), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def bend(points: np.ndarray, wanted: np.ndarray, side: int) -> np.ndarray:
    """Where in a crop every pixel of the bent crop comes from: x and y, [side, side, 2] float32.

    Column by column the four contours of the lips and the chin go where the wanted shape has them, and what lies
    between them is stretched.

    Args:
        points: [478, 2] landmarks in the crop (only CONTOURS are read).
        wanted: [SHAPE] px.
    """
    now = lip_shape(points)
    centre = (points[61] + points[291]) / 2
    half = max(4.0, now[3] / 2)
    widen = float(np.clip(wanted[3] / max(now[3], 1), 0.75, 1.3))
    x = np.arange(side, dtype=np.float32)
    u = (x - centre[0]) / (half * widen)  # -1..1 from corner to corner of the wanted mouth
    reach = np.clip(1 - u**2, 0, 1)
    lines = [np.interp(centre[0] + (x - centre[0]) / widen, *points[list(c)].T) for c in
             (_OUTER_UPPER, _INNER_UPPER, _INNER_LOWER, _OUTER_LOWER)]  # fmt: skip
    gap = lines[2] - lines[1]
    wider = (wanted[0] - now[0]) * (reach if wanted[0] > now[0] else gap / max(now[0], 1e-3) * (gap > 0))
    thicker = [(wanted[i] - now[i]) * reach for i in (1, 2)]
    outside = np.exp(-((np.maximum(abs(u) - 1, 0) / 0.6) ** 2))
    sunk = CORNERS * (wanted[0] - now[0]) * (1 - reach) * outside  # of everything at the corners; nothing in the middle
    upper, lower = lines[1] - RAISED * wider + sunk, lines[2] + (1 - RAISED) * wider + sunk
    chin = np.full(side, max(points[_CHIN, 1], lines[3].max() + 4))
    fall = CHIN * (wanted[0] - now[0]) * np.exp(-((u / 1.6) ** 2))
    ends = np.zeros(side), np.full(side, centre[1] - 1.1 * half), np.full(side, max(side - 1.0, chin[0] + 12))
    source = np.stack([ends[0], np.minimum(ends[1], lines[0] - 3), *lines, chin, ends[2]])
    target = np.stack([
        source[0], source[1], upper - (lines[1] - lines[0]) - thicker[0], upper, lower,
        lower + (lines[3] - lines[2]) + thicker[1], chin + fall, source[7],
    ])  # fmt: skip
    source, target = (np.maximum.accumulate(k + 1e-3 * np.arange(len(k))[:, None], axis=0) for k in (source, target))
    rows = np.stack([np.interp(x, target[:, i], source[:, i]) for i in range(side)], axis=1).astype(np.float32)
    near = np.exp(-((u / 1.5) ** 2)[None] - ((x - centre[1]) / (1.3 * half))[:, None] ** 2)
    columns = x[None] + (x - centre[0])[None] * (1 / widen - 1) * near
    return np.stack([columns, rows], axis=-1).astype(np.float32)


def lip_blend_mask(points: np.ndarray, wanted: np.ndarray, side: int) -> np.ndarray:
    """Where the lips of the wanted shape [SHAPE] px will lie in a crop: 1 on them, 0 from a little around them on.

    Args:
        points: [478, 2] landmarks in the crop (only the corners are read), before it is bent.

    Returns:
        [side, side] float32.
    """
    centre = points[[61, 291]].mean(0)
    y, x = np.mgrid[:side, :side]
    tall, wide = wanted[:3].sum() / 2 + MARGIN, wanted[3] / 2 + MARGIN
    apart = np.hypot((x - centre[0]) / wide, (y - centre[1] - (0.5 - RAISED) * wanted[0]) / tall)
    return np.clip((1.25 - apart) / 0.5, 0, 1).astype(np.float32)


def blend_mouth(
    mouth: np.ndarray, there: np.ndarray, around: np.ndarray, here: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """The lips of one crop set into another [S, S, 3] uint8, softly and in its tone; both are bent to the wanted shape.

    Args:
        there: [478, 2] landmarks of the crop that the lips come from (only the corners are read), before it was bent.
        here: those of the crop that all else comes from.
        wanted: [SHAPE] px.
    """
    to, away = (points[[61, 291]].mean(0) for points in (here, there))
    shift = np.float32([[1, 0, to[0] - away[0]], [0, 1, to[1] - away[1]]])
    mouth = cv2.warpAffine(mouth, shift, around.shape[:2], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    share = lip_blend_mask(here, wanted, len(around))
    seam = (share > 0.1) & (share < 0.6)
    tone = (around.astype(np.float32) - mouth)[seam].mean(0) if seam.any() else 0.0
    share = share[..., None]
    return np.clip(around * (1 - share) + (mouth + tone) * share, 0, 255).astype(np.uint8)


def open_share(wanted: np.ndarray, closed: np.ndarray, opened: np.ndarray) -> np.ndarray:
    """How much of the open mouth a mixture of the two [SHAPE] takes for shapes [..., SHAPE]: 0..1 [...].

    By their gaps: none up to a twentieth of the way, all from a quarter on. Two pictures mixed are softer than one, so
    the fade is short; and closed lips that are pulled apart show no gap between them, so it begins early.
    """
    way = (wanted[..., 0] - closed[0]) / max(opened[0] - closed[0], 1.0)
    return np.clip((way - 0.05) / 0.2, 0, 1)


@dataclass(frozen=True)
class FaceCrop:
    """One crop of a face and where its landmarks lie."""

    crop: np.ndarray  # [S, S, 3] uint8
    points: np.ndarray  # [478, 2] crop px

    def bent(self, wanted: np.ndarray) -> np.ndarray:
        """The crop with its mouth bent to the wanted shape (see `moved`)."""
        return moved(self.crop, self.points, wanted)


def hint(frame: FaceCrop, mouths: Iterable[tuple[FaceCrop, float]], wanted: np.ndarray) -> np.ndarray:
    """Mouths of other moments, mixed by their shares, in a frame's jaw and surroundings [S, S, 3] uint8.

    All are bent to the wanted shape [SHAPE] px first, so they lie on each other. This is what the network is shown,
    in training and in use.
    """
    around = frame.bent(wanted)
    mixed = np.zeros(around.shape, np.float32)
    for mouth, share in mouths:
        if share:
            mixed += share * blend_mouth(mouth.bent(wanted), mouth.points, around, frame.points, wanted)
    return mixed.round().astype(np.uint8)
