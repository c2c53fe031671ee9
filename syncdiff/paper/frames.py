"""The square that the paper's model generates, and the mask in it.

LRS2 and LRS3 are square films of one face, and there the whole frame is generated (section 4.2). In other videos a
square of one size follows the face.
"""

from __future__ import annotations

import cv2
import numpy as np

from syncdiff.faces import FaceTrack
from syncdiff.geometry.crops import smoothed
from syncdiff.media import Patch

SIDE = 256  # px, section 4.2
SIDE_OVER_FACE = 2.0  # side of the square over the height of the face box; ours: about as LRS2 frames its faces
SMOOTHING = 0.4  # s, standard deviation of the Gaussian over the square's place; ours
FEATHER = 0.04  # of the side, over which a square inside the frame fades into it; ours


def face_boxes(track: FaceTrack) -> np.ndarray:
    """[T, 4] x0 y0 x1 y1, frame px, NaN where missing: S3FD's boxes, else those around the track's points."""
    if track.boxes is not None:
        return track.boxes.astype(np.float64)
    return np.concatenate([track.points.min(1), track.points.max(1)], axis=1).astype(np.float64)


def place_frames(boxes: np.ndarray, times: np.ndarray, width: int, height: int) -> np.ndarray:
    """The square's place in every frame: [T, 2, 3] float32, square px -> frame px; whole pixels, inside the frame.

    A square frame is taken whole. Where the face is missing, the place is interpolated.
    """
    T = len(boxes)
    if width == height:
        return np.tile(_matrix(0, 0, width), (T, 1, 1))
    known = np.flatnonzero(np.isfinite(boxes).all(1))
    side = int(min(width, height, round(SIDE_OVER_FACE * float(np.median(boxes[known, 3] - boxes[known, 1])))))
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    filled = np.stack([np.interp(np.arange(T), known, centres[known, axis]) for axis in (0, 1)], 1)
    corner = smoothed(filled, times, np.zeros(T, int), SMOOTHING) - side / 2  # one run: the square glides over gaps
    corner = np.clip(np.rint(corner), 0, (width - side, height - side)).astype(int)
    return np.stack([_matrix(x, y, side) for x, y in corner])


def _matrix(x: int, y: int, side: int) -> np.ndarray:
    scale = side / SIDE
    return np.array([[scale, 0, x], [0, scale, y]], np.float32)


def _square(to_frame: np.ndarray) -> tuple[int, int, int]:
    """x, y, side in frame px."""
    return round(float(to_frame[0, 2])), round(float(to_frame[1, 2])), round(float(to_frame[0, 0] * SIDE))


def to_square(boxes: np.ndarray, to_frame: np.ndarray) -> np.ndarray:
    """Boxes [T, 4] in frame px -> in px of the squares at `to_frame` [T, 2, 3]."""
    corner, scale = np.tile(to_frame[:, :, 2], 2), to_frame[:, 0, 0, None]
    return ((boxes - corner) / scale).astype(np.float32)


def cut(image: np.ndarray, to_frame: np.ndarray) -> np.ndarray:
    """Frame [H, W, 3] uint8 -> the square [256, 256, 3] uint8."""
    x, y, side = _square(to_frame)
    smaller = cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC
    return cv2.resize(image[y : y + side, x : x + side], (SIDE, SIDE), interpolation=smaller)


def paste_square(image: np.ndarray, square: np.ndarray, to_frame: np.ndarray, weight: float = 1.0) -> Patch:
    """A generated square as a patch of its frame; edges of the square inside the frame fade in.

    Args:
        image: [H, W, 3] uint8, the frame.
        square: [256, 256, 3] uint8.
        to_frame: [2, 3], square px -> frame px.
        weight: 0..1, fades all of it (soft ends of a gap).
    """
    x, y, side = _square(to_frame)
    original = image[y : y + side, x : x + side].astype(np.float32)
    drawn = cv2.resize(square, (side, side), interpolation=cv2.INTER_CUBIC if side > SIDE else cv2.INTER_AREA)
    ramps = []
    for low, limit in ((y, image.shape[0]), (x, image.shape[1])):
        inward = (np.arange(side) + 0.5) / (FEATHER * side)
        before = inward if low > 0 else np.ones(side)
        after = inward[::-1] if low + side < limit else np.ones(side)
        ramps.append(np.minimum(1, np.minimum(before, after)))
    alpha = weight * np.minimum(ramps[0][:, None], ramps[1][None])[..., None]
    return Patch(y=y, x=x, rgb=np.rint(original * (1 - alpha) + drawn * alpha).astype(np.uint8))


def masked(square: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A copy with the lower half of the face box black (section 4.2; the black is DiffTalk's).

    Args:
        box: [4] x0 y0 x1 y1, px of the square.
    """
    x0, y0, x1, y1 = (round(float(v)) for v in box)  # halved as it is: a box may reach beyond the square
    rows, columns = np.clip([(y0 + y1) // 2, y1], 0, SIDE), np.clip([x0, x1], 0, SIDE)
    hidden = square.copy()
    hidden[slice(*rows), slice(*columns)] = 0
    return hidden
