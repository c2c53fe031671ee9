"""The paper's networks and sampler against references written out from the published definitions.

References: Rombach et al. 2022 (latent diffusion: U-Net, VQ autoencoder, sampler), Ho et al. 2020 (timestep embedding),
Song et al. 2021 (DDIM). Each reads the weights under test by key and computes with plain tensor functions only.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from syncdiff.geometry.mouth_shape import SHAPE
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.options import PAPER_STEPS
from syncdiff.paper.denoiser import PaperDenoiser, Priors, paper_schedule, sampling_schedule, to_latents
from syncdiff.weights.folders import COMPACT
from tests.released import small_vq, stirred

WIDTHS, LAYERS, HEAD = (32, 64), 1, 16


class Reference:
    """Layers by the names that the weights have."""

    def __init__(self, weights: dict[str, Tensor], eps: float) -> None:
        self.weights, self.eps = weights, eps

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.weights

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        padding = weight.shape[-1] // 2 if stride == 1 or self.eps == 1e-5 else 0
        return F.conv2d(x, weight, self.weights[f"{name}.bias"], stride, padding)

    def norm(self, name: str, x: Tensor, eps: float | None = None, groups: int = 32) -> Tensor:
        return F.group_norm(x, groups, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps or self.eps)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def residual(self, name: str, x: Tensor, time: Tensor | None = None, groups: int = 32) -> Tensor:
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x, groups=groups)))
        if time is not None:
            h = h + self.linear(f"{name}.time_emb_proj", F.silu(time))[..., None, None]
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h, groups=groups)))
        return h + (self.conv(f"{name}.conv_shortcut", x) if self.has(f"{name}.conv_shortcut") else x)

    def attention(self, name: str, x: Tensor, context: Tensor, head: int) -> Tensor:
        q, k, v = (self.linear(f"{name}.to_{part}", of) for part, of in (("q", x), ("k", context), ("v", context)))
        outs = []
        for h in range(0, q.shape[-1], head):
            a, b, c = (part[..., h : h + head] for part in (q, k, v))
            outs.append((a @ b.transpose(1, 2) / head**0.5).softmax(-1) @ c)
        return self.linear(f"{name}.to_out.0", torch.cat(outs, -1))

    def transformer(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        h = self.conv(f"{name}.proj_in", self.norm(f"{name}.norm", x, 1e-6))
        size, h, block = h.shape, h.flatten(2).transpose(1, 2), f"{name}.transformer_blocks.0"
        seen = self.layer_norm(f"{block}.norm1", h)
        h = h + self.attention(f"{block}.attn1", seen, seen, HEAD)
        h = h + self.attention(f"{block}.attn2", self.layer_norm(f"{block}.norm2", h), context, HEAD)
        value, gate = self.linear(f"{block}.ff.net.0.proj", self.layer_norm(f"{block}.norm3", h)).chunk(2, -1)
        h = h + self.linear(f"{block}.ff.net.2", value * F.gelu(gate))
        return x + self.conv(f"{name}.proj_out", h.transpose(1, 2).reshape(size))


def reference_unet(weights: dict[str, Tensor], x: Tensor, t: int, context: Tensor) -> Tensor:
    """Two levels, one residual block each; the lower level attends."""
    net = Reference(weights, eps=1e-5)
    angles = t * torch.exp(-np.log(10_000) * torch.arange(16) / 16)
    time = net.linear("time_embedding.linear_1", torch.cat([angles.cos(), angles.sin()])[None])
    time = net.linear("time_embedding.linear_2", F.silu(time))
    skips = [net.conv("conv_in", x)]
    skips.append(net.residual("down_blocks.0.resnets.0", skips[-1], time))
    skips.append(net.conv("down_blocks.0.downsamplers.0.conv", skips[-1], stride=2))
    h = net.residual("down_blocks.1.resnets.0", skips[-1], time)
    skips.append(net.transformer("down_blocks.1.attentions.0", h, context))
    h = net.residual("mid_block.resnets.0", skips[-1], time)
    h = net.residual("mid_block.resnets.1", net.transformer("mid_block.attentions.0", h, context), time)
    for i in range(LAYERS + 1):
        h = net.residual(f"up_blocks.0.resnets.{i}", torch.cat([h, skips.pop()], 1), time)
        h = net.transformer(f"up_blocks.0.attentions.{i}", h, context)
    h = net.conv("up_blocks.0.upsamplers.0.conv", F.interpolate(h, scale_factor=2.0))
    for i in range(LAYERS + 1):
        h = net.residual(f"up_blocks.1.resnets.{i}", torch.cat([h, skips.pop()], 1), time)
    return net.conv("conv_out", F.silu(net.norm("conv_norm_out", h)))


def test_the_u_net_is_latent_diffusions() -> None:
    torch.manual_seed(0)
    net = stirred(PaperDenoiser(widths=WIDTHS, layers=LAYERS, head=HEAD, speech_width=24).eval())
    noisy, masked, identity, pose = torch.randn(4, 1, 3, 8, 8)
    speech = torch.randn(1, 3, 24)
    with torch.inference_mode():
        out = net(noisy, torch.tensor([437]), Priors(masked, identity, pose, speech))
        squeezed = F.conv2d(pose, net.bottleneck_proj.weight, net.bottleneck_proj.bias)
        seen = torch.cat([noisy, masked, identity, squeezed], 1)
        expected = reference_unet(net.unet.state_dict(), seen, 437, speech)
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_a_new_u_net_outputs_zeros_as_difftalks() -> None:
    """39 layers start at zero: 22 residual blocks, 16 transformers, the output."""
    with torch.device("meta"):
        full = PaperDenoiser()
    branches = [part for part in full.unet.modules() if isinstance(part, ResnetBlock2D)]
    transformers = [part for part in full.unet.modules() if type(part).__name__ == "Transformer2DModel"]
    assert (len(branches), len(transformers)) == (22, 16)
    assert sum(p.numel() for p in full.unet.parameters()) == 546_211_587
    net = PaperDenoiser(widths=WIDTHS, layers=LAYERS, head=HEAD, speech_width=24)
    zero = [name for name, value in net.unet.named_parameters() if name.endswith("weight") and not value.any()]
    branches = [name for name, part in net.unet.named_modules() if isinstance(part, ResnetBlock2D)]
    transformers = [name for name, part in net.unet.named_modules() if type(part).__name__ == "Transformer2DModel"]
    named = [f"{b}.conv2.weight" for b in branches] + [f"{t}.proj_out.weight" for t in transformers]
    assert sorted(zero) == sorted([*named, "conv_out.weight"])
    told = Priors(*torch.randn(3, 1, 3, 8, 8), torch.randn(1, 1, 24))
    assert not net(torch.randn(1, 3, 8, 8), torch.tensor([500]), told).any()


def test_the_autoencoder_is_latent_diffusions_vq() -> None:
    torch.manual_seed(0)
    vae = small_vq(attention=True)  # widths 8, 8, 16, one block a level, 8 groups
    weights = {**{k.replace("encoder.", "", 1): v for k, v in vae.state_dict().items() if k.startswith("encoder.")}}
    net, whole = Reference(weights, eps=1e-6), Reference(vae.state_dict(), eps=1e-6)
    frame = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    x = torch.from_numpy(frame).permute(0, 3, 1, 2).float() / 127.5 - 1

    def middle(part: Reference, h: Tensor) -> Tensor:
        h = part.residual("mid_block.resnets.0", h, groups=8)
        seen = part.norm("mid_block.attentions.0.group_norm", h, groups=8).flatten(2).transpose(1, 2)
        told = part.attention("mid_block.attentions.0", seen, seen, h.shape[1]).transpose(1, 2)
        return part.residual("mid_block.resnets.1", h + told.reshape(h.shape), groups=8)

    with torch.inference_mode():
        h = net.conv("conv_in", x)
        for level in range(3):
            h = net.residual(f"down_blocks.{level}.resnets.0", h, groups=8)
            if level < 2:
                h = net.conv(f"down_blocks.{level}.downsamplers.0.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
        h = net.conv("conv_out", F.silu(net.norm("conv_norm_out", middle(net, h), groups=8)))
        latents = whole.conv("quant_conv", h)
        torch.testing.assert_close(to_latents(vae, frame), latents, rtol=1e-4, atol=1e-5)

        codes = vae.quantize.embedding.weight
        flat = latents.permute(0, 2, 3, 1).reshape(-1, 3)
        nearest = codes[torch.cdist(flat, codes).argmin(1)].reshape(1, 8, 8, 3).permute(0, 3, 1, 2)
        decoder = {k.replace("decoder.", "", 1): v for k, v in vae.state_dict().items() if k.startswith("decoder.")}
        net = Reference(decoder, eps=1e-6)
        h = middle(net, net.conv("conv_in", whole.conv("post_quant_conv", nearest)))
        for level in range(3):
            for i in range(2):
                h = net.residual(f"up_blocks.{level}.resnets.{i}", h, groups=8)
            if level < 2:
                h = net.conv(f"up_blocks.{level}.upsamplers.0.conv", F.interpolate(h, scale_factor=2.0))
        expected = net.conv("conv_out", F.silu(net.norm("conv_norm_out", h, groups=8)))
        torch.testing.assert_close(vae.decode(latents).sample, expected, rtol=1e-4, atol=1e-5)


def test_ddim_is_latent_diffusions_sampler() -> None:
    """200 steps in float64 by its own formula, for a network whose noise estimate is a sine of its input."""
    alphas = np.cumprod(1 - np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2)
    steps = np.arange(0, 1000, 5) + 1
    before = np.concatenate([alphas[:1], alphas[steps[:-1]]])
    expected = np.random.default_rng(0).normal(size=(1, 3, 4, 4))
    x = torch.from_numpy(expected)
    for t, earlier in zip(steps[::-1], before[::-1], strict=True):
        noise = np.sin(3 * expected)
        clean = (expected - (1 - alphas[t]) ** 0.5 * noise) / alphas[t] ** 0.5
        expected = earlier**0.5 * clean + (1 - earlier) ** 0.5 * noise
    schedule = sampling_schedule(paper_schedule(), PAPER_STEPS)
    assert schedule.timesteps.tolist() == steps[::-1].tolist()
    for t in schedule.timesteps:
        x = schedule.step(torch.sin(3 * x), t, x, eta=0.0).prev_sample
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_the_compact_denoisers_size_is_said_truly() -> None:
    """Beside the paper's 546,211,587 parameters and 171.4 GMAC (`tests/test_paper.py`), in the page about the paper."""
    config = json.loads((COMPACT / "denoiser" / "config.json").read_text())
    with torch.device("meta"):
        net = Denoiser(**{key: value for key, value in config.items() if not key.startswith("_")})
        frame = torch.zeros(1, *pixel_codec.LATENT_SHAPE)
        speech = torch.zeros(1, net.config.tokens, net.config.speech_width)
        condition = Conditioning(frame, frame, frame, speech, torch.zeros(1, 2, SHAPE), frame)
        with FlopCounterMode(display=False) as counted:
            net(frame, torch.zeros(1), condition)
    weights = 546_211_587 / sum(p.numel() for p in net.parameters())
    arithmetic = 171.4e9 / (counted.get_total_flops() / 2)
    said = (Path(__file__).parent.parent / "docs" / "paper.md").read_text()
    assert f"1/{weights:.0f} and 1/{arithmetic:.0f} of the paper's U-Net" in said


def test_few_steps_start_at_the_last_noise_level() -> None:
    """Latent diffusion's spacing has one step at timestep 1, which changes nothing: only noise comes of it."""
    for steps, timesteps in ((1, [999]), (4, [999, 749, 499, 249]), (20, [951, 901])):
        shared = paper_schedule()
        schedule = sampling_schedule(shared, steps)
        assert schedule.timesteps.tolist()[: len(timesteps)] == timesteps
        assert len(schedule.timesteps) == steps
        assert shared.num_inference_steps is None
