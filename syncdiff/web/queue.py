"""Whose turn it is: one at a time, and nobody's network before everybody else's. Knows places and visitors, no runs and
no page.

A session is a number that the client makes up, so a limit on sessions alone stops nobody who means harm: addresses are
counted too. A whole school may share one address, so its people are not counted as one visitor. Instead addresses take
turns: however many runs one of them has in line, anybody else waits for one of those at most in every round. And no
address may take the last places, so there is room for others at any time. Where a proxy hides all addresses behind its
own (see TRUSTED_PROXIES in `launch`), what is left of this is plain: first come, first served, in fewer places.
"""

import ipaddress
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from syncdiff.errors import InputError


@dataclass(frozen=True)
class Visitor:
    """Who asks: one open page or program, by its own word, at one address."""

    session: str
    address: str  # as `network` has it


def network(host: str) -> str:
    """What one client can be told apart by: its IPv4 address, or the 64 bits of IPv6 that a household gets."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


@dataclass(eq=False)
class Place:
    """One visitor's place in a line."""

    line: "Queue"
    visitor: Visitor
    turn: int  # the round in which it is this run's turn

    @property
    def ahead(self) -> int:
        """How many come first; 0: it is your turn. Grows only by runs of other addresses, where yours has several."""
        return self.line.ahead(self)


class Queue:
    """A fair line of visitors. Its first place is the one that works, and is never moved back."""

    def __init__(self, places: int = 24, each: int = 2, others: int = 8, what: str = "videos in the making") -> None:
        self.places, self.each, self.what = places, each, what  # in all, for one visitor; what one is, in a sentence
        self.shared = places - others  # for one address
        self._line: list[Place] = []
        self._last: dict[str, int] = {}  # address -> the last round in which it had a turn, or will have
        self._lock = threading.Lock()

    @contextmanager
    def place(self, visitor: Visitor) -> Iterator[Place]:
        """A place in the line, given back on leaving. Raises InputError where there is none left."""
        with self._lock:
            self._check_room(visitor)
            mine = Place(self, visitor, self._turn_of(visitor.address))
            self._line.insert(bisect_right(self._line, mine.turn, key=lambda place: place.turn), mine)
        try:
            yield mine
        finally:
            with self._lock:
                self._line.remove(mine)

    def ahead(self, place: Place) -> int:
        """How many come before this place."""
        with self._lock:
            return self._line.index(place)

    def _check_room(self, visitor: Visitor) -> None:
        if len(self._line) >= self.places:
            raise InputError(f"{self.places} people are in line already, the most there can be: try again later.")
        if sum(place.visitor == visitor for place in self._line) >= self.each:
            raise InputError(f"You have {self.each} {self.what}, the most at a time: wait for one of them.")
        if sum(place.visitor.address == visitor.address for place in self._line) >= self.shared:
            raise InputError(f"Your network has {self.shared} {self.what}, the most at a time: try again later.")

    def _turn_of(self, address: str) -> int:
        """The round after this address's last one; the round of the run that works now, where that is over."""
        now = self._line[0].turn if self._line else 0
        self._last = {one: turn for one, turn in self._last.items() if turn >= now} if self._line else {}
        self._last[address] = max(now, self._last.get(address, now - 1) + 1)
        return self._last[address]
