"""User histories and online features, point in time.

An ``InteractionStore`` replays a log forward. A query between two events sees only the events before it, so a feature
can't leak the future. Training, evaluation, serving and the device use the same store, and the LightGBM and MLP
baselines read the same features as the model.

An event with neutral feedback is part of the user's history but changes no feature.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import copysign, log1p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m6rec.features.layout import (
    EVENT_FEATURES,
    FEATURES,
    MOST_MET,
    MOST_NUMBERS,
    NEIGHBOURLY,
    SHARES,
    EventColumns,
    QueryColumns,
)
from m6rec.features.store import Count, FeatureStore
from m6rec.types import Event, Feedback, Item

__all__ = ["EVENT_FEATURES", "FEATURES", "InteractionStore", "PopularityCounts", "numbers", "without_neighbours"]

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


def numbers(item: Item) -> dict[str, float]:
    """The numeric details of an item, on a logarithmic scale, as preferences depend on price ratios.

    For years the scale is practically linear.
    """
    found = {}
    for name, value in item.details.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            found[name] = copysign(log1p(abs(value)), value)
    return found


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
        self._histories: list[list[Event]] = []
        self._traced: list[array[int]] = []  # parallel to the histories: the row of each event's traces
        self._judged: list[array[int]] = []  # rows of the items that a user's events were for or against
        self._viewers: list[array[int]] = []  # twice the row of each user who was for or against the item, + 1 if for
        self._reviews: list[list[Event]] = []
        self._categories: dict[str, int] = {}
        self._numbers: dict[str, int] = {}  # columns, by name
        self._given = popularity.scales
        self._trace_NT = np.zeros((16, len(EVENT_FEATURES) - 1), np.float32)
        self._num_traced = 0
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
        return () if row is None else self._histories[row]

    def history(self, user: str) -> Sequence[Event]:
        """The user's events with an item so far, oldest first."""
        timeline = self.timeline(user)
        return timeline if all(event.item for event in timeline) else [event for event in timeline if event.item]

    def seen(self, user: str) -> frozenset[str]:
        """Ids of the items that the user took or rejected; what they only viewed may still be recommended."""
        row = self._users.get(user)
        return frozenset() if row is None else frozenset(self._ids[item] for item in self._judged[row])

    def event_features(self, user: str) -> Floats:
        """The ``EVENT_FEATURES`` of the user's events, oldest first: float32 [len(timeline), len(EVENT_FEATURES)]."""
        row = self._users.get(user)
        if row is None:
            return np.zeros((0, len(EVENT_FEATURES)), np.float32)
        times = np.array([event.time for event in self._histories[row]], np.int64)
        pause_N1 = np.log1p(np.maximum(0, np.diff(times, prepend=times[:1])))[:, None]
        return np.concatenate([self._trace_NT[np.array(self._traced[row])], pause_N1.astype(np.float32)], 1)

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
        found = {event.value for events in self._histories for event in events if event.item}
        return [*sorted(value for value in found if value is not None), *([None] if None in found else [])]

    def categories(self, item: str) -> Sequence[str]:
        """The categories of an item; () where it isn't known."""
        known = self._items.get(item)
        return known.categories if known else ()

    def popularity_rank(self, item: str) -> float:
        """The share of the items met so far that were met less often than this one; 0 before the first event.

        Items met ``MOST_MET`` times or more are alike.
        """
        row = self._rows.get(item)
        count = 0 if row is None else min(int(self._store.items["count"][row]), MOST_MET)
        return int(self._store.items_by_count[:count].sum()) / int(self._store.total["met"]) if count else 0.0

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
            items = self._store.items
            order = np.lexsort([items["first"], -items["likes"]])  # of equals, the one that was met first
            at, ids = self._by_likes = count, [self._ids[row] for row in order[items["count"][order] > 0].tolist()]
        return ids

    def like_counts(self, item: str, *, without: str) -> tuple[int, int]:
        """(how many users liked the item, how many met it), each by their latest event; one of them left out."""
        opinion_U = self._opinions(item, without)
        return int((opinion_U == 1).sum()), int((opinion_U >= 0).sum())

    def also_liked(self, item: str, liked: Sequence[str], *, without: str) -> list[tuple[int, int]]:
        """Of each item in ``liked``: ``like_counts`` on ``item`` of those users alone who like that one."""
        opinion_U = self._opinions(item, without)
        of_fans = (opinion_U[self._opinions(other, without) == 1] for other in liked)
        return [(int((opinions == 1).sum()), int((opinions >= 0).sum())) for opinions in of_fans]

    def reviews(self, item: str, *, without: str) -> list[str]:
        """What users wrote about the item, oldest first; one of them left out."""
        row = self._rows.get(item)
        return [] if row is None else [event.text for event in self._reviews[row] if event.user != without]

    def upsert_items(self, items: Iterable[Item]) -> None:
        """Takes in items that are new or have changed; events with them count as if they had always been so."""
        for item in items:
            self._items[item.id] = item
            categories = [self._categories.setdefault(name, len(self._categories)) for name in item.categories]
            columns = {}
            for name, number in numbers(item).items():
                if name in self._numbers or len(self._numbers) < MOST_NUMBERS:
                    columns[self._numbers.setdefault(name, len(self._numbers))] = number
            self._store.describe(self._item_row(item.id), categories, columns)
        given = {self._numbers[name]: of for name, of in self._given.items() if name in self._numbers}
        self._scales = dict(zip(self._numbers, self._store.scale(given).tolist(), strict=False))

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
            user_Q = np.array([self._users.get(user, -1) for _, user, _ in some], np.int64)
            item_Q = np.array([self._rows.get(item, -1) for _, _, item in some], np.int64)
            trace_NT, features_QF[asked:end] = self._store.update(columns, QueryColumns(known_Q, user_Q, item_Q))
            self._trace(trace_NT)
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
        is_known, num_traced, row = user in self._users, self._num_traced, self._user_row(user)
        num_events, num_judged = len(self._histories[row]), len(self._judged[row])
        try:
            with self._store.imagining(row):
                trace_NT, _ = self._store.update(self._take_in(events, said, row), imagined=True)
                self._trace(trace_NT)
                yield
        finally:
            del self._histories[row][num_events:], self._traced[row][num_events:], self._judged[row][num_judged:]
            self._num_traced = num_traced
            if not is_known:
                del self._users[user]
                for of_users in (self._histories, self._traced, self._judged):
                    of_users.pop()
                self._store.drop_user()

    def features(self, user: str, items: Sequence[str]) -> Floats:
        """The ``FEATURES`` of one user with each of several items.

        Returns:
            float32 [len(items), len(FEATURES)].
        """
        return self._store.features(self._users.get(user, -1), [self._rows.get(item, -1) for item in items])

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
        for number, (event, of) in enumerate(zip(events, said, strict=True)):
            user = self._user_row(event.user) if imagined_of is None else imagined_of
            item = self._rows.get(event.item, -1)
            positive = -1 if of.positive is None or not event.item else int(of.positive)
            history, place = self._histories[user], len(self._histories[user])
            if imagined_of is None:
                self._time = max(self._time, event.time)
                if history and event.time < history[-1].time:
                    place = bisect_right(history, event.time, key=lambda one: one.time)
                if positive >= 0:
                    item = self._item_row(event.item)
                    self._viewers[item].append(2 * user + positive)
                    if event.text:
                        self._reviews[item].append(event)
            elif item < 0:
                positive = -1
            history.insert(place, event)
            self._traced[user].insert(place, self._num_traced + number)
            if positive >= 0:
                self._judged[user].append(item)
            rows.append((user, item, positive, of.strength, _LAST if imagined_of is not None else event.time))
        users, items, positives, strengths, times = zip(*rows, strict=True) if rows else [()] * 5
        user_N, item_N, positive_N, time_N = (np.array(of, np.int64) for of in (users, items, positives, times))
        return EventColumns(user_N, item_N, positive_N, np.array(strengths, np.float64), time_N)

    def _trace(self, trace_NT: Floats) -> None:
        """Keeps the traces of the events that were taken in last."""
        end = self._num_traced + len(trace_NT)
        if end > len(self._trace_NT):
            kept, self._trace_NT = self._trace_NT, np.zeros((2 * end, trace_NT.shape[1]), np.float32)
            self._trace_NT[: self._num_traced] = kept[: self._num_traced]
        self._trace_NT[self._num_traced : end] = trace_NT
        self._num_traced = end

    def _opinions(self, item: str, without: str) -> NDArray[np.int8]:
        """Of each user 1 or 0 for whether they liked the item, by their latest event with it; -1 for none."""
        opinion_U = np.full(len(self._histories), -1, np.int8)
        row = self._rows.get(item)
        if row is not None:
            viewer_N = np.array(self._viewers[row], np.int64)
            opinion_U[viewer_N >> 1] = viewer_N & 1  # in order, so that the latest stays
        if without in self._users:
            opinion_U[self._users[without]] = -1
        return opinion_U

    def _user_row(self, user: str) -> int:
        row = self._users.setdefault(user, len(self._users))
        if row == len(self._histories):
            self._histories.append([])
            self._traced.append(array("I"))
            self._judged.append(array("I"))
            self._store.add_users(1)
        return row

    def _item_row(self, item: str) -> int:
        row = self._rows.setdefault(item, len(self._rows))
        if row == len(self._ids):
            self._ids.append(item)
            self._viewers.append(array("Q"))
            self._reviews.append([])
            self._store.add_items(1)
        return row


def _count(record: Any) -> Count:
    return int(record["count"]), int(record["likes"]), float(record["values"])


def without_neighbours(statistics_NF: Floats) -> Floats:
    """The ``FEATURES`` of a user whom nobody is compared with, as on a device."""
    alone_NF = statistics_NF.copy()
    alone_NF[:, NEIGHBOURLY], alone_NF[:, SHARES] = 0, statistics_NF[:, 3:4]
    return alone_NF
