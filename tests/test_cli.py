"""The command line over a fake pipeline: what goes to which stream, which exit code, what is left on disk."""

import json
from pathlib import Path

import av
import pytest
import torch
from safetensors.torch import save_file

from syncdiff import pipeline
from syncdiff.__main__ import main
from syncdiff.media import InputError
from syncdiff.pipeline import Progress, SampleOptions
from syncdiff.scores import Scores
from tests.fakes import FakePipeline


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    fake = FakePipeline()
    monkeypatch.setattr(pipeline.SyncDiffPipeline, "from_pretrained", lambda *_, **__: fake)
    return fake


def test_sync_prints_one_object_and_writes_one_file(pipe, tmp_path, capsys) -> None:
    out = tmp_path / "out.mp4"
    command = [
        "sync",
        "face.mp4",
        "voice.wav",
        str(out),
        "--steps",
        "7",
        "--seed",
        "3",
        "--face",
        "1",
        "--trim",
        "--json",
    ]
    assert main(command) == 0
    assert pipe.calls[0][:2] == (Path("face.mp4"), Path("voice.wav"))
    assert pipe.calls[0][3] == SampleOptions(steps=7, seed=3, face=1, tail="trim")
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["frames"] == 50
    assert report["video"] == str(out)
    assert "source" not in report
    assert report["peak_memory_mib"] == 812.0
    assert "drawing" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    with av.open(str(out)) as written:
        assert len(written.streams.video) == len(written.streams.audio) == 1


def test_sync_in_words_with_the_default_options(pipe, tmp_path, capsys) -> None:
    assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4")]) == 0
    assert pipe.calls[0][3] == SampleOptions()
    printed = capsys.readouterr().out
    assert "0.4 to 0.7 s is left as it was" in printed
    assert "result: confidence 5.60, distance 6.40, offset +0 frames at 25 fps (syncdiff-judge)" in printed


def test_bad_input_is_one_sentence_and_leaves_nothing(pipe, tmp_path, capsys) -> None:
    pipe.error = InputError("The voice lasts 0.1 s, but at least 0.3 s is needed.")
    before = tmp_path / "out.mp4"
    before.write_text("what was there before")
    assert main(["sync", "face.mp4", "voice.wav", str(before), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1] == "The voice lasts 0.1 s, but at least 0.3 s is needed."
    assert "Traceback" not in printed.err
    assert before.read_text() == "what was there before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert not pipe.folders[0].exists()


@pytest.mark.parametrize("out", ["out.txt", "no/such/folder/out.mp4"])
def test_a_result_that_cannot_be_written_is_said_before_the_work(pipe, tmp_path, capsys, out) -> None:
    assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert pipe.calls == []


@pytest.mark.parametrize(("option", "value"), [("--steps", "0"), ("--steps", "51"), ("--seed", "-1"), ("--steps", "x")])
def test_options_out_of_range(pipe, tmp_path, capsys, option, value) -> None:
    try:
        code = main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4"), option, value])
    except SystemExit as end:  # argparse's way out
        code = end.code
    assert code == 2
    assert value in capsys.readouterr().err
    assert pipe.calls == []


def test_interrupted(pipe, tmp_path, capsys) -> None:
    pipe.error = KeyboardInterrupt()
    assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4")]) == 130
    assert list(tmp_path.iterdir()) == []
    assert not pipe.folders[0].exists()


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (Scores("syncdiff-judge", 4.5, 7.25, -2), "confidence 4.50, distance 7.25, offset -2 frames at 25 fps"),
        (Scores("syncdiff-judge", reason="not scorable: the clip lasts 1.0 s"), "not scorable: the clip lasts 1.0 s"),
    ],
)
def test_score(pipe, monkeypatch, capsys, scores: Scores, words: str) -> None:
    def score_file(pipe, video):
        yield Progress("scoring", 1, 1, None)
        yield scores

    monkeypatch.setattr(pipeline, "score_file", score_file)
    assert main(["score", "video.mp4"]) == 0
    assert capsys.readouterr().out.startswith(words)
    assert main(["score", "video.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["confidence"] == scores.confidence


def test_doctor_ends_with_a_verdict(capsys, monkeypatch, tmp_path) -> None:
    from syncdiff import __main__ as cli

    monkeypatch.setattr(cli, "COMPACT", tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"record": json.dumps({"steps": 700, "seen": [1]})})
    monkeypatch.setattr(cli, "PACKAGES", (*cli.PACKAGES, "no-such-package"))
    monkeypatch.setattr(cli.shutil, "which", lambda name: None)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("verdict   not ready: no-such-package is not installed; there are no weights in")
    assert any(line.startswith("weights") and line.endswith("a.safetensors 0.0 MB: steps 700") for line in lines)
    assert any("ffmpeg and ffprobe not on PATH" in line for line in lines)
    assert any(line.startswith("device") and "attention" in line for line in lines)
