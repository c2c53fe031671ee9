"""What evaluate measures, on crops and landmarks whose figures are known beforehand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.evaluation import ablate, metrics
from syncdiff.evaluation.baselines import Regressor, SourceClip, draw, frozen, left_alone, warped_by
from syncdiff.evaluation.reports import table
from syncdiff.generator import CompactGenerator
from syncdiff.geometry.crops import WINDOW, S
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.training import rows
from syncdiff.training.prepare import OUTER_LIPS


@pytest.fixture
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, (3, 128, 128, 3), dtype=np.uint8)


def mouth(gap: np.ndarray) -> np.ndarray:
    """Landmarks [T, 478, 2] of a mouth whose inner lips stand `gap` px apart."""
    points = np.tile(np.random.default_rng(1).uniform(20, 110, (478, 2)), (len(gap), 1, 1))
    points[:, 13] = (64, 90)
    points[:, 14] = np.stack([np.full(len(gap), 64.0), 90 + gap], 1)
    return points


@pytest.fixture
def head(crops) -> SourceClip:
    """A second of film of one face that is seen in every frame."""
    pixels = np.repeat(cv2.blur(crops[0], (9, 9))[None], 25, axis=0)
    points = mouth(np.linspace(0, 8, 25))
    points[:, 61], points[:, 291] = (48, 92), (80, 92)
    return SourceClip("a head", pixels, points, np.random.default_rng(2).normal(0, 0.1, 16_000).astype(np.float32))


def test_figures_of_pixels_and_landmarks_are_those_known_beforehand(crops):
    assert metrics.psnr(crops + 1, crops) == pytest.approx(20 * np.log10(255), abs=1e-3)
    assert metrics.ssim(crops, crops) == pytest.approx(1)
    assert metrics.ssim(255 - crops, crops) < 0
    points = mouth(np.full(4, 5.0))
    assert metrics.lip_distance(points + 7, points) == pytest.approx(0)  # a mouth moved as a whole
    wider = points.copy()
    wider[:, OUTER_LIPS] *= 2
    assert metrics.lip_distance(wider, points) > 1
    steady, shaky = mouth(np.arange(20.0)), mouth(np.arange(20) % 2 * 3.0)
    assert metrics.jitter(steady) == pytest.approx(0)
    assert metrics.jitter(shaky) == pytest.approx(6 / 8)  # |second difference| 6 px, in y of one point of four


def test_closure_counts_moments_not_frames():
    gap = np.array([8.0, 0.2, 8, 8, 8, 5, 5, 8, 8, 8])
    closed = np.array([0, 1, 0, 0, 0, 0.9, 1, 0, 0, 0])
    assert metrics.closure(mouth(gap), closed, reach=8) == 0.5
    assert metrics.closure(mouth(gap), np.zeros(10), reach=8) is None


def test_baselines_keep_what_lies_around_the_mouth(head):
    head.crops[:, 85:99, 55:73] = np.arange(0, 250, 10)[:, None, None, None]  # a mouth that differs in every frame
    assert left_alone(head, head.sound) is head.crops
    held = frozen(head, head.sound)
    assert (held[:, :40] == head.crops[:, :40]).all()
    assert (held == held[:1]).all()


def test_a_network_that_has_learned_nothing_draws_the_warped_mouth(head):
    net, speech = Denoiser(widths=(16, 32, 64), speech_width=32).eval(), SpeechEncoder(width=32, layers=1).eval()
    drawn = draw(CompactGenerator(net, speech, compact_schedule()), head, head.sound, steps=2)
    warped = warped_by(SimpleNamespace(speech=speech))(head, head.sound)
    assert np.abs(drawn.astype(int) - warped).max() <= 1
    assert (warped != head.crops).any()


def test_a_row_of_the_ablation_without_the_warp_shows_nothing_of_it(head):
    head.crops[:, 85:99, 55:73] = np.arange(0, 250, 10)[:, None, None, None]  # a mouth that differs in every frame
    net, speech = Denoiser(widths=(16, 32, 64), speech_width=32).eval(), SpeechEncoder(width=32, layers=1).eval()
    for name, warped in (("random + bottlenecked previous", False), ("as the product", True)):
        make = ablate.drawn_by_row(rows.ROWS[name], net, speech)  # has learned nothing: it draws what it was given
        one, other = make(head, head.sound), make(head, head.sound[::-1].copy())
        assert (one != head.crops).any()
        assert (one != other).any() == warped, name


def test_table_averages_over_clips_that_have_a_figure_and_over_groups_of_sets():
    figures = {"a": 0.5, "b": 1.0, "c": None}
    rows = [{"method": "m", "set": "s", "clip": clip, "frames": 1, "r": r} for clip, r in figures.items()]
    assert table(rows).splitlines()[-1] == "| m | all | 3 | 0.75 |"
    rows = [{"method": "m", "set": s, "clip": "a", "r": r} for s, r in (("val-hdtf", 0.2), ("val-voxceleb2", 0.4))]
    assert "| m | ordinary | 2 | 0.30 |" in table(rows)
    assert "GRID" not in table(rows)


def test_the_regressor_draws_at_once_and_hears_neither_noise_nor_previous_frame(head):
    torch.manual_seed(0)
    net = Denoiser(widths=(16, 32, 64), speech_width=32, residual=False).eval()
    generator = CompactGenerator(Regressor(net), SpeechEncoder(width=32, layers=1).eval(), compact_schedule())
    one, other = (draw(generator, head, head.sound, steps=1, seed=seed) for seed in (0, 1))
    assert (one == other).all()
    around = np.ones((S, S), bool)
    around[WINDOW] = False
    assert (one[:, around] == head.crops[:, around]).all()
    assert (one != head.crops).any()
    shape = (1, *pixel_codec.LATENT_SHAPE)
    told = Conditioning(*torch.randn(3, *shape), torch.randn(1, 8, 32), torch.rand(1, 2, 5), torch.ones(shape))
    last, nothing = torch.tensor([999]), torch.zeros(shape)
    with torch.inference_mode():
        plain = net(nothing, last, replace(told, previous=nothing))
        assert torch.equal(Regressor(net)(torch.randn(shape), last, told), plain)
