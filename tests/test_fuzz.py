"""The short version of tools/fuzz.py: a few damaged files, and that the harness sees what it looks for."""

import time
from pathlib import Path

import pytest

from syncdiff.errors import InputError
from tools import fuzz


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return fuzz.originals(tmp_path_factory.mktemp("originals"))


@pytest.mark.parametrize("seed", [0, 1])
def test_damaged_files_end_in_a_result_or_a_sentence(seed: int, tmp_path: Path) -> None:
    tally = fuzz.fuzz(seed, range(5), time.monotonic() + 600, tmp_path / "kept")
    assert tally.findings == []
    assert tally.ends.total() >= 5


def test_a_file_can_be_made_again_from_its_seed_and_number(files: dict[str, bytes]) -> None:
    assert fuzz.made(files, 3, 4) == fuzz.made(files, 3, 4)
    assert len({fuzz.made(files, 3, number)[1] for number in range(40)}) > 35


def test_what_is_looked_for_is_found(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, job = tmp_path / "a.wav", tmp_path / "job"
    path.write_bytes(files["a.wav"])
    job.mkdir()
    tally = fuzz.Tally()
    assert fuzz.attempt(path, "voice", job, tally) == []

    def broken(path: Path, folder: Path, limits: object) -> None:
        (folder / "rest").touch()
        raise {"word": InputError("no sentence"), "crash": ZeroDivisionError("oh")}[how]

    monkeypatch.setattr(fuzz, "open_speech", broken)
    how = "word"
    assert [words.split(":")[0] for words in fuzz.attempt(path, "voice", job, tally)] == ["no sentence", "left behind"]
    how = "crash"
    assert fuzz.attempt(path, "voice", job, tally) == ["ZeroDivisionError reached the caller: oh"]
    assert tally.ends == {"voice: read": 1, "voice: refused": 1, "voice: crash of the parent": 1}
