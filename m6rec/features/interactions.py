"""User histories and online features, point in time.

An ``InteractionStore`` replays a log forward. A query between two events sees only the events before it, so a feature
can't leak the future. Training, evaluation, serving and the device use the same store, and the LightGBM and MLP
baselines read the same features as the model.

An event with neutral feedback is part of the user's history but changes no feature.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m6rec.features.item_columns import ItemColumns
from m6rec.features.item_feedback import UNKNOWN, ItemFeedback, likes_among
from m6rec.features.layout import (
    EVENT_FEATURES,
    FEATURES,
    NEIGHBOURLY,
    SHARES,
    EventColumns,
    QueryColumns,
)
from m6rec.features.store import Count, FeatureStore
from m6rec.features.timelines import Timelines
from m6rec.types import Event, Feedback, Item

__all__ = ["EVENT_FEATURES", "FEATURES", "InteractionStore", "PopularityCounts", "without_neighbours"]

Floats = NDArray[np.float32]
MAX_LIKES = 256
"""Latest likes of a user that retrieval looks at."""

BATCH = 1 << 16
"""Events per call of the compiled update."""
_LAST = int(np.iinfo(np.int64).max)
"""Timestamp of hypothetical events: after all others."""

Query = tuple[int, str, str]
"""(number of events before it, user id, item id)."""


@dataclass(frozen=True, slots=True)
class PopularityCounts:
    """Anonymous counts of events, from which the store on a device starts.

    Attributes:
        total: Over all items.
        items: Per item id, for items that have events.
        scales: Standard deviation of each of the items' ``numbers``; what is missing is computed from the items given.
    """

    total: Count = (0, 0, 0.0)
    items: Mapping[str, Count] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)


class InteractionStore:
    """Histories and features of everything observed so far.

    An event costs some hundred bytes besides itself, and what an event or a question takes doesn't grow with the log.
    """

    def __init__(
        self,
        items: Mapping[str, Item],
        feedback: Callable[[Event], Feedback],
        popularity: PopularityCounts = PopularityCounts(),
    ) -> None:
        """Starts with nothing observed.

        Args:
            items: By id.
            feedback: What an event says (``Domain.feedback``).
            popularity: What others did. Nobody is known by it, so nobody is the neighbour of a user.
        """
        self._items: dict[str, Item] = {}
        self._feedback = feedback
        self._users: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []  # of items, by row
        self._timelines, self._item_feedback = Timelines(), ItemFeedback()
        self._columns, self._given = ItemColumns(), popularity.scales
        self._store = FeatureStore()
        self._time = 0
        self._by_likes: tuple[int, list[str]] = -1, []
        self.upsert_items(items.values())
        self._store.start(popularity.total, {self._item_row(item): of for item, of in popularity.items.items()})

    @property
    def like_rate(self) -> float:
        """The share of liked events so far; 0.5 before the first."""
        total = self._store.total
        return float(total["likes"] / total["count"]) if total["count"] else 0.5

    @property
    def mean_value(self) -> float:
        """The mean strength of events so far; 0 before the first."""
        total = self._store.total
        return float(total["values"] / total["count"]) if total["count"] else 0.0

    @property
    def pair_bytes(self) -> int:
        """Memory of the table of pairs of items, which grows by doubling up to a limit (``features.store``)."""
        return self._store.pair_bytes

    def timeline(self, user: str) -> Sequence[Event]:
        """The user's events so far, oldest first, searches among them."""
        row = self._users.get(user)
        return () if row is None else self._timelines[row]

    def history(self, user: str) -> Sequence[Event]:
        """The user's events with an item so far, oldest first."""
        timeline = self.timeline(user)
        return timeline if all(event.item for event in timeline) else [event for event in timeline if event.item]

    def seen(self, user: str) -> frozenset[str]:
        """Ids of the items that the user took or rejected; what they only viewed may still be recommended."""
        row = self._users.get(user)
        return frozenset() if row is None else frozenset(self._ids[item] for item in self._timelines.judged(row))

    def event_features(self, user: str) -> Floats:
        """The ``EVENT_FEATURES`` of the user's events, oldest first: float32 [len(timeline), len(EVENT_FEATURES)]."""
        row = self._users.get(user)
        return np.zeros((0, len(EVENT_FEATURES)), np.float32) if row is None else self._timelines.features(row)

    def liked(self, user: str) -> list[str]:
        """Ids of the user's latest likes, as many as retrieval looks at, oldest first."""
        likes = (event.item for event in reversed(self.history(user)) if self._feedback(event).positive)
        return [*islice(likes, MAX_LIKES)][::-1]

    @property
    def time(self) -> int:
        """The time of the latest event, in seconds since 1970; 0 before the first."""
        return self._time

    @property
    def values(self) -> list[float | None]:
        """The values that events with an item had so far, ascending; None, where there is one, comes last."""
        return self._timelines.values()

    def categories(self, item: str) -> Sequence[str]:
        """The categories of an item; () where it isn't known."""
        known = self._items.get(item)
        return known.categories if known else ()

    def popularity_rank(self, item: str) -> float:
        """The share of the items met so far that were met less often than this one; 0 before the first event.

        Items met ``MOST_MET`` times or more are alike.
        """
        row = self._rows.get(item)
        return 0.0 if row is None else self._store.popularity_rank(row)

    def item_share(self, item: str) -> float:
        """The like rate of an item, shrunk towards that of all events; the ``item_share`` of ``FEATURES``."""
        return float(self.features("", [item])[0, FEATURES.index("item_share")])

    def popularity(self, items: Iterable[str]) -> PopularityCounts:
        """What all users did so far, with these items apart."""
        of = {item: _count(self._store.items[self._rows[item]]) for item in items if item in self._rows}
        counts = {item: count for item, count in of.items() if count[0]}
        return PopularityCounts(_count(self._store.total), counts, self._scales)

    def most_liked(self) -> Sequence[str]:
        """Ids of what was met, by the number of likes, most first; as of now or of a hundredth fewer events."""
        at, ids = self._by_likes
        count = int(self._store.total["count"])
        if at < 0 or 101 * at < 100 * count:
            at, ids = self._by_likes = count, [self._ids[row] for row in self._store.by_likes()]
        return ids

    def like_counts(self, item: str, *, without: str) -> tuple[int, int]:
        """(how many users liked the item, how many met it), each by their latest event; one of them left out."""
        return likes_among(self._opinions(item, without))

    def also_liked(self, item: str, liked: Sequence[str], *, without: str) -> list[tuple[int, int]]:
        """Of each item in ``liked``: ``like_counts`` on ``item`` of those users alone who like that one."""
        opinion_U = self._opinions(item, without)
        return [likes_among(opinion_U[self._opinions(other, without) == 1]) for other in liked]

    def reviews(self, item: str, *, without: str) -> list[str]:
        """What users wrote about the item, oldest first; one of them left out."""
        reviews = self._item_feedback.reviews(self._rows.get(item, UNKNOWN))
        return [event.text for event in reviews if event.user != without]

    def upsert_items(self, items: Iterable[Item]) -> None:
        """Takes in items that are new or have changed; events with them count as if they had always been so."""
        for item in (one for one in items if self._items.get(one.id) is not one):
            self._items[item.id] = item
            self._store.describe(self._item_row(item.id), *self._columns.of(item))
        self._scales = self._columns.by_name(self._store.scale(self._columns.by_column(self._given)).tolist())

    def update(self, event: Event) -> None:
        """Takes in the next event of the log, or one that comes late: histories are in order of time."""
        self.replay([event])

    def update_all(self, events: Iterable[Event]) -> InteractionStore:
        """Takes in each event, and returns this past."""
        self.replay(events)
        return self

    def replay(self, events: Iterable[Event], questions: Sequence[Query] = ()) -> Floats:
        """Takes in each event and answers questions between them, at far less cost than one by one.

        Args:
            events: In their order.
            questions: In the order in which they are asked.

        Returns:
            The ``FEATURES`` of each question: float32 [len(questions), len(FEATURES)].
        """
        left, taken, asked = iter(events), 0, 0
        features_QF = np.zeros((len(questions), len(FEATURES)), np.float32)
        while True:
            batch = [*islice(left, BATCH)]
            columns = self._take_in(batch, [self._feedback(event) for event in batch])
            last = len(batch) < BATCH
            end = len(questions) if last else bisect_left(questions, taken + BATCH, asked, key=lambda one: one[0])
            some = questions[asked:end]
            known_Q = np.array([known - taken for known, _, _ in some], np.int64)
            user_Q = np.array([self._users.get(user, UNKNOWN) for _, user, _ in some], np.int64)
            item_Q = np.array([self._rows.get(item, UNKNOWN) for _, _, item in some], np.int64)
            trace_NT, features_QF[asked:end] = self._store.update(columns, QueryColumns(known_Q, user_Q, item_Q))
            self._timelines.put_features(trace_NT)
            taken, asked = taken + len(batch), end
            if last:
                return features_QF

    @contextmanager
    def overlay(self, user: str, events: Sequence[Event]) -> Iterator[None]:
        """As if the user had just done ``events``: they alone, as no count of an item changes. Nothing of it stays.

        Args:
            user: Id of the user, who may have no history. Nothing may be observed meanwhile.
            events: What is taken in, oldest first, and after everything that the user did. Those with an item that
                isn't known are part of the history, and no more.
        """
        if not events:
            yield
            return
        said = [self._feedback(event) for event in events]
        is_known, row = user in self._users, self._user_row(user)
        try:
            with self._timelines.restoring(row), self._store.imagining(row):
                trace_NT, _ = self._store.update(self._take_in(events, said, row), imagined=True)
                self._timelines.put_features(trace_NT)
                yield
        finally:
            if not is_known:
                del self._users[user]
                self._timelines.drop_user()
                self._store.drop_user()

    def features(self, user: str, items: Sequence[str]) -> Floats:
        """The ``FEATURES`` of one user with each of several items.

        Returns:
            float32 [len(items), len(FEATURES)].
        """
        return self._store.features(self._users.get(user, UNKNOWN), [self._rows.get(item, UNKNOWN) for item in items])

    def _take_in(
        self, events: Sequence[Event], said: Sequence[Feedback], imagined_of: int | None = None
    ) -> EventColumns:
        """Enters events into the histories, and says what they are in columns.

        Args:
            events: In their order.
            said: What each says.
            imagined_of: The row of the user who passes with them; None where they are observed.
        """
        rows: list[tuple[int, int, int, float, int]] = []
        for event, of in zip(events, said, strict=True):
            user = self._user_row(event.user) if imagined_of is None else imagined_of
            item = self._rows.get(event.item, UNKNOWN)
            positive = -1 if of.positive is None or not event.item else int(of.positive)
            if imagined_of is None:
                self._time = max(self._time, event.time)
                if positive >= 0:
                    item = self._item_row(event.item)
                    self._item_feedback.add(item, user, positive, event)
            elif item == UNKNOWN:
                positive = -1
            self._timelines.add(user, event, item if positive >= 0 else None, late=imagined_of is None)
            rows.append((user, item, positive, of.strength, _LAST if imagined_of is not None else event.time))
        return EventColumns.of(rows)

    def _opinions(self, item: str, without: str) -> NDArray[np.int8]:
        """See ``ItemFeedback.opinions``."""
        rows = self._rows.get(item, UNKNOWN), len(self._timelines), self._users.get(without, UNKNOWN)
        return self._item_feedback.opinions(*rows)

    def _user_row(self, user: str) -> int:
        row = self._users.setdefault(user, len(self._users))
        if row == len(self._timelines):
            self._timelines.add_user()
            self._store.add_users(1)
        return row

    def _item_row(self, item: str) -> int:
        row = self._rows.setdefault(item, len(self._rows))
        if row == len(self._ids):
            self._ids.append(item)
            self._item_feedback.add_item()
            self._store.add_items(1)
        return row


def _count(record: Any) -> Count:
    return int(record["count"]), int(record["likes"]), float(record["values"])


def without_neighbours(statistics_NF: Floats) -> Floats:
    """The ``FEATURES`` of a user whom nobody is compared with, as on a device."""
    alone_NF = statistics_NF.copy()
    alone_NF[:, NEIGHBOURLY], alone_NF[:, SHARES] = 0, statistics_NF[:, 3:4]
    return alone_NF
