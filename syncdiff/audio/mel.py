"""Log mel spectrograms: 25 ms windows every 10 ms, 80 bands."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from syncdiff.audio import SAMPLE_RATE

MELS, N_FFT, HOP = 80, 400, 160  # 25 ms windows every 10 ms, as Whisper's and AV-HuBERT's front ends
MEL_RATE = SAMPLE_RATE // HOP  # 100 Hz
PIECE, MARGIN = 2000, 2  # mel frames computed at once, and those around them that their windows reach into

LOUD_FRAMES, LOUD_SHARE = 30, 0.02  # the level is what this many frames reach, or this share of a long recording
# (lowest band that counts, log10 power by which the peak may exceed that level). In 95 % of 270 clean clips of up to
# 30 s the peak is no higher, so nothing changes for them. Band 6 is at 260 Hz, above knocks and wind.
HEADROOM = ((0, 0.95), (6, 1.26))
QUIET = -1.0  # log10 mel power: a recording whose loudest band stays below is taken as silence and not amplified


@cache
def mel_filters() -> Tensor:
    """Filterbank [MELS, N_FFT // 2 + 1]: triangles of area 1 on Slaney's mel scale, linear below 1 kHz, else log."""
    step = np.log(6.4) / 27.0

    def hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(step * (mel - 15)))

    top = 15 + np.log(SAMPLE_RATE / 2 / 1000) / step
    edges = hz(np.linspace(0, top, MELS + 2))  # [M + 2]
    bins = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(triangles.astype(np.float32))


def mel_power(samples: Tensor) -> Tensor:
    """[..., N] at 16 kHz, -1..1 -> log10 mel power [..., M, N // HOP]; frame i is centred on sample i * HOP.

    Computed in overlapping pieces, with the same result: the spectra of five minutes at once would take 150 MiB.
    """
    flat, T = samples.reshape(-1, samples.shape[-1]), samples.shape[-1] // HOP
    parts = []
    for start in range(0, T, PIECE):
        before, stop = min(start, MARGIN), min(start + PIECE, T)
        piece = flat[:, (start - before) * HOP : (stop + MARGIN) * HOP]
        spectrum = torch.stft(piece, N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True)
        power = spectrum[..., before : before + stop - start].abs() ** 2
        parts.append((mel_filters() @ power).clamp_min_(1e-10).log10_())
    return torch.cat(parts, -1).reshape(*samples.shape[:-1], MELS, -1)


def log_mel(samples: Tensor) -> Tensor:
    """Log mel power [..., M, T100] relative to the recording's level, scaled so that 80 dB become -1..1.

    So it does not depend on the recording's gain. Only what stays below QUIET is not amplified: its noise would look
    like speech.
    """
    power = mel_power(samples)
    return power.sub_(_level(power)).clamp_min_(-8.0).div_(4).add_(1).clamp_max_(1.0)


def _level(power: Tensor) -> Tensor:
    """[..., 1, 1] log10 mel power that counts as full scale: the peak, but at most HEADROOM above the level.

    So a thump, a click or a rumble does not make the voice quieter.
    """
    level = power.amax(dim=(-2, -1))
    frames = power.shape[-1]
    rank = min(max(LOUD_FRAMES, round(LOUD_SHARE * frames)), frames)
    for lowest, headroom in HEADROOM:
        sustained = power[..., lowest:, :].amax(-2).kthvalue(frames - rank + 1, dim=-1).values
        level = torch.minimum(level, sustained + headroom)
    return level.clamp_min(QUIET)[..., None, None]
