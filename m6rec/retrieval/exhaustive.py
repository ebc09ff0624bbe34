"""The best of all items for many users at once: what an index finds for one, in products of matrices.

Users come in blocks, so that the scores of a block stay small; items in blocks of a cache's size. Memory is the
vectors and two scores an item and user of a block, however many users there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m6rec.retrieval import kernels
from m6rec.retrieval.blend import Blend
from m6rec.retrieval.embeddings import user_vectors

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ExhaustiveConfig:
    """Sizes of blocks; they change no score by more than its rounding.

    Attributes:
        scores: Scores of a block of users with all items, four bytes each.
        users: Users of a block at most.
        items: Items that are multiplied at once.
    """

    scores: int = 1 << 22
    users: int = 256
    items: int = 8_192


DEFAULT = ExhaustiveConfig()


class ExhaustiveSearch:
    """Item vectors and the sources of a blend. Any thread may search.

    Attributes:
        ids: Of the items, by the places that ``search`` returns.
        num_from_sources: See below.

    Args:
        ids: Of the items that may be found.
        vectors_IE: Their vectors.
        decay: What a like weighs for each later one in a user's vector.
        blend: What is added to the products of vectors; None for nothing.
        num_from_sources: Items of a user to which the sources add, the best by them.
        config: See there.
    """

    def __init__(
        self,
        ids: Sequence[str],
        vectors_IE: Floats,
        decay: float,
        blend: Blend | None,
        num_from_sources: int,
        config: ExhaustiveConfig = DEFAULT,
    ) -> None:
        known = [] if blend is None else [*blend.numbers]  # first, so that their scores are a part of the rows
        number_of = {item: number for number, item in enumerate(ids)}
        self.ids = [*known, *sorted(number_of.keys() - set(known))]
        numbers_I = np.array([number_of.get(item, -1) for item in self.ids], np.int64)
        self._is_dead_I = numbers_I < 0
        self._vectors_IE = np.zeros((len(self.ids), vectors_IE.shape[1]), np.float32)
        self._vectors_IE[~self._is_dead_I] = vectors_IE[numbers_I[~self._is_dead_I]]
        self._rows = {item: row for row, item in enumerate(self.ids)}
        self._decay, self._blend, self.num_from_sources, self._config = decay, blend, num_from_sources, config

    @property
    def block(self) -> int:
        """Users to search for at once."""
        return max(1, min(self._config.users, self._config.scores // max(len(self.ids), 1)))

    def search(
        self, likes: Sequence[Sequence[str]], without: Sequence[Collection[str]], count: int
    ) -> tuple[Ints, Floats]:
        """The best items of each user.

        Args:
            likes: Ids of what each liked, oldest first.
            without: Ids that each doesn't get.
            count: How many items at most.

        Returns:
            (their places in ``ids``, [U, ``count``], -1 behind the last; their scores, descending).
        """
        row_UK = np.full((len(likes), count), -1, np.int64)
        score_UK = np.full((len(likes), count), -np.inf, np.float32)
        left_out = [np.sort(self._known(items)) for items in without]
        left_out_L, end_U = np.concatenate([np.zeros(0, np.int64), *left_out]), np.cumsum([*map(len, left_out)])
        liked = [rows[~self._is_dead_I[rows]] for rows in map(self._known, likes)]
        users_UE = user_vectors(self._vectors_IE, liked, self._decay)
        if self._blend is None:
            added_UI = np.zeros((len(likes), 0), np.float32)
        else:
            users_UE *= np.float32(self._blend.text)
            added_UI = self._blend.scores_of_many(likes)
        least_U = kernels.least_of_greatest(added_UI, self.num_from_sources)
        for first in range(0, len(self.ids), self._config.items):
            product_UB = users_UE @ self._vectors_IE[first : first + self._config.items].T
            kernels.keep_best(
                product_UB, first, added_UI, least_U, self._is_dead_I, left_out_L, end_U, row_UK, score_UK
            )
        return row_UK, score_UK

    def _known(self, items: Collection[str]) -> Ints:
        return np.array([self._rows[item] for item in items if item in self._rows], np.int64)
