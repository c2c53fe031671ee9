"""Private folders for one process: removed when it ends, or, after a kill, by the next process that makes one."""

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from syncdiff.errors import InputError

SERVER_PREFIX, COMMAND_PREFIX, JOB_PREFIX = "syncdiff-app-", "syncdiff-run-", "syncdiff-job-"
RESULT_PREFIX = ".syncdiff-"  # beside a result, while it is made
UNLOCKED_PREFIX = "syncdiff-new-"  # while a folder is made; it gets its own prefix once it is locked


def make_server_tmpdir() -> Path:
    """Make a private folder and set TMPDIR to it, for this process and its children; it goes when the process ends."""
    folder, _ = _make_locked_dir(Path(tempfile.gettempdir()), SERVER_PREFIX)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


@contextmanager
def command_tmpdir() -> Iterator[Path]:
    """As make_server_tmpdir, for the length of one command. Raises InputError where there is no temporary folder."""
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise InputError("No temporary folder can be written to: set TMPDIR to one that is yours.") from error
    with locked_tmpdir(parent, COMMAND_PREFIX) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before[1]
            os.environ.pop("TMPDIR")
            if before[0] is not None:
                os.environ["TMPDIR"] = before[0]


@contextmanager
def locked_tmpdir(parent: Path, prefix: str) -> Iterator[Path]:
    """A private folder in `parent`. Folders of that prefix whose process was killed are removed first."""
    folder, lock = _make_locked_dir(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def try_to_replace(out: Path) -> None:
    """Raise the OSError that would keep a file from being moved to `out`; what is there stays.

    An empty folder is moved there: over a file it is refused as a folder only where a file would be let through.
    """
    with locked_tmpdir(out.parent, RESULT_PREFIX) as beside, suppress(NotADirectoryError):
        (beside / "empty").mkdir()
        (beside / "empty").rename(out)
        out.rmdir()


def _make_locked_dir(parent: Path, prefix: str) -> tuple[Path, int]:
    """The folder and the descriptor that locks it. The system frees the lock of any process that ends."""
    for old in parent.glob(f"{prefix}*"):
        with suppress(OSError), (old / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while the owner lives
            shutil.rmtree(old, ignore_errors=True)
    hidden = "." * prefix.startswith(".")
    new = Path(tempfile.mkdtemp(prefix=hidden + UNLOCKED_PREFIX, dir=parent))
    lock = os.open(new / "lock", os.O_CREAT | os.O_RDONLY, 0o600)  # stays open, and is not inherited
    with suppress(OSError):  # a file system without locks: then nobody else can lock it either, and it stays
        fcntl.flock(lock, fcntl.LOCK_EX)
    return new.rename(new.with_name(new.name.replace(hidden + UNLOCKED_PREFIX, prefix, 1))), lock
