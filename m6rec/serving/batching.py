"""Continuous micro-batching: requests that arrive while a batch runs form the next one.

No request waits for a batch to fill up: an idle service answers immediately, a busy one in larger batches. Text
generation and long encodings run in slices between batches: after each batch either one more begins, or all running
ones advance by one slice.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from m6rec.errors import ConfigError, DataError, M6RecError, UnknownError

T = TypeVar("T")
R = TypeVar("R")


class OverloadedError(M6RecError):
    """The queue is full; nothing was done. Retry later."""


@dataclass(frozen=True, eq=False)
class Kind(Generic[T, R]):
    """A type of job.

    Attributes:
        name: Label in metrics.
        run: Processes a batch of jobs; returns one result per job, in order.
        max_batch: Maximum batch size.
    """

    name: str
    run: Callable[[Sequence[T]], Sequence[R]]
    max_batch: int = 1


@dataclass(frozen=True)
class Done(Generic[R]):
    """A result, with milliseconds in the queue and of the batch."""

    value: R
    queue_ms: float
    run_ms: float


@dataclass(frozen=True, eq=False)
class _Job:
    kind: Kind[Any, Any]
    value: Any
    future: Future[Done[Any]] = field(default_factory=Future)
    came: float = field(default_factory=time.perf_counter)


@dataclass(eq=False)
class _Text:
    """A text that waits for its first slice or for its next."""

    begin: Callable[[], Generator[Any, None, Any]]
    tell: Callable[[Any], None]
    future: Future[Done[Any]] = field(default_factory=Future)
    came: float = field(default_factory=time.perf_counter)
    began: float = 0.0
    writing: Generator[Any, None, Any] | None = None


class Batcher:
    """A worker thread for a resource that serves one caller at a time, such as the model or a disk.

    The oldest job is next, batched with waiting jobs of its kind. A job whose future is cancelled before it starts is
    never run. A text whose future is cancelled is stopped, even if it has begun.

    Args:
        max_queue: Maximum number of waiting jobs, and of waiting texts.
        max_texts: Maximum number of texts generated concurrently.
        round_s: Longest time of slices while requests wait.
        turn: Lock held while a batch or slice runs; jobs that wait for it can still be cancelled.
        step: Called between slices, for all texts together.
        measure: Called with the kind and size of each batch; the kind of slices is "write".
    """

    def __init__(
        self,
        *,
        max_queue: int,
        max_texts: int = 1,
        round_s: float = 0.02,
        turn: AbstractContextManager[Any] | None = None,
        step: Callable[[], None] = lambda: None,
        measure: Callable[[str, int], None] = lambda kind, size: None,
    ) -> None:
        self._max_queue, self._max_texts, self._round_s = max_queue, max_texts, round_s
        self._step, self._measure = step, measure
        self._turn = turn or nullcontext()
        self._waiting: deque[_Job] = deque()
        self._texts_waiting: deque[_Text] = deque()
        self._texts: list[_Text] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Number of waiting jobs."""
        with self._changed:
            return self._drop_cancelled()

    @property
    def full(self) -> bool:
        """Whether ``submit`` would raise."""
        return self.depth >= self._max_queue

    @property
    def full_of_texts(self) -> bool:
        """Whether ``write`` would raise."""
        with self._changed:
            return self._drop_cancelled_texts() >= self._max_queue

    @property
    def alive(self) -> bool:
        """Whether the worker thread runs."""
        return self._thread.is_alive()

    def submit(self, kind: Kind[T, R], value: T) -> Future[Done[R]]:
        """Enqueues a job.

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

    def write(
        self, begin: Callable[[], Generator[T, None, R]], tell: Callable[[T], None] = lambda told: None
    ) -> Future[Done[R]]:
        """Enqueues a text.

        Args:
            begin: Returns the generator, which runs one slice per ``next`` and returns the result.
            tell: Callback with what each slice yields, in the worker thread.

        Raises:
            OverloadedError: Too many texts wait, or the queue is closed.
        """
        text = _Text(begin, tell)
        with self._changed:
            if self._closed:
                raise OverloadedError("the service is stopping; ask another one")
            if self._drop_cancelled_texts() >= self._max_queue:
                raise OverloadedError(f"{self._max_queue} texts wait already; try again later")
            self._texts_waiting.append(text)
            self._changed.notify()
        return text.future

    def close(self) -> None:
        """Rejects further jobs, and returns when all waiting ones are done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop_cancelled(self) -> int:
        if any(job.future.cancelled() for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
        return len(self._waiting)

    def _drop_cancelled_texts(self) -> int:
        if any(text.future.cancelled() for text in self._texts_waiting):
            self._texts_waiting = deque(text for text in self._texts_waiting if not text.future.cancelled())
        return len(self._texts_waiting)

    def _work(self) -> None:
        while self._wait():
            self._run_batch()
            text = None
            if self._texts_waiting:
                with self._turn:
                    text = self._next_text()
                    # While others begin, those that have begun wait: a first slice reads and ranks, and is the longest.
                    if text and _goes_on(text):
                        self._texts.append(text)
            if not text and self._texts:
                self._write_on()

    def _run_batch(self) -> None:
        """Does the next batch, if anything waits."""
        if not self._waiting:
            return
        with self._turn:
            if jobs := self._take():
                self._measure(jobs[0].kind.name, len(jobs))
                _run(jobs)

    def _wait(self) -> bool:
        """Waits for something to do; False when the queue is closed and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._texts_waiting or self._texts or self._closed)
            return bool(self._waiting or self._texts_waiting or self._texts)

    def _take(self) -> list[_Job]:
        """The next batch, in the order it came; it may be empty."""
        with self._changed:
            taken: list[_Job] = []
            left: deque[_Job] = deque()
            for job in self._waiting:
                if taken and (job.kind is not taken[0].kind or len(taken) == taken[0].kind.max_batch):
                    left.append(job)
                elif job.future.set_running_or_notify_cancel():
                    taken.append(job)
            self._waiting = left
            return taken

    def _next_text(self) -> _Text | None:
        """The next text that is to begin, if there is room for it."""
        with self._changed:
            if self._drop_cancelled_texts() and len(self._texts) < self._max_texts:
                return self._texts_waiting.popleft()
            return None

    def _write_on(self) -> None:
        """The step that all texts wait for, and the next slice of each."""
        self._measure("write", len(self._texts))
        began = time.perf_counter()
        try:
            with self._turn:
                self._step()
        except BaseException as error:
            for text in self._texts:
                _end(text, error)
            self._texts = []
        going = []
        for text in self._texts:
            with self._turn:
                goes_on = _goes_on(text)
            if goes_on:
                going.append(text)
            if time.perf_counter() - began > self._round_s:
                self._run_batch()
                began = time.perf_counter()
        self._texts = going


def _goes_on(text: _Text) -> bool:
    """Writes a slice, and returns whether there are more."""
    if text.writing is None:
        text.began = time.perf_counter()
    try:
        if text.future.cancelled():
            if text.writing is not None:
                text.writing.close()
            return False
        if text.writing is None:
            text.writing = text.begin()
        text.tell(next(text.writing))
    except StopIteration as end:
        done = time.perf_counter()
        _end(text, Done(end.value, 1e3 * (text.began - text.came), 1e3 * (done - text.began)))
        return False
    except BaseException as error:
        _end(text, error)
        return False
    return True


def _end(text: _Text, result: Done[Any] | BaseException) -> None:
    # Until its end the future has not run, so that it can be cancelled.
    if not text.future.set_running_or_notify_cancel():
        return
    if isinstance(result, Done):
        text.future.set_result(result)
    else:
        text.future.set_exception(result)


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
