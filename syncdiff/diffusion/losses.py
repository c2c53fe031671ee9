"""The denoiser's training loss: error of the clean frame, and of lip landmarks read off it.

Squared error of the clean frame, with v-prediction's weight on every timestep, clipped, and more weight around the
lips; a share of absolute error beside it, since squared error alone greyed lips and teeth that the warped reference
already shows. Where a landmark network is given (`training.landmark_net`), the error of 40 lip landmarks read off the
one-step estimate, and of that network's first feature maps: pixels alone barely notice a mouth that opens by 3 px.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import functional as F

from syncdiff.geometry.crops import LIP_BOX, WINDOW
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser

MAX_WEIGHT = 4.0  # of a timestep: towards no noise the frame is as good as given
PURE_NOISE = 0.15  # share of the rows that start from pure noise, as sampling does
# Weights of the terms; squared error weighs 1.
ABSOLUTE_WEIGHT = 0.3  # absolute error: it weighs as much as squared error 38 grey levels from the truth
LANDMARK_WEIGHT = 0.06  # a window px of landmark error; with 0.4 patterns were drawn that please the reader alone
FEATURE_WEIGHT = 0.05  # the reader's first two feature maps: edges of lips and teeth


def pixel_weight() -> Tensor:
    """[1, 48, 20, 24]: 1 where the model draws, 3 around the lips, 0.2 outside, where the colour at the seam counts."""
    weight = pixel_codec.window_mask() * 0.8 + 0.2
    rows, columns = (slice(b.start - w.start, b.stop - w.start) for b, w in zip(LIP_BOX, WINDOW, strict=True))
    weight[..., rows, columns] = 3.0
    return pixel_codec.spread(weight)


# Window [B, 3, 80, 96] in -1..1 -> lip landmarks [B, 40, 2] in window px, and the feature maps they were read from.
Reader = Callable[[Tensor], tuple[Tensor, list[Tensor]]]


class Objective:
    """Loss of one batch. Holds the noise schedule that the sampler also uses.

    Args:
        pure_noise: share of the rows that start from pure noise.
    """

    def __init__(
        self, scheduler: DDIMScheduler, reader: Reader | None = None, pure_noise: float = PURE_NOISE
    ) -> None:
        self.scheduler = copy(scheduler)  # add_noise moves its tables to the device at hand: not the sampler's
        self.reader, self.pure_noise = reader, pure_noise
        self.pixel_weight = pixel_weight()

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Conditioning, pure: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Terms to be summed, already weighted, and the one-step estimate [B, C, h, w].

        Args:
            clean: [B, C, h, w].
            pure: rows that start from pure noise whatever the dice say: one evaluation draws them whole.
        """
        noise = torch.randn_like(clean)
        steps = self.scheduler.config["num_train_timesteps"]
        t = torch.randint(0, steps, (len(clean),), device=clean.device)
        often = torch.rand(len(clean), device=clean.device) < self.pure_noise
        t = torch.where(often, steps - 1, t)
        t[:pure] = steps - 1
        noisy = self.scheduler.add_noise(clean, noise, t)  # pyright: ignore[reportArgumentType] -- IntTensor is meant as int64
        estimate = denoiser(noisy, t, condition).float()
        alpha = self.scheduler.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
        weight = (1 / (1 - alpha)).clamp_max(MAX_WEIGHT) * self.pixel_weight.to(t.device)  # Salimans and Ho 2022, 4
        error = estimate - clean
        terms = {"pixels": ((error**2 + ABSOLUTE_WEIGHT * error.abs()) * weight).mean()}
        if self.reader is not None:
            with torch.no_grad():
                points, look = self.reader(F.pixel_shuffle(clean, pixel_codec.FACTOR))
            found, seen = self.reader(F.pixel_shuffle(estimate, pixel_codec.FACTOR))
            terms["lips"] = LANDMARK_WEIGHT * F.l1_loss(found, points)
            terms["look"] = FEATURE_WEIGHT * sum(F.l1_loss(a, b) for a, b in zip(seen[:2], look[:2], strict=True))
        return terms, estimate
