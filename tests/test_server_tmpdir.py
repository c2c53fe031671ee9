"""A server's private folder goes with it, at the latest when the next one starts."""

import os
import subprocess
import sys
from pathlib import Path

from syncdiff.server_tmpdir import JOB_PREFIX, RESULT_PREFIX, locked_tmpdir

SETTLE = "from syncdiff.server_tmpdir import make_server_tmpdir; print(make_server_tmpdir(), flush=True); input()"


def begin(temp: Path) -> tuple[subprocess.Popen, Path]:
    """A process with a home, and that home."""
    process = subprocess.Popen(
        [sys.executable, "-c", SETTLE], env=os.environ | {"TMPDIR": str(temp)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parent.parent,
    )  # fmt: skip
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_whoever_was_killed_goes_and_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "syncdiff-somebody").mkdir()  # a run of the command line
    killed, his = begin(tmp_path)
    living, hers = begin(tmp_path)
    assert his != hers
    assert his.stat().st_mode & 0o777 == 0o700
    (his / "upload.mp4").touch()
    killed.kill()
    killed.communicate()
    assert his.exists()
    third, its = begin(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "syncdiff-somebody", hers, its])
    for process in (living, third):
        process.communicate("\n")
        assert process.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["syncdiff-somebody"]


def test_a_folder_goes_with_its_job_and_what_a_killed_one_left_with_the_next(tmp_path: Path, subtests) -> None:
    for prefix in [JOB_PREFIX, RESULT_PREFIX]:
        with subtests.test(prefix=prefix):
            left = tmp_path / f"{prefix}left"
            left.mkdir()
            (left / "lock").touch()
            (left / "face.mp4").touch()
            with locked_tmpdir(tmp_path, prefix) as first:
                assert list(tmp_path.iterdir()) == [first]
                with locked_tmpdir(tmp_path, prefix) as second:
                    assert sorted(tmp_path.iterdir()) == sorted([first, second])  # the first lives
                assert list(tmp_path.iterdir()) == [first]
            assert list(tmp_path.iterdir()) == []
