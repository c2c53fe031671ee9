"""What is said of a file that cannot be used: the file, the reason, what was expected."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable


class Refused(Exception):  # noqa: N818 -- becomes a CheckpointError where the file's name is known
    """Why the file is refused, said by a part that does not know which file it is."""


# What reading a file that somebody bent can raise; none of it is a fault of this program.
MALFORMED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def some(names: Iterable[object], most: int = 5) -> str:
    """The first few names, and how many more there are: an error is one sentence."""
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
