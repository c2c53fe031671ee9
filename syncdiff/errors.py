"""Errors for input that cannot be used: one sentence the visitor can act on."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

DISK_ERRORS = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "Your share of the disk is used up",
    errno.EFBIG: "No file may grow so large",
    errno.EIO: "The disk reports a fault",
    errno.EBUSY: "The file is in use",
    errno.EROFS: "The disk can only be read",
    errno.EACCES: "Nothing may be written there",
    errno.EPERM: "Nothing may be written there",
}
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_BYTES = 2**20  # a disk with less free space counts as full


class InputError(ValueError):
    """Input cannot be used: one sentence the visitor can act on, with the value and the limit."""


class CheckpointError(InputError):
    """The checkpoint cannot be used: one sentence with the file, the reason and what was expected."""

    def __init__(self, path: Path | str, reason: str, expected: str) -> None:
        reason = shorten(reason, 300, placeholder=" ...")  # names in the file may be long, or hold line feeds
        super().__init__(f"{Path(path).name} is refused: {reason}; expected {expected}.")


class DiskError(InputError):
    """A disk is full, closed or faulty: a sentence with the folder, for whoever runs the program."""


@contextmanager
def disk_errors_as_sentences(*folders: Path) -> Iterator[None]:
    """Inside, an OSError that means a full, closed or faulty disk becomes a DiskError that names the folder.

    Args:
        folders: where the work writes; the one with the least free space is named where the error names no file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        existing = [folder for folder in folders if folder.is_dir()]
        if error.filename:
            file = Path(os.fsdecode(error.filename)).absolute()
            folder = next((folder for folder in existing if file.is_relative_to(folder.absolute())), file.parent)
        else:
            folder = min(existing, key=lambda folder: shutil.disk_usage(folder).free, default=Path())
        advice = "free some space there, or " if error.errno in FULL else ""
        raise DiskError(
            f"{DISK_ERRORS[error.errno]} ({folder}): {advice}choose another folder for the result, or for temporary "
            "files by TMPDIR. Nothing was written."
        ) from error


def raise_if_full(folder: Path) -> None:
    """Raise the OSError of a full disk, for a library that reports one as something else."""
    if shutil.disk_usage(folder).free < FULL_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
