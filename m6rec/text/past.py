"""What was known before a question: histories, and the collaborative signal as a few named shares.

A ``Past`` reads a log forward, one event at a time. Questions are asked of it between two events, so nothing
later than the question is within its reach; training, evaluation and serving use it alike. Its statistics are
what our model reads as sentences and what the LightGBM baseline reads as numbers: one source for both.

Plain text lacks the collaborative signal (CTRL, RecBench); these shares put it back. All shares are like rates
in [0, 1], and all shares, values and surprises are shrunk towards a prior so that few observations say little. A value
is the strength of an event's feedback (``types.Feedback``), from 0 to 1; its surprise is how much more it is than that
of the item's others. An event whose feedback is neither positive nor negative is part of the user's history, and of
what they have seen, and is counted nowhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m6rec.types import Event, Feedback, Item

Floats = NDArray[np.float32]
MAX_LIKES = 256
"""Latest likes of a user that retrieval looks at."""

STATISTICS = (
    "user_share",  # of this user's events
    "user_count",  # … ln(1 + number)
    "recent_share",  # of this user's events, the latest weighing most: 0.85 per event back
    "item_share",  # of this item's events
    "item_count",  # … ln(1 + number)
    "category_share",  # of this user's events with an item of these categories
    "like_minded_share",  # among viewers of the item, weighted by the likes they share with this user
    "dislike_minded_share",  # … weighted by the dislikes they share
    "opposed_share",  # … weighted by the items they and this user disagree on
    "agreeing_share",  # … weighted by agreements minus disagreements, where positive
    "neighbour_surprise",  # how much more than expected the correlated viewers value the item, in spreads of all values
    "user_surprise",  # how much more than their items' viewers this user likes what they see, in [-1, 1]
    "user_value",  # mean value of this user's events
    "item_value",  # mean value of this item's events
    "value_surprise",  # of this user's events
    "recent_value_surprise",  # of this user's events, the latest weighing most
    "category_value_surprise",  # of this user's events with an item of these categories
    "near_share",  # of this user's latest events, weighted by how near their items are on the ``scale`` to this one
    "near_value_surprise",  # … weighted likewise
)
"""Names and meanings of the columns of ``Past.statistics``, in order."""
TRACES = (
    "liked",
    "value",  # strength of the feedback
    "value_surprise",  # … minus the mean of the item's events before it
    "surprise",  # how much more than expected the user liked it
    "item_share",
    "item_count",
    "pause",  # ln(1 + seconds) since the user's event before it
)
"""Names and meanings of the columns of ``Past.traces``, in order; each as it was just before the event."""

NEIGHBOURLY = slice(6, 11)
"""The columns of ``STATISTICS`` that compare the user with single other users."""

# Pseudo-observations of a share's prior, and the memory of ``recent_share``; chosen on validation.
USER_PRIOR, ITEM_PRIOR, CATEGORY_PRIOR, NEIGHBOUR_PRIOR, NEAR_PRIOR = 5.0, 5.0, 3.0, 3.0, 3.0
CORRELATION_PRIOR, SURPRISE_PRIOR = 10.0, 0.1
RECENT_MEMORY = 0.85
MAX_NEAR = 200
"""Latest events of a user whose items' numbers are compared."""
MAX_RANKED = 1_000
"""Events of an item from which on its popularity is as high as any."""
NEIGHBOUR_BYTES = 256 << 20
"""Memory for the neighbours of active users; those of others are counted anew when they come back."""


Count = tuple[int, int, float]
"""(events, liked events, sum of their values)."""


@dataclass(frozen=True, slots=True)
class Popularity:
    """What others did, counted without who did it; a ``Past`` on a device goes on from there.

    Attributes:
        total: Of all items.
        items: By id, of items that have events.
    """

    total: Count = (0, 0, 0.0)
    items: Mapping[str, Count] = field(default_factory=dict)


def scale(item: Item) -> float | None:
    """Where an item stands on a scale that tastes go by, one apart being somewhat alike; None where it has no number.

    The year, in steps of five; else the price, where half as much again is nearly a step.
    """
    year, price = (item.details.get(name) for name in ("year", "price"))
    if isinstance(year, int | float):
        return (year - 2000) / 5
    return 2 * float(np.log(price)) if isinstance(price, int | float) and price > 0 else None


