"""LSE-C and LSE-D from the embeddings of a video and its sound."""

from __future__ import annotations

import numpy as np

from syncdiff.sync.scoring import WINDOW, Scores, shifted_distances, summary

ADDED = 1e-6  # to every difference, as torch's pairwise_distance does


def lse(video: np.ndarray, audio: np.ndarray, name: str) -> Scores:
    """Embeddings [T-4,1024] of T frames and [N // 640 - 5, 1024] of their sound -> confidence LSE-C, distance LSE-D.

    Beyond the ends the sound counts as zeros, as in the original."""
    W = min(len(video) - 1, len(audio))
    if W < 1:
        return Scores(name, reason=f"not scorable: at least {WINDOW + 1} frames with their sound are needed")
    return summary(name, shifted_distances(video[:W], audio[:W], beyond=0.0, added=ADDED))
