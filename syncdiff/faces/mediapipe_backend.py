"""Faces and their 478 landmarks in one picture, by the networks inside mediapipe 0.10.21."""

# mediapipe's protobuf modules and results have no types.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from syncdiff.faces.detection import Detection, appearance_of
from syncdiff.late_imports import load_mediapipe

PRESENCE = 0.5  # score of the landmark network; below it there is no face
_ROI_SCALE = 1.5  # side of the landmark network's square over the longer side of the face's box: FaceMesh's own rule
_TILE_OVERLAP = 0.5

# mediapipe's FaceMesh finds faces with the short-range detector, which misses heads narrower than about an eighth of
# the picture. Here its landmark graph runs alone, in the square that it is given.
_GRAPH = """
input_stream: "image"
input_stream: "roi"
output_stream: "landmarks"
node {
  calculator: "ConstantSidePacketCalculator"
  output_side_packet: "PACKET:with_attention"
  options: { [mediapipe.ConstantSidePacketCalculatorOptions.ext]: { packet { bool_value: true } } }
}
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:roi"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:landmarks"
}
"""
_THRESHOLD = "facelandmarkcpu__ThresholdingCalculator.threshold"

Roi = tuple[float, float, float, float]  # of a square: x and y of the centre, side (px), rotation (radians)


class MediapipeDetector:
    """Detects faces with mediapipe. A context manager: its graphs hold threads."""

    def __init__(self) -> None:
        load_mediapipe()
        from google.protobuf import text_format
        from mediapipe.framework.calculator_pb2 import CalculatorGraphConfig
        from mediapipe.python.solution_base import SolutionBase
        from mediapipe.python.solutions.face_detection import FaceDetection

        graph = text_format.Parse(_GRAPH, CalculatorGraphConfig())
        with ExitStack() as stack, known_log_lines_dropped():
            self._mesh = stack.enter_context(
                SolutionBase(graph_config=graph, calculator_params={_THRESHOLD: PRESENCE}, outputs=["landmarks"])
            )
            self._far = stack.enter_context(FaceDetection(model_selection=1))
            self._near = stack.enter_context(FaceDetection(model_selection=0))
            blank = np.zeros((48, 64, 3), np.uint8)  # the graphs start, and log, at their first picture
            self._landmarks(blank, (32.0, 24.0, 48.0, 0.0))
            for net in (self._far, self._near):
                net.process(blank)
            self._stack = stack.pop_all()

    def __enter__(self) -> MediapipeDetector:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def redetect(self, image: np.ndarray, previous: Detection) -> Detection | None:
        """The face in the square around its landmarks in the previous frame, or None."""
        return self._landmarks(image, _roi_of_points(previous.points))

    def detect(self, image: np.ndarray, known: Sequence[Detection], *, closely: bool) -> list[Detection]:
        """Faces other than the `known` ones; `closely`: down to 16 px from eye corner to eye corner."""
        rois = [*self._rois(image), *(self._rois_in_tiles(image) if closely else ())]
        new = [roi for roi in rois if not any(_covers(detection, roi) for detection in known)]
        first = (self._landmarks(image, roi) for roi in new)
        # Landmarks once more, in the square around the first ones, as for a face that is being followed.
        return [second for detection in first if detection and (second := self.redetect(image, detection))]

    def _landmarks(self, image: np.ndarray, roi: Roi) -> Detection | None:
        from mediapipe.framework.formats.rect_pb2 import NormalizedRect

        x, y, side, angle = roi
        half = 0.5 * side * (abs(np.cos(angle)) + abs(np.sin(angle))) + 2  # of the upright square around the roi
        left, top = max(0, int(x - half)), max(0, int(y - half))
        part = np.ascontiguousarray(image[top : int(y + half) + 1, left : int(x + half) + 1])
        height, width = part.shape[:2]
        if min(height, width) < 8:
            return None
        rect = NormalizedRect(
            x_center=(x - left) / width,
            y_center=(y - top) / height,
            width=side / width,
            height=side / height,
            rotation=angle,
        )
        landmarks = self._mesh.process({"image": part, "roi": rect}).landmarks
        if not landmarks:
            return None
        points = np.array([(p.x, p.y) for p in landmarks.landmark]) * (width, height) + (left, top)
        points = points.astype(np.float32)
        return Detection(points, appearance_of(image, points[[33, 263, 2]]))

    def _rois(self, image: np.ndarray) -> list[Roi]:
        for net in (self._far, self._near):  # the far net misses a few of the faces that fill the picture
            if detections := net.process(image).detections:
                return [_roi_of_detection(d.location_data, image.shape) for d in detections]
        return []

    def _rois_in_tiles(self, image: np.ndarray) -> list[Roi]:
        """From the far net on overlapping squares: it shrinks its input to 192 px, where small faces get lost."""
        height, width = image.shape[:2]
        side = min(height, width)
        rois = []
        for top in _starts(height, side):
            for left in _starts(width, side):
                tile = np.ascontiguousarray(image[top : top + side, left : left + side])
                for detection in self._far.process(tile).detections or ():
                    x, y, size, angle = _roi_of_detection(detection.location_data, tile.shape)
                    if not any(np.hypot(x + left - a, y + top - b) < size / 3 for a, b, *_ in rois):
                        rois.append((x + left, y + top, size, angle))
        return rois


