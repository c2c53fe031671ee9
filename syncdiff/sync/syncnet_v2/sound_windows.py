"""Samples -> MFCC as python_speech_features makes them -> SyncNet's embeddings."""

from __future__ import annotations

import numpy as np
import torch

from syncdiff.audio.mfcc import CEPSTRA, mfcc
from syncdiff.sync.scoring import FRAME_SAMPLES, WINDOW
from syncdiff.sync.syncnet_v2.network import SyncNet

COLUMNS_PER_FRAME = 4  # MFCC columns, of 10 ms
COLUMNS = 20  # of one window
BATCH = 160  # windows embedded at once


@torch.inference_mode()
def embed_audio(net: SyncNet, samples: np.ndarray) -> np.ndarray:
    """Samples [N] at 16 kHz, -1..1 -> embeddings [N // 640 - 5, 1024]: window v is the sound of frames v .. v+4.

    That is one window fewer than fits, as in the original."""
    windows = max(0, len(samples) // FRAME_SAMPLES - WINDOW)
    cepstra = torch.from_numpy(mfcc(samples)).float().T if windows else torch.zeros(CEPSTRA, 0)
    embeddings = []
    for start in range(0, windows, BATCH):
        stop = min(start + BATCH, windows)
        part = cepstra[:, COLUMNS_PER_FRAME * start : COLUMNS_PER_FRAME * (stop - 1) + COLUMNS]
        batch = part.unfold(1, COLUMNS, COLUMNS_PER_FRAME).transpose(0, 1).unsqueeze(1)
        embeddings.append(net.forward_aud(batch.to(net.device)).cpu().numpy())
    return np.concatenate(embeddings) if embeddings else np.zeros((0, 1024), np.float32)
