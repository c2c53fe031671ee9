"""The command line over a fake pipeline: what goes to which stream, which exit code, what is left on disk."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from syncdiff import job
from syncdiff.cli import main
from syncdiff.cli.doctor import PACKAGES
from syncdiff.errors import InputError
from syncdiff.options import SampleOptions
from syncdiff.results import Progress
from syncdiff.sync import syncnet_v2
from syncdiff.sync.scoring import Scores
from tests.fakes import FakePipeline


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    fake = FakePipeline()

    def ready(*_, source_copy: bool = True) -> FakePipeline:
        fake.source_copy = source_copy
        return fake

    monkeypatch.setattr(job.Job, "ready", ready)
    return fake


def test_sync_prints_one_object_and_writes_one_file(pipe, tmp_path, capsys) -> None:
    out = tmp_path / "out.mp4"
    options = ["--steps", "7", "--seed", "3", "--face", "1", "--trim", "--correct-offset", "--json"]
    assert main(["sync", "face.mp4", "voice.wav", str(out), *options]) == 0
    assert pipe.calls[0][:2] == (Path("face.mp4"), Path("voice.wav"))
    assert pipe.calls[0][3] == SampleOptions(steps=7, seed=3, face=1, tail="trim", correct_offset=True)
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["frames"] == 50
    assert report["video"] == str(out)
    assert "source" not in report
    assert report["peak_memory_mib"] == 812.0
    assert (report["device"], report["attention"]) == ("cpu", "sdpa")
    assert "SyncNet" in report["lse_needs"]
    assert "drawing" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    with av.open(str(out)) as written:
        assert len(written.streams.video) == len(written.streams.audio) == 1


def test_sync_writes_the_comparison_beside_the_result(pipe, tmp_path) -> None:
    out, both = tmp_path / "out.mp4", tmp_path / "both.mp4"
    assert main(["sync", "face.mp4", "voice.wav", str(out), "--compare", str(both)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.mp4", "out.mp4"]
    with av.open(str(both)) as written:
        assert (written.streams.video[0].width, written.streams.video[0].height) == (640, 180)
        assert written.streams.audio
        first, *_, last = (frame.to_ndarray(format="rgb24") for frame in written.decode(video=0))
    assert np.abs(first[60, 160] - [200.0, 190, 180]).max() < 12  # the source's disc left, the result's right
    assert np.abs(first[60, 480] - [210.0, 180, 160]).max() < 12
    assert (last[176] != first[176]).any()
    assert main(["sync", "face.mp4", "voice.wav", str(out), "--compare", str(out.with_suffix(".avi"))]) == 2


def test_a_comparison_takes_no_other_files_place(pipe, tmp_path, capsys) -> None:
    out = tmp_path / "out.mp4"
    (tmp_path / "out.source.mp4").write_text("the visitor's own")
    assert main(["sync", "face.mp4", "voice.wav", str(out), "--compare", str(tmp_path / "both.mp4"), "--quiet"]) == 0
    assert (tmp_path / "out.source.mp4").read_text() == "the visitor's own"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.mp4", "out.mp4", "out.source.mp4"]
    out.unlink()
    assert main(["sync", "face.mp4", "voice.wav", str(out), "--compare", f"{tmp_path}/./out.mp4"]) == 2
    assert "name two files" in capsys.readouterr().err
    assert not out.exists()


def test_a_result_that_may_not_be_written_over_stays(pipe, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out.mp4"
    out.write_text("what was there before")
    monkeypatch.setattr(os, "access", lambda path, mode: path != out)  # root may write whatever its mode
    assert main(["sync", "face.mp4", "voice.wav", str(out)]) == 2
    assert "may not be written" in capsys.readouterr().err
    assert pipe.calls == []


@pytest.mark.parametrize("old", ["what was there before", None])
@pytest.mark.parametrize("mode", [0o1777, 0o555])
def test_a_folder_that_will_refuse_the_result_is_said_before_the_work(old, mode, tmp_path) -> None:
    """In a process of its own, which is nobody's: a sticky folder with somebody else's file, and a closed one."""
    out = tmp_path / "there" / "out.mp4"
    out.parent.mkdir()
    if old:
        out.write_text(old)
        out.chmod(0o666)
    out.parent.chmod(mode)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o111)
    work = f"""
import os
from pathlib import Path
from syncdiff.cli.paths import checked_output
if os.getuid() == 0:
    os.setuid(65534)
