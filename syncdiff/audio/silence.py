"""Pauses in a voice."""

from __future__ import annotations

import numpy as np

from syncdiff.audio import SAMPLE_RATE

MIN_PAUSE_SECONDS, SILENCE_DBFS, BELOW_LOUD_DB = 0.3, -55.0, 35.0
BLOCK_RATE = 25  # per second, of the blocks whose level is measured


def pauses(samples: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Pauses of a voice, from and to in seconds.

    A pause is at least MIN_PAUSE_SECONDS long, and either below SILENCE_DBFS or BELOW_LOUD_DB below the 95th
    percentile of the level.

    Args:
        samples: [N] float32 at 16 kHz, -1..1.
    """
    size = SAMPLE_RATE // BLOCK_RATE
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    if not len(blocks):
        return ()
    level = 10 * np.log10(np.einsum("ij,ij->i", blocks, blocks) / size + 1e-12)
    quiet = level < max(SILENCE_DBFS, np.percentile(level, 95) - BELOW_LOUD_DB)
    edges = (np.flatnonzero(np.diff(quiet, prepend=False, append=False)) / BLOCK_RATE).tolist()
    spans = zip(edges[::2], edges[1::2], strict=True)
    return tuple((start, end) for start, end in spans if end - start >= MIN_PAUSE_SECONDS)
