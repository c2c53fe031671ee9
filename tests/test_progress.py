"""Overlapping work: order, errors and an early end, all with known answers."""

from __future__ import annotations

import threading

import pytest

from syncdiff.progress import Worker, adapted, finished, mapped, prefetched


def counted(n: int, error: Exception | None = None):
    yield from range(n)
    if error:
        raise error


def test_adapted_converts_and_returns_what_the_work_returns():
    def work():
        yield 1
        yield 2
        return "done"

    seen = []

    def outer():
        seen.append((yield from adapted(work(), lambda x: 10 * x)))

    assert list(outer()) == [10, 20]
    assert seen == ["done"]
    assert finished(work()) == "done"


def test_prefetched_keeps_order_and_raises_in_place():
    assert list(prefetched(counted(50), 3)) == list(range(50))
    items = prefetched(counted(5, ValueError("broken")), 2)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_prefetched_holds_few_and_ends_when_closed():
    made = []

    def items():
        for i in range(1000):
            made.append(i)
            yield i

    before = threading.active_count()
    some = prefetched(items(), 2)
    assert [next(some), next(some)] == [0, 1]
    some.close()
    assert len(made) <= 6  # two taken, two waiting, one in hand
    assert threading.active_count() == before


def test_mapped_works_side_by_side_and_keeps_order():
    both = threading.Barrier(2, timeout=30)  # passed by two at a time only

    def double(i):
        both.wait()
        return 2 * i

    assert list(mapped(double, range(6), 2)) == [0, 2, 4, 6, 8, 10]


def test_mapped_takes_few_ahead_raises_in_place_and_ends_when_closed():
    taken = []

    def items():
        for i in range(1000):
            taken.append(i)
            yield i

    before = threading.active_count()
    some = mapped(lambda i: 6 // (2 - i), items(), 2)
    assert [next(some), next(some)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(some)
    assert len(taken) <= 5
    some = mapped(str, items(), 2)
    assert next(some) == "0"
    some.close()
    assert threading.active_count() == before


def test_worker_does_tasks_in_order_and_passes_an_error_on():
    done = []
    with Worker() as worker:
        for i in range(5):
            while not worker.submit(lambda stopped, i=i: done.append(i)):
                pass
        while worker.pending():
            pass
    assert done == [0, 1, 2, 3, 4]

    def fail(_stopped):
        raise OSError("disk full")

    def wait(worker):
        worker.submit(fail)
        while worker.pending():
            pass

    with Worker() as worker, pytest.raises(OSError, match="disk full"):
        wait(worker)


def test_leaving_a_worker_stops_the_task_at_hand():
    began, steps = threading.Event(), []

    def long(stopped):
        while not stopped():
            steps.append(1)
            began.set()

    with Worker() as worker:
        worker.submit(long)
        began.wait(5)
    count = len(steps)
    assert count > 0
    assert not worker._thread.is_alive()
    assert len(steps) == count
