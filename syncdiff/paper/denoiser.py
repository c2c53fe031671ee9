"""The paper's U-Net, its noise schedule, and the autoencoder's latents.

What the paper states is used as stated. Where it is silent, the default is that of DiffTalk, whose scheme it follows
(section 3.4). docs/paper.md lists both, item by item.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
import torch
from diffusers import ConfigMixin, DDIMScheduler, LCMScheduler, ModelMixin, UNet2DConditionModel, VQModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from syncdiff.errors import InputError
from syncdiff.options import FEW_STEPS

TRAIN_STEPS = 1000  # section 4.3
DISTILLED_STEPS = 50  # the timesteps 19, 39, ... 999 that are distilled (Luo et al. 2023)
BETAS = 0.0015, 0.0195  # DiffTalk: first and last; their square roots rise linearly
WIDTHS = 256, 512, 768, 1024  # DiffTalk: model_channels 256 times 1, 2, 3, 4
HEAD = 32  # DiffTalk: channels of an attention head
LATENTS = 3  # section 3.4: 256x256x3 pixels <-> 64x64x3 latents

# VQ-f4 of latent diffusion: the paper says "VQGAN" with its sizes, DiffTalk's configuration says which one. The same
# network, without a gate, is the sub-folder `vqvae` of CompVis/ldm-celebahq-256 (tagged apache-2.0).
VQ_F4_AT = ("CompVis/ldm-celebahq-256", "vqvae")


@dataclass(frozen=True)
class Priors:
    """Conditioning inputs of one denoising step (section 3.3). All float, batch first."""

    masked: Tensor  # [B, 3, h, w] E_m: the frame with the lower half of its face box black
    identity: Tensor  # [B, 3, h, w] E_i: another frame of the same video
    pose: Tensor  # [B, 3 NP, h, w] E_p: the frame before; where NP is more than 1, those before it too, newest first
    speech: Tensor  # [B, K, D] E_a: AV-HuBERT's features of the frame; K is 1

    def to(self, *args, **kwargs) -> Priors:
        """As `Tensor.to`, of all of them."""
        return Priors(**{f.name: getattr(self, f.name).to(*args, **kwargs) for f in fields(self)})

    @classmethod
    def stacked(cls, rows: Sequence[Priors]) -> Priors:
        """One batch of several."""
        return cls(**{f.name: torch.cat([getattr(row, f.name) for row in rows]) for f in fields(cls)})


class PaperDenoiser(ModelMixin, ConfigMixin):
    """Noisy latents [B, 3, h, w], timestep [B], Priors -> the noise in them [B, 3, h, w]. 546.2 M parameters.

    Args:
        widths: channels of the U-Net's levels; all but the first attend.
        layers: residual blocks per level.
        head: channels of an attention head.
        speech_width: D; 768 is AV-HuBERT Base.
        tokens: K, speech features per frame, odd. The paper's is 1, for which cross-attention is a bias, as a softmax
            over one key is 1; more are a window around the frame.
        bottleneck: channels that the 1x1 convolution leaves of a pose frame's latents (section 3.3: 1). 3 leaves them
            as they are, 0 leaves the pose frame out: Table 3's "Prv" and "Rnd".
        identity: whether the identity frame is an input (Table 3: not in "Prv" and "Prv-").
        previous: NP, number of pose frames, each through the same convolution (Table 5: 1, 5 or 10).

    A new network outputs zeros, as DiffTalk's does: the last convolution of the U-Net, of every residual block and of
    every transformer (39 in all) is initialised to zero.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        layers: int = 2,
        head: int = HEAD,
        speech_width: int = 768,
        tokens: int = 1,  # noqa: ARG002 -- kept in the config: the same weights take any number
        bottleneck: int = 1,
        identity: bool = True,
        previous: int = 1,
    ) -> None:
        super().__init__()
        attending = len(widths) - 1
        if 0 < bottleneck < LATENTS:
            self.bottleneck_proj = nn.Conv2d(LATENTS, bottleneck, 1)
        else:
            self.bottleneck_proj = nn.Identity()
        self.unet = UNet2DConditionModel(
            in_channels=(2 + identity) * LATENTS + previous * bottleneck,
            out_channels=LATENTS,
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * attending,
            up_block_types=("CrossAttnUpBlock2D",) * attending + ("UpBlock2D",),
            block_out_channels=tuple(widths),
            layers_per_block=layers,
            attention_head_dim=tuple(width // head for width in widths),  # which diffusers reads as the number of heads  # pyright: ignore[reportArgumentType]
            cross_attention_dim=speech_width,
        )
        for layer in _zero_at_first(self.unet):
            nn.init.zeros_(layer.weight), nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, noisy: Tensor, timestep: Tensor, priors: Priors) -> Tensor:
        """Noisy latents [B, 3, h, w] at timesteps [B] -> the noise in them, [B, 3, h, w]."""
        inputs = [noisy, priors.masked]  # the order of section 3.4, noise first
        if self.config["identity"]:
            inputs.append(priors.identity)
        if self.config["bottleneck"]:
            inputs += [self.bottleneck_proj(frame) for frame in priors.pose.split(LATENTS, dim=1)]
        return self.unet(torch.cat(inputs, dim=1), timestep, priors.speech).sample


