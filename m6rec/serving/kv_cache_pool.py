"""Answers with the upper layers' keys and values of each user at hand: a request reads what is new, and candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from m6rec.foundation.model import KVCache
from m6rec.foundation.stores import LRUCache
from m6rec.task_model import TaskModel
from m6rec.text.batch import Example

MEMORY_BYTES = 256 << 20
"""Of keys and values in memory: SmolLM2-135M takes 1.5 KB an event, so some thousand users with a hundred each."""


class KVCachePool:
    """A tuned task, asked again and again. What is known of a user holds as long as the context only grows at its end.

    Args:
        tuned: The task.
        memory_bytes: Budget for keys and values; those unused for longest are dropped and read again.
    """

    def __init__(self, tuned: TaskModel, memory_bytes: int = MEMORY_BYTES) -> None:
        self._tuned = tuned
        self._memory = LRUCache[str, tuple[Example, KVCache]](memory_bytes)

    def predict(self, asked: Sequence[tuple[str, Example]]) -> list[NDArray[np.floating]]:
        """Of each (user, row), all in one pass: probabilities of the candidates, or the user's vector [1, E].

        A row asks of one moment.
        """
        if not asked:
            return []
        if self._tuned.config.bidirectional:
            answer = self._tuned.scores if self._tuned.task.readout == "score" else self._tuned.vectors
            return [answer([row]) for _, row in asked]
        turns = [(known, _rest(row, num_read)) for user, row in asked for known, num_read in [self._known(user, row)]]
        answers, kept = self._tuned.predict_cached(turns)
        for (user, row), known in zip(asked, kept, strict=True):
            num_bytes = sum(part.numel() * part.element_size() for pair in known for part in pair)
            read = replace(row, candidates=(), features=row.features[:0])  # what the keys and values are of
            self._memory.put(user, (read, known), num_bytes)
        return answers

    def _known(self, user: str, row: Example) -> tuple[KVCache, int]:
        """What is at hand for the user, and how many segments of the row's context it covers."""
        before, known = self._memory.get(user) or (None, ())
        if before is None or not known or row.context[: len(before.context)] != before.context:
            return (), 0
        # The numbers that are added to the behaviours make keys and values too, and a conversation may imagine others.
        if len(before.event_features) and not np.array_equal(
            row.event_features[: len(before.event_features)], before.event_features
        ):
            return (), 0
        return known, len(before.context)


def _rest(row: Example, num_read: int) -> Example:
    """The row without the first segments of its context."""
    return replace(
        row,
        context=row.context[num_read:],
        visible=row.visible - num_read,
        event_features=row.event_features[max(0, num_read - row.num_profile) :],
    )
