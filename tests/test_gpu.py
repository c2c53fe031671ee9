"""Half precision against single precision, network by network; on a GPU too where there is one."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from syncdiff.diffusion import sampler
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.geometry.mouth_shape import SHAPE
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.paper.denoiser import PaperDenoiser, Priors, paper_schedule
from syncdiff.weights.folders import COMPACT
from tests.released import stirred

DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
HALVES = {"cpu": (torch.bfloat16,), "cuda": (torch.bfloat16, torch.float16)}


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Root mean square of the difference, over the spread of the first."""
    return float(((a.double() - b.double()).square().mean().sqrt() / a.double().std()).cpu())


def drawn(device: str, half: torch.dtype | None) -> torch.Tensor:
    """Two frames by the shipped denoiser, two steps, in half precision where one is given; on the CPU."""
    torch.manual_seed(0)
    net = Denoiser.from_pretrained(COMPACT / "denoiser", torch_dtype=torch.float32).eval().to(device)
    shape = (2, *pixel_codec.LATENT_SHAPE)
    noise, *pictures, mask = (torch.randn(shape) for _ in range(5))
    speech = torch.randn(2, net.config.tokens, net.config.speech_width)
    told = Conditioning(*pictures, speech, torch.randn(2, 2, SHAPE), mask.sigmoid()).to(torch.device(device))
    with torch.inference_mode(), torch.autocast(device, half, enabled=half is not None):
        *_, last = sampler.sample(lambda x, t: net(x, t, told), noise.to(device), compact_schedule(), 2)
    return last.float().cpu()


@DEVICES
def test_the_compact_denoiser_in_half_precision(device):
    for half in HALVES[device]:
        assert 0 < apart(drawn(device, None), drawn(device, half)) < 0.03, half


@pytest.mark.gpu
def test_the_compact_denoiser_on_the_gpu_is_that_on_the_cpu():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    assert apart(drawn("cpu", None), drawn("cuda", None)) < 1e-3


@DEVICES
def test_the_speech_encoder_in_half_precision(device):
    net = SpeechEncoder.from_pretrained(COMPACT / "speech", torch_dtype=torch.float32).eval().to(device)
    mel = torch.randn(1, 80, 200).to(device)
    for half in HALVES[device]:
        with torch.inference_mode():
            single = net(mel)
            with torch.autocast(device, half):
                low = net(mel)
            assert 0 < apart(single, low) < 0.03, half
            assert apart(net.lips(single), net.lips(low.float())) < 0.03, half


def small_paper() -> tuple[PaperDenoiser, torch.Tensor, Priors]:
    torch.manual_seed(0)
    net = stirred(PaperDenoiser(widths=(32, 64), layers=1, head=16, speech_width=64)).eval()
    told = Priors(*(torch.randn(1, 3, 16, 16) for _ in range(3)), torch.randn(1, net.config.tokens, 64))
    return net, torch.randn(1, 3, 16, 16), told


@DEVICES
def test_the_papers_u_net_in_half_precision(device):
    """Over four DDIM steps."""
    net, noise, told = small_paper()
    net, told, drawn = net.to(device), told.to(device), []
    for half in (None, *HALVES[device]):
        schedule, x = paper_schedule(), noise.to(device)
        schedule.set_timesteps(4)
        for t in schedule.timesteps:
            with torch.inference_mode(), torch.autocast(device, half, enabled=half is not None):
                x = schedule.step(net(x, t[None].to(device), told).float(), t, x).prev_sample
        drawn.append(x)
    for half, x in zip(HALVES[device], drawn[1:], strict=True):
        assert 0 < apart(drawn[0], x) < 0.03, half


@pytest.mark.gpu
@pytest.mark.skipif(find_spec("xformers") is None, reason="no xformers: its attention was NOT compared")
def test_xformers_attention_is_torchs():
    net, noise, told = small_paper()
    net, noise, told, t = net.cuda(), noise.cuda(), told.to("cuda"), torch.tensor([500], device="cuda")
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        usual = net(noise, t, told)
        net.unet.enable_xformers_memory_efficient_attention()
        assert apart(usual, net(noise, t, told)) < 0.02


@pytest.mark.gpu
def test_training_runs_in_half_precision_on_the_gpu():
    """The gradients of one step under bf16 point where those of single precision do."""
    net, noise, told = small_paper()
    net, noise, told, t = net.cuda(), noise.cuda(), told.to("cuda"), torch.tensor([500], device="cuda")
    found = []
    for half in (False, True):
        net.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            loss = (net(noise, t, told).float() - noise).square().mean()
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(*found, dim=0) > 0.98
