"""The linear probe, on lips that are planted in the features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from syncdiff.evaluation import probe
from syncdiff.evaluation.probe import FORECAST, OURS, PENALTIES, TEACHER, Read
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.training.data import _AT, ClipRecord

FRAMES = 60


def clip(name: str, of: str, person: str, seed: int) -> ClipRecord:
    """Two lips that open and widen at random, slowly; eyes 60 px apart."""
    rng = np.random.default_rng(seed)
    points = np.zeros((FRAMES, len(_AT), 2), np.float32)
    points[:, _AT[263], 0] = 60
    gap, width = (np.convolve(rng.normal(0, 1, FRAMES + 4), np.ones(5) / 5, "valid") for _ in range(2))
    points[:, _AT[14], 1] = 4 + 3 * gap
    points[:, _AT[291], 0] = 32 + 3 * width
    sound = rng.normal(0, 1000, FRAMES * 640).astype(np.int16)
    return ClipRecord(of, name, person, sound, points, None, None)


@pytest.fixture(scope="module")
def clips() -> tuple[list[ClipRecord], list[ClipRecord]]:
    """To be fitted on: one man filmed eight times and eight other people; then strangers, the last not in step."""
    train = [clip(f"a{i}", "grid-s1", "one man", i) for i in range(8)]
    train += [clip(f"b{i}", "rendered", f"head {i}", 100 + i) for i in range(8)]
    return train, [clip(f"c{i}", "val-hdtf", f"stranger {i}", 200 + i) for i in range(4)]


def planted(records: list[ClipRecord], noise: float, late: int = 0) -> list[np.ndarray]:
    """Features [T50, 8] that hold opening and width, mixed, in noise, `late` frames after the lips."""
    rng = np.random.default_rng(0)
    mix = rng.normal(0, 1, (2, 8))
    out = []
    for r in records:
        truth = np.roll(np.stack([r.opening, r.width], 1), late, axis=0).repeat(2, axis=0)
        out.append((truth @ mix * 10 + rng.normal(0, noise, (2 * FRAMES, 8))).astype(np.float32))
    return out


def test_the_probe_finds_what_is_there_and_nothing_else(clips):
    train, test = clips
    both = [*train, *test]
    kinds = {"plain": planted(both, 0.05), "late": planted(train, 0.05) + planted(test, 0.05, late=3)}
    kinds["empty"] = [np.random.default_rng(i).normal(0, 1, (120, 8)).astype(np.float32) for i in range(20)]
    found = {name: (penalty, rows) for name, penalty, rows in probe.probe(kinds, train, test)}
    for what in ("opening", "width"):
        rows = {name: [r for r in found[name][1] if r.what == what] for name in kinds}
        assert [len(r) for r in rows.values()] == [4, 4, 4]
        assert min(r.r for r in rows["plain"]) > 0.9
        assert {r.best_lag for r in rows["plain"]} == {0}
        assert {r.best_lag for r in rows["late"]} == {3}
        assert max(r.r for r in rows["late"]) < 0.6 < 0.9 < min(r.best_r for r in rows["late"])
        assert abs(np.mean([r.r for r in rows["empty"]])) < 0.3
    assert found["plain"][0] == PENALTIES[0]


def test_noisy_features_ask_for_a_stronger_penalty():
    """Many features of pure noise beside a weak one: what is fitted without a penalty reads strangers worse."""
    rng = np.random.default_rng(3)
    data, people = [], [f"person {i}" for i in range(12)]
    for _ in people:
        y = rng.normal(0, 1, (25, 2)).astype(np.float32)
        x = np.concatenate([y[:, :1] + rng.normal(0, 1, (25, 1)), rng.normal(0, 1, (25, 200)), np.ones((25, 1))], 1)
        data.append((x.astype(np.float32), y))
    weights, penalty = probe.fit_map(data, ["rendered"] * 12, people)
    assert penalty >= 0.1
    assert weights.shape == (202, 2)


def test_the_forecast_is_the_products_own_and_its_spread_is_told(clips):
    torch.manual_seed(0)
    rows = probe.forecast_rows(SpeechEncoder(width=32, layers=1).eval(), clips[1][:1])
    assert [(r.features, r.what) for r in rows] == [(FORECAST, "opening"), (FORECAST, "width")]
    assert all(0 < r.spread < 1 for r in rows)


def test_what_was_asked_is_answered_as_it_is():
    rows = [Read(k, "val-hdtf", c, "opening", r, r, 0) for k, r in ((OURS, 0.4), (TEACHER, 0.5)) for c in "ab"]
    assert "ordinary: ours do NOT beat the teacher's (0.400 and 0.500)." in probe.demand(rows)
    rows.append(Read(FORECAST, "val-voxceleb2", "c", "opening", 0.6, 0.7, 1, spread=0.75))
    lines = probe.table(rows).splitlines()
    assert lines[0] == f"| lip | people | clips | {OURS} | {TEACHER} | {FORECAST} | spread |"
    assert "| opening | ordinary | 3 | 0.40 (0.40) | 0.50 (0.50) | 0.60 (0.70) | 0.75 |" in lines
