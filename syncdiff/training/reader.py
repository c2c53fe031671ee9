"""The lip reader of the objective: a small network that finds lip landmarks in rough estimates, then stands still.

It learns from the half of the people that the judge does not see.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff import codec
from syncdiff.training.data import LIPS, TalkingFaces


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


def train_reader(faces: TalkingFaces, out: Path, updates: int) -> LipReader:
    """Read OUT/reader.pt, or train: L1 on landmarks; noisy pixels, so that it stays sensible on rough estimates."""
    reader, path = LipReader(), out / "reader.pt"
    if path.exists():
        reader.load_state_dict(torch.load(path, weights_only=True))
    else:
        optimizer = torch.optim.AdamW(reader.parameters(), 1e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, updates)
        for update in range(1, updates + 1):
            batch = faces.batch(64, np.random.default_rng([7, update]))
            x = F.pixel_shuffle(codec.encode(batch.clean), codec.FACTOR)
            x = x + torch.randn_like(x) * torch.rand(len(x), 1, 1, 1) * 0.2
            with torch.autocast("cpu", torch.bfloat16):
                points, _ = reader(x)
            loss = F.l1_loss(points.float(), torch.from_numpy(batch.lips))
            optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
            if update % 100 == 0:
                print(f"lip reader {update}: {loss.item():.3f} px", flush=True)
        torch.save(reader.state_dict(), path)
    return reader.eval().requires_grad_(False)
