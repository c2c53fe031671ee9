"""The private folder of one server: whatever it writes lies inside, and no later server leaves it lying there."""

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX, NEW = "syncdiff-app-", "syncdiff-new-"


def make_server_tmpdir() -> Path:
    """A fresh folder in the temporary one, for this process and its children; it goes when the process ends.

    A process that is killed tidies nothing up, so the next one does: a folder whose lock nobody holds has no owner.
    The system frees the lock of any process that ends, however it ended."""
    for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), (old / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where the owner lives
            shutil.rmtree(old, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=NEW))
    lock = os.open(new / "lock", os.O_CREAT | os.O_RDONLY, 0o600)  # stays open, and is not inherited
    fcntl.flock(lock, fcntl.LOCK_EX)
    home = new.rename(new.with_name(new.name.replace(NEW, PREFIX, 1)))  # nobody sees it before it is locked
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(home)
    return home
