"""Speech -> features per video frame. Knows nothing of pictures.

`SpeechEncoder` stands where AV-HuBERT stands in the paper: sound goes in, a window of tokens per video frame comes out.
It is convolutional with a reach of about half a second to either side, so a clip may be encoded whole or in pieces with
the same result, and no 30-second window ever ends in the middle of a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.lips import SHAPE

SAMPLE_RATE = 16_000
MELS, N_FFT, HOP = 80, 400, 160  # 25 ms windows every 10 ms, as Whisper's and AV-HuBERT's front ends
MEL_RATE = SAMPLE_RATE // HOP  # 100 Hz
MEL_MEAN, MEL_STD = -0.35, 0.45  # of log_mel over the training voices: without this the first layers barely learn
PIECE, MARGIN = 2000, 2  # mel frames computed at once, and those around them that their windows reach into
PAUSE, SILENT, HUSHED = 0.3, -55.0, 35.0  # s; dB of full scale; dB below the louder moments: see pauses()
QUIET = -1.0  # log10 mel power: a recording whose loudest band stays below is taken as silence and not turned up


@cache
def mel_filters() -> Tensor:
    """[MELS, N_FFT // 2 + 1] triangles on Slaney's mel scale (linear below 1 kHz, logarithmic above), area 1."""
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

    Computed in overlapping pieces, which do not show: the spectra of five minutes at once would take 150 MiB.
    """
    flat, T = samples.reshape(-1, samples.shape[-1]), samples.shape[-1] // HOP
    parts = []
    for start in range(0, T, PIECE):
        before, stop = min(start, MARGIN), min(start + PIECE, T)
        heard = flat[:, (start - before) * HOP : (stop + MARGIN) * HOP]
        spectrum = torch.stft(heard, N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True)
        power = spectrum[..., before : before + stop - start].abs() ** 2
        parts.append((mel_filters() @ power).clamp_min_(1e-10).log10_())
    return torch.cat(parts, -1).reshape(*samples.shape[:-1], MELS, -1)


def log_mel(samples: Tensor) -> Tensor:
    """Log mel power [..., M, T100] relative to the recording's loudest band, 80 dB deep, in -1..1: gain is no matter.

    Silence stays at the floor: a recording never louder than QUIET is not turned up until its noise looks like speech.
    """
    power = mel_power(samples)
    loudest = power.amax(dim=(-2, -1), keepdim=True).clamp_min(QUIET)
    return power.sub_(loudest).clamp_min_(-8.0).div_(4).add_(1)


class _Block(nn.Module):
    """ConvNeXt block over time: depthwise convolution, then a two-layer perceptron, with a learned residual scale."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.2))

    def forward(self, x: Tensor) -> Tensor:  # [B, T, D]
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.shrink(F.gelu(self.expand(self.norm(y))))


class LipForecast(nn.Module):
    """Features [B, T50, D] -> the lip shape they will be spoken with [B, T50, SHAPE], in the talker's own units.

    What faces do with the same sound differs between talkers, real and synthetic, so the hidden layer is shifted by the
    style of one kind of talker. Style 0 is people.
    """

    def __init__(self, width: int, styles: int = 3, hidden: int = 128, kernel: int = 7) -> None:
        super().__init__()
        self.enter = nn.Conv1d(width, hidden, kernel, padding=kernel // 2)
        self.style = nn.Embedding(styles, hidden)
        self.leave = nn.Conv1d(hidden, SHAPE, kernel, padding=kernel // 2)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        x = self.enter(features.transpose(1, 2)) + self.style(style)[..., None]
        return self.leave(F.gelu(x)).transpose(1, 2)


class SpeechEncoder(ModelMixin, ConfigMixin):
    """Log mel [B, M, T100] -> features [B, T100 // 2, D] at 50 Hz, layer-normalised; `lips` forecasts the mouth.

    Args:
        width: D, the features' size and the network's.
        layers: ConvNeXt blocks; each adds `kernel // 2` steps of 20 ms to the reach on either side.
        kernel: odd length of the depthwise convolutions.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, width: int = 256, layers: int = 8, kernel: int = 9) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(MELS, width, 3, padding=1), nn.GELU(), nn.Conv1d(width, width, 4, stride=2, padding=1), nn.GELU()
        )
        self.enter = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(_Block(width, kernel) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.lips = LipForecast(width)

    @property
    def rate(self) -> int:
        """Features per second."""
        return MEL_RATE // 2

    def forward(self, mel: Tensor) -> Tensor:
        mel = (mel - MEL_MEAN) / MEL_STD
        x = self.enter(self.stem(mel).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def token_window(features: Tensor, times: Tensor, *, tokens: int, rate: int) -> Tensor:
    """The `tokens` features around each time, one feature step apart, linearly interpolated: [T50, D] -> [T, K, D].

    Args:
        features: [T50, D] at `rate` per second; feature i spans the time from i / rate to (i + 1) / rate.
        times: [T] seconds, any spacing: the model's clock is the video's own. Beyond the ends the edge repeats.
    """
    offsets = torch.arange(tokens, dtype=torch.float64) - (tokens - 1) / 2
    where = (times.double()[:, None] * rate - 0.5 + offsets).clamp(0, len(features) - 1)
    low = where.floor().long().clamp(max=max(0, len(features) - 2))
    mix = (where - low).to(features.dtype)[..., None]
    return features[low] * (1 - mix) + features[(low + 1).clamp(max=len(features) - 1)] * mix


@torch.inference_mode()
def encode_speech(encoder: SpeechEncoder, samples: np.ndarray) -> Tensor:
    """[N] float32 at 16 kHz -> features [T50, D] on the CPU, in pieces that overlap by more than its reach."""
    piece, overlap = 20 * MEL_RATE, 2 * MEL_RATE
    if len(samples) < SAMPLE_RATE // 2:  # a whole analysis window at the least
        samples = np.pad(samples, (0, SAMPLE_RATE // 2 - len(samples)))
    mel = log_mel(torch.from_numpy(samples))
    parts = []
    for start in range(0, mel.shape[-1], piece):
        before = min(start, overlap)
        heard = mel[None, :, start - before : start + piece + overlap].to(encoder.device, encoder.dtype)
        features = encoder(heard)[0].float().cpu()
        parts.append(features[before // 2 : (before + piece) // 2])
    return torch.cat(parts)


@dataclass(frozen=True)
class Heard:
    """A voice as the network hears it, looked up by time."""

    features: Tensor  # [T50, D]
    lips: Tensor  # [T50, SHAPE] forecast of the lips, in a talker's units (`syncdiff.lips`)
    rate: int  # of both, per second

    def window(self, times: Tensor, tokens: int) -> Tensor:
        """Seconds [T] -> speech tokens [T, K, D] around them."""
        return token_window(self.features, times, tokens=tokens, rate=self.rate)

    def lips_at(self, times: Tensor) -> Tensor:
        """Seconds [T] -> [T, SHAPE]."""
        return token_window(self.lips, times, tokens=1, rate=self.rate)[:, 0]


@torch.inference_mode()
def listen(encoder: SpeechEncoder, samples: np.ndarray) -> Heard:
    """[N] float32 at 16 kHz -> everything that drawing needs of it, on the CPU."""
    features = encode_speech(encoder, samples)
    people = torch.zeros(1, dtype=torch.long, device=encoder.device)
    lips = encoder.lips(features[None].to(encoder.device, encoder.dtype), people)[0]
    return Heard(features, lips.float().cpu(), encoder.rate)


def pauses(samples: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Where [N] float32 at 16 kHz is silent, [(start, end)] s: PAUSE at the least, far below its own louder moments."""
    span = SAMPLE_RATE // 25
    parts = samples[: len(samples) // span * span].reshape(-1, span)
    level = 10 * np.log10(np.einsum("ij,ij->i", parts, parts) / span + 1e-12)
    quiet = level < max(SILENT, np.percentile(level, 95) - HUSHED) if len(level) else np.zeros(0, bool)
    edges = np.flatnonzero(np.diff(quiet, prepend=False, append=False))
    spans = ((a / 25, b / 25) for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    return tuple((start, end) for start, end in spans if end - start >= PAUSE)
