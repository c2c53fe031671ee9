"""The visible label: a small plate in the upper left corner, where there are no subtitles and no player controls.

The plate is opaque: it can be read on any background, is the same Patch in all frames, and can be detected in copies.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np

from syncdiff.media import Patch

TEXT = "Lips redrawn by AI"
PLATE, INK = 28, 235  # grey levels
FONT_SHARE, MIN_FONT_PX = 0.03, 11.0  # font size: share of the frame's shorter side, and at least so many px
SEEN_CORRELATION = 0.6  # from this correlation on, the label counts as seen; other pictures stay below 0.35 (tests)
SCALES = (1.0, 2.0, 1.5, 4 / 3, 3.0, 4.0, 0.75, 0.5)  # size of the labelled original over that of a copy
SLACK_PX = 3  # px that the label may be displaced in a copy


@lru_cache(32)
def label(width: int, height: int) -> Patch | None:
    """The label for frames of this size, px; None where a frame is too small to hold it."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(MIN_FONT_PX, FONT_SHARE * min(width, height))
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(TEXT)
    w, h = (2 * round((side + 0.9 * size) / 2) for side in (right - left, bottom - top))
    x = y = 2 * round(0.6 * size / 2)  # even, for the 2x2 chroma blocks of 4:2:0
    if x + w > width or y + h > height / 4:
        return None
    plate = Image.new("L", (w, h), PLATE)
    ImageDraw.Draw(plate).text((w / 2, h / 2), TEXT, fill=INK, font=font, anchor="mm")
    return Patch(y, x, np.repeat(np.asarray(plate)[..., None], 3, axis=2))


def label_likeness(images: Iterable[np.ndarray]) -> float:
    """Frames [H, W, 3] uint8 of one video -> correlation -1..1 of their upper left corner with the label.

    The mean of the frames is compared, in which moving content is blurred and the label is not."""
    greys, height, width = [], 0, 0
    for image in images:
        height, width = image.shape[:2]
        greys.append(cv2.cvtColor(image[: height // 3], cv2.COLOR_RGB2GRAY))
    corner = np.mean(greys, axis=0).astype(np.uint8)
    best = -1.0
    for scale in SCALES:
        patch = label(round(width * scale), round(height * scale))
        if patch is None:
            continue
        w, h = (round(side / scale) for side in patch.rgb.shape[1::-1])
        plate = cv2.resize(patch.rgb[..., 0], (w, h), interpolation=cv2.INTER_AREA)
        y, x = round(patch.y / scale), round(patch.x / scale)
        part = corner[max(0, y - SLACK_PX) : y + h + SLACK_PX, max(0, x - SLACK_PX) : x + w + SLACK_PX]
        if part.shape[0] >= h and part.shape[1] >= w and part.std() > 1:
            best = max(best, float(cv2.matchTemplate(part, plate, cv2.TM_CCOEFF_NORMED).max()))
    return best
