"""What is raised for input that cannot be used: one sentence the visitor can act on."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten


class InputError(ValueError):
    """What the visitor gave cannot be used: one sentence they can act on, with the value and the limit."""


class CheckpointError(InputError):
    """The checkpoint cannot be used: one sentence with the file, the reason and what was expected."""

    def __init__(self, path: Path | str, reason: str, expected: str) -> None:
        reason = shorten(reason, 300, placeholder=" ...")  # names in the file may be long, or hold line feeds
        super().__init__(f"{Path(path).name} is refused: {reason}; expected {expected}.")