checked_output(Path({str(out)!r}), ())
"""
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=False)
    refused = mode == 0o555 or (old and os.getuid() == 0)  # where the file is somebody else's
    assert done.returncode == bool(refused), done.stderr
    assert ("Nothing may be written there" in done.stderr) == bool(refused)
    assert [path.read_text() for path in out.parent.iterdir()] == [old] * bool(old)


def test_sync_in_words_with_the_default_options(pipe, tmp_path, capsys) -> None:
    assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4")]) == 0
    assert pipe.calls[0][3] == SampleOptions()
    printed = capsys.readouterr().out
    assert "0.4 to 0.7 s is left as it was" in printed
    assert printed.splitlines()[-1] == job.NO_SYNCNET
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


def test_a_result_that_cannot_be_written_is_said_before_the_work(pipe, tmp_path, capsys, subtests) -> None:
    for out in ["out.txt", "no/such/folder/out.mp4"]:
        with subtests.test(out=out):
            assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / out)]) == 2
            assert len(capsys.readouterr().err.splitlines()) == 1
            assert pipe.calls == []


def test_options_out_of_range(pipe, tmp_path, capsys, subtests) -> None:
    for option, value in [("--steps", "0"), ("--steps", "51"), ("--seed", "-1"), ("--steps", "x")]:
        with subtests.test(option=option, value=value):
            try:
                code = main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4"), option, value])
            except SystemExit as end:  # argparse's way out
                code = end.code
            assert code == 2
            assert value in capsys.readouterr().err
            assert pipe.calls == []


def test_ctrl_c_a_stop_and_a_closed_terminal_tidy_up_alike(pipe, tmp_path, capsys, subtests) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, code in [(None, 130), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]:
        with subtests.test(number=number, code=code):
            pipe.on_draw = partial(os.kill, os.getpid(), number) if number else interrupt
            assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4")]) == code
            assert list(tmp_path.iterdir()) == []
            assert not pipe.folders[-1].exists()
            assert {each: signal.getsignal(each) for each in before} == before


def module_around(main: str) -> subprocess.CompletedProcess[bytes]:
    """`python -m syncdiff` with another `main`, in a process of its own whose output takes nothing but text."""
    stub = f'sys.modules["syncdiff.cli"] = types.SimpleNamespace(main=lambda: {main})'
    work = f'import os, runpy, signal, sys, types; {stub}; runpy.run_module("syncdiff", run_name="__main__")'
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    return subprocess.run([sys.executable, "-c", work], env=environment, capture_output=True, check=False)


def test_a_stop_before_the_command_has_begun_is_no_traceback() -> None:
    done = module_around("os.kill(os.getpid(), signal.SIGTERM)")
    assert (done.returncode, done.stderr) == (143, b"")


def test_a_name_that_is_no_text_is_printed_as_it_is() -> None:
    done = module_around('print(os.fsdecode(b"\\xff.mp4"))')
    assert (done.returncode, done.stdout) == (0, b"\xff.mp4\n"), done.stderr


def test_torch_leaves_nothing_in_the_temporary_folder_and_standard_error_may_be_closed(tmp_path) -> None:
    """It makes a folder for compiled code as it is imported: in a process of its own, up to the missing face."""
    command = f"{sys.executable} -m syncdiff sync none.mp4 none.wav {tmp_path}/out.mp4 2>&-"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, []), done.stderr


def test_odd_shells_are_no_traceback(tmp_path, subtests) -> None:
    """Processes of their own: nobody reads the output, the working folder is gone."""
    python = f"{sys.executable} -m syncdiff"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for line, code, words in [
        (f"(sleep 0.2; {python} doctor) | true; exit ${{PIPESTATUS[0]}}", 141, ""),
        (f"mkdir gone; cd gone; rmdir ../gone; {python} verify none.mp4", 2, "was deleted: change to one"),
    ]:
        with subtests.test(line):
            done = subprocess.run(
                ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == code, done.stderr
            assert words in done.stderr
            assert "Traceback" not in done.stderr
            assert done.stderr.count("\n") <= 1


def test_what_a_killed_command_left_is_cleared_by_the_next(pipe, tmp_path, monkeypatch) -> None:
    temp = tmp_path / "temp"
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    left = temp / "syncdiff-run-left"
    left.mkdir(parents=True)
    (left / "lock").touch()
    (left / "face.mp4").touch()
    assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4")]) == 0
    assert list(temp.iterdir()) == []


def test_an_input_is_never_overwritten(pipe, tmp_path, monkeypatch, capsys, subtests) -> None:
    (tmp_path / "in.mp4").write_text("the only copy")
    (tmp_path / "sub").mkdir()
    (tmp_path / "soft.mp4").symlink_to("in.mp4")
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "in.mp4")
    monkeypatch.chdir(tmp_path)
    for spelling in ["in.mp4", "./in.mp4", "sub/../in.mp4", "soft.mp4", "hard.mp4"]:
        for inputs in [("in.mp4", "other.mp4"), ("other.mp4", "in.mp4")]:
            with subtests.test(spelling=spelling, inputs=inputs):
                assert main(["sync", *inputs, spelling]) == 2
                assert capsys.readouterr().err == "OUT is in.mp4, which is an input: give the result another name.\n"
                assert pipe.calls == []
                assert (tmp_path / "in.mp4").read_text() == "the only copy"


def test_out_goes_where_a_link_leads_and_over_nothing_but_a_file(pipe, tmp_path, capsys) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.mp4").symlink_to("real/out.mp4")
    assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / "link.mp4"), "--quiet"]) == 0
    assert (tmp_path / "link.mp4").is_symlink()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["out.mp4"]
    capsys.readouterr()
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "round.mp4").symlink_to("round.mp4")
    (tmp_path / "nowhere.mp4").symlink_to("none/out.mp4")
    before = sorted(tmp_path.iterdir())
    for out, why in {"folder": "is a folder", "pipe": "no ordinary file", "round": "a link in a circle",
                     "nowhere": "none is no folder", "x" * 300: "File name too long"}.items():  # fmt: skip
        assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / f"{out}.mp4")]) == 2
        printed = capsys.readouterr().err
        assert why in printed
        assert len(printed.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before
    assert len(pipe.calls) == 1


def test_a_disk_that_takes_no_more_is_one_sentence(pipe, tmp_path, capsys, subtests) -> None:
    for number in [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EFBIG, errno.EIO]:
        with subtests.test(number=number):
            pipe.error = OSError(number, os.strerror(number))
            (tmp_path / "out.mp4").write_text("what was there before")
            assert main(["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4")]) == 2
            said = capsys.readouterr().err.splitlines()[-1]
            assert "choose another folder" in said
            assert ("free some space there" in said) == (number in (errno.ENOSPC, errno.EDQUOT))
            assert [path.read_text() for path in tmp_path.iterdir()] == ["what was there before"]


def test_a_web_address_gets_its_own_sentence(pipe, capsys, subtests) -> None:
    address = "https://example.org/talk.mp4"
    for command in [["sync", "face.mp4", address, "out.mp4"], ["score", address], ["verify", address]]:
        with subtests.test(command=command):
            assert main(command) == 2
            printed = capsys.readouterr().err
            assert printed == "talk.mp4 is an address: give the path of a file, downloaded where it is on the web.\n"


def test_progress_is_a_bar_on_a_terminal_or_lines_or_nothing(pipe, tmp_path, capsys, monkeypatch) -> None:
    command = ["sync", "face.mp4", "voice.wav", str(tmp_path / "out.mp4")]
    stages = ["reading", "finding the face", "listening", "drawing", "scoring"]
    assert main(command) == 0
    assert capsys.readouterr().err.splitlines() == stages
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    pipe.pause = 0.11  # tqdm draws ten times a second
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(command) == 0
    drawn = capsys.readouterr().err
    assert "\n" not in drawn
    assert re.findall(r"\r([a-z ]+?) +0%\|", drawn) == stages
    assert re.search(r"\rdrawing +\d+%\|.+\| [\d:]+ left, +[\d.]+ frames/s", drawn)


def test_version(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == "syncdiff 0.1.0\n"


def test_score(pipe, monkeypatch, capsys, subtests) -> None:
    monkeypatch.setattr("syncdiff.sync.syncnet_v2.weights.find", lambda path=None: None)
    for scores, words in [
        (Scores("syncdiff-judge", 4.5, 7.25, -2), "confidence 4.50, distance 7.25, offset -2 frames at 25 fps"),
        (Scores("syncdiff-judge", reason="not scorable: the clip lasts 1.0 s"), "not scorable: the clip lasts 1.0 s"),
    ]:
        with subtests.test(words):
            items = [Progress("scoring", 1, 1, None), scores]
            monkeypatch.setattr(pipe, "score", lambda _, items=items: (item for item in items), raising=False)
            assert main(["score", "video.mp4"]) == 0
            judged, how = capsys.readouterr().out.splitlines()
            assert judged.startswith(words)
            assert judged.endswith("(syncdiff-judge)")
            assert how.startswith("For LSE-C and LSE-D, SyncNet's own weights are needed")
            assert main(["score", "video.mp4", "--json"]) == 0
            told = json.loads(capsys.readouterr().out)
            assert told["confidence"] == scores.confidence
            assert told["lse"] is None
            assert told["lse_needs"] == how


@pytest.fixture
def official(pipe, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """As if SyncNet's own weights were here and every video had one face, or two; what was asked of them."""
    asked = []

    def score_video_of(video):
        yield Scores("syncdiff-judge", 4.5, 7.25, -2)

    def score_video(video, net, protocol, **options):
        asked.append((Path(video).name, net, protocol))
        yield 0.5
        if Path(video).name == "bad.mp4":
            raise InputError("'bad.mp4' is no video.")
        return tuple(
            Scores(syncnet_v2.NAMES[protocol], 8.0 + i, 6.5, 1) for i in range(2 if "two" in str(video) else 1)
        )

    monkeypatch.setattr(pipe, "score", score_video_of, raising=False)
    monkeypatch.setattr(syncnet_v2, "load", lambda path=None: f"net of {path}")
    monkeypatch.setattr(syncnet_v2, "score_video", score_video)
    monkeypatch.setattr("syncdiff.sync.syncnet_v2.videos.score_video", score_video)
    return asked


