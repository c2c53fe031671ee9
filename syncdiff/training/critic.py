"""The critic: a small discriminator of mouths, because a mean of plausible lips and teeth is a soft one.

Squared error draws the mean of what could be there. The critic sees a mouth beside the picture that the network was
given to start from, and learns to tell drawn from filmed, patch by patch (hinge loss, spectral normalisation: Miyato et
al. 2018); the denoiser learns to please it, as in adversarial diffusion distillation (Sauer et al. 2023).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from syncdiff import codec


class Critic(nn.Module):
    """Latents of a frame and of its hint, both [B, C, h, w] -> how filmed each patch looks [B, 1, 10, 12]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 32, 64, 96)
        layers = [spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(widths)]
        self.body = nn.Sequential(*(part for layer in layers for part in (layer, nn.LeakyReLU(0.2))))
        self.head = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, frame: Tensor, hint: Tensor) -> Tensor:
        pair = torch.cat([F.pixel_shuffle(x, codec.FACTOR) for x in (frame, hint)], dim=1)
        return self.head(self.body(pair))


def told_apart(critic: nn.Module, filmed: Tensor, drawn: Tensor, hint: Tensor) -> Tensor:
    """The critic's own loss; the denoiser's is less the critic's mean opinion of what it drew."""
    return F.relu(1 - critic(filmed, hint)).mean() + F.relu(1 + critic(drawn.detach(), hint)).mean()
