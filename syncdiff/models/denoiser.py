"""The compact denoiser: its inputs, and one evaluation of it.

SyncDiff, section 3.3: the U-Net sees the noisy frame beside three visual priors - the masked frame (pose and
surroundings), a reference frame, and the previous frame through an information bottleneck (a 1x1 convolution), so that
it can keep the motion but not copy the lips - and attends to speech. Two things differ from the paper in the compact
profile: a frame has a window of speech tokens instead of one (with a single key, attention is only a bias), and the
same window, flattened, also joins the time embedding, so that every residual block receives it. So does the lip shape:
measured in training, forecast from the sound in use. The reference frame is warped to that shape (`geometry.warp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from syncdiff.geometry.mouth_shape import SHAPE

MEAN_SHAPE, SHAPE_STD = (3.0, 4.2, 6.5, 32.5, 29.5), 4.0  # px, about, of lip shapes


@dataclass(frozen=True)
class Conditioning:
    """Conditioning inputs for one denoising step. All float, batch first."""

    masked: Tensor  # [B, C, h, w] the frame with its mouth region greyed out
    reference: Tensor  # [B, C, h, w] the person's mouth from other moments, warped to the target shape
    previous: Tensor  # [B, C, h, w] the previous generated frame; zeros where there is none
    speech: Tensor  # [B, K, D] tokens around the frame's time; zeros where unknown
    lip_shapes: Tensor  # [B, 2, SHAPE] crop px: the target shape, and the reference's before it was warped
    blend_mask: Tensor  # [B, C, h, w] 0..1: 1 uses the prediction, 0 keeps the reference

    def to(self, *args, **kwargs) -> Conditioning:
        """As torch.Tensor.to, for every tensor."""
        return Conditioning(**{f.name: getattr(self, f.name).to(*args, **kwargs) for f in fields(self)})


class Denoiser(ModelMixin, ConfigMixin):
    """The compact profile's network (SyncDiff, section 3.3).

    Args:
        channels: C of the codec.
        bottleneck: channels left of the previous frame (paper: 1 of 3); 0 leaves it out, C or more lets it pass whole.
        tokens, speech_width: K and D of the speech window.
        widths: channels of the U-Net's levels; only the lowest attends.
        layers: residual blocks per level.
        residual: the network predicts the difference to the reference, so skin, teeth and collar are there from the
            first update on. The paper's network predicts the frame itself.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        channels: int = 48,
        bottleneck: int = 4,
        tokens: int = 8,
        speech_width: int = 256,
        widths: Sequence[int] = (64, 128, 256),
        layers: int = 1,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.bottleneck_proj = nn.Conv2d(channels, bottleneck, 1) if bottleneck < channels else nn.Identity()
        plain = len(widths) - 1  # levels without attention
        self.unet = UNet2DConditionModel(
            in_channels=3 * channels + min(bottleneck, channels),
            out_channels=channels,
            down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * plain,
            block_out_channels=tuple(widths),
            layers_per_block=layers,
            norm_num_groups=16,
            attention_head_dim=32,
            cross_attention_dim=speech_width,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="projection",
            projection_class_embeddings_input_dim=speech_width,
        )
        if residual:
            for parameter in self.unet.conv_out.parameters():
                nn.init.zeros_(parameter)
        self.pos_embed = nn.Parameter(torch.randn(tokens, speech_width) * 0.02)
        self.speech_proj = nn.Sequential(nn.Linear(tokens * speech_width, speech_width), nn.SiLU())
        self.lip_shape_proj = nn.Sequential(
            nn.Linear(2 * SHAPE, speech_width), nn.SiLU(), nn.Linear(speech_width, speech_width)
        )

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Conditioning) -> Tensor:
        """Noisy latents [B, C, h, w] and timesteps [B] -> the clean latents [B, C, h, w], about -1..1."""
        visual = [noisy, condition.masked, condition.reference]
        if self.config["bottleneck"]:
            visual.append(self.bottleneck_proj(condition.previous))
        tokens = condition.speech + self.pos_embed
        embedding = self.speech_proj(condition.speech.flatten(1)) + self._embed_lip_shapes(condition.lip_shapes)
        drawn = self.unet(torch.cat(visual, dim=1), timestep, tokens, class_labels=embedding).sample
        difference = drawn if self.config["residual"] else drawn - condition.reference
        return condition.reference + condition.blend_mask * difference

    def _embed_lip_shapes(self, lip_shapes: Tensor) -> Tensor:
        """Target and reference lip shapes [B, 2, SHAPE] px -> [B, D]."""
        target, reference = lip_shapes.unbind(1)
        differences = torch.cat([target - reference, reference - lip_shapes.new_tensor(MEAN_SHAPE)], dim=1)
        return self.lip_shape_proj(differences / SHAPE_STD)
