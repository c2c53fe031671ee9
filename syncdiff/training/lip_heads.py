"""Small networks that forecast people's lips from the teacher's states.

They are trained on the few filmed people, whose weights do not depend on the length of their films, and forecast the
lips of every other voice for `distill`. On strangers, the mean of several is better than one, and recurrent heads are
better than convolutions or self-attention; the mixture is best at the mouth's width too (docs/training-log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.devices import best_device
from syncdiff.geometry.mouth_shape import SHAPE

WINDOW, BATCH = 64, 32  # frames of a training window, windows of an update
NOISE, DROPOUT, WIDTH = 0.5, 0.3, 64
KERNELS = (5, 5, 3)  # frames: the convolutional head's receptive field is 11
DISTANCE_WEIGHTS = torch.tensor((2.0, 0.5, 0.5, 1.0, 0.5)) / 4.5  # [SHAPE] in the losses: the gap most, then the width


@dataclass(frozen=True)
class LipTrack:
    """One filmed clip at 25 frames a second."""

    states: np.ndarray  # [T, D] float32, see per_frame()
    lips: np.ndarray  # [T, SHAPE] float32 in the speaker's units
    valid: np.ndarray  # [T] bool: where the face was found
    person: str


class ConvHead(nn.Module):
    """[B, T, D] -> [B, T, SHAPE]: three convolutions over time."""

    def __init__(self, states: int) -> None:
        super().__init__()
        first, second, third = KERNELS
        self.layers = nn.Sequential(
            nn.Conv1d(states, WIDTH, first, padding=first // 2), nn.GELU(), nn.Dropout(DROPOUT),
            nn.Conv1d(WIDTH, WIDTH, second, padding=second // 2), nn.GELU(), nn.Dropout(DROPOUT),
            nn.Conv1d(WIDTH, SHAPE, third, padding=third // 2),
        )  # fmt: skip

    def forward(self, states: Tensor) -> Tensor:
        return self.layers(states.transpose(1, 2)).transpose(1, 2)


class RecurrentHead(nn.Module):
    """[B, T, D] -> [B, T, SHAPE]: a gated recurrent unit over time in both directions."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.enter, self.dropout = nn.Linear(states, WIDTH), nn.Dropout(DROPOUT)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.leave = nn.Linear(2 * WIDTH, SHAPE)

    def forward(self, states: Tensor) -> Tensor:
        hidden = self.dropout(F.gelu(self.enter(states)))
        return self.leave(self.dropout(self.gru(hidden)[0]))


HEADS = (RecurrentHead, ConvHead, RecurrentHead, ConvHead, RecurrentHead)  # an ensemble: their mean is the forecast


def per_frame(states: np.ndarray, frames: int) -> np.ndarray:
    """States [T50, D] -> [frames, D] float32: the mean of the two states of every 25 Hz frame."""
    first = np.clip(2 * np.arange(frames), 0, len(states) - 1)
    return (states[first].astype(np.float32) + states[np.minimum(first + 1, len(states) - 1)]) / 2


def correlation_loss(forecast: Tensor, lips: Tensor, weight: Tensor) -> Tensor:
    """1 - r over time of every distance: [B, T, SHAPE] twice, [B, T] -> [B, SHAPE]; about 1 for a still series."""
    share = (weight / weight.sum(1, keepdim=True).clamp_min(1))[..., None]
    a, b = (x - (x * share).sum(1, keepdim=True) for x in (forecast, lips))
    covariance, var_a, var_b = ((x * y * share).sum(1) for x, y in ((a, b), (a, a), (b, b)))
    return 1 - covariance / (var_a * var_b + 1e-4).sqrt()


def fit_head(
    kind: type[nn.Module],
    tracks: Sequence[LipTrack],
    weight: dict[str, float],
    seed: int = 0,
    steps: int = 500,
    lr: float = 2e-3,
) -> nn.Module:
    """A head trained with smooth L1 and correlation on windows of people drawn by `weight`, on the GPU if any."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    size = tracks[0].states.shape[1]
    device = best_device()
    head, distance_weights = kind(size).to(device), DISTANCE_WEIGHTS.to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr, weight_decay=0.05)
    people = list(dict.fromkeys(track.person for track in tracks))
    clips = {who: [track for track in tracks if track.person == who] for who in people}
    chance = np.array([weight[who] for who in people]) / sum(weight[who] for who in people)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 30) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        states, lips = np.zeros((BATCH, WINDOW, size), np.float32), np.zeros((BATCH, WINDOW, SHAPE), np.float32)
        valid = np.zeros((BATCH, WINDOW), np.float32)
        for row, k in enumerate(rng.choice(len(people), BATCH, p=chance)):
            own = clips[people[k]]
            length = np.array([len(track.lips) for track in own])
            track = own[int(rng.choice(len(own), p=length / length.sum()))]
            start = int(rng.integers(0, max(1, len(track.lips) - WINDOW + 1)))
            part = slice(start, start + WINDOW)
            n = len(track.lips[part])
            states[row, :n], lips[row, :n], valid[row, :n] = track.states[part], track.lips[part], track.valid[part]
        x, target, mask = (torch.from_numpy(a).to(device) for a in (states, lips, valid))
        predicted = head(x + NOISE * torch.randn_like(x))
        error = F.smooth_l1_loss(predicted, target, reduction="none", beta=0.5) @ distance_weights
        loss = (error * mask).sum() / mask.sum() + (correlation_loss(predicted, target, mask) @ distance_weights).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


@torch.inference_mode()
def forecast(heads: Sequence[nn.Module], states: np.ndarray) -> np.ndarray:
    """States [T, D] of per_frame() -> the mean of the heads' forecasts [T, SHAPE] float32."""
    x = torch.from_numpy(states)[None].to(next(heads[0].parameters()).device)
    return torch.stack([head(x)[0] for head in heads]).mean(0).cpu().numpy()
