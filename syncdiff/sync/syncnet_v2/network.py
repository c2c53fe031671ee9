"""SyncNet v2 (Chung and Zisserman 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SyncNet(nn.Module):
    """SyncNet v2 with the layers and key names of the released file: 88 tensors, 13,640,256 floats."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_convolution(nn.Conv2d(1, 64, 3, padding=1)),
            nn.MaxPool2d(1, 1),
            *_convolution(nn.Conv2d(64, 192, 3, padding=1)),
            nn.MaxPool2d(3, (1, 2)),
            *_convolution(nn.Conv2d(192, 384, 3, padding=1)),
            *_convolution(nn.Conv2d(384, 256, 3, padding=1)),
            *_convolution(nn.Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, 2),
            *_convolution(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netcnnlip = nn.Sequential(
            *_convolution(nn.Conv3d(3, 96, (5, 7, 7), (1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_convolution(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_convolution(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_convolution(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_convolution(nn.Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024)) for _ in range(2)
        )

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def forward_lip(self, pictures: Tensor) -> Tensor:
        """[B,3,T,224,224] BGR 0..255 -> [B,T-4,1024]. Only the first layer mixes times, so windows share one pass."""
        features = self.netcnnlip(pictures).flatten(2).transpose(1, 2)
        return self.netfclip(features.flatten(0, 1)).unflatten(0, features.shape[:2])

    def forward_aud(self, cepstra: Tensor) -> Tensor:
        """Windows [B,1,13,20] of MFCC -> [B,1024]."""
        return self.netfcaud(self.netcnnaud(cepstra).flatten(1))


def _convolution(layer: nn.Conv2d | nn.Conv3d) -> tuple[nn.Module, nn.Module, nn.Module]:
    norm = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm3d
    return layer, norm(layer.out_channels), nn.ReLU()
