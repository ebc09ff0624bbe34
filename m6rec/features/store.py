"""The state that features are made from: columns that grow, which one log is read into.

Users, items and categories are rows here; ``InteractionStore`` knows them by their ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m6rec.features.layout import (
    BEHAVIOUR,
    COUNTS,
    EVENT_FEATURES,
    FEATURES,
    ITEM,
    LATEST,
    MOST_MET,
    NEAR_SPREADS,
    TOTAL,
    USER,
    WAYS,
    EventColumns,
    FeatureState,
    QueryColumns,
    constants,
)

Floats = NDArray[np.float32]
Floats64 = NDArray[np.float64]

Count = tuple[int, int, float]
"""(events, liked events, sum of their values)."""

LEAST_SETS = 1 << 9
"""Of the table of pairs, at first."""
MOST_PAIRS = 1 << 25
"""Pairs of items that are counted, at 28 bytes each in a table that is at most half full until it can't grow."""

SAME = 1e-7
"""Numbers that differ by less than this share of themselves are the same but for rounding."""
NO_SCALES: Mapping[int, float] = {}
NOTHING = QueryColumns(*[np.zeros(0, np.int64)] * 3)


class FeatureStore:
    """What a log has told so far, in columns. One thread at a time may use it.

    Attributes:
        num_users: Users with a row, 0 … ``num_users`` - 1.
        num_items: Items with a row, likewise.
    """

    def __init__(self) -> None:
        """Starts without users, items and events."""
        self.num_users = self.num_items = 0
        self._num_categories = 0  # rows of ``FeatureState.categories`` in use
        self._state = FeatureState(
            constants=constants(),
            total=np.zeros(1, TOTAL),
            users=np.zeros(16, USER),
            items=np.zeros(16, ITEM),
            items_by_count_C=np.zeros(MOST_MET + 1, np.int64),
            behaviours=np.zeros(2 * LATEST, BEHAVIOUR),
            keys=np.zeros((LEAST_SETS, WAYS), np.int64),
            counts=np.zeros((LEAST_SETS * WAYS, COUNTS), np.float32),
            categories=np.zeros(16, np.int32),
            numbers_IM=np.zeros((16, 0)),
            units_M=np.zeros(0),
            scratch_3C=np.zeros((3, 16)),
        )

    @property
    def total(self) -> Any:
        """The ``TOTAL`` of the log."""
        return self._state.total[0]

    @property
    def items(self) -> Any:
        """An ``ITEM`` each."""
        return self._state.items[: self.num_items]

    def popularity_rank(self, item: int) -> float:
        """The share of the items met so far that were met less often than this one; 0 before the first event.

        Items met ``MOST_MET`` times or more are alike.
        """
        count = min(int(self.items["count"][item]), MOST_MET)
        # How many items were met 0, 1, … times, the last for as many and more; those never met aren't counted.
        return int(self._state.items_by_count_C[:count].sum()) / int(self.total["met"]) if count else 0.0

    def by_likes(self) -> list[int]:
        """The items that were met, by the number of likes, most first; of equals, the one that was met first."""
        order = np.lexsort([self.items["first"], -self.items["likes"]])
        rows: list[int] = order[self.items["count"][order] > 0].tolist()
        return rows

    def start(self, total: Count, counts: Mapping[int, Count]) -> None:
        """Goes on from what others did: (events, likes, sum of values) of all items, and of single rows."""
        for record, count in [(self.total, total), *((self._state.items[row], count) for row, count in counts.items())]:
            record["count"], record["likes"], record["values"] = count
        for number, (row, (met, _, _)) in enumerate(counts.items()):
            self._state.items[row]["first"] = number
            self.total["met"] += met > 0
            self._state.items_by_count_C[min(met, MOST_MET)] += met > 0

    def add_users(self, count: int) -> None:
        """Gives rows to so many users more."""
        self.num_users += count
        if self.num_users > len(self._state.users):
            self._state = self._state._replace(users=_larger(self._state.users, self.num_users))

    def drop_user(self) -> None:
        """Takes the last user's row back, of whom nothing is known any more."""
        self.num_users -= 1

    def add_items(self, count: int) -> None:
        """Gives rows to so many items more, without categories and numbers."""
        self.num_items += count
        if self.num_items > len(self._state.items):
            items, numbers_IM = (_larger(of, self.num_items) for of in (self._state.items, self._state.numbers_IM))
            self._state = self._state._replace(items=items, numbers_IM=numbers_IM)
        self._state.numbers_IM[self.num_items - count : self.num_items] = np.nan

    def describe(self, item: int, categories: Sequence[int], numbers: Mapping[int, float]) -> None:
        """Says of an item which categories it has, and its numbers by column; events with it count likewise."""
        width = 1 + max(numbers, default=-1)
        if width > len(self._state.units_M):
            more = ((0, 0), (0, width - len(self._state.units_M)))
            numbers_IM = np.pad(self._state.numbers_IM, more, constant_values=np.nan)
            self._state = self._state._replace(numbers_IM=numbers_IM, units_M=np.pad(self._state.units_M, more[1]))
        state = self._state
        of_item = state.items[item]
        state.numbers_IM[item] = np.nan
        for column, number in numbers.items():
            state.numbers_IM[item, column] = number
        first, count = of_item["first_category"], of_item["num_categories"]
        if state.categories[first : first + count].tolist() == [*categories]:
            return
        first, self._num_categories = self._num_categories, self._num_categories + len(categories)
        most = 1 + max(categories, default=0)
        if self._num_categories > len(state.categories) or most > state.scratch_3C.shape[1]:
            self._state = state = state._replace(
                categories=_larger(state.categories, self._num_categories),
                scratch_3C=_larger(state.scratch_3C.T, most).T.copy(),
            )
        state.categories[first : self._num_categories] = categories
        of_item["first_category"], of_item["num_categories"] = first, len(categories)

    def scale(self, given: Mapping[int, float] = NO_SCALES) -> Floats64:
        """Measures numbers in their standard deviations over the items, or in those that are given by column."""
        number_IM = self._state.numbers_IM[: self.num_items]
        known_IM = ~np.isnan(number_IM)
        count_M = np.maximum(known_IM.sum(0), 1)
        off_IM = np.where(known_IM, number_IM - np.where(known_IM, number_IM, 0).sum(0) / count_M, 0)
        deviation_M: Floats64 = np.sqrt((off_IM**2).sum(0) / count_M)
        deviation_M[deviation_M < SAME * np.nan_to_num(np.abs(number_IM)).max(0, initial=0)] = 0
        deviation_M[list(given)] = list(given.values())
        self._state.units_M[:] = NEAR_SPREADS * deviation_M
        return deviation_M

    def update(
        self, events: EventColumns, asked: QueryColumns = NOTHING, *, imagined: bool = False
    ) -> tuple[Floats, Floats]:
        """Takes in events in their order, and answers questions between them.

        Args:
            events: Of users and items with rows.
            asked: The questions.
            imagined: Whether the events count for their user alone; see ``imagining``.

        Returns:
            (``EVENT_FEATURES`` of each event without the pause, ``FEATURES`` of each query), a float32 row each.
        """
        from m6rec.features import kernels  # compiled, and numba is slow to import

        trace_NT = np.zeros((len(events.users), len(EVENT_FEATURES) - 1), np.float32)
        features_QF = np.zeros((len(asked.users), len(FEATURES)), np.float32)
        n = q = 0
        most_sets = 0 if imagined else MOST_PAIRS // WAYS
        while True:
            n, q = kernels.walk(self._state, *events, trace_NT, *asked, features_QF, n, q, most_sets, imagined)
            if n == len(events.users):
                return trace_NT, features_QF
            self._make_room(most_sets)

    def features(self, user: int, items: Sequence[int]) -> Floats:
        """The ``FEATURES`` of a user with each of several items; -1 is whoever or whatever isn't known."""
        from m6rec.features import kernels

        features_IF = np.zeros((len(items), len(FEATURES)), np.float32)
        kernels.compute(self._state, user, np.array(items, np.int64), features_IF)
        return features_IF

    @contextmanager
    def imagining(self, user: int) -> Iterator[None]:
        """Within, events may be imagined of one user; nothing of them stays."""
        end, before = int(self.total["behaviours"]), self._state.users[user].copy()
        self._make_room(0)
        # The copy is worked on, as what the user did may be moved.
        first, size = int(before["start"]), int(before["size"])
        self._state.behaviours[end : end + size] = self._state.behaviours[first : first + size]
        self._state.users[user]["start"], self._state.users[user]["room"] = end, 2 * LATEST
        self.total["behaviours"] = end + 2 * LATEST
        try:
            yield
        finally:
            self._state.users[user] = before
            self.total["behaviours"] = end

    @property
    def pair_bytes(self) -> int:
        """Memory of the table of pairs."""
        return int(self._state.keys.nbytes + self._state.counts.nbytes)

    def _make_room(self, most_sets: int) -> None:
        """Lets the state grow where it is ``kernels.crowded``."""
        from m6rec.features import kernels

        state = self._state
        needed = int(self.total["behaviours"]) + 2 * LATEST
        state = state._replace(behaviours=_larger(state.behaviours, needed))
        if len(state.keys) < most_sets and self.total["pairs"] + LATEST > state.keys.size // 2:
            keys = np.zeros((2 * len(state.keys), WAYS), np.int64)
            counts = np.zeros((keys.size, COUNTS), np.float32)
            kernels.grow_pairs(state.keys, state.counts, keys, counts)
            state = state._replace(keys=keys, counts=counts)
        self._state = state


def _larger(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """The rows, with room for so many; it at least doubles where it must grow."""
    if size <= len(rows):
        return rows
    larger = np.zeros((max(size, 2 * len(rows)), *rows.shape[1:]), rows.dtype)
    larger[: len(rows)] = rows
    return larger
