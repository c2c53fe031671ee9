"""What the speech encoder is taught, and by whom: lips and states whose times are planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from syncdiff.audio import SAMPLE_RATE
from syncdiff.audio.mel import HOP
from syncdiff.geometry.mouth_shape import SHAPE
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.training import distill, lip_heads
from syncdiff.training.data import ClipRecord
from syncdiff.training.distill import SECONDS, TARGETS, Segments, TrainingClip
from syncdiff.training.lip_heads import (
    ConvHead,
    LipTrack,
    RecurrentHead,
    correlation_loss,
    fit_head,
    forecast,
    per_frame,
)
from syncdiff.training.prepare import KEPT

FRAMES = 150


def track(seed: int, person: str) -> LipTrack:
    """States that hold the lips of two frames ago, in noise."""
    rng = np.random.default_rng(seed)
    gap = np.convolve(rng.normal(0, 1, FRAMES + 4), np.ones(5) / 2, "valid").astype(np.float32)
    lips = np.repeat(gap[:, None], SHAPE, 1)
    states = np.stack([np.roll(gap, 2), *rng.normal(0, 1, (7, FRAMES))], 1).astype(np.float32)
    return LipTrack(states, lips, np.ones(FRAMES, bool), person)


@pytest.mark.parametrize("kind", [ConvHead, RecurrentHead])
def test_a_head_finds_lips_that_are_there_and_the_mean_of_two_is_taken(kind, monkeypatch):
    monkeypatch.setattr(lip_heads, "BATCH", 8)
    monkeypatch.setattr(lip_heads, "WINDOW", 32)
    tracks = [track(i, f"person {i}") for i in range(6)]
    heads = [fit_head(kind, tracks, {t.person: 1.0 for t in tracks}, seed, steps=60, lr=1e-2) for seed in (0, 1)]
    stranger = track(99, "stranger")
    both, *single = (forecast(some, stranger.states)[5:-5, 0] for some in (heads, heads[:1], heads[1:]))
    assert np.corrcoef(both, stranger.lips[5:-5, 0])[0, 1] > 0.9
    assert np.allclose(both, (single[0] + single[1]) / 2, atol=1e-6)


def test_people_count_as_they_weigh_however_long_their_films():
    """Two people whose lips do the opposite: the one who weighs more is learned, though he is filmed less."""
    said = track(0, "much film")
    other = LipTrack(said.states[:60], -said.lips[:60], said.valid[:60], "much weight")
    head = fit_head(ConvHead, [said, other], {"much film": 1.0, "much weight": 20.0}, steps=80)
    assert np.corrcoef(forecast([head], said.states)[:, 0], -said.lips[:, 0])[0, 1] > 0.5


def test_a_frame_is_the_mean_of_its_two_states():
    states = np.arange(10, dtype=np.float16)[:, None]
    assert per_frame(states, 4)[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert per_frame(states, 7)[5:, 0].tolist() == [9, 9]  # the edge repeats


def test_the_correlation_loss_is_one_less_r_where_it_counts():
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.normal(0, 1, (2, 40, SHAPE))) for _ in range(2))
    weight = torch.ones(2, 40, dtype=torch.float64)
    weight[1, 30:] = 0
    b[1, 30:] = 1e6
    loss = correlation_loss(a, b, weight)
    assert loss[0, 0].item() == pytest.approx(1 - np.corrcoef(a[0, :, 0], b[0, :, 0])[0, 1], abs=1e-3)
    assert loss[1, 2].item() == pytest.approx(1 - np.corrcoef(a[1, :30, 2], b[1, :30, 2])[0, 1], abs=1e-3)


def record(of: str, name: str, person: str) -> ClipRecord:
    """Six seconds of silence but for 20 ms of noise every 0.6 s."""
    sound = np.zeros(6 * SAMPLE_RATE)
    for at in np.arange(0.4, 5.9, 0.6):
        start = int(at * SAMPLE_RATE)
        sound[start : start + 320] = np.random.default_rng(int(at * 10)).normal(0, 6000, 320)
    points = np.zeros((FRAMES, len(KEPT), 2), np.float32)
    visemes = np.zeros((FRAMES, 15), np.float32) if of == "puppets" else None
    filmed = points if of != "speech" else None
    good = np.ones(FRAMES, bool) if of != "speech" else None
    return ClipRecord(of, name, person, np.clip(sound, -32768, 32767).astype(np.int16), filmed, visemes, good)


def training_clip(of: str, name: str, person: str) -> TrainingClip:
    """Lips, curves and states that are 1 where the noise is: all must lie together, whatever the speed."""
    clip = record(of, name, person)
    loud = (np.arange(0.4, 5.9, 0.6) + 0.01)[:, None]
    bump25 = np.exp(-(((np.arange(FRAMES) + 0.5) / 25 - loud) ** 2) / (2 * 0.03**2)).sum(0).astype(np.float32)
    bump50 = np.exp(-((np.arange(300) / 50 - loud) ** 2) / (2 * 0.03**2)).sum(0).astype(np.float32)
    lips = np.repeat(bump25[:, None], SHAPE, 1)
    if clip.visemes is not None:
        clip.visemes[:] = bump25[:, None]
    return TrainingClip(clip, np.repeat(bump50[:, None], TARGETS, 1), lips, lips if of == "addresses" else None)


def three_clips() -> list[TrainingClip]:
    """One of a filmed person, one of a synthetic face, and one of a voice alone."""
    sets = ("addresses", "kim"), ("puppets", "lee"), ("speech", "nobody")
    return [training_clip(of, f"clip of {person}", person) for of, person in sets]


def when(series: torch.Tensor, rate: int, offset: float) -> float:
    """Seconds of a series' highest point, by a parabola."""
    at = int(series[2:-2].argmax()) + 2
    a, b, c = series[at - 1 : at + 2].tolist()
    return (at + (a - c) / 2 / (a - 2 * b + c) + offset) / rate


