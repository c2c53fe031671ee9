"""Yaw of a head, from a few landmarks and the shape of a mean head."""

from __future__ import annotations

import numpy as np

# Seven points that speech hardly moves: outer and inner eye corners, nose root, tip and base. Their 3-D places were
# measured on the rendered and filmed heads of the training corpus: FaceMesh's own depth, 2,000 nearly frontal frames,
# Procrustes mean, made symmetric. Unit: outer eye corner to outer eye corner; x right, y down, z away from the camera.
_INDEX = {478: (33, 133, 362, 263, 168, 4, 2), 68: (36, 39, 42, 45, 27, 30, 33)}
_HEAD = np.array([
    (-0.500, 0.000, 0.000), (-0.196, 0.021, -0.056), (0.196, 0.021, -0.056), (0.500, 0.000, 0.000),
    (0.000, -0.017, -0.249), (0.000, 0.428, -0.462), (0.000, 0.552, -0.249),
])  # fmt: skip
_FIT = np.linalg.pinv(_HEAD - _HEAD.mean(0))  # [3, 7]


def yaw_of(points: np.ndarray) -> np.ndarray:
    """Yaw in degrees, [T] float32, of landmarks [T, P, 2] px; > 0 = nose towards the picture's right; NaN stays NaN.

    Scaled orthography (DeMenthon and Davis 1995, POS without its iteration): the least-squares map from the mean head
    to the picture, with its rows made orthonormal, is the head's rotation. That is a turn about the head's own upright
    axis (the yaw), then a nod, then a tilt. The landmark network's own depth is not used.
    """
    points = points[:, list(_INDEX[points.shape[1]])].astype(np.float64)
    yaw = np.full(len(points), np.nan, np.float32)
    present = ~np.isnan(points[:, 0, 0])
    if present.any():
        centred = points[present] - points[present].mean(1, keepdims=True)
        left, _, right = np.linalg.svd(np.einsum("kp,tpc->tck", _FIT, centred), full_matrices=False)
        rows = left @ right  # [T, 2, 3], orthonormal
        forward = np.cross(rows[:, 0], rows[:, 1])
        yaw[present] = np.degrees(np.arctan2(forward[:, 0], forward[:, 2]))
    return yaw
