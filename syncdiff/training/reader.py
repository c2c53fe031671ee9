"""The lip reader of the objective: a small network that finds lip landmarks in rough estimates, then stands still.

It learns from the half of the people that the judge does not see.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.training.data import LIPS


class LipReader(nn.Module):
    """Window [B, 3, 80, 96] in -1..1 -> lip landmarks [B, 40, 2] in window px, and the features they were read from."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 128)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for b in widths[1:])
        self.head = nn.Sequential(nn.Linear(128 * 5 * 6, 256), nn.SiLU(), nn.Linear(256, LIPS * 2))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.silu(norm(conv(x)))
            features.append(x)
        return self.head(x.flatten(1)).view(-1, LIPS, 2) * 8 + 48, features
