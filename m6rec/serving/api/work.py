"""How the work of a request is done: in whose queue it waits, until when, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from typing import Any, TypeVar

from m6rec.serving.api.metrics import Measurements
from m6rec.serving.api.problems import DeadlineError
from m6rec.serving.backend import LocalBackend, Writing
from m6rec.serving.batching import Batcher, Done, Kind
from m6rec.serving.settings import Settings

T = TypeVar("T")
R = TypeVar("R")


class Work:
    """Three queues with a thread each: a write to disk holds up no answer, and the encoding of items no event.

    Attributes:
        queues: All three, by name.
        model: What is read of the model, and texts and encodings, which are done in slices.
        events: Events and users, which go to disk.
        items: The catalogue.
    """

    def __init__(self, backend: LocalBackend, settings: Settings, measurements: Measurements) -> None:
        self._settings, self._deadline_s, self._measurements = settings, settings.deadline_s, measurements
        self.model = self._batcher("model", backend.turn, backend.step, settings.max_texts)
        self.events = self._batcher("events")
        self.items = self._batcher("items")
        self.queues = {"model": self.model, "events": self.events, "items": self.items}
        reads = ("/v1/recommend", "/v1/retrieve", "/v1/rank", "/v1/neighbours", "/v1/inspect", "/v1/device/inputs")
        sliced = ("/v1/explain", "/v1/create", "/v1/chat/", "/v1/embeddings", "/v1/rerank", "/v2/rerank", "/rerank")
        self._full: tuple[tuple[tuple[str, ...], Callable[[], bool]], ...] = (
            (reads, lambda: self.model.full),
            (sliced, lambda: self.model.full_of_texts),
            (("/v1/events", "/v1/users/"), lambda: self.events.full),
            (("/v1/items",), lambda: self.items.full),
        )

    def _batcher(
        self,
        queue: str,
        turn: AbstractContextManager[Any] | None = None,
        step: Callable[[], None] = lambda: None,
        max_texts: int = 1,
    ) -> Batcher:
        batcher = Batcher(
            max_queue=self._settings.max_queue,
            max_texts=max_texts,
            round_s=self._settings.round_s,
            turn=turn,
            step=step,
            measure=self._measurements.measure_batch,
        )
        self._measurements.depth.labels(queue).set_function(lambda: batcher.depth)
        return batcher

    @property
    def alive(self) -> bool:
        """Whether work is being done in all queues."""
        return all(batcher.alive for batcher in self.queues.values())

    def overloaded(self, path: str) -> bool:
        """Whether a request to ``path`` would be refused, known before its body is read."""
        return any(path.startswith(prefixes) and full() for prefixes, full in self._full)

    def close(self) -> None:
        """Returns when all that was accepted is done."""
        for batcher in self.queues.values():
            batcher.close()

    async def do(self, batcher: Batcher, kind: Kind[T, R], value: T) -> Done[R]:
        """The result of a piece of work. Where the client leaves or the deadline passes first, it is never begun."""
        future = batcher.submit(kind, value)
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.wait((waiting,), timeout=self._deadline_s)
            if not waiting.done() and future.cancel():
                raise DeadlineError(f"the request waited longer than {self._deadline_s} s; try again later")
            return await waiting
        finally:
            waiting.cancel()

    async def pieces(self, begin: Callable[[], Writing[T]]) -> AsyncGenerator[str | Done[T], None]:
        """What may be read of a text, piece by piece, and its result at last. It is given up where the client leaves.

        The deadline is for its beginning, which is told by an empty piece at the latest.
        """
        loop, told = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def tell(piece: str | None) -> None:
            loop.call_soon_threadsafe(told.put_nowait, piece)

        future = self.model.write(begin, tell)
        future.add_done_callback(lambda _: tell(None))
        limit_s: float | None = self._deadline_s
        try:
            while True:
                try:
                    async with asyncio.timeout(limit_s):
                        piece = await told.get()
                except TimeoutError:
                    message = f"the request waited longer than {self._deadline_s} s; try again later"
                    raise DeadlineError(message) from None
                if piece is None:
                    break
                limit_s = None
                yield piece
            yield future.result()
        finally:
            future.cancel()

    async def written(self, stage: str, begin: Callable[[], Writing[T]]) -> T:
        """The result of what is done in slices, whose time is measured."""
        async with aclosing(self.pieces(begin)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Done):
                    self._measurements.stage_s.labels(stage).observe(piece.run_ms / 1e3)
                    return piece.value
        raise AssertionError("work in slices ends with its result")
