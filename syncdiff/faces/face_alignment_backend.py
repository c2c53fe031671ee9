"""Face boxes and 68 landmarks in one picture, by face-alignment (S3FD + 2DFAN4); the paper's mask needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from syncdiff.errors import InputError
from syncdiff.faces.detection import Detection, appearance_of

if TYPE_CHECKING:
    from face_alignment import FaceAlignment
    from face_alignment.detection.sfd.sfd_detector import SFDDetector

WEIGHTS = ("s3fd-619a316812.pth", "2DFAN4-11f355bf06.pth.tar")
DETECTED_AT = 640  # px, longer side that S3FD's input is shrunk to: on a CPU it takes seconds otherwise


class FaceAlignmentDetector:
    """Detects faces with face-alignment, in every frame anew."""

    def __init__(self, alignment: FaceAlignment | None = None) -> None:
        self._alignment = alignment or load_face_alignment()

    def __enter__(self) -> FaceAlignmentDetector:
        return self

    def __exit__(self, *exception: object) -> None:
        del self._alignment

    def redetect(self, image: np.ndarray, previous: Detection) -> Detection | None:  # noqa: ARG002 -- see detect
        """None: the paper's mask needs a box, so every frame is detected anew."""
        return None

    def detect(self, image: np.ndarray, known: Sequence[Detection], *, closely: bool) -> list[Detection]:  # noqa: ARG002
        """All faces in the picture."""
        scale = min(1.0, DETECTED_AT / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        boxes = [np.asarray(box[:4]) / scale for box in self._alignment.face_detector.detect_from_image(small)]
        if not boxes:
            return []
        points = cast(list, self._alignment.get_landmarks_from_image(image, detected_faces=boxes))
        return [_detection(image, box, p) for box, p in zip(boxes, points, strict=True)]


def check_files(needed: Sequence[str] = WEIGHTS) -> None:
    """Raise an InputError that names the missing weights of S3FD and 2DFAN4, and their folder."""
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise InputError(
            f"The face-alignment backend needs {' and '.join(missing)} (from www.adrianbulat.com) in {folder}: put the "
            "files there, or set TORCH_HOME to the folder whose hub/checkpoints has them."
        )


def load_face_alignment() -> FaceAlignment:
    """S3FD and 2DFAN4 on the CPU, from local files. Never downloads: InputError names what is missing."""
    check_files()
    from face_alignment import FaceAlignment, LandmarksType

    return FaceAlignment(LandmarksType.TWO_D, device="cpu", compile=False, flip_input=False, face_detector="sfd")


def load_s3fd(device: str = "cpu") -> SFDDetector:
    """The face detector alone, from its local file. Never downloads: InputError names what is missing."""
    check_files(WEIGHTS[:1])
    import torch
    from face_alignment.detection.sfd.sfd_detector import SFDDetector

    return SFDDetector(device, str(Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS[0]))


def _detection(image: np.ndarray, box: np.ndarray, points: np.ndarray) -> Detection:
    points = np.asarray(points[:, :2], np.float32)
    return Detection(points, appearance_of(image, points[[36, 45, 33]]), box.astype(np.float32))
