"""Continuous micro-batching: while one batch runs, requests wait; the next batch is what waits by then.

Nobody waits for a batch to fill. An idle service answers at once, a busy one in larger batches.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from m6rec.errors import ConfigError, DataError, M6RecError, UnknownError

T = TypeVar("T")
R = TypeVar("R")


class OverloadedError(M6RecError):
    """More waits already than is allowed; nothing was done. Try again later."""


@dataclass(frozen=True, eq=False)
class Kind(Generic[T, R]):
    """A kind of work.

    Attributes:
        name: For measurements.
        run: Does several pieces at once; one result a piece, in order.
        max_batch: How many pieces ``run`` takes.
    """

    name: str
    run: Callable[[Sequence[T]], Sequence[R]]
    max_batch: int = 1


@dataclass(frozen=True)
class Done(Generic[R]):
    """A result, how long it waited for its turn and how long its batch took, in milliseconds."""

    value: R
    queue_ms: float
    run_ms: float


@dataclass(frozen=True, eq=False)
class _Job:
    kind: Kind[Any, Any]
    value: Any
    future: Future[Done[Any]] = field(default_factory=Future)
    came: float = field(default_factory=time.perf_counter)


class Batcher:
    """One thread that does all work of a resource which serves one caller at a time, such as the model or a disk.

    The oldest piece of work is next; all that waits of its kind goes with it, up to the kind's limit.
    A future that is cancelled before its turn leaves the queue, and its work is never done.

    Args:
        max_queue: How many pieces may wait.
        measure: Told the kind's name and the size of every batch.
    """

    def __init__(self, *, max_queue: int, measure: Callable[[str, int], None] = lambda kind, size: None) -> None:
        self._max_queue, self._measure = max_queue, measure
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """How many pieces wait."""
        with self._changed:
            return self._drop_cancelled()

    @property
    def full(self) -> bool:
        """Whether ``submit`` would refuse."""
        return self.depth >= self._max_queue

    @property
    def alive(self) -> bool:
        """Whether work is being done."""
        return self._thread.is_alive()

    def submit(self, kind: Kind[T, R], value: T) -> Future[Done[R]]:
        """Puts a piece of work in the queue.

        Raises:
            OverloadedError: The queue is full or closed.
        """
        job = _Job(kind, value)
        with self._changed:
            if self._closed:
                raise OverloadedError("the service is stopping; ask another one")
            if self._drop_cancelled() >= self._max_queue:
                raise OverloadedError(f"{self._max_queue} requests wait already; try again later")
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Takes no more work, and returns when what waits is done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop_cancelled(self) -> int:
        if any(job.future.cancelled() for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
        return len(self._waiting)

    def _work(self) -> None:
        while jobs := self._take():
            self._measure(jobs[0].kind.name, len(jobs))
            _run(jobs)

    def _take(self) -> list[_Job]:
        """The next batch, in the order it came; empty when the queue is closed and done."""
        with self._changed:
            taken: list[_Job] = []
            while not taken:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return []
                kind = self._waiting[0].kind
                left: deque[_Job] = deque()
                for job in self._waiting:
                    if job.kind is not kind or len(taken) == kind.max_batch:
                        left.append(job)
                    elif job.future.set_running_or_notify_cancel():
                        taken.append(job)
                self._waiting = left
            return taken


def _run(jobs: list[_Job]) -> None:
    began = time.perf_counter()
    kind = jobs[0].kind
    try:
        values = kind.run([job.value for job in jobs])
        assert len(values) == len(jobs), f"{kind.name} made {len(values)} results of {len(jobs)}"
    except (DataError, UnknownError, ConfigError) as error:
        # A bad request is refused before anything is done; its neighbours must not suffer for it.
        if len(jobs) == 1:
            jobs[0].future.set_exception(error)
        else:
            for job in jobs:
                _run([job])
    except BaseException as error:
        for job in jobs:
            job.future.set_exception(error)
    else:
        run_ms = 1e3 * (time.perf_counter() - began)
        for job, value in zip(jobs, values, strict=True):
            job.future.set_result(Done(value, 1e3 * (began - job.came), run_ms))
