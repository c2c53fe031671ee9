"""Whose turn it is: one run at a time, first come first served. Knows places and visitors, no runs and no page."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from syncdiff.media import InputError


class Queue:
    """A fair line of visitors. Its first place is the one that works."""

    def __init__(self, places: int = 24, each: int = 2) -> None:
        self.places, self.each = places, each  # in all, and for one visitor
        self._line: deque[tuple[str, object]] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def place(self, visitor: str) -> Iterator["Place"]:
        """A place at the end of the line, given back on leaving. Raises InputError where there is none left."""
        mine = (visitor, object())
        with self._lock:
            if len(self._line) >= self.places:
                raise InputError(f"{self.places} people are in line already, the most there can be: try again later.")
            if sum(other == visitor for other, _ in self._line) >= self.each:
                raise InputError(
                    f"You have {self.each} videos in the making, the most at a time: wait for one of them."
                )
            self._line.append(mine)
        try:
            yield Place(self, mine)
        finally:
            with self._lock:
                self._line.remove(mine)

    def ahead(self, place: tuple[str, object]) -> int:
        """How many come before this place."""
        with self._lock:
            return self._line.index(place)


class Place:
    """One visitor's place in the line."""

    def __init__(self, queue: Queue, mine: tuple[str, object]) -> None:
        self._queue, self._mine = queue, mine

    @property
    def ahead(self) -> int:
        """How many come first; 0: it is your turn."""
        return self._queue.ahead(self._mine)
