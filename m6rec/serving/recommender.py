"""From a user to recommended items: retrieve, leave out what was seen, rank."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np

from m6rec.errors import ConfigError, DataError
from m6rec.tasks.task import ask
from m6rec.text.log import Log
from m6rec.text.past import Past
from m6rec.tuned import Tuned
from m6rec.types import Item, Ranked, User

NUM_RETRIEVED = 100


class Recommender:
    """Two tuned tasks and what has happened so far.

    Args:
        retrieve: The retrieval task, which fetches ``NUM_RETRIEVED`` candidates.
        rank: The ranking task, which orders them.
        log: The catalogue and the users.
        past: Everything observed; later events are taken in with ``past.observe``.
    """

    def __init__(self, retrieve: Tuned, rank: Tuned, log: Log, past: Past) -> None:
        self._retrieve, self._rank, self.past = retrieve, rank, past
        self._users = dict(log.users)
        self._items = dict(log.items)
        self._catalogue = list(log.items.values())
        vectors = retrieve.item_vectors(self._catalogue)
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    def recommend(self, user: str, count: int = 10) -> list[Ranked]:
        """The ``count`` items that the user would like most, none of them seen before.

        Raises:
            DataError: The user is unknown.
            ConfigError: ``count`` is not in 1 … ``NUM_RETRIEVED``.
        """
        if not 1 <= count <= NUM_RETRIEVED:
            raise ConfigError(f"count is {count}; it must be 1 to {NUM_RETRIEVED}")
        return self.rank(user, [item.id for item in self.retrieve(user)])[:count]

    def retrieve(self, user: str) -> list[Item]:
        """Up to ``NUM_RETRIEVED`` unseen items, the nearest first. Raises DataError for an unknown user."""
        row = ask(self._retrieve.task, self.past, self._user(user), [], self._retrieve.domain, self._items)
        seen = self.past.seen(user)
        wanted = min(NUM_RETRIEVED + len(seen), len(self._catalogue))
        _, found = self._index.search(self._retrieve.vectors([row]), wanted)
        items = [self._catalogue[int(number)] for number in found[0]]
        return [item for item in items if item.id not in seen][:NUM_RETRIEVED]

    def rank(self, user: str, items: Sequence[str]) -> list[Ranked]:
        """The items by falling probability that the user likes them.

        Raises:
            DataError: The user or an item is unknown.
        """
        unknown = [item for item in items if item not in self._items]
        if unknown:
            raise DataError(f"there is no item {unknown[0]!r} in the catalogue of {len(self._items)}; check the id")
        if not items:
            return []
        candidates = [self._items[item] for item in items]
        row = ask(self._rank.task, self.past, self._user(user), candidates, self._rank.domain, self._items)
        scores = self._rank.scores([row])
        return [Ranked(candidates[n], float(scores[n])) for n in np.argsort(-scores, kind="stable")]

    def _user(self, user: str) -> User:
        if user not in self._users:
            raise DataError(f"there is no user {user!r} among the {len(self._users)} of the log; check the id")
        return self._users[user]
