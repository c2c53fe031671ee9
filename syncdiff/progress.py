"""Long work as generators that yield progress and return a result, and work that overlaps in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Out = TypeVar("Out")
Value = TypeVar("Value")
Item = TypeVar("Item")
POLL_SECONDS = 0.1  # between looks at whether work that waits was stopped


def adapted(steps: Generator[Any, None, Value], convert: Callable[[Any], Out]) -> Generator[Out, None, Value]:
    """The same work with every yielded value converted; the return value is passed on."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        yield convert(step)


def finished(steps: Generator[Any, None, Value]) -> Value:
    """The return value of a generator, for a caller who does not need its progress."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def scaled(steps: Generator[float, None, Value], first: float, last: float) -> Generator[float, None, Value]:
    """Fractions 0..1 of one part as fractions `first` to `last` of the whole."""
    return adapted(steps, lambda fraction: first + (last - first) * fraction)


def prefetched(items: Iterable[Value], ahead: int) -> Iterator[Value]:
    """The same items, made in a thread of their own, at most `ahead` of them waiting.

    An error in the thread is raised where its item would have come. Closing the iterator ends the thread."""
    queue: Queue[tuple[bool, Any]] = Queue(ahead)  # (True, item), or at the end (False, the error or None)
    stop = Event()

    def put(*entry: Any) -> None:
        while not stop.is_set():
            with suppress(Full):
                return queue.put(entry, timeout=POLL_SECONDS)
        return None

    def work() -> None:
        try:
            for item in items:
                put(True, item)
                if stop.is_set():
                    return
            put(False, None)
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that asked
            put(False, error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_item, item = queue.get()
            if is_item:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stop.set()
        thread.join()


def mapped(work: Callable[[Item], Value], items: Iterable[Item], threads: int) -> Generator[Value, None, None]:
    """`work(item)` of every item, computed in several threads, in the items' order.

    At most one item a thread is taken ahead. An error is raised where its result would have come. Threads, not forked
    processes: a fork of a process whose networks have run waits for locks of threads that it lacks."""
    futures: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                futures.append(pool.submit(work, item))
                if len(futures) > threads:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()


Task = Callable[[Callable[[], bool]], None]  # gets a function that says whether to stop


class Worker:
    """Runs tasks one after the other in a thread of its own, while the caller goes on. A context manager.

    At most `waiting` tasks wait, so memory stays flat. An error in a task is raised by the caller's next `submit` or
    `pending`. Leaving the block drops the tasks that wait and ends the thread.
    """

    def __init__(self, waiting: int = 1) -> None:
        self._queue: Queue[Task] = Queue(waiting)
        self._stop, self._error = Event(), None
        self._thread = Thread(target=self._work, daemon=True)

    def submit(self, task: Task) -> bool:
        """Hand over a task; False if the queue stays full for POLL_SECONDS."""
        self._raise_error()
        try:
            self._queue.put(task, timeout=POLL_SECONDS)
        except Full:
            return False
        return True

    def pending(self) -> bool:
        """Whether tasks are still unfinished; if so, waits POLL_SECONDS."""
        self._raise_error()
        if not self._queue.unfinished_tasks:
            return False
        self._stop.wait(POLL_SECONDS)
        return True

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                task = self._queue.get(timeout=POLL_SECONDS)
            except Empty:
                continue
            try:
                if self._error is None:
                    task(self._stop.is_set)
            except BaseException as error:  # noqa: BLE001 -- raised again in the thread that asked
                self._error = error
            finally:
                self._queue.task_done()

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
