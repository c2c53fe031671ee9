"""Fit the denoiser to one face: a short training on the visitor's own clip, forgotten when the job ends.

The paper names unseen people as its weakness. A clip shows its person's teeth, skin and jaw hundreds of times, and its
landmarks tell how the lips stood in each frame, so the network can practise on exactly the face that it is about to
draw: the same identity frame, the same light, the lip shape told as it will be. Its own voice is heard beside it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from syncdiff.conditioning import FaceClip
from syncdiff.devices import autocast
from syncdiff.diffusion.losses import Objective
from syncdiff.errors import InputError
from syncdiff.geometry.crops import WINDOW
from syncdiff.models import pixel_codec
from syncdiff.models.denoiser import Conditioning, Denoiser
from syncdiff.models.speech_encoder import SpeechFeatures

SECONDS, UPDATES = 45.0, 300  # whichever ends first; two CPU cores reach the first, a GPU the second
BATCH, LR = 16, 2e-4
FEWEST = 25  # usable frames; a photo or a second of video has nothing to practise on
FIRST, POSE_NOISE = 0.3, 0.3  # how often there is no previous frame; upper end of the noise on it
NEAR = 8  # frames: the hint's jaw and surroundings come from as near a frame, since its own would be the answer
UNHEARD = 0.4  # how often the speech is not told, as in training


def fit(
    denoiser: Denoiser,
    objective: Objective,
    face_clip: FaceClip,
    times: np.ndarray,
    heard: SpeechFeatures | None,
    seed: int = 0,
    seconds: float = SECONDS,
    updates: int = UPDATES,
) -> Generator[float, None, Denoiser]:
    """Practise on `face_clip`; yields the share of the work that is done, returns a fitted copy.

    Args:
        objective: the loss, with the schedule that the sampler uses.
        times: [T] s, the middle of every source frame.
        heard: the clip's own voice; None where it has none: then lips move and nothing is told of speech.

    Raises InputError when fewer than FEWEST frames show the face well.
    """
    usable = np.flatnonzero(face_clip.usable)
    usable = usable[usable > 0]
    usable = usable[face_clip.usable[usable - 1]]  # the frame before is shown too
    if len(usable) < FEWEST:
        raise InputError(
            f"The face is seen well in {len(usable)} frames, and fitting to it needs {FEWEST}: switch fitting off."
        )
    rng, model = np.random.default_rng(seed), deepcopy(denoiser).train()
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.0)
    began, done = time.monotonic(), 0
    while (share := max((time.monotonic() - began) / seconds, done / updates)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, 4 * (1 - share))
        clean, told = _practice(face_clip, times, heard, rng.choice(usable, BATCH), rng, model.config)
        clean, told = clean.to(model.device), told.to(model.device)
        with autocast(model.device):
            terms, _ = objective(model, clean, told)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
        yield share
    return model.eval()


def _practice(
    face_clip: FaceClip,
    times: np.ndarray,
    heard: SpeechFeatures | None,
    frames: np.ndarray,
    rng: np.random.Generator,
    net: Any,
) -> tuple[Tensor, Conditioning]:
    """Frames of the clip and what the network is told of them, as when it draws."""
    mask = pixel_codec.latent_mask()
    clean, previous = (
        pixel_codec.encode(np.stack([face_clip.crops[i - back][WINDOW] for i in frames])) for back in (0, 1)
    )
    shapes = np.stack([face_clip.shapes[frames], face_clip.shown(face_clip.shapes[frames])], 1)
    usable = np.flatnonzero(face_clip.usable)
    near = usable[
        np.clip(np.searchsorted(usable, frames) + rng.integers(-NEAR, NEAR + 1, len(frames)), 0, len(usable) - 1)
    ]
    hints = [face_clip.hint(i, wanted)[WINDOW] for i, wanted in zip(near, shapes[:, 0], strict=True)]
    identity = pixel_codec.encode(np.stack(hints))
    regions = [face_clip.region(i, wanted)[WINDOW] for i, wanted in zip(frames, shapes[:, 0], strict=True)]
    region = pixel_codec.spread(np.stack(regions))
    first = torch.from_numpy(rng.random((len(frames), 1, 1, 1)) < FIRST)
    previous = (previous + POSE_NOISE * torch.rand(len(frames), 1, 1, 1) * torch.randn_like(previous)) * ~first
    speech = torch.zeros(len(frames), net.tokens, net.speech_width)
    if heard is not None:
        told = torch.from_numpy(rng.random((len(frames), 1, 1)) >= UNHEARD)
        speech = heard.window(torch.from_numpy(times[frames]), net.tokens) * told
    return clean, Conditioning(clean * (1 - mask), identity, previous, speech, torch.from_numpy(shapes), region)
