"""Measures of a drawn mouth against a filmed one, by landmarks and pixels; no network of this project is used.

Where nothing else is said, crops are uint8 [T, S, S, 3], and landmarks (points) FaceMesh's [T, 478, 2] in crop px.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from syncdiff.geometry.crops import LIP_BOX, WINDOW
from syncdiff.training.prepare import OUTER_LIPS

# Wang et al. 2004: a Gaussian of sigma 1.5 over 11 px.
SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}


def read_lips(crops: np.ndarray) -> np.ndarray:
    """FaceMesh landmarks [T, 478, 2] of crops, read at twice their size; frames without a face repeat the last."""
    larger = (
        cv2.copyMakeBorder(cv2.resize(crop, None, fx=2, fy=2), 96, 32, 64, 64, cv2.BORDER_REPLICATE) for crop in crops
    )
    return (read_landmarks(larger) - (64, 96)) / 2


def read_landmarks(images: Iterable[np.ndarray]) -> np.ndarray:
    """FaceMesh landmarks [T, 478, 2] px of pictures of one face; frames without a face repeat the last."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    rows: list[np.ndarray] = []
    with FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=True) as mesh:
        for image in images:
            faces = mesh.process(image).multi_face_landmarks  # pyright: ignore[reportAttributeAccessIssue]
            if faces:
                rows.append(np.array([(p.x * image.shape[1], p.y * image.shape[0]) for p in faces[0].landmark]))
            else:
                rows.append(rows[-1] if rows else np.full((478, 2), np.nan))
    return np.stack(rows)


def sharpness(crops: np.ndarray) -> float:
    """Root mean energy of the Laplacian in the mouth box."""
    boxes = crops[:, LIP_BOX[0], LIP_BOX[1]]
    return float(np.mean([cv2.Laplacian(cv2.cvtColor(b, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var() for b in boxes]) ** 0.5)


def jitter(points: np.ndarray) -> float:
    """Mean absolute second difference over time of four points of the inner lips, px."""
    return float(np.abs(np.diff(points[:, (13, 14, 78, 308)], 2, axis=0)).mean())


def lip_distance(points: np.ndarray, truth: np.ndarray) -> float:
    """LMD: mean distance of the outer lip landmarks from the truth, px, each mouth taken about its own middle."""
    a, b = (p[:, OUTER_LIPS] - p[:, OUTER_LIPS].mean(1, keepdims=True) for p in (points, truth))
    return float(np.linalg.norm(a - b, axis=-1).mean())


def psnr(drawn: Iterable[np.ndarray], truth: Iterable[np.ndarray]) -> float:
    """dB, the mean over pairs of uint8 pictures of equal size; a pair counts 78 at the most."""
    errors = [np.square(a.astype(np.float32) - b).mean() for a, b in zip(drawn, truth, strict=True)]
    return float((10 * np.log10(255**2 / np.maximum(errors, 1e-3))).mean())


def ssim(drawn: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of the window that the network sees, in grey."""
    grey = ([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in crops[:, *WINDOW]] for crops in (drawn, truth))
    return float(np.mean([structural_similarity(a, b, **SSIM) for a, b in zip(*grey, strict=True)]))


def closure(points: np.ndarray, closed: np.ndarray, reach: float) -> float | None:
    """Share of the bilabials (p, b, m) at which the drawn lips meet; None where there are none.

    Args:
        closed: [T] the lip closing curve, 0..1; a bilabial is a run of frames above 0.7.
        reach: px, the gap that this speaker commonly reaches; lips meet where the gap is under an eighth of it.
    """
    gap = np.linalg.norm(points[:, 13] - points[:, 14], axis=-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], closed > 0.7, [0]])))
    met = [gap[max(0, a - 1) : b + 1].min() < reach / 8 for a, b in edges.reshape(-1, 2)]
    return float(np.mean(met)) if met else None
