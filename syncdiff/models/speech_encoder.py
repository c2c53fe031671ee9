"""The compact profile's speech encoder, in place of the paper's AV-HuBERT: sound -> features and forecast lip shapes.

`SpeechEncoder` is convolutional, with a receptive field of about a second to either side: a clip encoded whole or in
pieces gives the same features.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.audio import SAMPLE_RATE
from syncdiff.audio.mel import MEL_RATE, MELS, log_mel
from syncdiff.geometry.mouth_shape import SHAPE

MEL_MEAN, MEL_STD = -0.35, 0.45  # of log_mel over the training voices; unnormalised, the first layers barely learn


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
    """Forecasts lip shapes from speech features, in the speaker's own units (`geometry.mouth_shape`)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(a, b, 7, padding=3) for a, b in pairwise((width, hidden, hidden, SHAPE)))

    def forward(self, features: Tensor) -> Tensor:
        """[B, T50, D] -> [B, T50, SHAPE]; 0 is at rest, 1 as far as the mouth commonly opens."""
        x = self.layers[0](features.transpose(1, 2))
        for layer in self.layers[1:]:
            x = layer(F.gelu(x))
        return x.transpose(1, 2)


class SpeechEncoder(ModelMixin, ConfigMixin):
    """Log mel at 100 Hz -> features at 50 Hz; `lips` forecasts the lip shape from them.

    Args:
        width: D, the features' size and the network's.
        layers: ConvNeXt blocks; each adds `kernel // 2` steps of 20 ms to the receptive field on either side.
        kernel: odd length of the depthwise convolutions.
        hidden: width of the lip forecast's hidden layers.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, width: int = 256, layers: int = 12, kernel: int = 9, hidden: int = 256) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(MELS, width, 3, padding=1), nn.GELU(), nn.Conv1d(width, width, 4, stride=2, padding=1), nn.GELU()
        )
        self.enter = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(_Block(width, kernel) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.lips = LipForecast(width, hidden)

    @property
    def rate(self) -> int:
        """Features per second."""
        return MEL_RATE // 2

    def forward(self, mel: Tensor) -> Tensor:
        """[B, M, T100], as `log_mel` gives it -> [B, T100 // 2, D], layer-normalised."""
        mel = (mel - MEL_MEAN) / MEL_STD
        x = self.enter(self.stem(mel).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def token_window(features: Tensor, times: Tensor, *, tokens: int, rate: int) -> Tensor:
    """The K = `tokens` features around each time, one feature step apart, linearly interpolated: [T, K, D].

    Args:
        features: [T50, D] at `rate` per second; feature i spans the time from i / rate to (i + 1) / rate.
        times: [T] seconds, at any spacing. Beyond the ends the first or the last feature repeats.
    """
    offsets = torch.arange(tokens, dtype=torch.float64) - (tokens - 1) / 2
    position = (times.double()[:, None] * rate - 0.5 + offsets).clamp(0, len(features) - 1)
    low = position.floor().long().clamp(max=max(0, len(features) - 2))
    fraction = (position - low).to(features.dtype)[..., None]
    return features[low] * (1 - fraction) + features[(low + 1).clamp(max=len(features) - 1)] * fraction


@torch.inference_mode()
def encode_speech(encoder: SpeechEncoder, samples: np.ndarray) -> Tensor:
    """[N] float32 at 16 kHz -> features [T50, D] on the CPU. Its pieces overlap by more than the receptive field."""
    piece, overlap = 20 * MEL_RATE, 2 * MEL_RATE
    if len(samples) < SAMPLE_RATE // 2:  # a whole analysis window at the least
        samples = np.pad(samples, (0, SAMPLE_RATE // 2 - len(samples)))
    mel = log_mel(torch.from_numpy(samples))
    parts = []
    for start in range(0, mel.shape[-1], piece):
        before = min(start, overlap)
        padded = mel[None, :, start - before : start + piece + overlap].to(encoder.device, encoder.dtype)
        features = encoder(padded)[0].float().cpu()
        parts.append(features[before // 2 : (before + piece) // 2])
    return torch.cat(parts)


@dataclass(frozen=True)
class SpeechFeatures:
    """Features and lip forecast of one voice, looked up by time."""

    features: Tensor  # [T50, D]
    lips: Tensor  # [T50, SHAPE] forecast lip shapes, in the speaker's units (`geometry.mouth_shape`)
    rate: int  # of both, per second

    def window(self, times: Tensor, tokens: int) -> Tensor:
        """Seconds [T] -> speech tokens [T, K, D] around them."""
        return token_window(self.features, times, tokens=tokens, rate=self.rate)

    def lips_at(self, times: Tensor) -> Tensor:
        """Seconds [T] -> forecast lip shapes [T, SHAPE]."""
        return token_window(self.lips, times, tokens=1, rate=self.rate)[:, 0]


@torch.inference_mode()
def speech_features(encoder: SpeechEncoder, samples: np.ndarray) -> SpeechFeatures:
    """[N] float32 at 16 kHz -> SpeechFeatures on the CPU."""
    features = encode_speech(encoder, samples)
    lips = encoder.lips(features[None].to(encoder.device, encoder.dtype))[0]
    return SpeechFeatures(features, lips.float().cpu(), encoder.rate)
