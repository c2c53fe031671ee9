"""Face tracks and crops of SyncNet's protocol for real videos: S3FD, linking by IoU, a median over 13 frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from syncdiff.sync.syncnet_v2.face_windows import SIDE

DETECTOR_SCALE = 0.25  # of the frame's size
MIN_SCORE = 0.9
DUPLICATE_IOU = 0.1  # boxes in one frame that share more are one face
SAME_FACE_IOU = 0.5  # boxes in two frames that share more are one face
MAX_MISSED_FRAMES = 25  # frames from one detection of a face to the next, at the most
MIN_TRACK = 100  # detections; one more is needed: clips of 4 s give nothing
MIN_FACE = 100  # px
MEDIAN_FRAMES = 13  # frames of the median filter over place and size
MARGIN = 0.4
GREY = 110  # beyond the picture's edges


@dataclass(frozen=True)
class Track:
    """One face in consecutive frames at 25 fps."""

    first: int
    boxes: np.ndarray  # [n,4] x0 y0 x1 y1, px


def detect(detector: Any, image: np.ndarray) -> list[np.ndarray]:
    """Face boxes [4] in a picture uint8 [H,W,3] RGB, by S3FD on a quarter of its size."""
    small = cv2.resize(image, None, fx=DETECTOR_SCALE, fy=DETECTOR_SCALE)
    found = sorted(detector.detect_from_image(small), key=lambda box: -box[4])
    kept: list[np.ndarray] = []
    for box in (np.asarray(box[:4]) / DETECTOR_SCALE for box in found if box[4] > MIN_SCORE):
        if all(_iou(box, other) <= DUPLICATE_IOU for other in kept):
            kept.append(box)
    return kept


def link_tracks(
    found: Sequence[Sequence[np.ndarray]], cuts: Sequence[int], min_track: int = MIN_TRACK
) -> list[Track]:
    """Tracks within each shot, in the order of their first frames' boxes.

    Args:
        found: the boxes [4] px of every frame, as `detect` gives them.
        cuts: frame numbers with which a new shot begins.
        min_track: detections; a track has more.
    """
    tracks = []
    for start, stop in pairwise([0, *cuts, len(found)]):
        remaining = [list(boxes) for boxes in found[start:stop]]
        while stop - start >= min_track and (detections := _take_track(remaining)):
            frames, boxes = [t for t, _ in detections], np.stack([box for _, box in detections])
            if len(detections) > min_track and (boxes[:, 2:] - boxes[:, :2]).mean(0).max() > MIN_FACE:
                every_frame = np.arange(frames[0], frames[-1] + 1)
                filled = np.stack([np.interp(every_frame, frames, side) for side in boxes.T], 1)
                tracks.append(Track(start + frames[0], filled))
    return tracks


def _take_track(remaining: list[list[np.ndarray]]) -> list[tuple[int, np.ndarray]]:
    """Remove one face's boxes, from the first that remains on, and return them with their frame numbers."""
    detections: list[tuple[int, np.ndarray]] = []
    for t, boxes in enumerate(remaining):
        if detections and t - detections[-1][0] > MAX_MISSED_FRAMES:
            break
        for i, box in enumerate(boxes):
            if not detections or _iou(box, detections[-1][1]) > SAME_FACE_IOU:
                detections.append((t, boxes.pop(i)))
                break
    return detections


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = max(0.0, width) * max(0.0, height)
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


def smoothed_boxes(track: Track) -> np.ndarray:
    """[n,3]: centre x, y and half the longer side of its boxes, px, each by a median over 13 frames.

    The ends are padded with zeros, as by scipy's medfilt: the first frame gets the least of the first seven."""
    lower, upper = track.boxes[:, :2], track.boxes[:, 2:]
    boxes = np.concatenate([(lower + upper) / 2, (upper - lower).max(1, keepdims=True) / 2], 1)
    padded = np.pad(boxes, ((MEDIAN_FRAMES // 2, MEDIAN_FRAMES // 2), (0, 0)))
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, MEDIAN_FRAMES, 0), -1)


def crop(image: np.ndarray, x: float, y: float, s: float) -> np.ndarray:
    """SyncNet's crop of the face: rows y-s .. y+1.8s, columns x -+ 1.4s, grey beyond the picture; [224,224,3]."""
    edge = int(s * (1 + 2 * MARGIN))
    around = cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
    x, y = x + edge, y + edge
    rows = slice(int(y - s), int(y + s * (1 + 2 * MARGIN)))
    face = around[rows, int(x - s * (1 + MARGIN)) : int(x + s * (1 + MARGIN))]
    return cv2.resize(face, (SIDE, SIDE))
