"""A face drawn for the tests: a grey crop with red lips around a black gap, and its landmarks."""

from __future__ import annotations

import numpy as np

from syncdiff.geometry.crops import S
from syncdiff.geometry.warp import _CONTOURS

MIDDLE = np.array([64.0, 78.0])  # between the corners, crop px


def landmarks(gap: float = 6, lips: float = 5, width: float = 36, inner: float = 30, at=MIDDLE) -> np.ndarray:
    """[478, 2] crop px of a mouth whose contours are arches; NaN where nothing is read."""
    points, across = np.full((478, 2), np.nan), np.linspace(-1, 1, 11)
    heights = (-gap / 2 - lips, -gap / 2, gap / 2, gap / 2 + lips)
    for contour, height, wide in zip(_CONTOURS, heights, (width, inner, inner, width), strict=True):
        points[list(contour)] = np.stack([at[0] + wide / 2 * across, at[1] + height * (1 - across**2)], 1)
    points[2], points[152] = (at[0], at[1] - 22), (at[0], at[1] + 30)
    points[33], points[263] = (at[0] - 29, 22), (at[0] + 29, 22)
    return points


def crop(points: np.ndarray, skin: int = 128, scale: int = 1) -> np.ndarray:
    """[scale S, scale S, 3] uint8: what the landmarks describe."""
    y, x = (np.mgrid[: S * scale, : S * scale] / scale).astype(np.float64)
    lines = [np.interp(x, *points[list(contour)].T) for contour in _CONTOURS]
    out = np.full((S * scale, S * scale, 3), skin, np.uint8)
    inside = abs(x - points[[61, 291], 0].mean()) < np.ptp(points[[61, 291], 0]) / 2
    out[inside & (y > lines[0]) & (y < lines[3])] = (200, 40, 40)
    out[inside & (y > lines[1]) & (y < lines[2])] = 0
    return out
