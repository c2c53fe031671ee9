"""Whose turn it is."""

import threading
from contextlib import ExitStack

import pytest

from syncdiff.errors import InputError
from syncdiff.web.queue import Place, Queue, Visitor, network

ANN, BEN, CHO, DAN = (Visitor(name, f"192.0.2.{n}") for n, name in enumerate(("ann", "ben", "cho", "dan")))


def test_first_come_first_served_and_a_place_is_given_back() -> None:
    queue = Queue()
    with queue.place(ANN) as ann:
        with queue.place(BEN) as ben, queue.place(CHO) as cho:
            assert [place.ahead for place in (ann, ben, cho)] == [0, 1, 2]
        with queue.place(DAN) as dan:
            assert dan.ahead == 1
    with queue.place(CHO) as cho:
        assert cho.ahead == 0


def test_the_line_ends_somewhere_for_everybody_and_for_one() -> None:
    queue = Queue(capacity=3, per_visitor=2, reserved=0)
    with queue.place(ANN), queue.place(ANN):
        with pytest.raises(InputError, match="You have 2 videos in the making"), queue.place(ANN):
            pass
        with queue.place(BEN), pytest.raises(InputError, match="3 people are in line"), queue.place(CHO):
            pass
        with queue.place(CHO) as cho:
            assert cho.ahead == 1  # before the second run of ann, who is served again after everybody else


def crowd(queue: Queue, stack: ExitStack, count: int, address: str = "198.51.100.1") -> list[Place]:
    """So many sessions at one address."""
    return [stack.enter_context(queue.place(Visitor(f"{address} {n}", address))) for n in range(count)]


def test_made_up_sessions_neither_fill_the_line_nor_hold_up_another_address() -> None:
    queue = Queue(capacity=24, reserved=8)
    with ExitStack() as stack:
        many = crowd(queue, stack, 16)
        with pytest.raises(InputError, match="Your network has 16 videos in the making"):
            crowd(queue, stack, 1)
        ann = stack.enter_context(queue.place(ANN))
        again = stack.enter_context(queue.place(ANN))
        ben = stack.enter_context(queue.place(BEN))
        assert [place.ahead for place in (many[0], ann, ben, many[1], again, many[2])] == [0, 1, 2, 3, 4, 5]
        assert many[15].ahead == 18


def test_a_whole_school_behind_one_address_is_served_in_the_order_it_came() -> None:
    queue = Queue(capacity=24, reserved=8)
    with ExitStack() as stack:
        assert [place.ahead for place in crowd(queue, stack, 16)] == list(range(16))


def test_nobody_starves_where_others_come_back_at_once() -> None:
    queue = Queue()
    stacks = {name: ExitStack() for name in ("first", "second", "other")}
    first, second = (stacks[n].enter_context(queue.place(v)) for n, v in (("first", ANN), ("second", ANN)))
    others = [stacks["other"].enter_context(queue.place(BEN))]
    served = []
    for _ in range(4):  # BEN takes a new place whenever his turn is over
        if first.ahead == 0:
            stacks["first"].close()
            first = second
        elif others[-1].ahead == 0:
            served.append(second.ahead)
            stacks["other"].close()
            others.append(stacks["other"].enter_context(queue.place(BEN)))
    assert second.ahead == 0
    for stack in stacks.values():
        stack.close()


def test_nobody_overtakes_and_no_two_work_at_once() -> None:
    queue, order, working, most = Queue(per_visitor=40), [], [0], [0]

    def visitor(n: int, joined: threading.Event) -> None:
        with queue.place(ANN) as place:
            joined.set()
            while place.ahead:
                pass
            working[0] += 1
            most[0] = max(most[0], working[0])
            order.append(n)
            working[0] -= 1

    threads = []
    with queue.place(ANN):
        for n in range(12):
            joined = threading.Event()
            threads.append(threading.Thread(target=visitor, args=(n, joined)))
            threads[-1].start()
            joined.wait()
    for thread in threads:
        thread.join()
    assert order == list(range(12))
    assert most[0] == 1


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("no address at all" * 9, ("no address at all" * 9)[:64]),
    ],
)
def test_an_address_is_what_one_client_has(host: str, key: str) -> None:
    assert network(host) == key
