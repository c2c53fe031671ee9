"""Filterbank energies and MFCC as python_speech_features computes them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.audio import SAMPLE_RATE

BANDS, N_FFT, WINDOW, HOP = 26, 512, 400, 160  # python_speech_features' defaults at 16 kHz: 25 ms every 10 ms


PREEMPHASIS = 0.97


FILTER_ROWS = 6_000  # filterbank frames computed at once: a minute


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
    """[N] at 16 kHz, -1..1 -> natural log of the band energies [T100, BANDS] float32, T100 = 1 + ceil((N - 400) / 160).

    As python_speech_features.logfbank gives them for 16-bit samples: rectangular windows from sample 0 on, the last one
    filled with zeros; a band without any energy counts as the smallest step of a float64."""
    signal = (torch.as_tensor(samples, dtype=torch.float64) * 32_768).round().clamp(-32_768, 32_767)
    signal = torch.cat([signal[:1], signal[1:] - PREEMPHASIS * signal[:-1]])
    rows = 1 + max(0, -(-(len(signal) - WINDOW) // HOP))
    signal = F.pad(signal, (0, (rows - 1) * HOP + WINDOW - len(signal)))
    energies = []
    for part in signal.unfold(0, WINDOW, HOP).split(FILTER_ROWS):
        power = torch.fft.rfft(part, N_FFT).abs() ** 2 / N_FFT
        energies.append(power @ filterbank().T)
    energy = torch.cat(energies)
    return torch.where(energy == 0, torch.finfo(torch.float64).eps, energy).log().float()


CEPSTRA, LIFTER = 13, 22


PIECE_ROWS = 6_000  # sound windows transformed at once: a minute


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Samples [N] at 16 kHz, -1..1 -> [T100,13] float64 as python_speech_features.mfcc gives for them as int16.

    26 bands, cepstral coefficients lifted by 22, the first replaced by the log of the energy; T100 = 1 + ceil((N - 400)
    / 160), the last window filled with zeros."""
    signal = (torch.as_tensor(samples, dtype=torch.float32) * 32_768).round().clamp(-32_768, 32_767).double()
    signal[1:] -= PREEMPHASIS * signal[:-1].clone()
    rows = 1 + max(0, -(-(len(signal) - WINDOW) // HOP))
    signal = nn.functional.pad(signal, (0, (rows - 1) * HOP + WINDOW - len(signal)))
    n = torch.arange(CEPSTRA, dtype=torch.float64)
    bands = filterbank()
    places = (torch.arange(len(bands), dtype=torch.float64) + 0.5) / len(bands)
    cosines = torch.cos(torch.pi * n[:, None] * places) * (2 / len(bands)) ** 0.5  # the DCT-II that keeps lengths
    lift = 1 + LIFTER / 2 * torch.sin(torch.pi * n / LIFTER)
    least = torch.finfo(torch.float64).eps
    found = []
    for part in signal.unfold(0, WINDOW, HOP).split(PIECE_ROWS):
        power = torch.fft.rfft(part, N_FFT).abs() ** 2 / N_FFT
        in_bands, energy = power @ bands.T, power.sum(1)
        cepstra = torch.where(in_bands == 0, least, in_bands).log() @ cosines.T * lift
        cepstra[:, 0] = torch.where(energy == 0, least, energy).log()
        found.append(cepstra)
    return torch.cat(found).numpy()
