"""Embeddings of picture and sound -> LSE-C and LSE-D: the mean distances over 31 shifts, their least, their median."""

from __future__ import annotations

import numpy as np

from syncdiff.sync.scoring import WINDOW, Scores, shifted_distances, summary

ADDED = 1e-6  # to every difference, as torch's pairwise_distance does


def lse(seen: np.ndarray, heard: np.ndarray, name: str) -> Scores:
    """Embeddings [T-4,1024] of T frames and [N // 640 - 5, 1024] of their sound -> confidence LSE-C, distance LSE-D.

    Beyond the ends the sound counts as zeros, as in the original."""
    W = min(len(seen) - 1, len(heard))
    if W < 1:
        return Scores(name, reason=f"not scorable: at least {WINDOW + 1} frames with their sound are needed")
    return summary(name, shifted_distances(seen[:W], heard[:W], beyond=0.0, added=ADDED))
