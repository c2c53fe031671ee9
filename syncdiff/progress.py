"""Long work as generators: they yield how far it is, and return what came of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

Out = TypeVar("Out")
Value = TypeVar("Value")


def adapted(steps: Generator[Any, None, Value], convert: Callable[[Any], Out]) -> Generator[Out, None, Value]:
    """The same work with every yielded value converted; passes the generator's own return value on."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        yield convert(step)


def finished(steps: Generator[Any, None, Value]) -> Value:
    """What a generator returns, for a caller who does not need its progress."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def scaled(steps: Generator[float, None, Value], first: float, last: float) -> Generator[float, None, Value]:
    """Fractions 0..1 of one part as fractions `first` to `last` of the whole."""
    return adapted(steps, lambda fraction: first + (last - first) * fraction)
