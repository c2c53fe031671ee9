"""Talking heads for the tests of faces and crops: square pictures of one head, pasted where a test wants them.

From the shipped examples, or the maintainers' data folder beside the checkout; else the tests say what they skip.
"""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (ROOT / "assets" / "examples", ROOT.parent / "shared" / "corpus" / "rendered")
SIDE = 160  # px of a head's picture
FRAMES = 60


@cache
def heads() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two people, FRAMES pictures each, uint8 [SIDE, SIDE, 3]."""
    found = []
    for path in (path for folder in SOURCES for path in sorted(folder.glob("*.mp4"))):
        if (head := _head(path)) and all(_differ(head, other) for other in found):
            found.append(head)
        if len(found) == 2:
            return found[0], found[1]
    pytest.skip("no two heads in assets/examples or the maintainers' data: faces were NOT tested on pictures of heads")


def _head(path: Path) -> list[np.ndarray] | None:
    """The first frames of a clip around its face, then back, until there are enough; None without a large face."""
    from syncdiff.faces.mediapipe_backend import MediapipeDetector

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), FRAMES)]
    with MediapipeDetector() as detector:
        seen = detector.detect(frames[0], [], closely=False)
    if not seen or seen[0].size < 60 or len(frames) < 2:
        return None
    half = min(0.9 * seen[0].size, min(frames[0].shape[:2]) / 2)
    x, y = (
        float(np.clip(v, half, limit - half)) for v, limit in zip(seen[0].centre, frames[0].shape[1::-1], strict=True)
    )
    square = [frame[int(y - half) : int(y + half), int(x - half) : int(x + half)] for frame in frames]
    head = [cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for part in square]
    while len(head) < FRAMES:
        head += head[-2::-1]
    return head[:FRAMES]


def _differ(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return float(np.abs(a[0].mean((0, 1)) - b[0].mean((0, 1))).max()) > 12


def background(seed: int = 0, height: int = 720, width: int = 1280) -> np.ndarray:
    """Soft coloured spots: uint8 [height, width, 3]. Other seeds look like another scene."""
    spots = np.random.default_rng(seed).integers(40, 200, (6, 10, 3)).astype(np.uint8)
    return cv2.resize(spots, (width, height), interpolation=cv2.INTER_LINEAR)


def paste_head(image: np.ndarray, head: np.ndarray, x: int, y: int, scale: float) -> None:
    """Put a head's picture into the frame with its upper left corner at x, y; what lies outside is lost."""
    side = round(SIDE * scale)
    part = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = max(0, x), max(0, y)
    right, bottom = min(image.shape[1], x + side), min(image.shape[0], y + side)
    if right > left and bottom > top:
        image[top:bottom, left:right] = part[top - y : bottom - y, left - x : right - x]