def test_sound_states_lips_and_curves_of_a_batch_lie_at_the_same_time(monkeypatch):
    monkeypatch.setattr(distill, "augment", lambda sound, other, rng: sound)
    monkeypatch.setattr(distill, "equalise", lambda mel, rng: mel)
    monkeypatch.setattr(distill, "SILENT", 0.0)
    batch = Segments(three_clips()).batch(np.random.default_rng(0))
    assert batch.mel.shape[-1] * HOP == SECONDS * SAMPLE_RATE
    kinds = set()
    for row in range(len(batch.mel)):
        power = batch.mel[row].add(1).mean(0)
        power = torch.nn.functional.avg_pool1d(power[None], 5, 1, 2)[0]
        heard = when(power, 100, 0)  # mel frame i is centred on i / 100 s
        n = int(heard * 50)
        near50, near25 = slice(max(0, n - 12), n + 12), slice(max(0, n // 2 - 6), n // 2 + 6)
        assert when(batch.teacher_states[row, near50, 0], 50, 0.5 + near50.start) == pytest.approx(heard, abs=0.015)
        assert when(batch.teacher_forecast[row, near25, 0], 25, 0.5 + near25.start) == pytest.approx(heard, abs=0.015)
        for mask, target in ((batch.is_measured, batch.measured_lips), (batch.has_curves, batch.curves)):
            if mask[row].any():
                kinds.add(id(mask))
                assert when(target[row, near25, 0], 25, 0.5 + near25.start) == pytest.approx(heard, abs=0.015)
    assert len(kinds) == 2


def test_lips_rest_where_the_sound_is_taken_away(monkeypatch):
    monkeypatch.setattr(distill, "SILENT", 1.0)
    batch = Segments([training_clip("addresses", "a", "kim")]).batch(np.random.default_rng(0))
    assert not batch.teacher_forecast.any()
    assert not batch.has_sound.any()
    encoder = SpeechEncoder(width=16, layers=1, hidden=8)
    heads = torch.nn.ModuleDict({"teacher": torch.nn.Linear(16, TARGETS), "curves": torch.nn.Linear(16, 15)})
    parts = distill.losses(encoder, heads, batch)
    assert parts["told"] > 0
    assert all(parts[name] == 0 for name in ("teacher", "filmed", "curves"))


def test_another_encoders_weights_are_taken_as_far_as_they_fit(tmp_path):
    known = SpeechEncoder(width=16, layers=1, hidden=8)
    known.save_pretrained(tmp_path)
    larger = SpeechEncoder(width=16, layers=3, hidden=12)
    distill.load_matching_weights(larger, tmp_path)
    assert torch.equal(larger.blocks[0].expand.weight, known.blocks[0].expand.weight)
    assert larger.blocks[2].scale.max().item() == pytest.approx(0.02)
    assert larger.lips.layers[1].weight.shape[0] == 12


def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(distill, "training_clips", lambda data, teacher, folder: three_clips())
    monkeypatch.setattr(distill, "BATCH", 4)
    monkeypatch.setattr(distill, "SpeechEncoder", lambda: SpeechEncoder(width=16, layers=1, hidden=8))
    whole = distill.train(tmp_path, tmp_path / "whole", tmp_path, steps=4, save_every=2)
    made, calls = Segments.batch, []

    def power_cut(self, rng):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return made(self, rng)

    monkeypatch.setattr(Segments, "batch", power_cut)
    with pytest.raises(KeyboardInterrupt):
        distill.train(tmp_path, tmp_path / "cut", tmp_path, steps=4, save_every=2)
    monkeypatch.setattr(Segments, "batch", made)
    given = [str(tmp_path), str(tmp_path / "cut"), "--teacher", str(tmp_path), "--steps", "4"]
    monkeypatch.setattr("sys.argv", ["distill", *given])
    distill.main()
    resumed = SpeechEncoder.from_pretrained(tmp_path / "cut" / "speech").state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed[name]), name
