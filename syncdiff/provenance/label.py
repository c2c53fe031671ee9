"""The visible label: a small plate in the upper left corner, where neither subtitles nor a player's buttons lie.

The plate is opaque, so it reads on light and dark, costs next to nothing (one Patch serves all frames), and can be
found again in the pixels of a copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np

from syncdiff.media import Patch

TEXT = "Lips redrawn by AI"
PLATE, INK = 28, 235  # grey levels
SHARE, LEAST = 0.03, 11.0  # of the frame's shorter side; px: the size of the type
ALIKE = 0.6  # correlation with the label from which on it counts as seen; other pictures stay below 0.35 (tests)
SCALES = (1.0, 2.0, 1.5, 4 / 3, 3.0, 4.0, 0.75, 0.5)  # how large the labelled original may have been


@lru_cache(32)
def label(width: int, height: int) -> Patch | None:
    """The label for frames of this size, px; None where a frame is too small to hold it."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(LEAST, SHARE * min(width, height))
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(TEXT)
    pad = 0.45 * size
    w, h = (2 * round((side + 2 * pad) / 2) for side in (right - left, bottom - top))
    x = y = 2 * round(0.6 * size / 2)  # even: the colour of 4:2:0 frames lies in blocks of two
    if x + w > width or y + h > height / 4:
        return None
    plate = Image.new("L", (w, h), PLATE)
    ImageDraw.Draw(plate).text((w / 2, h / 2), TEXT, fill=INK, font=font, anchor="mm")
    return Patch(y, x, np.repeat(np.asarray(plate)[..., None], 3, axis=2))


def sees_label(images: Iterable[np.ndarray]) -> float:
    """Frames [H, W, 3] uint8 of one video -> correlation -1..1 of their upper left corner with our label."""
    corner, width, height = _corner(images)
    best = -1.0
    for scale in SCALES if width else ():
        patch = label(round(width * scale), round(height * scale))
        if patch is None:
            continue
        w, h = (round(side / scale) for side in patch.rgb.shape[1::-1])
        plate = cv2.resize(patch.rgb[..., 0], (w, h), interpolation=cv2.INTER_AREA)
        y, x, slack = round(patch.y / scale), round(patch.x / scale), 3
        part = corner[max(0, y - slack) : y + h + slack, max(0, x - slack) : x + w + slack]
        if part.shape[0] >= h and part.shape[1] >= w and part.std() > 1:
            best = max(best, float(cv2.matchTemplate(part, plate, cv2.TM_CCOEFF_NORMED).max()))
    return best


def _corner(images: Iterable[np.ndarray]) -> tuple[np.ndarray, int, int]:
    """The mean of the frames' upper left corner, grey uint8: what moves there fades, the label stays."""
    total, count, width, height = 0.0, 0, 0, 0
    for image in images:
        height, width = image.shape[:2]
        total = total + cv2.cvtColor(image[: height // 3], cv2.COLOR_RGB2GRAY).astype(np.float32)
        count += 1
    return np.asarray(total / max(1, count)).astype(np.uint8), width, height
