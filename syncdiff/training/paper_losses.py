"""The losses of the paper's model: denoising as published, and consistency distillation to few steps."""

from __future__ import annotations

from typing import cast

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.paper.avhubert import AVHubert
from syncdiff.paper.denoiser import DISTILLED_STEPS, TRAIN_STEPS, PaperDenoiser, Priors

GRID = TRAIN_STEPS // DISTILLED_STEPS  # timesteps between neighbours of the consistency loss


class DenoisingLoss(nn.Module):
    """E || eps - M(z_d, d, E_v, E_a) ||^2. All trained networks are its submodules, as accelerate wraps one module."""

    def __init__(self, denoiser: PaperDenoiser, speech: AVHubert, scheduler: DDIMScheduler, tuned: int) -> None:
        super().__init__()
        self.denoiser, self.speech, self.scheduler = denoiser, speech, scheduler
        speech.trainable_layers(tuned)
        denoiser.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def tokens(self, filterbanks: Tensor, lengths: Tensor, frame: Tensor) -> Tensor:
        """Filterbanks [B, T25, 104] -> the target frames' speech tokens [B, K, D]."""
        features = self.speech(filterbanks, lengths)
        K = self.denoiser.config["tokens"]
        near = frame[:, None] + torch.arange(K, device=frame.device) - (K - 1) // 2
        near = near.clamp_min(0).minimum(lengths[:, None] - 1)
        return features[torch.arange(len(frame), device=frame.device)[:, None], near]

    def forward(
        self,
        clean: Tensor,
        masked: Tensor,
        identity: Tensor,
        pose: Tensor,
        filterbanks: Tensor,
        lengths: Tensor,
        frame: Tensor,
        noise: Tensor,
        timestep: Tensor,
    ) -> Tensor:
        """The loss [] of an encoded batch of `PaperRows`, which documents the shapes."""
        priors = Priors(masked, identity, pose, self.tokens(filterbanks, lengths, frame))
        noisy = self.scheduler.add_noise(clean, noise, cast(torch.IntTensor, timestep))
        return self.loss(noisy, noise, timestep, priors)

    def loss(self, noisy: Tensor, noise: Tensor, timestep: Tensor, priors: Priors) -> Tensor:
        """Mean squared error of the noise [B, 3, h, w] that is in `noisy`."""
        return F.mse_loss(self.denoiser(noisy, timestep, priors).float(), noise)


class ConsistencyLoss(DenoisingLoss):
    """Consistency distillation (Song et al. 2023) between neighbours of a grid of 50 timesteps (Luo et al. 2023).

    The student's clean estimate at a timestep is pulled towards its own estimate at the timestep before, to which one
    DDIM step of the teacher leads. The target has no gradient and no moving average (Song and Dhariwal 2024). At zero
    loss the student's single step equals the teacher's 50. With more steps, noise is added anew in between
    (`few_step_schedule`): by DDIM's steps, samples with a known spread came out 41 % off after five of them.
    """

    HUBER = 0.001  # c of the pseudo-Huber distance, as in latent consistency models

    def __init__(self, student: PaperDenoiser, speech: AVHubert, scheduler: DDIMScheduler, teacher: nn.Module) -> None:
        super().__init__(student, speech, scheduler, tuned=0)
        self._teacher = (teacher.requires_grad_(False).eval(),)  # in a tuple: neither trained nor saved

    def train(self, mode: bool = True) -> ConsistencyLoss:
        """The frozen speech encoder stays as it is in use: no dropout, no layer left out."""
        super().train(mode)
        self.speech.eval()
        return self

    def forward(self, clean: Tensor, noise: Tensor, timestep: Tensor, **batch: Tensor) -> Tensor:
        """As `DenoisingLoss`, timesteps [B] moved to the grid."""
        at_grid = timestep // GRID * GRID + GRID - 1
        return super().forward(clean=clean, noise=noise, timestep=at_grid, **batch)

    def loss(self, noisy: Tensor, noise: Tensor, timestep: Tensor, priors: Priors) -> Tensor:  # noqa: ARG002
        """Pseudo-Huber distance of two clean estimates from `noisy` [B, 3, h, w]."""
        estimate = self._clean(noisy, timestep, self.denoiser(noisy, timestep, priors).float())
        with torch.no_grad():
            guess = self._teacher[0](noisy, timestep, priors).float()
            before = self._clean(noisy, timestep, guess)
            alpha = self._alpha(timestep - GRID)
            nearer = alpha.sqrt() * before + (1 - alpha).sqrt() * guess
            earlier = (timestep - GRID).clamp_min(0)
            target = self._clean(nearer, earlier, self.denoiser(nearer, earlier, priors).float())
            target = torch.where((timestep < GRID).view(-1, 1, 1, 1), before, target)  # the path's end
        return ((estimate - target).square() + self.HUBER**2).sqrt().mean() - self.HUBER

    def _alpha(self, timestep: Tensor) -> Tensor:
        """Cumulative alpha [B, 1, 1, 1]; before the first timestep that of the first, as DDIM has it."""
        return self.scheduler.alphas_cumprod.to(timestep.device)[timestep.clamp_min(0)].view(-1, 1, 1, 1)

    def _clean(self, noisy: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        alpha = self._alpha(timestep)
        return (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()
