"""Texts of strangers, ranked and embedded as if each were an item's title. No cache that others share takes them in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from m6rec.domains.domain import Domain, titled
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.checkpoint import Foundation
from m6rec.readouts import EmbedModel, ScoreModel
from m6rec.serving.turn_taking import slices
from m6rec.tasks import task as tasks
from m6rec.text.batch import Example
from m6rec.text.verbalise import quote
from m6rec.types import Item, Segment, Situation, User

_DOCUMENT = Item("document", "document")


class Documents:
    """Reads texts by the tasks that are served.

    Args:
        retrieve: The retrieval model.
        rank: The ranking task.
        memory_bytes: What the states of such texts may take in memory.
        slice_s: About as long as others wait for a slice.
    """

    def __init__(self, retrieve: EmbedModel, rank: ScoreModel, memory_bytes: int, slice_s: float) -> None:
        self.width, self._slice_s = retrieve.width, slice_s
        self._retrieve = copy(retrieve)
        self._retrieve.cache = retrieve.cache.apart(memory_bytes // 2)
        self._rank = _apart(rank, memory_bytes // 2)

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of the texts [n, E], as of new items."""
        return self._retrieve.item_vectors([Item("", text) for text in texts])

    def vector(self, item: Item) -> NDArray[np.float32]:
        """The unit vector of an item that is not stored, [E]."""
        vector_E: NDArray[np.float32] = self._retrieve.item_vectors([item])[0]
        return vector_E

    def embed(self, texts: Sequence[str]) -> Iterator[tuple[NDArray[np.float32], int]]:
        """``vectors`` of the texts and how many tokens were read, in slices."""
        retrieve = self._retrieve

        def read(some: Sequence[str]) -> tuple[NDArray[np.float32], int]:
            return self.vectors(some), _num_tokens(
                retrieve.foundation, [retrieve.text(Item("", text)) for text in some]
            )

        return slices(texts, read, self._slice_s)

    def rerank(self, query: str, documents: Sequence[str]) -> Iterator[tuple[NDArray[np.float64], int]]:
        """Scores of the documents and how many tokens were read, in slices; the first has only the query's tokens.

        They are the ranking task's probabilities for a user of whom one search is known, and no statistics.
        """
        rank = self._rank
        task, domain = rank.task, rank.domain
        nobody = InteractionStore({}, domain.feedback)
        one = tasks.ask(task, nobody, User(""), [_DOCUMENT], domain, {})
        context = (*one.context, Segment(f"The user searched {quote(query)}.", "history"))
        yield np.zeros(0), _num_tokens(rank.foundation, [segment.text for segment in context])

        cross = task.cross(nobody, User(""), _DOCUMENT, Situation(), domain) if task.cross else ()

        def score(some: Sequence[str]) -> tuple[NDArray[np.float64], int]:
            blocks = tuple(cross + task.candidate(Item("document", text), domain) for text in some)
            nothing = np.full(len(some), -1)
            visible = np.full(len(some), len(context))
            row = Example(context, visible, blocks, np.repeat(one.features, len(some), 0), nothing, nothing)
            words = [segment.text for block in blocks for segment in block]
            return rank.scores([row]), _num_tokens(rank.foundation, words)

        yield from slices(documents, score, self._slice_s)


def _apart(tuned: ScoreModel, memory_bytes: int) -> ScoreModel:
    """The same task in all but its cache, where texts of strangers would fill memory and disk."""
    apart = copy(tuned)
    apart.cache = tuned.cache.apart(memory_bytes)
    apart.domain = _wording_titles(tuned.domain)
    return apart


def _wording_titles(domain: Domain) -> Domain:
    """The domain, or one with words for a title where it has none: by them alone, documents differ."""
    try:
        if titled(domain, _DOCUMENT):
            return domain
    except Exception:  # a domain's own code may need more than a title
        pass
    return replace(domain, item=lambda item: f"the {domain.noun} named {quote(item.title)}")


def _num_tokens(foundation: Foundation, texts: Sequence[str]) -> int:
    return sum(map(len, foundation.tokenizer.encode(list(texts))))
