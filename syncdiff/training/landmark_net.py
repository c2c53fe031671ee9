"""The landmark network of the denoiser's losses: lip landmarks of rough estimates of a frame.

Trained on the half of the people that the judge is not trained on, then frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.devices import autocast, best_device
from syncdiff.models import pixel_codec
from syncdiff.training.data import LIPS, FaceBatch, TalkingFaces, load_batches

Net = TypeVar("Net", bound=nn.Module)


class LandmarkNet(nn.Module):
    """Window [B, 3, 80, 96] in -1..1 -> lip landmarks [B, 40, 2] in window px, and the features they were read from."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 128)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for b in widths[1:])
        self.head = nn.Sequential(nn.Linear(128 * 5 * 6, 256), nn.SiLU(), nn.Linear(256, LIPS * 2))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, 3, 80, 96] -> [B, 40, 2], and four layers' features [B, D, h, w], the last of them [B, 128, 5, 6]."""
        features = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.silu(norm(conv(x)))
            features.append(x)
        return self.head(x.flatten(1)).view(-1, LIPS, 2) * 8 + 48, features


def train_or_load(
    net: Net,
    path: Path,
    faces: TalkingFaces,
    loss: Callable[[Tensor, FaceBatch], Tensor],
    updates: int,
    *,
    seed: int,
    rate: float,
    decay: float,
    workers: int,
) -> Net:
    """A small network for the denoiser's losses, frozen: loaded from `path`, or trained now on true frames. It is on
    the GPU where there is one.

    Args:
        loss: of windows [B, 3, 80, 96] with added noise, as in rough estimates, and of the batch they are from.
        rate: learning rate, the highest of a one-cycle schedule.
        workers: processes that make batches: on one core a batch takes half a second.
    """
    net.to(best_device())
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        return net.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, updates)

    batches = load_batches(partial(faces.seeded, 64, seed), range(1, updates + 1), workers)
    for update, batch in enumerate(batches, start=1):
        x = F.pixel_shuffle(pixel_codec.encode(batch.clean), pixel_codec.FACTOR).to(best_device())
        value = loss(x + torch.randn_like(x) * torch.rand(len(x), 1, 1, 1, device=x.device) * 0.2, batch)
        optimizer.zero_grad(), value.backward(), optimizer.step(), schedule.step()
        if update % 100 == 0:
            print(f"{path.stem} {update}: {value.item():.3f}", flush=True)
    torch.save(net.state_dict(), path)
    return net.eval().requires_grad_(False)


def train_landmark_net(faces: TalkingFaces, out: Path, updates: int, workers: int = 0) -> LandmarkNet:
    """The landmark network, trained with L1 on landmarks in window px."""
    net = LandmarkNet()

    def loss(windows: Tensor, batch: FaceBatch) -> Tensor:
        with autocast(windows.device):
            points, _ = net(windows)
        return F.l1_loss(points.float(), torch.from_numpy(batch.landmarks).to(windows.device))

    path = out / "reader.pt"
    return train_or_load(net, path, faces, loss, updates, seed=7, rate=2e-3, decay=0.01, workers=workers)
