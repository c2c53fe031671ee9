"""Fitting to one face: it learns that face, leaves the model as it was, and says when there is too little to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from syncdiff.conditioning import FaceClip
from syncdiff.diffusion.losses import Objective
from syncdiff.diffusion.schedule import compact_schedule
from syncdiff.errors import InputError
from syncdiff.fit import FEWEST, _practice, fit
from syncdiff.geometry.mouth_shape import SHAPE
from syncdiff.geometry.warp import CONTOURS
from syncdiff.models.denoiser import Denoiser
from syncdiff.models.speech_encoder import SpeechFeatures

FRAMES = 40


def face_clip(usable: int = FRAMES) -> FaceClip:
    """A grey face whose mouth is a dark bar as high as its gap."""
    gaps = 4 + 4 * np.sin(np.arange(FRAMES) * 0.7)
    crops = np.full((FRAMES, 128, 128, 3), 128, np.uint8)
    for crop, gap in zip(crops, gaps, strict=True):
        crop[int(90 - gap) : int(90 + gap) + 1, 48:80] = 20
    points = np.zeros((FRAMES, 478, 2), np.float32)
    points[:, CONTOURS] = (64, 90)
    for upper, lower, corner in ((13, 14, 78), (0, 17, 61)):
        points[:, upper, 1] = 90 - gaps / 2 - (5 if upper == 0 else 0)
        points[:, lower, 1] = 90 + gaps / 2 + (6 if lower == 17 else 0)
        points[:, corner, 0], points[:, {78: 308, 61: 291}[corner], 0] = 48, 80
    points[:, 152] = (64, 120)
    still = np.tile(np.eye(2, 3), (FRAMES, 1, 1))
    return FaceClip(crops, still, points, np.zeros(FRAMES), np.arange(FRAMES) < usable)


@pytest.fixture
def model() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(widths=(16, 32, 64), speech_width=32).eval()


def practise(model: Denoiser, face: FaceClip, updates: int) -> tuple[list[float], Denoiser]:
    heard = SpeechFeatures(torch.zeros(200, 32), torch.zeros(200, SHAPE), 50)
    objective = Objective(compact_schedule())
    steps = fit(model, objective, face, np.arange(FRAMES) / 25, heard, seconds=600, updates=updates)
    shares = []
    while True:
        try:
            shares.append(next(steps))
        except StopIteration as end:
            return shares, end.value


def test_it_learns_the_face_and_leaves_the_model_alone(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    shares, fitted = practise(model, face_clip(), updates=60)
    assert shares == sorted(shares)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    objective, heard = Objective(compact_schedule()), SpeechFeatures(torch.zeros(200, 32), torch.zeros(1), 50)
    clean, told = _practice(
        face_clip(), np.arange(FRAMES) / 25, heard, np.arange(1, 33), np.random.default_rng(0), model.config
    )
    losses = []
    for one in (model, fitted):
        torch.manual_seed(1)
        with torch.inference_mode():
            losses.append(sum(objective(one, clean, told)[0].values()).item())
    assert losses[1] < 0.9 * losses[0]


def test_too_little_to_see_is_a_sentence(model):
    with pytest.raises(InputError, match=f"seen well in 9 frames, and fitting to it needs {FEWEST}"):
        practise(model, face_clip(usable=10), updates=1)
