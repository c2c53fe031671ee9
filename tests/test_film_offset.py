"""A film's own offset, planted: lips that follow the sound, moved against it by a known time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from syncdiff.faces import track_faces
from syncdiff.models.speech_encoder import SpeechEncoder, speech_features
from syncdiff.progress import finished
from syncdiff.sync.film_offset import film_offset
from syncdiff.sync.scoring import lip_opening
from syncdiff.training.prepare import read_frames, read_sound
from syncdiff.weights.folders import COMPACT, read_network

EXAMPLE = Path(__file__).parent.parent / "assets" / "examples" / "ines.mp4"


def spoken(seed: int):
    """Seconds -> a lip opening that changes about five times a second, 12 s of it."""
    rng = np.random.default_rng(seed)
    knots = np.abs(np.convolve(rng.normal(0, 1, 124), np.ones(4) / 4, "same"))
    return lambda seconds: np.interp(np.asarray(seconds) * 10, np.arange(124), knots)


def film(seed: int, sound_ahead: float, *, seconds: float = 6, fps: float = 25, noise: float = 0.2):
    """Times of frames and the lips in them; `sound_ahead` frames of 1/25 s before the lips."""
    times = 2 + (np.arange(int(seconds * fps)) + 0.5) / fps
    lips = spoken(seed)(times - sound_ahead / 25)
    return times, 3 + 0.1 * lips + noise * 0.1 * lips.std() * np.random.default_rng(seed).normal(0, 1, len(times))


def test_a_planted_offset_is_found_to_a_quarter_of_a_frame(subtests):
    for fps in [24, 25, 30, 60]:
        for ahead in [-3.4, -1.0, 0.0, 0.5, 2.25]:
            with subtests.test(fps=fps, ahead=ahead):
                found = film_offset(spoken(1), *film(1, ahead, fps=fps))
                assert found.frames == pytest.approx(ahead, abs=0.25)
                assert found.sure
                assert found.r > 0.9


def test_frames_without_a_face_are_left_out():
    times, lips = film(2, 1.5)
    lips[40:80] = np.nan
    assert film_offset(spoken(2), times, lips).frames == pytest.approx(1.5, abs=0.25)


def test_nothing_is_claimed_of_another_talkers_sound():
    found = [film_offset(spoken(seed + 100), *film(seed, 0.0)) for seed in range(40)]
    assert sum(offset is not None and offset.sure for offset in found) <= 2


def test_nothing_is_said_of_short_flat_or_far_off_films():
    times, lips = film(3, 0.0)
    assert film_offset(spoken(3), times[:50], lips[:50]) is None  # two seconds
    assert film_offset(spoken(3), times, np.full_like(lips, 3.0)) is None
    assert film_offset(np.zeros_like, times, lips) is None
    assert film_offset(spoken(3), times, np.full_like(lips, np.nan)) is None
    far = film_offset(spoken(4), *film(4, 9.0))  # beyond MAX_SHIFT
    assert far is None or not far.sure


@pytest.mark.weights
def test_from_sound_to_lips_a_planted_delay_is_found_to_a_quarter_of_a_frame():
    """The shipped encoder on a rendered head, whose lips are in step: its sound is delayed by known times."""
    opening = lip_opening(finished(track_faces(iter(read_frames(EXAMPLE))))[0].points)
    times, sound = (np.arange(len(opening)) + 0.5) / 25, read_sound(EXAMPLE)
    encoder = read_network(SpeechEncoder, COMPACT / "speech")
    found = []
    for frames in (0, 0.5, 2.25, -1.75):
        samples = round(frames * 640)
        moved = np.pad(sound, (samples, 0)) if samples >= 0 else sound[-samples:]
        heard = speech_features(encoder, moved)
        offset = film_offset(lambda t, heard=heard: heard.lips_at(torch.from_numpy(t))[:, 0].numpy(), times, opening)
        assert offset.sure
        found.append(offset.frames + frames)
    assert max(found) - min(found) < 0.25
    assert abs(found[0]) < 1  # lips lead the sound by about half a frame
