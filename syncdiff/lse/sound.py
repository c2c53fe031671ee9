"""Samples -> MFCC as python_speech_features makes them -> SyncNet's embeddings."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from syncdiff.avhubert import HOP, N_FFT, PREEMPHASIS, filterbank
from syncdiff.avhubert import WINDOW as SOUND_WINDOW
from syncdiff.lse.network import SyncNet
from syncdiff.syncnet import FRAME_SAMPLES, WINDOW

CEPSTRA, LIFTER = 13, 22
COLUMNS_PER_FRAME = 4  # MFCC columns, of 10 ms
COLUMNS = 20  # of one window
PIECE_ROWS = 6_000  # sound windows transformed at once: a minute
PIECE = 160  # windows embedded at once


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Samples [N] at 16 kHz, -1..1 -> [T100,13] float64 as python_speech_features.mfcc gives for them as int16.

    26 bands, cepstral coefficients lifted by 22, the first replaced by the log of the energy; T100 = 1 + ceil((N - 400)
    / 160), the last window filled with zeros."""
    signal = (torch.as_tensor(samples, dtype=torch.float32) * 32_768).round().clamp(-32_768, 32_767).double()
    signal[1:] -= PREEMPHASIS * signal[:-1].clone()
    rows = 1 + max(0, -(-(len(signal) - SOUND_WINDOW) // HOP))
    signal = nn.functional.pad(signal, (0, (rows - 1) * HOP + SOUND_WINDOW - len(signal)))
    n = torch.arange(CEPSTRA, dtype=torch.float64)
    bands = filterbank()
    places = (torch.arange(len(bands), dtype=torch.float64) + 0.5) / len(bands)
    cosines = torch.cos(torch.pi * n[:, None] * places) * (2 / len(bands)) ** 0.5  # the DCT-II that keeps lengths
    lift = 1 + LIFTER / 2 * torch.sin(torch.pi * n / LIFTER)
    least = torch.finfo(torch.float64).eps
    found = []
    for part in signal.unfold(0, SOUND_WINDOW, HOP).split(PIECE_ROWS):
        power = torch.fft.rfft(part, N_FFT).abs() ** 2 / N_FFT
        in_bands, energy = power @ bands.T, power.sum(1)
        cepstra = torch.where(in_bands == 0, least, in_bands).log() @ cosines.T * lift
        cepstra[:, 0] = torch.where(energy == 0, least, energy).log()
        found.append(cepstra)
    return torch.cat(found).numpy()


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
        parts.append(net.listen(piece.unfold(1, COLUMNS, COLUMNS_PER_FRAME).transpose(0, 1).unsqueeze(1)).numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 1024), np.float32)
