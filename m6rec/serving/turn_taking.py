"""Work that takes turns: a lock that is given in the order of asking, and long work in slices between two turns."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class FairLock:
    """A re-entrant lock that goes to whoever asked first.

    Python's own lock goes to any thread, mostly to the one that has just let it go: whoever encodes in slices would
    keep the others out until the end.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> FairLock:
        me = threading.get_ident()
        with self._guard:
            if self._owner in (None, me):
                self._owner = me
                self._depth += 1
                return self
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append((me, turn))
        try:
            turn.acquire()  # whoever goes before hands the lock over
        except BaseException:  # such as an interrupt
            with self._guard:
                if (me, turn) in self._waiting:
                    self._waiting.remove((me, turn))
                else:
                    self._hand_over()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._depth -= 1
            if not self._depth:
                self._hand_over()

    def give_way(self) -> None:
        """Lets those who wait go first; for its owner, in the middle of long work."""
        if self._waiting:
            self.__exit__(None, None, None)
            self.__enter__()

    def _hand_over(self) -> None:
        self._owner, self._depth = None, 0
        if self._waiting:
            self._owner, turn = self._waiting.popleft()
            self._depth = 1
            turn.release()


def slices(values: Sequence[T], work: Callable[[Sequence[T]], R], slice_s: float = 0.01) -> Iterator[R]:
    """The results of work on a few values at a time, as many as take about ``slice_s``, one at least.

    >>> [*slices("abcdefg", str.upper)][0]
    'A'
    """
    done, size = 0, 1
    while done < len(values):
        began = time.perf_counter()
        made = work(values[done : done + size])
        spent_s = time.perf_counter() - began
        done += size
        size = max(1, min(2 * size, int(size * slice_s / max(spent_s, 1e-9))))
        yield made


def in_turn(lock: FairLock, work: Generator[str, None, R]) -> Generator[str, None, R]:
    """The same work, with the lock held at each slice and not between two."""
    try:
        while True:
            with lock:
                try:
                    told = next(work)
                except StopIteration as end:
                    result: R = end.value
                    return result
            yield told
    finally:
        with lock:
            work.close()
