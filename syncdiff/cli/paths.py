"""Checks of the paths that a command is given."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from syncdiff.errors import InputError, disk_errors_as_sentences
from syncdiff.server_tmpdir import try_to_replace


def refuse_address(path: Path) -> None:
    """Raise InputError for a URL: nothing is downloaded."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):  # Path joins the two slashes
        raise InputError(f"{path.name} is an address: give the path of a file, downloaded where it is on the web.")


def checked_output(out: Path, inputs: Sequence[Path]) -> Path:
    """OUT as an absolute path, with links resolved. Raises InputError where it cannot be written or is an input."""
    if out.suffix.lower() != ".mp4":
        raise InputError(f"OUT is {out.name:.60}, but only MP4 is written: give it a name that ends in .mp4.")
    try:
        out = out.absolute()
        if out.is_symlink() and out.parent.is_dir():
            out = out.resolve()
        with disk_errors_as_sentences(out.parent):
            check_target(out, inputs)
            try_to_replace(out)
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a link in a circle
        why = getattr(error, "strerror", None) or "it is a link in a circle"
        raise InputError(f"OUT cannot be {out.name:.60} ({why}): give it another name.") from error
    return out


def check_target(out: Path, inputs: Sequence[Path]) -> None:
    """Raise InputError where the folder of `out` is missing, or `out` may not be overwritten or is an input."""
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder: give OUT a folder that exists and is yours.")
    exists = out.exists()
    if exists and (not out.is_file() or os.path.ismount(out)):
        what = "a folder" if out.is_dir() else "no ordinary file"
        raise InputError(f"{out} is {what}: give OUT the name of a file.")
    if exists and not os.access(out, os.W_OK):
        raise InputError(f"{out} is there and may not be written: give the result another name.")
    for path in inputs:
        same = False
        with suppress(OSError, RuntimeError):  # a link that leads nowhere, or in a circle
            same = out.resolve() == path.resolve() or out.samefile(path)  # whatever the spelling, and through links
        if same:
            raise InputError(f"OUT is {path.name}, which is an input: give the result another name.")
