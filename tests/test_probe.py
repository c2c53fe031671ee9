"""The probe, on lips that are planted in the features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from syncdiff.evaluation import probe
from syncdiff.evaluation.probe import FORECAST, OURS, ClipResult
from syncdiff.models.speech_encoder import SpeechEncoder
from syncdiff.training.data import ClipRecord
from syncdiff.training.prepare import KEPT

FRAMES, STEPS = 90, 60


def clip(name: str, of: str, person: str, seed: int) -> ClipRecord:
    """Two lips that open and widen at random, slowly; eyes 60 px apart."""
    rng = np.random.default_rng(seed)
    points = np.zeros((FRAMES, len(KEPT), 2), np.float32)
    points[:, KEPT.index(263), 0] = 60
    gap, width = (np.convolve(rng.normal(0, 1, FRAMES + 4), np.ones(5) / 5, "valid") for _ in range(2))
    points[:, KEPT.index(14), 1] = 8 + 6 * gap
    points[:, KEPT.index(291), 0] = 32 + 6 * width
    sound = rng.normal(0, 1000, FRAMES * 640).astype(np.int16)
    return ClipRecord(of, name, person, sound, points, None, np.ones(FRAMES, bool))


@pytest.fixture(scope="module")
def clips() -> tuple[list[ClipRecord], list[ClipRecord]]:
    """To be trained on: one man filmed eight times and eight other people; then strangers."""
    train = [clip(f"a{i}", "grid-s1", f"a{i}", i) for i in range(8)]
    train += [clip(f"b{i}", "addresses", f"person {i}", 100 + i) for i in range(8)]
    return train, [clip(f"c{i}", "val-hdtf", f"stranger {i}", 200 + i) for i in range(4)]


def planted(records: list[ClipRecord], late: int = 0) -> list[np.ndarray]:
    """Features [T50, 8] that hold opening and width, mixed, `late` frames after the lips."""
    mix = np.random.default_rng(0).normal(0, 1, (2, 8))
    truth = [np.roll(np.stack([r.opening, r.width], 1), late, axis=0).repeat(2, axis=0) for r in records]
    return [((x - x.mean(0)) @ mix * 10).astype(np.float32) for x in truth]


def test_the_probe_finds_what_is_there_and_when(clips):
    train, test = clips
    plain = probe.probe("plain", planted([*train, *test]), train, test, STEPS)
    late = probe.probe("late", planted(train) + planted(test, late=1), train, test, STEPS)
    for what in ("opening", "width"):
        rows, lagging = ([r for r in some if r.what == what] for some in (plain, late))
        assert len(rows) == len(lagging) == 4
        assert min(r.r for r in rows) > 0.8
        assert probe.late(rows) == pytest.approx(0, abs=0.15)
        assert {int(np.argmax(r.lags)) - probe.LAGS for r in lagging} == {1}


def test_nothing_is_found_where_nothing_is(clips):
    train, test = clips
    rng = np.random.default_rng(1)
    rows = probe.probe("empty", [rng.normal(0, 1, (2 * FRAMES, 8)) for _ in [*train, *test]], train, test, STEPS)
    assert abs(np.mean([r.r for r in rows])) < 0.3


def test_the_forecast_is_the_products_own_and_its_spread_is_told(clips):
    torch.manual_seed(0)
    rows = probe.forecast_rows(SpeechEncoder(width=32, layers=1, hidden=16).eval(), clips[1][:1])
    assert [(r.features, r.what) for r in rows] == [(FORECAST, "opening"), (FORECAST, "width")]
    assert all(0 < r.spread < 1 for r in rows)


def test_the_table_has_means_over_clips_of_sets_and_groups():
    rows = [ClipResult(OURS, "val-hdtf", c, "opening", (0, 0.2, 0.4, 0.4, 0), 0.5) for c in "ab"]
    rows += [ClipResult(FORECAST, "val-hdtf", c, "opening", (0, 0.5, 0.6, 0.7, 0), 0.5) for c in "ab"]
    rows.append(ClipResult(FORECAST, "val-voxceleb2", "c", "opening", (0, 0.5, 0.6, 0.5, 0), 0.8))
    lines = probe.table(rows).splitlines()
    assert lines[0] == f"| lip | people | clips | {OURS} | {FORECAST} | late | spread |"
    assert "| opening | ordinary | 3 | 0.40 (0.40) | 0.60 (0.67) | +1.00 | 0.60 |" in lines
