"""Long work as generators: they yield how far it is, and return what came of it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

Made = TypeVar("Made")


def finished(steps: Generator[Any, None, Made]) -> Made:
    """What a generator returns, for a caller who need not know how far it is."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def scaled(steps: Generator[float, None, Made], first: float, last: float) -> Generator[float, None, Made]:
    """Fractions 0..1 of one part as fractions `first` to `last` of the whole; passes the part's own value on."""
    while True:
        try:
            yield first + (last - first) * next(steps)
        except StopIteration as end:
            return end.value