def _zero_at_first(unet: UNet2DConditionModel) -> list[nn.Conv2d]:
    """The last layer of every residual branch, and of the whole U-Net."""
    blocks = [part.conv2 for part in unet.modules() if isinstance(part, ResnetBlock2D)]
    transformers = [part.proj_out for part in unet.modules() if isinstance(part, Transformer2DModel)]
    return cast(list[nn.Conv2d], [*blocks, *transformers, unet.conv_out])


def paper_schedule() -> DDIMScheduler:
    """1000 noise levels, and the timesteps of latent diffusion's DDIM sampler.

    Its 200 steps are 996, 991, ... 1, and the last one goes to the first noise level, not to none."""
    return DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=BETAS[0],
        beta_end=BETAS[1],
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        timestep_spacing="leading",
        steps_offset=1,
    )


def few_step_schedule() -> LCMScheduler:
    """The same noise levels for a network distilled to few steps by consistency distillation (Luo et al. 2023)."""
    return LCMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=BETAS[0],
        beta_end=BETAS[1],
        beta_schedule="scaled_linear",
        original_inference_steps=DISTILLED_STEPS,
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
    )


def sampling_schedule(scheduler: DDIMScheduler | LCMScheduler, steps: int) -> DDIMScheduler | LCMScheduler:
    """A copy of the schedule, set to `steps` timesteps. Raises InputError for more than a distilled network has.

    Latent diffusion's spacing ("leading") starts at 1001 - 1000 / steps: for one step at timestep 1, where the noise
    that sampling starts from is none. So fewer than FEW_STEPS are spaced from the last timestep, 999, downwards
    ("trailing", Lin et al. 2024)."""
    if isinstance(scheduler, LCMScheduler):
        if steps > DISTILLED_STEPS:
            raise InputError(f"These weights are distilled to few steps: choose 1 to {DISTILLED_STEPS}, not {steps}.")
        scheduler = copy(scheduler)
    elif steps < FEW_STEPS:
        scheduler = cast(DDIMScheduler, DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing"))
    else:
        scheduler = copy(scheduler)  # it holds the number of steps: two jobs at a time must not share one
    scheduler.set_timesteps(steps)
    return scheduler


def to_latents(vae: VQModel, pixels: np.ndarray | Tensor) -> Tensor:
    """Frames uint8 [B, H, W, 3] -> latents [B, 3, H/4, W/4] before quantisation, on the autoencoder's device."""
    x = torch.as_tensor(pixels).to(vae.device).permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1
    return vae.encode(x).latents.float()


def to_pixels(vae: VQModel, latents: Tensor) -> np.ndarray:
    """Latents [B, 3, h, w] -> frames uint8 [B, 4h, 4w, 3]: quantised to the codebook first, then decoded."""
    x = vae.decode(latents.to(vae.device, vae.dtype)).sample.float()  # pyright: ignore[reportAttributeAccessIssue]
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
