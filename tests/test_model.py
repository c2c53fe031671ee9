"""The codec, which is exact, and the denoiser: what it may see and what must not matter to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from syncdiff.geometry.crops import WINDOW, mouth_mask
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser

SHAPE = (2, *pixel_codec.LATENT_SHAPE)


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(widths=(16, 32, 64), speech_width=32, bottleneck=3, residual=False).eval()


def condition(**changes) -> Conditioning:
    g = torch.Generator().manual_seed(1)
    parts = {k: torch.randn(SHAPE, generator=g) for k in ("masked", "reference", "previous")}
    return Conditioning(
        **(
            parts
            | {"speech": torch.randn(2, 8, 32, generator=g), "lip_shapes": torch.rand(2, 2, 5, generator=g) * 30}
            | {"blend_mask": torch.ones(SHAPE)}
            | changes
        )
    )


def run(denoiser: Denoiser, told: Conditioning) -> torch.Tensor:
    with torch.inference_mode():
        return denoiser(torch.zeros(SHAPE), torch.tensor([500, 500]), told)


def test_codec_is_exact():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 80, 96, 3), dtype=np.uint8)
    latents = pixel_codec.encode(pixels)
    assert latents.shape == (3, *pixel_codec.LATENT_SHAPE)
    assert latents.abs().max() <= 1
    assert (pixel_codec.decode(latents) == pixels).all()


def test_masks_agree_and_lie_inside_the_window():
    outside = mouth_mask().copy()
    outside[WINDOW] = False
    assert not outside.any()
    ones = pixel_codec.encode(np.where(mouth_mask()[WINDOW][None, ..., None], 255, 0).repeat(3, -1).astype(np.uint8))
    assert torch.equal((ones + 1) / 2, pixel_codec.latent_mask())


def test_hears_and_sees_every_condition(denoiser):
    usual = run(denoiser, condition())
    assert usual.shape == SHAPE
    for part in ("masked", "reference", "previous"):
        assert not torch.allclose(usual, run(denoiser, condition(**{part: torch.zeros(SHAPE)}))), part
    assert not torch.allclose(usual, run(denoiser, condition(speech=torch.zeros(2, 8, 32))))


def test_the_bottleneck_lets_only_its_channels_through(denoiser):
    """What the 1x1 convolution cannot express must not change the output: move the previous frame in its null space."""
    weight = denoiser.bottleneck_proj.weight[:, :, 0, 0].detach()  # [3, 48]
    null = torch.linalg.svd(weight).Vh[3:]  # [45, 48]
    hidden = torch.einsum("nc,bnhw->bchw", null, torch.randn(2, len(null), *SHAPE[2:]))
    told = condition()
    moved = condition(previous=told.previous + 5 * hidden)
    assert torch.allclose(run(denoiser, told), run(denoiser, moved), atol=1e-4)


def test_no_bottleneck_and_no_previous_frame_are_possible():
    for bottleneck in (0, pixel_codec.CHANNELS):
        model = Denoiser(widths=(16, 32), speech_width=32, bottleneck=bottleneck, residual=False).eval()
        same = torch.allclose(run(model, condition()), run(model, condition(previous=torch.zeros(SHAPE))))
        assert same == (bottleneck == 0)


def test_before_training_the_reference_is_the_answer():
    told = condition()
    model = Denoiser(widths=(16, 32), speech_width=32).eval()
    assert torch.allclose(run(model, told), told.reference + model.unet.conv_out.bias.view(1, -1, 1, 1), atol=1e-5)


def test_outside_the_blend_mask_the_reference_stays(denoiser):
    blend_mask = torch.zeros(SHAPE)
    blend_mask[..., 12:, :] = 1
    told = condition(blend_mask=blend_mask)
    drawn = run(denoiser, told)
    assert torch.equal(drawn[..., :12, :], told.reference[..., :12, :])
    assert torch.equal(drawn[..., 12:, :], run(denoiser, condition())[..., 12:, :])


def test_batch_does_not_matter(denoiser):
    told = condition()
    one = Conditioning(
        **{k: getattr(told, k)[:1] for k in ("masked", "reference", "previous", "speech", "lip_shapes", "blend_mask")}
    )
    with torch.inference_mode():
        alone = denoiser(torch.zeros(SHAPE)[:1], torch.tensor([500]), one)
    assert torch.allclose(run(denoiser, told)[:1], alone, atol=1e-5)


def test_save_and_load(denoiser, tmp_path):
    denoiser.save_pretrained(tmp_path, max_shard_size="200KB")
    again = Denoiser.from_pretrained(tmp_path).eval()
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(run(again, condition()), run(denoiser, condition()))