@contextmanager
def face_scorer() -> Iterator[Callable[[np.ndarray], float]]:
    """A function of a picture: the highest score of its faces, 0..1, or 0 where there is none."""
    load_mediapipe()
    from mediapipe.python.solutions.face_detection import FaceDetection

    with ExitStack() as stack:
        with known_log_lines_dropped():
            nets = [stack.enter_context(FaceDetection(model_selection=model)) for model in (1, 0)]
            for net in nets:
                net.process(np.zeros((48, 64, 3), np.uint8))

        def score(image: np.ndarray) -> float:
            detections = (d for net in nets for d in net.process(image).detections or ())
            return max((float(d.score[0]) for d in detections), default=0.0)

        yield score


_LOG_LINE = re.compile(rb"INFO: Created TensorFlow Lite|WARNING: All log messages before absl|[IW]\d{4} [\d:.]+ +\d+ ")


@contextmanager
def known_log_lines_dropped() -> Iterator[None]:
    """Inside, standard error of C++ code is held back; at the end it is passed on without known log lines.

    TensorFlow Lite and absl have no switch for the lines that they write at their start."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as captured:
            os.dup2(captured.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(stderr, 2)
                captured.seek(0)
                for line in captured:
                    if not _LOG_LINE.match(line):
                        os.write(2, line)
    finally:
        os.close(stderr)


def _starts(length: int, side: int) -> list[int]:
    """Where overlapping tiles of `side` px begin along `length` px."""
    count = 1 + int(np.ceil((length - side) / (side * (1 - _TILE_OVERLAP))))
    return np.linspace(0, length - side, count).astype(int).tolist()


def _roi_of_points(points: np.ndarray) -> Roi:
    low, high = points.min(0), points.max(0)
    x, y = (low + high) / 2
    across = points[263] - points[33]
    return float(x), float(y), float(_ROI_SCALE * (high - low).max()), float(np.arctan2(across[1], across[0]))


def _roi_of_detection(location, shape: tuple[int, ...]) -> Roi:
    height, width = shape[:2]
    box, (right_eye, left_eye) = location.relative_bounding_box, location.relative_keypoints[:2]
    angle = np.arctan2((left_eye.y - right_eye.y) * height, (left_eye.x - right_eye.x) * width)
    side = _ROI_SCALE * max(box.width * width, box.height * height)
    return (box.xmin + box.width / 2) * width, (box.ymin + box.height / 2) * height, side, float(angle)


def _covers(detection: Detection, roi: Roi) -> bool:
    return bool(np.hypot(*(detection.centre - roi[:2])) < 0.5 * detection.size)
