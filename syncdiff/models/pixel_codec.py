"""Pixel codec: window pixels to latents and back, by space-to-depth of 4. Exact, without weights.

The 80 x 96 px window of a crop becomes 20 x 24 positions of 48 numbers; `decode(encode(x)) == x` for uint8 pixels.
Compared with a learned latent this costs no decoder, loses nothing, and leaves 16 times fewer positions than pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from syncdiff.geometry.crops import WINDOW, mouth_mask

FACTOR = 4
CHANNELS = 3 * FACTOR**2
LATENT_SHAPE = CHANNELS, (WINDOW[0].stop - WINDOW[0].start) // FACTOR, (WINDOW[1].stop - WINDOW[1].start) // FACTOR


def encode(pixels: np.ndarray | Tensor) -> Tensor:
    """Window pixels uint8 [B, 80, 96, 3] -> float32 [B, 48, 20, 24] in -1..1."""
    x = torch.as_tensor(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.pixel_unshuffle(x, FACTOR)


def decode(latents: Tensor) -> np.ndarray:
    """Float [B, 48, 20, 24] -> window pixels uint8 [B, 80, 96, 3]; values beyond -1..1 are clipped."""
    x = F.pixel_shuffle(latents.float(), FACTOR)
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def window_mask() -> Tensor:
    """[1, 80, 96] float32, 1 where the frame is hidden from the network (`mouth_mask`)."""
    return torch.from_numpy(mouth_mask()[WINDOW].astype(np.float32))[None]


def spread(weight: np.ndarray | Tensor) -> Tensor:
    """A mask over pixels [B, 80, 96] -> over latents [B, 48, 20, 24], in the layout of `encode`."""
    return F.pixel_unshuffle(torch.as_tensor(weight)[:, None].expand(-1, 3, -1, -1), FACTOR)


def latent_mask() -> Tensor:
    """[1, 48, 20, 24] float32: `window_mask`, spread."""
    return spread(window_mask())