def test_score_with_syncnets_own_weights(official, capsys) -> None:
    assert main(["score", "two.mp4", "--syncnet", "mine.model"]) == 0
    assert official == [("two.mp4", "net of mine.model", "tracks")]
    assert capsys.readouterr().out.splitlines() == [
        "confidence 4.50, distance 7.25, offset -2 frames at 25 fps (syncdiff-judge)",
        "LSE-C 8.00, LSE-D 6.50, offset +1 frames at 25 fps (SyncNet v2, LSE on face tracks)",
        "LSE-C 9.00, LSE-D 6.50, offset +1 frames at 25 fps (SyncNet v2, LSE on face tracks)",
    ]
    assert main(["score", "one.mp4", "--lse", "frame", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["judge"] == "syncdiff-judge"
    assert [(face["judge"], face["confidence"]) for face in told["lse"]] == [("SyncNet v2, LSE on the whole frame", 8)]


def test_the_judges_score_stands_where_lse_cannot_be_told(official, capsys) -> None:
    assert main(["score", "bad.mp4"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "'bad.mp4' is no video."


def test_score_of_a_folder(official, tmp_path, capsys) -> None:
    for name in ("a.mp4", "bad.mp4", "two.mp4", "notes.txt"):
        (tmp_path / name).touch()
    assert main(["score", str(tmp_path)]) == 0
    assert [protocol for _, _, protocol in official] == ["frame"] * 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a.mp4: LSE-C 8.00, LSE-D 6.50, offset +1 frames at 25 fps (SyncNet v2, LSE on the whole frame)"
    assert lines[1].startswith("bad.mp4: not scorable: 'bad.mp4' is no video.")
    assert lines[-1] == "mean of 3 scored of 4: LSE-C 8.333, LSE-D 6.500 (SyncNet v2, LSE on the whole frame)"
    assert main(["score", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [len(video["faces"]) for video in told["videos"]] == [1, 1, 2]
    assert told["mean"]["confidence"] == pytest.approx(25 / 3)


def test_a_folder_without_weights_and_a_wrong_file_are_bad_input(pipe, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("syncdiff.sync.syncnet_v2.weights.find", lambda path=None: path)
    assert main(["score", str(tmp_path)]) == 2
    assert "is a folder, which only LSE scores. For LSE-C and LSE-D" in capsys.readouterr().err
    (tmp_path / "syncnet_v2.model").write_bytes(b"something else")
    assert main(["score", "video.mp4", "--syncnet", str(tmp_path / "syncnet_v2.model")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("syncnet_v2.model is refused: its sha256 is")
    assert syncnet_v2.weights.SHA256 in printed.err


def test_nothing_is_fetched_without_a_yes(pipe, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda prompt: "no")
    assert main(["score", "video.mp4", "--fetch"]) == 2
    assert "its licence was not accepted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_doctor_ends_with_a_verdict(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("syncdiff.weights.folders.COMPACT", tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"record": json.dumps({"steps": 700, "seen": [1]})})
    monkeypatch.setattr("syncdiff.cli.doctor.PACKAGES", (*PACKAGES, "no-such-package"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("syncdiff.sync.syncnet_v2.weights.find", lambda path=None: None)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("verdict   not ready: no-such-package is not installed; there are no weights in")
    assert any(line.startswith("weights") and line.endswith("a.safetensors 0.0 MB: steps 700") for line in lines)
    assert any("ffmpeg and ffprobe not on PATH" in line for line in lines)
    assert any(line.startswith("syncnet   none. For LSE-C and LSE-D") for line in lines)
    assert any(line.startswith("device") and "attention" in line for line in lines)
