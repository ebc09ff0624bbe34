"""Inference with a KV cache per user: a request computes only new context tokens and the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from m6rec.foundation.attention import KVCache
from m6rec.foundation.stores import LRUCache
from m6rec.readouts import ScoreModel
from m6rec.text.batch import Example


class KVCachePool:
    """A task model with KV caches of its users. A cache is valid as long as the context only grows at its end.

    Args:
        tuned: The task model.
        memory_bytes: Budget of the pool; least recently used caches are evicted.
    """

    def __init__(self, tuned: ScoreModel, memory_bytes: int = 256 << 20) -> None:
        self._tuned = tuned
        self._memory = LRUCache[str, tuple[Example, KVCache]](memory_bytes)

    def predict(self, asked: Sequence[tuple[str, Example]]) -> list[NDArray[np.float64]]:
        """For each (user, example), in one pass: scores of the candidates.

        All queries of an example have one timestamp.
        """
        if not asked:
            return []
        if self._tuned.config.bidirectional:
            return [self._tuned.scores([row]) for _, row in asked]
        turns = [(known, _rest(row, num_read)) for user, row in asked for known, num_read in [self._known(user, row)]]
        answers, kept = self._tuned.predict_cached(turns)
        for (user, row), known in zip(asked, kept, strict=True):
            num_bytes = sum(part.numel() * part.element_size() for pair in known for part in pair)
            read = replace(row, candidates=(), features=row.features[:0])  # what the cache was computed from
            self._memory.put(user, (read, known), num_bytes)
        return answers

    def num_kept(self, user: str, row: Example) -> int:
        """Segments of the example's context that ``predict`` would not compute."""
        return 0 if self._tuned.config.bidirectional else self._known(user, row)[1]

    def _known(self, user: str, row: Example) -> tuple[KVCache, int]:
        """(the user's KV cache, number of context segments it covers)."""
        before, known = self._memory.get(user) or (None, ())
        if before is None or not known or row.context[: len(before.context)] != before.context:
            return (), 0
        # Keys and values depend on event features too, which differ under an overlay.
        if len(before.event_features) and not np.array_equal(
            row.event_features[: len(before.event_features)], before.event_features
        ):
            return (), 0
        return known, len(before.context)


def _rest(row: Example, num_read: int) -> Example:
    """The example without the first segments of its context."""
    return replace(
        row,
        context=row.context[num_read:],
        visible=row.visible - num_read,
        event_features=row.event_features[max(0, num_read - row.num_profile) :],
    )
