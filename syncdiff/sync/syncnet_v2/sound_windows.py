"""Samples -> MFCC as python_speech_features makes them -> SyncNet's embeddings."""

from __future__ import annotations

import numpy as np
import torch

from syncdiff.audio.mfcc import CEPSTRA, mfcc
from syncdiff.sync.scoring import FRAME_SAMPLES, WINDOW
from syncdiff.sync.syncnet_v2.network import SyncNet

COLUMNS_PER_FRAME = 4  # MFCC columns, of 10 ms
COLUMNS = 20  # of one window
PIECE = 160  # windows embedded at once


@torch.inference_mode()
def hear(net: SyncNet, samples: np.ndarray) -> np.ndarray:
    """Samples [N] at 16 kHz, -1..1 -> [N // 640 - 5, 1024]: window v is the sound of frames v .. v+4.

    One window fewer than fits: so does the original."""
    windows = max(0, len(samples) // FRAME_SAMPLES - WINDOW)
    cepstra = torch.from_numpy(mfcc(samples)).float().T if windows else torch.zeros(CEPSTRA, 0)
    parts = []
    for start in range(0, windows, PIECE):
        stop = min(start + PIECE, windows)
        piece = cepstra[:, COLUMNS_PER_FRAME * start : COLUMNS_PER_FRAME * (stop - 1) + COLUMNS]
        windows_of = piece.unfold(1, COLUMNS, COLUMNS_PER_FRAME).transpose(0, 1).unsqueeze(1)
        parts.append(net.listen(windows_of.to(net.device)).cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 1024), np.float32)
