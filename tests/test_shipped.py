"""The shipped weights on the shipped examples, end to end.

The examples' faces were trained on: this is no measure of quality on strangers (`training.evaluate` is), only proof
that what is shipped draws lips that follow the voice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from syncdiff.conditioning import FramePlan
from syncdiff.faces import track_faces
from syncdiff.job import Job
from syncdiff.media import open_clip
from syncdiff.options import SampleOptions
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.progress import finished
from syncdiff.sync.judge import JudgeNet
from syncdiff.sync.scoring import FPS, correlation, lip_opening
from syncdiff.weights.folders import COMPACT

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def job() -> Job:
    return Job(SyncDiffPipeline.from_pretrained(), JudgeNet.shipped())


def opening(path: Path, folder: Path) -> np.ndarray:
    """[T] lip opening of the only face in a video, by landmarks."""
    folder.mkdir()
    frames = open_clip(path, folder).frames()
    return lip_opening(finished(track_faces(frame.rgb() for frame in frames))[0].points)


def test_files_are_small_and_say_how_they_were_trained():
    files = sorted(COMPACT.rglob("*.safetensors"))
    assert sum(f.stat().st_size for f in files) < 40e6
    for path in files:
        assert path.stat().st_size < 10e6
        with safe_open(path, framework="pt") as file:
            assert "record" in file.metadata()
    assert (COMPACT / "README.md").exists()


def test_the_lips_follow_the_voice_and_not_the_picture(job, tmp_path):
    face, voice = EXAMPLES / "tomas.mp4", EXAMPLES / "ines.mp4"  # the voice of another example, whose lips are known
    *_, result = job(face, voice, tmp_path / "out.mp4", SampleOptions())
    drawn, spoken, seen = (
        opening(path, tmp_path / name) for name, path in (("a", result.video), ("b", voice), ("c", face))
    )
    n = min(map(len, (drawn, spoken, seen)))
    assert correlation(drawn[:n], spoken[:n]) > 0.4
    assert correlation(drawn[:n], spoken[:n]) > correlation(drawn[:n], seen[:n]) + 0.2


def test_the_judge_scores_source_and_result(job, tmp_path):
    face = EXAMPLES / "ines.mp4"
    *_, result = job(face, face, tmp_path / "out.mp4", SampleOptions(steps=1, correct_offset=True))
    assert result.earlier_frames == 0  # in step as they are
    for scores in (result.source_scores, result.result_scores):
        assert scores.reason is None
        assert scores.judge == "syncdiff-judge"
        assert scores.confidence > 0
    assert abs(result.source_scores.offset_frames) <= 1  # a rendered head speaks exactly in time


def test_lips_that_come_late_are_found_in_a_test_pass_and_drawn_in_sync(job, tmp_path, monkeypatch):
    made, late = FramePlan.of, 4
    monkeypatch.setattr(FramePlan, "of", lambda *given: made(*given).ahead(-late / FPS))  # as if the model drew them so
    options = SampleOptions(steps=1, correct_offset=True)
    *_, result = job(EXAMPLES / "ines.mp4", EXAMPLES / "voice-river.wav", tmp_path / "out.mp4", options)
    assert abs(result.earlier_frames - late) <= 1
    assert abs(result.result_scores.offset_frames) <= 1
    assert result.result_scores.steady
    assert any(f"{abs(result.earlier_frames) * 1000 // FPS} ms" in note for note in result.notes)