class Past:
    """Histories and statistics of everything observed so far.

    Memory is some hundred bytes an event, and ``NEIGHBOUR_BYTES``. ``observe`` and a row of ``statistics`` cost a few
    operations on the viewers of the one item; the first question after a long absence, on those of all the user's.
    """

    def __init__(
        self,
        items: Mapping[str, Item],
        feedback: Callable[[Event], Feedback],
        popularity: Popularity = Popularity(),
    ) -> None:
        """Starts with nothing observed.

        Args:
            items: By id.
            feedback: What an event says (``Domain.feedback``).
            popularity: What others did. Nobody is known by it, so nobody is the neighbour of a user.
        """
        self._items = dict(items)
        self._feedback = feedback
        self._users: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._histories: list[list[Event]] = []
        # Of the events that are positive or negative, per user: (item row, liked, surprise then, in spreads of all).
        self._seen: list[list[tuple[int, bool, float]]] = []
        self._viewers: list[_Viewers] = []
        self._categories: dict[str, int] = {}
        self._item_categories: list[NDArray[np.int64]] = []
        self._user_categories: list[dict[int, list[float]]] = []
        # Of the events with items that have a number, per user: (number, liked, value surprise at the time).
        self._numbered: list[list[tuple[float, bool, float]]] = []
        self._uncounted: set[int] = set()  # users whose counts by category and number are to be made anew
        self._number_of_item: list[float | None] = []
        self._recent: list[float] = []
        self._likes_of_user: list[int] = []
        self._likes_of_item: list[int] = []
        self._reviews: list[list[Event]] = []
        self._count_of_item: list[int] = []
        self._surprise_of_user: list[float] = []
        self._values_of_user: list[float] = []
        self._value_surprise_of_user: list[float] = []
        self._recent_value_surprise: list[float] = []
        self._traces: list[list[tuple[float, ...]]] = []  # parallel to the histories
        self._values_of_item: list[float] = []
        self._neighbours = _Neighbours()
        self._time = 0
        self._items_by_count = np.zeros(MAX_RANKED + 1, np.int64)  # met 1, 2, … times, the last for as many and more
        self._num_met = 0
        self._by_likes: tuple[int, list[str]] = -1, []
        self._num_events, self._num_likes, self._sum_of_values = popularity.total
        self._spread = _Spread()
        for item, count in popularity.items.items():
            row = self._item_row(item)
            self._count_of_item[row], self._likes_of_item[row], self._values_of_item[row] = count
            self._recount(0, count[0])

    @property
    def like_rate(self) -> float:
        """The share of liked events so far; 0.5 before the first."""
        return self._num_likes / self._num_events if self._num_events else 0.5

    @property
    def mean_value(self) -> float:
        """The mean strength of events so far; 0 before the first."""
        return self._sum_of_values / self._num_events if self._num_events else 0.0

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
        judged = (event for event in self.history(user) if self._feedback(event).positive is not None)
        return frozenset(event.item for event in judged)

    def traces(self, user: str) -> Floats:
        """The ``TRACES`` of the user's events, oldest first: float32 [len(timeline), len(TRACES)]."""
        row = self._users.get(user)
        traces = [] if row is None else self._traces[row]
        return np.array(traces, np.float32).reshape(len(traces), len(TRACES))

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

        Items met ``MAX_RANKED`` times or more are alike.
        """
        row = self._rows.get(item)
        count = 0 if row is None else min(self._count_of_item[row], MAX_RANKED)
        return int(self._items_by_count[:count].sum()) / self._num_met if count else 0.0

    def item_share(self, item: str) -> float:
        """The like rate of an item, shrunk towards that of all events; the ``item_share`` of ``STATISTICS``."""
        with self._asked_about():
            return self._item_share(self._item_row(item))

    def popularity(self, items: Iterable[str]) -> Popularity:
        """What all users did so far, with these items apart."""
        rows = {item: self._rows[item] for item in items if item in self._rows}
        counts = {
            item: (self._count_of_item[row], self._likes_of_item[row], self._values_of_item[row])
            for item, row in rows.items()
            if self._count_of_item[row]
        }
        return Popularity((self._num_events, self._num_likes, self._sum_of_values), counts)

    def most_liked(self) -> Sequence[str]:
        """Ids of what was met, by the number of likes, most first; as of now or of a hundredth fewer events."""
        at, ids = self._by_likes
        if at < 0 or 101 * at < 100 * self._num_events:
            known = list(self._rows)
            order = np.argsort(-np.array(self._likes_of_item), kind="stable")
            at, ids = self._by_likes = self._num_events, [known[row] for row in order.tolist()]
        return ids

    def verdicts(self, item: str, *, without: str) -> tuple[int, int]:
        """(how many users liked the item, how many met it), each by their latest event; one of them left out."""
        opinion_U = self._opinions(item, without)
        return int((opinion_U == 1).sum()), int((opinion_U >= 0).sum())

    def also_liked(self, item: str, liked: Sequence[str], *, without: str) -> list[tuple[int, int]]:
        """Of each item in ``liked``: ``verdicts`` on ``item`` of those users alone who like that one."""
        opinion_U = self._opinions(item, without)
        of_fans = (opinion_U[self._opinions(other, without) == 1] for other in liked)
        return [(int((opinions == 1).sum()), int((opinions >= 0).sum())) for opinions in of_fans]

    def reviews(self, item: str, *, without: str) -> list[str]:
        """What users wrote about the item, oldest first; one of them left out."""
        row = self._rows.get(item)
        return [] if row is None else [event.text for event in self._reviews[row] if event.user != without]

    def know(self, items: Iterable[Item]) -> None:
        """Takes in items that are new or have changed; events with them count as if they had always been so."""
        for item in items:
            self._items[item.id] = item
            row = self._rows.get(item.id)
            if row is None:
                continue
            categories, number = self._categories_of(item.id), scale(item)
            if number != self._number_of_item[row] or not np.array_equal(categories, self._item_categories[row]):
                self._item_categories[row], self._number_of_item[row] = categories, number
                self._uncounted.update(self._viewers[row].users.tolist())

    def observe(self, event: Event) -> None:
        """Takes in the next event of the log, or one that comes late: histories are in order of time."""
        user = self._user_row(event.user)
        self._time = max(self._time, event.time)
        said = self._feedback(event)
        place = bisect_right(self._histories[user], event.time, key=lambda one: one.time)
        if not event.item or said.positive is None:
            self._note(user, event, said, place)
            return
        item, liked, value = self._item_row(event.item), said.positive, said.strength
        surprise = self._value_surprise(user, item, value)
        self._neighbours.observe(user, self._viewers[item], liked, surprise)
        self._take_in(user, item, event, said, surprise, place)
        self._values_of_item[item] += value
        self._sum_of_values += value
        self._spread.add(value)
        self._viewers[item].add(user, liked, surprise)
        if event.text:
            self._reviews[item].append(event)
        self._likes_of_item[item] += liked
        self._recount(self._count_of_item[item], self._count_of_item[item] + 1)
        self._count_of_item[item] += 1
        self._num_events += 1
        self._num_likes += liked

    def observe_all(self, events: Iterable[Event]) -> Past:
        """``observe`` each, and return this past."""
        for event in events:
            self.observe(event)
        return self

    @contextmanager
    def passing(self, user: str, events: Sequence[Event]) -> Iterator[None]:
        """As if the user had just done ``events``: they alone, as no count of an item changes. Nothing of it stays.

        Args:
            user: Id of the user, who may have no history. Nothing may be observed meanwhile.
            events: What is taken in, oldest first, and after everything that the user did.
        """
        if not events:
            yield
            return
        with self._asked_about():
            if user in self._users:
                with self._restored(self._users[user]):
                    self._imagine(self._users[user], events)
                    yield
                return
            row = self._user_row(user)
            try:
                self._imagine(row, events)
                yield
            finally:
                self._neighbours.forget(row)
                self._uncounted.discard(row)
                del self._users[user]
                for of_users in self._of_users:
                    of_users.pop()

    def _imagine(self, user: int, events: Sequence[Event]) -> None:
        self._neighbours.of(user, self._seen[user], self._viewers)  # what is imagined must not be counted a second time
        for event in events:
            said, place = self._feedback(event), len(self._histories[user])
            if not event.item or said.positive is None:
                self._note(user, event, said, place)
                continue
            item = self._item_row(event.item)
            surprise = self._value_surprise(user, item, said.strength)
            self._neighbours.imagine(user, self._viewers[item], said.positive, surprise)
            self._take_in(user, item, event, said, surprise, place)

    @contextmanager
    def _restored(self, user: int) -> Iterator[None]:
        """Gives a user back what they had."""
        self._count(user)
        num_events, num_judged, num_numbered = (
            len(kept[user]) for kept in (self._histories, self._seen, self._numbered)
        )
        categories = {category: [*counts] for category, counts in self._user_categories[user].items()}
        numbers = [kept[user] for kept in self._sums]
        table = self._neighbours.of(user, self._seen[user], self._viewers).copy()
        try:
            yield
        finally:
            del self._histories[user][num_events:], self._traces[user][num_events:]
            del self._seen[user][num_judged:], self._numbered[user][num_numbered:]
            self._user_categories[user] = categories
            for kept, number in zip(self._sums, numbers, strict=True):
                kept[user] = number
            self._neighbours.of(user, self._seen[user], self._viewers)[:] = table

    @contextmanager
    def _asked_about(self) -> Iterator[None]:
        """Takes items and categories out again that are asked about, and that nobody had to do with."""
        num_items, num_categories = len(self._rows), len(self._categories)
        try:
            yield
        finally:
            while len(self._rows) > num_items:
                self._rows.popitem()
                for of_items in self._of_items:
                    of_items.pop()
            while len(self._categories) > num_categories:
                self._categories.popitem()

    def statistics(self, user: str, items: Sequence[str]) -> Floats:
        """The ``STATISTICS`` of one user with each of several items.

        Returns:
            float32 [len(items), len(STATISTICS)].
        """
        with self._asked_about():
            return self._statistics(user, items)

    def _statistics(self, user: str, items: Sequence[str]) -> Floats:
        row = self._users.get(user)
        if row is not None:
            self._count(row)
        count = 0 if row is None else len(self._seen[row])
        rate = self.like_rate
        likes = 0 if row is None else self._likes_of_user[row]
        user_share = (likes + USER_PRIOR * rate) / (count + USER_PRIOR)
        mean_surprise = 0.0 if row is None else self._value_surprise_of_user[row] / (count + USER_PRIOR)
        rows = [self._item_row(item) for item in items]
        counts_I = np.array([self._count_of_item[n] for n in rows], np.float64)
        item_share_I = np.array([self._item_share(n) for n in rows], np.float64)
        table = np.empty((len(items), len(STATISTICS)), np.float32)
        table[:, 0] = user_share
        table[:, 1] = np.log1p(count)
        table[:, 2] = self._recent[row] if row is not None and count else rate
        table[:, 3] = item_share_I
        table[:, 4] = np.log1p(counts_I)
        table[:, 5], table[:, 16] = self._of_categories(row, rows, user_share, mean_surprise)
        if row is not None and count and items:
            neighbours = self._neighbours.of(row, self._seen[row], self._viewers)
            table[:, 6:11] = _neighbour_shares(neighbours, [self._viewers[n] for n in rows], item_share_I)
        else:
            table[:, 6:10], table[:, 10] = item_share_I[:, None], 0
        table[:, 11] = 0 if row is None else self._surprise_of_user[row] / (count + USER_PRIOR)
        values = 0.0 if row is None else self._values_of_user[row]
        table[:, 12] = (values + USER_PRIOR * self.mean_value) / (count + USER_PRIOR)
        table[:, 13] = [self._item_value(n) for n in rows]
        table[:, 14] = mean_surprise
        table[:, 15] = 0 if row is None else self._recent_value_surprise[row]
        numbers_I = np.array([np.nan if (of := self._number_of_item[n]) is None else of for n in rows])
        table[:, 17], table[:, 18] = self._near(row, numbers_I, user_share, mean_surprise)
        return table

    def _surprise(self, user: int, item: int, liked: bool) -> float:
        """How much more than expected the user likes the item."""
        surprise_of_user = self._surprise_of_user[user] / (len(self._seen[user]) + USER_PRIOR)
        return liked - self._item_share(item) - surprise_of_user

    def _value_surprise(self, user: int, item: int, value: float) -> float:
        """How much more than expected the user values the item, in spreads of all values."""
        surprise_of_user = self._value_surprise_of_user[user] / (len(self._seen[user]) + USER_PRIOR)
        return self._spread.of(value - self._item_value(item, value) - surprise_of_user)

    def _count(self, user: int) -> None:
        """Counts the user's events by category and number anew, where items of theirs or their order have changed."""
        if user not in self._uncounted:
            return
        self._uncounted.discard(user)
        self._user_categories[user], self._numbered[user] = {}, []
        for (item, liked, _), (trace, _) in zip(self._seen[user], self._judged(user), strict=True):
            self._count_in(user, item, liked, trace[TRACES.index("value_surprise")])

    def _count_in(self, user: int, item: int, liked: bool, value_surprise: float) -> None:
        if (number := self._number_of_item[item]) is not None:
            self._numbered[user].append((number, liked, value_surprise))
        for category in self._item_categories[item]:
            counts = self._user_categories[user].setdefault(int(category), [0, 0, 0])
            counts[0] += liked
            counts[1] += 1
            counts[2] += value_surprise

    @property
    def _of_users(self) -> tuple[list[Any], ...]:
        """What is kept of each user."""
        return (self._histories, self._seen, self._user_categories, self._numbered, self._traces, *self._sums)

    @property
    def _of_items(self) -> tuple[list[Any], ...]:
        """What is kept of each item."""
        return (
            self._viewers,
            self._likes_of_item,
            self._reviews,
            self._count_of_item,
            self._values_of_item,
            self._item_categories,
            self._number_of_item,
        )

    @property
    def _sums(self) -> tuple[list[Any], ...]:
        """What is kept of each user as one number."""
        return (
            self._recent,
            self._likes_of_user,
            self._surprise_of_user,
            self._values_of_user,
            self._value_surprise_of_user,
            self._recent_value_surprise,
        )

    def _recount(self, before: int, after: int) -> None:
        """An item that was met ``before`` times has been met ``after`` times."""
        self._num_met += not before
        self._items_by_count[min(before, MAX_RANKED)] -= before > 0
        self._items_by_count[min(after, MAX_RANKED)] += after > 0

    def _note(self, user: int, event: Event, said: Feedback, place: int) -> None:
        """Takes in an event that is neither for nor against an item, a view or a search: history, and no more."""
        item = self._rows.get(event.item) if event.item else None
        share, count = (self.like_rate, 0) if item is None else (self._item_share(item), self._count_of_item[item])
        self._enter(user, event, place, (0.5, said.strength, 0.0, 0.0, share, float(np.log1p(count))))

    def _take_in(self, user: int, item: int, event: Event, said: Feedback, surprise: float, place: int) -> None:
        """Takes the event in as one of the user's, whatever it is to others, at a place of their history."""
        liked = bool(said.positive)
        value_surprise = said.strength - self._item_value(item, said.strength)
        trace = (
            liked,
            said.strength,
            value_surprise,
            self._surprise(user, item, liked),
            self._item_share(item),
            float(np.log1p(self._count_of_item[item])),
        )
        self._surprise_of_user[user] += liked - self._item_share(item)
        self._values_of_user[user] += said.strength
        self._value_surprise_of_user[user] += value_surprise
        later = [trace for trace, _ in self._judged(user, place)]
        before = self._recent[user] if self._seen[user] else self.like_rate
        self._recent[user] = _recent(before, liked, [one[0] for one in later])
        self._recent_value_surprise[user] = _recent(
            self._recent_value_surprise[user], value_surprise, [one[2] for one in later]
        )
        if later:
            self._uncounted.add(user)
        elif user not in self._uncounted:
            self._count_in(user, item, liked, value_surprise)
        self._seen[user].insert(len(self._seen[user]) - len(later), (item, liked, surprise))
        self._likes_of_user[user] += liked
        self._enter(user, event, place, trace)

    def _enter(self, user: int, event: Event, place: int, trace: tuple[float, ...]) -> None:
        """Puts an event, with its ``TRACES`` but the pause, at a place of the user's history."""
        history, traces = self._histories[user], self._traces[user]
        history.insert(place, event)
        traces.insert(place, (*trace, _pause(history[place - 1], event) if place else 0.0))
        if place + 1 < len(history):
            traces[place + 1] = (*traces[place + 1][:-1], _pause(event, history[place + 1]))

    def _judged(self, user: int, start: int = 0) -> list[tuple[tuple[float, ...], Event]]:
        """The traces of the user's events that are positive or negative, from a place on; ``_seen`` is of the same."""
        pairs = zip(self._traces[user][start:], self._histories[user][start:], strict=True)
        return [(trace, event) for trace, event in pairs if event.item and self._feedback(event).positive is not None]

    def _opinions(self, item: str, without: str) -> NDArray[np.int8]:
        """Of each user 1 or 0 for whether they liked the item, by their latest event with it; -1 for none."""
        opinion_U = np.full(len(self._histories), -1, np.int8)
        row = self._rows.get(item)
        if row is not None:
            viewers = self._viewers[row]
            opinion_U[viewers.users] = viewers.liked  # in order, so that the latest stays
        if without in self._users:
            opinion_U[self._users[without]] = -1
        return opinion_U

    def _user_row(self, user: str) -> int:
        row = self._users.setdefault(user, len(self._users))
        if row == len(self._histories):
            self._histories.append([])
            self._seen.append([])
            self._user_categories.append({})
            self._recent.append(0.5)
            self._likes_of_user.append(0)
            self._surprise_of_user.append(0.0)
            self._values_of_user.append(0.0)
            self._value_surprise_of_user.append(0.0)
            self._recent_value_surprise.append(0.0)
            self._numbered.append([])
            self._traces.append([])
            self._neighbours.make_room(len(self._users))
        return row

    def _item_row(self, item: str) -> int:
        row = self._rows.setdefault(item, len(self._rows))
        if row == len(self._viewers):
            self._viewers.append(_Viewers())
            self._likes_of_item.append(0)
            self._reviews.append([])
            self._count_of_item.append(0)
            self._values_of_item.append(0.0)
            self._item_categories.append(self._categories_of(item))
            self._number_of_item.append(scale(self._items[item]) if item in self._items else None)
        return row

    def _categories_of(self, item: str) -> NDArray[np.int64]:
        known = self._items.get(item)
        names = known.categories if known else ()
        return np.asarray([self._categories.setdefault(name, len(self._categories)) for name in names], np.int64)

    def _item_share(self, item: int) -> float:
        return (self._likes_of_item[item] + ITEM_PRIOR * self.like_rate) / (self._count_of_item[item] + ITEM_PRIOR)

    def _item_value(self, item: int, first: float = 0.0) -> float:
        """Mean value of an item's events, shrunk towards that of all; ``first`` before there is any."""
        prior = ITEM_PRIOR * (self.mean_value if self._num_events else first)
        return (self._values_of_item[item] + prior) / (self._count_of_item[item] + ITEM_PRIOR)

    def _of_categories(
        self, user: int | None, items: Sequence[int], user_share: float, mean_surprise: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(``category_share``, ``category_value_surprise``) of each item."""
        counted = np.zeros((3, len(self._categories) + 1))  # likes, events and value surprises of the user, by category
        for category, counts in (self._user_categories[user] if user is not None else {}).items():
            counted[:, category] = counts
        categories = [self._item_categories[item] for item in items]
        owner = np.repeat(np.arange(len(items)), [len(own) for own in categories])
        counted = counted[:, np.concatenate([np.zeros(0, np.int64), *categories])]
        likes_I, seen_I, surprise_I = (np.bincount(owner, weights=of, minlength=len(items)) for of in counted)
        return (
            (likes_I + CATEGORY_PRIOR * user_share) / (seen_I + CATEGORY_PRIOR),
            (surprise_I + CATEGORY_PRIOR * mean_surprise) / (seen_I + CATEGORY_PRIOR),
        )

    def _near(
        self, user: int | None, numbers_I: NDArray[np.float64], user_share: float, mean_surprise: float
    ) -> NDArray[np.float64]:
        """``near_share`` and ``near_value_surprise`` of each item [2, I]; items without a number are near to none."""
        latest = self._numbered[user][-MAX_NEAR:] if user is not None else []
        number_H, liked_H, surprise_H = np.array(latest, np.float64).reshape(-1, 3).T
        weight_IH = np.nan_to_num(np.exp(-np.abs(numbers_I[:, None] - number_H)))
        sums_I2 = weight_IH @ np.stack([liked_H, surprise_H], 1)
        sums_I2 += NEAR_PRIOR * np.array([user_share, mean_surprise])
        near_I2: NDArray[np.float64] = sums_I2 / (weight_IH.sum(1, keepdims=True) + NEAR_PRIOR)
        return near_I2.T


class _Spread:
    """Standard deviation of numbers that come one by one (Welford, 1962)."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, number: float) -> None:
        self._count += 1
        off = number - self._mean
        self._mean += off / self._count
        self._squares += off * (number - self._mean)

    def of(self, difference: float) -> float:
        """A difference in spreads; 0 while all numbers are the same."""
        return difference / float(np.sqrt(self._squares / self._count)) if self._squares else 0.0


def _pause(before: Event, after: Event) -> float:
    return float(np.log1p(max(0, after.time - before.time)))


def _recent(before: float, number: float, later: Sequence[float]) -> float:
    """A mean whose latest numbers weigh most, with a number more, which ``later`` ones came before."""
    since = 0.0
    for one in later:
        since = RECENT_MEMORY * since + (1 - RECENT_MEMORY) * one
    weight = RECENT_MEMORY ** len(later)
    return RECENT_MEMORY * (before - since) + (1 - RECENT_MEMORY) * weight * number + since


def _neighbour_shares(neighbours: Floats, viewers: Sequence[_Viewers], prior_I: NDArray[np.float64]) -> Floats:
    """Columns 6 to 10 of ``STATISTICS`` from the user's table of neighbours and the viewers of each item."""
    sizes_I = np.array([len(of_item) for of_item in viewers])
    shares_I5 = np.stack([*[prior_I] * 4, np.zeros(len(viewers))], 1)
    if not sizes_I.any():
        return shares_I5.astype(np.float32)
    likes, dislikes, against, product, shared = neighbours[:, np.concatenate([of.users for of in viewers])]
    liked = np.concatenate([of.liked for of in viewers])
    surprise = np.concatenate([of.surprise for of in viewers])
    # 0.8 is about the variance of a surprise, which makes this a correlation shrunk to nought.
    correlation = product / (shared + CORRELATION_PRIOR) / 0.8
    weights = np.stack([likes, dislikes, against, np.maximum(likes + dislikes - against, 0)])
    summands = np.concatenate([weights * liked, weights, correlation[None] * surprise, np.abs(correlation)[None]])
    seen = sizes_I > 0
    starts = np.concatenate([[0], np.cumsum(sizes_I[seen])[:-1]])
    sums = np.add.reduceat(summands, starts, 1)  # one column an item that has viewers
    prior = NEIGHBOUR_PRIOR * prior_I[seen]
    shares_I5[seen, :4] = ((sums[:4] + prior) / (sums[4:8] + NEIGHBOUR_PRIOR)).T
    shares_I5[seen, 4] = sums[8] / (sums[9] + 5 * SURPRISE_PRIOR)
    return shares_I5.astype(np.float32)


class _Viewers:
    """All viewers of an item as arrays that grow by doubling."""

    def __init__(self) -> None:
        self._size = 0
        self._users = np.empty(4, np.int64)
        self._liked = np.empty(4, np.bool_)
        self._surprise = np.empty(4, np.float32)

    def __len__(self) -> int:
        return self._size

    def add(self, user: int, liked: bool, surprise: float) -> None:
        if self._size == len(self._users):
            self._users = np.resize(self._users, 2 * self._size)
            self._liked = np.resize(self._liked, 2 * self._size)
            self._surprise = np.resize(self._surprise, 2 * self._size)
        self._users[self._size], self._liked[self._size] = user, liked
        self._surprise[self._size] = surprise
        self._size += 1

    @property
    def users(self) -> NDArray[np.int64]:
        return self._users[: self._size]

    @property
    def liked(self) -> NDArray[np.bool_]:
        return self._liked[: self._size]

    @property
    def surprise(self) -> Floats:
        return self._surprise[: self._size]


def without_neighbours(statistics_NF: Floats) -> Floats:
    """The ``STATISTICS`` of a user whom nobody is compared with, as on a device."""
    alone_NF = statistics_NF.copy()
    alone_NF[:, NEIGHBOURLY] = statistics_NF[:, 3:4]
    alone_NF[:, NEIGHBOURLY.stop - 1] = 0
    return alone_NF


BOTH_LIKE, BOTH_DISLIKE, DISAGREE, PRODUCT, SHARED = range(5)


class _Neighbours:
    """How users relate over the items that both have seen, kept up to date for those who were asked about lately.

    A table of a user is [5, users]: likes shared, dislikes shared, disagreements, summed products of surprises, items
    shared; nobody is their own neighbour.
    """

    def __init__(self) -> None:
        self._tables = np.zeros((0, 5, 0), np.float32)
        self._place: NDArray[np.int64] = np.zeros(0, np.int64)  # of a user's table; -1 for none
        self._asked: dict[int, None] = {}  # users with a table, the longest unasked first
        self._free: list[int] = []  # places without a table

    def make_room(self, num_users: int) -> None:
        """Prepares for users 0 … ``num_users`` - 1 and one who passes; where room must be made, tables start anew."""
        if num_users < len(self._place):
            return
        size = max(1024, 2 * len(self._place))
        self._asked.clear()
        self._place = np.full(size, -1)
        self._tables = np.zeros((max(1, min(size, NEIGHBOUR_BYTES // (20 * size))), 5, size), np.float32)
        self._free = list(range(len(self._tables)))[::-1]

    def forget(self, user: int) -> None:
        """Takes out the table of a user, if there is one, whom nobody is compared with."""
        if self._place[user] >= 0:
            del self._asked[user]
            self._free.append(int(self._place[user]))
            self._place[user] = -1

    def of(self, user: int, seen: Sequence[tuple[int, bool, float]], viewers: Sequence[_Viewers]) -> Floats:
        """The user's table."""
        if self._place[user] < 0:
            self._admit(user)
            for item, liked, surprise in seen:
                self._add(user, viewers[item], liked, surprise)
        self._asked[user] = self._asked.pop(user, None)
        table: Floats = self._tables[self._place[user]]
        return table

    def observe(self, user: int, viewers: _Viewers, liked: bool, surprise: float) -> None:
        """Adds an event of the user to all tables concerned; ``viewers`` are those of its item, before it."""
        others, theirs = viewers.users, viewers.liked
        if not len(others) or not self._asked:
            return
        if self._place[user] >= 0:
            self._add(user, viewers, liked, surprise)
        place = self._place[others]
        known = (place >= 0) & (others != user)
        place = place[known]
        column = self._tables[:, :, user]
        np.add.at(column, (place, _relation(theirs[known], liked)), 1)
        np.add.at(column[:, PRODUCT], place, viewers.surprise[known] * np.float32(surprise))
        np.add.at(column[:, SHARED], place, 1)

    def imagine(self, user: int, viewers: _Viewers, liked: bool, surprise: float) -> None:
        """Adds an event of the user to their table alone, if there is one."""
        if self._place[user] >= 0:
            self._add(user, viewers, liked, surprise)

    def _add(self, user: int, viewers: _Viewers, liked: bool, surprise: float) -> None:
        table, others = self._tables[self._place[user]], viewers.users
        np.add.at(table, (_relation(viewers.liked, liked), others), 1)
        np.add.at(table[PRODUCT], others, viewers.surprise * np.float32(surprise))
        np.add.at(table[SHARED], others, 1)
        table[:, user] = 0

    def _admit(self, user: int) -> None:
        if not self._free:
            self.forget(next(iter(self._asked)))
        self._place[user] = place = self._free.pop()
        self._tables[place] = 0
        self._asked[user] = None


def _relation(theirs: NDArray[np.bool_], liked: bool) -> NDArray[np.int64]:
    return np.where(theirs == liked, BOTH_LIKE if liked else BOTH_DISLIKE, DISAGREE)
