"""Embeddings of picture and sound -> LSE-C and LSE-D: the mean distances over 31 shifts, their least, their median."""

from __future__ import annotations

import numpy as np

from syncdiff.sync.scoring import REACH, WINDOW, Scores, curve


def distances(seen: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Embeddings of picture and sound, both [W,D] -> [W,31]: from each to the sound -15 .. +15 windows from it.

    Beyond the ends the sound is zeros, and 1e-6 is added to every difference: torch's pairwise_distance does."""
    padded = np.pad(heard, ((REACH, REACH), (0, 0)))
    shifts = [np.linalg.norm(seen - padded[k : k + len(seen)] + np.float32(1e-6), axis=1) for k in range(2 * REACH + 1)]
    return np.stack(shifts, 1)


def lse(seen: np.ndarray, heard: np.ndarray, name: str) -> Scores:
    """Embeddings [T-4,1024] of T frames and [N // 640 - 5, 1024] of their sound -> confidence LSE-C, distance LSE-D."""
    W = min(len(seen) - 1, len(heard))
    if W < 1:
        return Scores(name, reason=f"not scorable: at least {WINDOW + 1} frames with their sound are needed")
    apart = distances(seen[:W], heard[:W])
    mean = apart.mean(0)
    best = int(mean.argmin())
    return Scores(
        name,
        confidence=float(np.median(mean) - mean[best]),
        distance=float(mean[best]),
        offset_frames=REACH - best,
        curve=curve(apart, best),
    )
