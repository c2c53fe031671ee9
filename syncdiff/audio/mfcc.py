"""Filterbank energies and MFCC as the package python_speech_features computes them: of 16-bit samples, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from syncdiff.audio import SAMPLE_RATE

BANDS, N_FFT, WINDOW, HOP = 26, 512, 400, 160  # python_speech_features' defaults at 16 kHz: 25 ms every 10 ms
PREEMPHASIS = 0.97
CEPSTRA, LIFTER = 13, 22
PIECE_WINDOWS = 6_000  # transformed at once: a minute
EPSILON = torch.finfo(torch.float64).eps  # replaces an energy of 0


@cache
def filterbank() -> Tensor:
    """[BANDS, N_FFT // 2 + 1] float64 triangles, evenly spaced in mel = 2595 log10(1 + f / 700), corners on bins."""
    mel = torch.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), BANDS + 2, dtype=torch.float64)
    corners = torch.floor((N_FFT + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE)
    left, middle, right = (corners[i : i + BANDS, None] for i in range(3))
    bins = torch.arange(N_FFT // 2 + 1)
    rise, fall = (bins - left) / (middle - left), (right - bins) / (right - middle)
    return torch.where(bins < middle, rise, fall).clamp_min(0)


def log_filterbank(samples: np.ndarray) -> Tensor:
    """[N] at 16 kHz, -1..1 -> natural log of the band energies [T100, BANDS] float32, as the package's logfbank.

    T100 = 1 + ceil((N - 400) / 160): rectangular windows from sample 0 on, the last one padded with zeros.
    """
    return torch.cat([_log(power @ filterbank().T) for power in _power_spectra(samples)]).float()


def mfcc(samples: np.ndarray) -> np.ndarray:
    """[N] at 16 kHz, -1..1 -> [T100, CEPSTRA] float64, as the package's mfcc: liftered, the first the log energy."""
    n = torch.arange(CEPSTRA, dtype=torch.float64)
    centres = (torch.arange(BANDS, dtype=torch.float64) + 0.5) / BANDS
    dct = torch.cos(torch.pi * n[:, None] * centres) * (2 / BANDS) ** 0.5  # orthonormal DCT-II but for row 0, unused
    lifter = 1 + LIFTER / 2 * torch.sin(torch.pi * n / LIFTER)
    parts = []
    for power in _power_spectra(samples):
        cepstra = _log(power @ filterbank().T) @ dct.T * lifter
        cepstra[:, 0] = _log(power.sum(1))
        parts.append(cepstra)
    return torch.cat(parts).numpy()


def _power_spectra(samples: np.ndarray) -> Iterator[Tensor]:
    """Power spectra of the windows, PIECE_WINDOWS at a time: [n, N_FFT // 2 + 1] float64."""
    signal = (torch.as_tensor(samples, dtype=torch.float64) * 32_768).round().clamp(-32_768, 32_767)
    signal = torch.cat([signal[:1], signal[1:] - PREEMPHASIS * signal[:-1]])
    windows = 1 + max(0, -(-(len(signal) - WINDOW) // HOP))
    signal = F.pad(signal, (0, (windows - 1) * HOP + WINDOW - len(signal)))
    for part in signal.unfold(0, WINDOW, HOP).split(PIECE_WINDOWS):
        yield torch.fft.rfft(part, N_FFT).abs() ** 2 / N_FFT


def _log(energy: Tensor) -> Tensor:
    return torch.where(energy == 0, EPSILON, energy).log()
