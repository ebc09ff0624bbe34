"""Items are encoded a few at a time, and others are answered in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from m6rec.readouts import EmbedModel, ScoreModel
from m6rec.serving.holdings import RunningTask
from m6rec.serving.turn_taking import FairLock, slices
from m6rec.types import Item


class ItemEncoder:
    """Encodes items under a lock that it gives up between two slices, and between two layers.

    Args:
        turn: The lock of whoever infers.
        slice_s: How long one slice takes.
    """

    def __init__(self, turn: FairLock, slice_s: float) -> None:
        self._turn, self._slice_s = turn, slice_s
        self._running: list[RunningTask] = []

    @property
    def running(self) -> tuple[RunningTask, ...]:
        """The encodings that are going on."""
        return tuple(task for task in self._running if task.total)

    def encode(
        self, items: Sequence[Item], retrieve: EmbedModel, *others: ScoreModel
    ) -> Iterator[tuple[Sequence[Item], NDArray[np.float32]]]:
        """(a few items, their vectors [I, E]) until all are encoded.

        Args:
            items: The items.
            retrieve: The model whose vectors they are.
            others: Models in whose caches the states of the items' texts are from then on.
        """

        def read(some: Sequence[Item]) -> tuple[Sequence[Item], NDArray[np.float32]]:
            retrieve.cache.fetch(map(retrieve.text, some), between=self._turn.give_way)
            for one in others:
                texts = (segment.text for item in some for segment in one.task.candidate(item, one.domain))
                one.cache.fetch(texts, between=self._turn.give_way)
            return some, retrieve.item_vectors(some)

        reading = slices(items, read, self._slice_s)
        task = RunningTask(name="read items", total=len(items))
        self._running.append(task)
        try:
            while True:
                with self._turn:
                    made = next(reading, None)
                if made is None:
                    return
                yield made
                task.done += len(made[0])
        finally:
            self._running.remove(task)
