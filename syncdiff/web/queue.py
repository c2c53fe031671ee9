"""A fair queue: one job at a time, in rounds in which every network address has one turn.

A session is a number that the client makes up, so a limit on sessions alone stops no attacker: addresses are counted
too. A whole school may share one address, so an address does not count as one visitor. Instead addresses take turns:
however many jobs one of them has in the queue, everybody else waits for at most one of them in each round. And no
address may take the last places, so there is always room for others. Where a proxy hides all addresses behind its own
(see TRUSTED_PROXIES in `launch`), the queue is first come, first served, with fewer places.
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
    """One open page or program."""

    session: str  # as the client states it
    address: str  # from `network`


def network(host: str) -> str:
    """The address that counts as one client: an IPv4 address, or the /64 network that an IPv6 household gets."""
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
    """A visitor's place in a queue."""

    queue: "Queue"
    visitor: Visitor
    turn: int  # round in which it is served

    @property
    def ahead(self) -> int:
        """How many come first; 0: it is served now. Can grow only where the same address has an earlier place."""
        return self.queue.ahead(self)


class Queue:
    """A fair queue of visitors. Its first place is being served, and is never moved back."""

    def __init__(
        self, capacity: int = 24, per_visitor: int = 2, reserved: int = 8, what: str = "videos in the making"
    ) -> None:
        """Limits in places. reserved: places that no address may take alone. what: name of the jobs in sentences."""
        self.capacity, self.per_visitor, self.what = capacity, per_visitor, what
        self.per_address = capacity - reserved
        self._line: list[Place] = []
        self._last: dict[str, int] = {}  # address -> its last round, past or to come
        self._lock = threading.Lock()

    @contextmanager
    def place(self, visitor: Visitor) -> Iterator[Place]:
        """A place in the queue, given back on leaving. Raises InputError where none is left."""
        with self._lock:
            self._check_room(visitor)
            place = Place(self, visitor, self._turn_of(visitor.address))
            self._line.insert(bisect_right(self._line, place.turn, key=lambda other: other.turn), place)
        try:
            yield place
        finally:
            with self._lock:
                self._line.remove(place)

    def ahead(self, place: Place) -> int:
        """How many come before this place."""
        with self._lock:
            return self._line.index(place)

    def _check_room(self, visitor: Visitor) -> None:
        if len(self._line) >= self.capacity:
            raise InputError(f"{self.capacity} people are in line already, the most there can be: try again later.")
        if sum(place.visitor == visitor for place in self._line) >= self.per_visitor:
            raise InputError(f"You have {self.per_visitor} {self.what}, the most at a time: wait for one of them.")
        if sum(place.visitor.address == visitor.address for place in self._line) >= self.per_address:
            raise InputError(f"Your network has {self.per_address} {self.what}, the most at a time: try again later.")

    def _turn_of(self, address: str) -> int:
        """The round after this address's last one, but not before the round that is served now."""
        now = self._line[0].turn if self._line else 0
        self._last = {one: turn for one, turn in self._last.items() if turn >= now} if self._line else {}
        self._last[address] = max(now, self._last.get(address, now - 1) + 1)
        return self._last[address]
