"""The shape of a mouth in five numbers, read off landmarks, and what each talker makes of them.

Sound cannot tell how wide this person's mouth is, only how far from rest it is at this moment. So a shape is measured
in pixels of the face crop, and told to others in the talker's own units: 0 is the mouth at rest, 1 as far open as this
talker commonly goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

# FaceMesh points whose distances make a shape: the gap between the lips, both lips' thickness, outer and inner width.
SPANS = ((13, 14), (0, 13), (14, 17), (61, 291), (78, 308))
SHAPE = len(SPANS)
MARGIN = 3.0  # px around the lips that go with them
GAIN, MET, KNEE = 1.3, 0.05, 0.8  # see as_spoken()
COMMON_REACH, WIDEST_REACH = 7.0, 11.0  # px: the middle and the upper end of what filmed people reach when they talk


def as_spoken(forecast: np.ndarray) -> np.ndarray:
    """A forecast [..., SHAPE] -> the shape it stands for, both in a talker's units.

    A forecast is a mean over all that lips do with such a sound, so it moves less far than they: GAIN. The gap is never
    less than none, which bends that mean: small forecasts fall shortest of what filmed people do, so small gaps are
    raised most, by KNEE; below MET the lips meet, or p, b and m would no more be seen (docs/training-log.md).
    """
    shape = GAIN * forecast
    gap = np.maximum(forecast[..., 0] - MET, 0) / (1 - MET)
    shape[..., 0] = 2 * gap / (gap + KNEE)
    return shape


def lip_shape(points: np.ndarray) -> np.ndarray:
    """FaceMesh points [..., 478, 2] -> [..., SHAPE] float32 distances in the unit of the points."""
    a, b = (points[..., [pair[i] for pair in SPANS], :] for i in (0, 1))
    return np.linalg.norm(a - b, axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Talker:
    """How one person's mouth moves, in crop pixels."""

    rest: np.ndarray  # [SHAPE] the closed mouth
    reach: float  # gap between the lips commonly reached, less that at rest

    @classmethod
    def of(cls, shapes: np.ndarray) -> Talker:
        """From what was seen of a person, [T, SHAPE]: rest is the mean of the tenth with the smallest gap."""
        gap = shapes[:, 0]
        rest = shapes[gap <= np.percentile(gap, 10)].mean(0)
        return cls(rest, float(np.percentile(gap, 95) - rest[0]))

    def speaking(self) -> Talker:
        """The same person talking: who was seen mumbling or silent reaches as far as people do, and lips close."""
        rest = self.rest.copy()
        rest[0] = min(rest[0], 0.5)
        return Talker(rest, float(np.clip(self.reach, COMMON_REACH, WIDEST_REACH)))

    def pixels(self, units: np.ndarray) -> np.ndarray:
        """The talker's own units [..., SHAPE] -> pixels; a gap is never less than none."""
        shapes = self.rest + self.reach * units
        shapes[..., 0] = np.maximum(shapes[..., 0], 0)
        return shapes.astype(np.float32)

    def units(self, shapes: np.ndarray) -> np.ndarray:
        """Pixels [..., SHAPE] -> the talker's own units."""
        return (shapes - self.rest) / max(self.reach, 1.0)


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


def lip_region(points: np.ndarray, wanted: np.ndarray, side: int) -> np.ndarray:
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


def implanted(
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
    share = lip_region(here, wanted, len(around))
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
class Seen:
    """One crop of a face and where its landmarks lie."""

    crop: np.ndarray  # [S, S, 3] uint8
    points: np.ndarray  # [478, 2] crop px

    def bent(self, wanted: np.ndarray) -> np.ndarray:
        """The crop with its mouth bent to the wanted shape (see `moved`)."""
        return moved(self.crop, self.points, wanted)


def hint(frame: Seen, mouths: Iterable[tuple[Seen, float]], wanted: np.ndarray) -> np.ndarray:
    """Mouths of other moments, mixed by their shares, in a frame's jaw and surroundings [S, S, 3] uint8.

    All are bent to the wanted shape [SHAPE] px first, so they lie on each other. This is what the network is shown,
    in training and in use.
    """
    around = frame.bent(wanted)
    mixed = np.zeros(around.shape, np.float32)
    for mouth, share in mouths:
        if share:
            mixed += share * implanted(mouth.bent(wanted), mouth.points, around, frame.points, wanted)
    return mixed.round().astype(np.uint8)
