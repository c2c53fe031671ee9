"""The denoiser's training loss: error of the clean frame, and of lip landmarks read off it.

Squared error of the clean frame, with v-prediction's weight on every timestep, clipped, and more weight around the
lips. Absolute error is added, since squared error alone greyed lips and teeth that the warped reference already shows.
With a landmark network (`training.landmark_net`), the error of 40 lip landmarks in the one-step estimate is added, and
of that network's first feature maps: pixels alone barely notice a mouth that opens by 3 px.
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

MAX_TIMESTEP_WEIGHT = 4.0  # at small noise levels the clean frame is an easy guess
PURE_NOISE = 0.15  # share of the rows that start from pure noise, as sampling does
# Weights of the terms; squared error weighs 1.
ABSOLUTE_WEIGHT = 0.3  # the absolute error equals the squared error 38 grey levels from the truth
LANDMARK_WEIGHT = 0.06  # per window px of landmark error; 0.4 led to patterns that lower this error alone
FEATURE_WEIGHT = 0.05  # the landmark network's first two feature maps: edges of lips and teeth


def pixel_weight() -> Tensor:
    """[1, 48, 20, 24]: 1 in the mouth mask, 3 around the lips, 0.2 outside, where the colour at the seam counts."""
    weight = pixel_codec.window_mask() * 0.8 + 0.2
    rows, columns = (slice(b.start - w.start, b.stop - w.start) for b, w in zip(LIP_BOX, WINDOW, strict=True))
    weight[..., rows, columns] = 3.0
    return pixel_codec.spread(weight)


# Windows [B, 3, 80, 96] in -1..1 -> lip landmarks [B, 40, 2] in window px, and feature maps.
LandmarkReader = Callable[[Tensor], tuple[Tensor, list[Tensor]]]


class Objective:
    """Loss of one batch. Holds the noise schedule that the sampler also uses.

    Args:
        pure_noise: share of the rows that start from pure noise.
    """

    def __init__(
        self, scheduler: DDIMScheduler, reader: LandmarkReader | None = None, pure_noise: float = PURE_NOISE
    ) -> None:
        self.scheduler = copy(scheduler)  # add_noise moves its tables to the batch's device; the sampler's must stay
        self.reader, self.pure_noise = reader, pure_noise
        self.pixel_weight = pixel_weight()

    def __call__(
        self, denoiser: Denoiser, clean: Tensor, condition: Conditioning, pure: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Terms to be summed, already weighted, and the one-step estimate [B, C, h, w].

        Args:
            clean: [B, C, h, w].
            pure: the first so many rows always start from pure noise, so their estimate is what sampling would draw.
        """
        noise = torch.randn_like(clean)
        steps = self.scheduler.config["num_train_timesteps"]
        t = torch.randint(0, steps, (len(clean),), device=clean.device)
        t = torch.where(torch.rand(len(clean), device=clean.device) < self.pure_noise, steps - 1, t)
        t[:pure] = steps - 1
        noisy = self.scheduler.add_noise(clean, noise, t)  # pyright: ignore[reportArgumentType] -- IntTensor is meant as int64
        estimate = denoiser(noisy, t, condition).float()
        alpha = self.scheduler.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
        timestep_weight = (1 / (1 - alpha)).clamp_max(MAX_TIMESTEP_WEIGHT)  # Salimans and Ho 2022, section 4
        error = estimate - clean
        losses = (error**2 + ABSOLUTE_WEIGHT * error.abs()) * (timestep_weight * self.pixel_weight.to(t.device))
        terms = {"pixels": losses.mean()}
        if self.reader is not None:
            with torch.no_grad():
                true_points, true_features = self.reader(F.pixel_shuffle(clean, pixel_codec.FACTOR))
            points, features = self.reader(F.pixel_shuffle(estimate, pixel_codec.FACTOR))
            pairs = zip(features[:2], true_features[:2], strict=True)
            terms["lips"] = LANDMARK_WEIGHT * F.l1_loss(points, true_points)
            terms["look"] = FEATURE_WEIGHT * sum(F.l1_loss(a, b) for a, b in pairs)
        return terms, estimate
