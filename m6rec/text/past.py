"""What was known before a question: histories, and the collaborative signal as a few named shares.

A ``Past`` reads a log forward, one event at a time. Questions are asked of it between two events, so nothing
later than the question is within its reach; training, evaluation and serving use it alike. Its statistics are
what our model reads as sentences and what the LightGBM baseline reads as numbers: one source for both.

Plain text lacks the collaborative signal (CTRL, RecBench); these shares put it back. All but the counts
and surprises are like rates in [0, 1], shrunk towards a prior so that few observations say little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from m6rec.text.links import MAX_LIKES
from m6rec.types import Event, Item

Floats = NDArray[np.float32]

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
    "neighbour_surprise",  # how much more than expected the correlated viewers like the item, about [-1, 1]
    "user_surprise",  # how much more than their items' viewers this user likes what they see, in [-1, 1]
)
"""Names and meanings of the columns of ``Past.statistics``, in order."""
TRACES = (
    "liked",
    "value",  # strength of the behaviour in the log's unit
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
USER_PRIOR, ITEM_PRIOR, CATEGORY_PRIOR, NEIGHBOUR_PRIOR = 5.0, 5.0, 3.0, 3.0
CORRELATION_PRIOR, SURPRISE_PRIOR = 10.0, 0.1
RECENT_MEMORY = 0.85
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


class Past:
    """Histories and statistics of everything observed so far.

    Memory is some hundred bytes an event, and ``NEIGHBOUR_BYTES``. ``observe`` and a row of ``statistics`` cost a few
    operations on the viewers of the one item; the first question after a long absence, on those of all the user's.
    """

    def __init__(
        self,
        items: Mapping[str, Item],
        likes: Callable[[Event], bool],
        popularity: Popularity = Popularity(),
    ) -> None:
        """Starts with nothing observed.

        Args:
            items: By id.
            likes: Tells a liked event from one that is not.
            popularity: What others did. Nobody is known by it, so nobody is the neighbour of a user.
        """
        self._items = dict(items)
        self._likes = likes
        self._users: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._histories: list[list[Event]] = []
        # Parallel to the histories, per user: (item row, liked, surprise at the time).
        self._seen: list[list[tuple[int, bool, float]]] = []
        self._viewers: list[_Viewers] = []
        self._categories: dict[str, int] = {}
        self._item_categories: list[NDArray[np.int64]] = []
        self._user_categories: list[dict[int, list[int]]] = []
        self._recent: list[float] = []
        self._likes_of_user: list[int] = []
        self._likes_of_item: list[int] = []
        self._reviews: list[list[Event]] = []
        self._count_of_item: list[int] = []
        self._surprise_of_user: list[float] = []
        self._traces: list[list[tuple[float, ...]]] = []
        self._values_of_item: list[float] = []
        self._neighbours = _Neighbours()
        self._time = 0
        self._by_likes: tuple[int, list[str]] = -1, []
        self._num_events, self._num_likes, self._sum_of_values = popularity.total
        for item, count in popularity.items.items():
            row = self._item_row(item)
            self._count_of_item[row], self._likes_of_item[row], self._values_of_item[row] = count

    @property
    def like_rate(self) -> float:
        """The share of liked events so far; 0.5 before the first."""
        return self._num_likes / self._num_events if self._num_events else 0.5

    def history(self, user: str) -> Sequence[Event]:
        """The user's events so far, oldest first."""
        row = self._users.get(user)
        return () if row is None else self._histories[row]

    def seen(self, user: str) -> frozenset[str]:
        """Ids of the items that the user has had to do with."""
        return frozenset(event.item for event in self.history(user))

    def traces(self, user: str) -> Floats:
        """The ``TRACES`` of the user's events, oldest first: float32 [len(history), len(TRACES)]."""
        row = self._users.get(user)
        traces = [] if row is None else self._traces[row]
        return np.array(traces, np.float32).reshape(len(traces), len(TRACES))

    def liked(self, user: str) -> list[str]:
        """Ids of the user's latest likes, as many as ``Links.pulls`` looks at, oldest first."""
        likes = (event.item for event in reversed(self.history(user)) if self._likes(event))
        return [*islice(likes, MAX_LIKES)][::-1]

    @property
    def time(self) -> int:
        """The time of the latest event, in seconds since 1970; 0 before the first."""
        return self._time

    @property
    def values(self) -> list[float]:
        """The strengths that events had so far, ascending."""
        return sorted({event.value for events in self._histories for event in events})

    def item_share(self, item: str) -> float:
        """The like rate of an item, shrunk towards that of all events; the ``item_share`` of ``STATISTICS``."""
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
        """Takes in items that are new or have changed, whose categories are counted by from here on."""
        for item in items:
            self._items[item.id] = item
            row = self._rows.get(item.id)
            if row is not None:
                self._item_categories[row] = self._categories_of(item.id)

    def observe(self, event: Event) -> None:
        """Takes in the next event of the log."""
        user, item = self._user_row(event.user), self._item_row(event.item)
        liked = bool(self._likes(event))
        surprise = self._surprise(user, item, liked)
        self._neighbours.observe(user, self._viewers[item], liked, surprise)
        self._take_in(user, item, event, liked, surprise)
        self._values_of_item[item] += event.value
        self._sum_of_values += event.value
        self._viewers[item].add(user, liked, surprise)
        if event.text:
            self._reviews[item].append(event)
        self._time = max(self._time, event.time)
        self._likes_of_item[item] += liked
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
            events: What is taken in, oldest first.
        """
        row = self._user_row(user)
        num_events = len(self._histories[row])
        categories = {category: [*counts] for category, counts in self._user_categories[row].items()}
        numbers = self._recent[row], self._likes_of_user[row], self._surprise_of_user[row]
        table = self._neighbours.of(row, self._seen[row], self._viewers).copy()
        try:
            for event in events:
                item, liked = self._item_row(event.item), bool(self._likes(event))
                surprise = self._surprise(row, item, liked)
                self._neighbours.imagine(row, self._viewers[item], liked, surprise)
                self._take_in(row, item, event, liked, surprise)
            yield
        finally:
            for kept in (self._histories[row], self._seen[row], self._traces[row]):
                del kept[num_events:]
            self._user_categories[row] = categories
            self._recent[row], self._likes_of_user[row], self._surprise_of_user[row] = numbers
            self._neighbours.of(row, self._seen[row], self._viewers)[:] = table

    def statistics(self, user: str, items: Sequence[str]) -> Floats:
        """The ``STATISTICS`` of one user with each of several items.

        Returns:
            float32 [len(items), len(STATISTICS)].
        """
        row = self._users.get(user)
        count = 0 if row is None else len(self._seen[row])
        rate = self.like_rate
        likes = 0 if row is None else self._likes_of_user[row]
        user_share = (likes + USER_PRIOR * rate) / (count + USER_PRIOR)
        rows = [self._item_row(item) for item in items]
        counts_I = np.array([self._count_of_item[n] for n in rows], np.float64)
        item_share_I = np.array([self._item_share(n) for n in rows], np.float64)
        table = np.empty((len(items), len(STATISTICS)), np.float32)
        table[:, 0] = user_share
        table[:, 1] = np.log1p(count)
        table[:, 2] = self._recent[row] if row is not None and count else rate
        table[:, 3] = item_share_I
        table[:, 4] = np.log1p(counts_I)
        table[:, 5] = self._category_shares(row, rows, user_share)
        if row is not None and count and items:
            neighbours = self._neighbours.of(row, self._seen[row], self._viewers)
            table[:, 6:11] = _neighbour_shares(neighbours, [self._viewers[n] for n in rows], item_share_I)
        else:
            table[:, 6:10], table[:, 10] = item_share_I[:, None], 0
        table[:, 11] = 0 if row is None else self._surprise_of_user[row] / (count + USER_PRIOR)
        return table

    def _surprise(self, user: int, item: int, liked: bool) -> float:
        """How much more than expected the user likes the item."""
        surprise_of_user = self._surprise_of_user[user] / (len(self._seen[user]) + USER_PRIOR)
        return liked - self._item_share(item) - surprise_of_user

    def _take_in(self, user: int, item: int, event: Event, liked: bool, surprise: float) -> None:
        """Takes the event in as one of the user's, whatever it is to others."""
        self._traces[user].append(self._trace(user, item, event, liked, surprise))
        self._surprise_of_user[user] += liked - self._item_share(item)
        before = self._recent[user] if self._seen[user] else self.like_rate
        self._recent[user] = RECENT_MEMORY * before + (1 - RECENT_MEMORY) * liked
        for category in self._item_categories[item]:
            counts = self._user_categories[user].setdefault(int(category), [0, 0])
            counts[0] += liked
            counts[1] += 1
        self._seen[user].append((item, liked, surprise))
        self._histories[user].append(event)
        self._likes_of_user[user] += liked

    def _opinions(self, item: str, without: str) -> NDArray[np.int8]:
        """Of each user 1 or 0 for whether they liked the item, by their latest event with it; -1 for none."""
        opinion_U = np.full(len(self._users), -1, np.int8)
        row = self._rows.get(item)
        if row is not None:
            viewers = self._viewers[row]
            opinion_U[viewers.users] = viewers.liked  # in order, so that the latest stays
        if without in self._users:
            opinion_U[self._users[without]] = -1
        return opinion_U

    def _trace(self, user: int, item: int, event: Event, liked: bool, surprise: float) -> tuple[float, ...]:
        """The ``TRACES`` of an event that is about to be observed."""
        history, count = self._histories[user], self._count_of_item[item]
        mean_value = self._sum_of_values / self._num_events if self._num_events else event.value
        expected = (self._values_of_item[item] + ITEM_PRIOR * mean_value) / (count + ITEM_PRIOR)
        return (
            liked,
            event.value,
            event.value - expected,
            surprise,
            self._item_share(item),
            float(np.log1p(count)),
            float(np.log1p(max(0, event.time - history[-1].time))) if history else 0.0,
        )

    def _user_row(self, user: str) -> int:
        row = self._users.setdefault(user, len(self._users))
        if row == len(self._histories):
            self._histories.append([])
            self._seen.append([])
            self._user_categories.append({})
            self._recent.append(0.5)
            self._likes_of_user.append(0)
            self._surprise_of_user.append(0.0)
            self._traces.append([])
            self._neighbours.make_room(len(self._histories))
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
        return row

    def _categories_of(self, item: str) -> NDArray[np.int64]:
        known = self._items.get(item)
        names = known.categories if known else ()
        return np.asarray([self._categories.setdefault(name, len(self._categories)) for name in names], np.int64)

    def _item_share(self, item: int) -> float:
        return (self._likes_of_item[item] + ITEM_PRIOR * self.like_rate) / (self._count_of_item[item] + ITEM_PRIOR)

    def _category_shares(self, user: int | None, items: Sequence[int], user_share: float) -> NDArray[np.float64]:
        counted = np.zeros((2, len(self._categories) + 1))  # likes and events of the user, by category
        for category, counts in (self._user_categories[user] if user is not None else {}).items():
            counted[:, category] = counts
        categories = [self._item_categories[item] for item in items]
        owner = np.repeat(np.arange(len(items)), [len(own) for own in categories])
        counted = counted[:, np.concatenate([np.zeros(0, np.int64), *categories])]
        likes_I, seen_I = (np.bincount(owner, weights=of, minlength=len(items)) for of in counted)
        shares_I: NDArray[np.float64] = (likes_I + CATEGORY_PRIOR * user_share) / (seen_I + CATEGORY_PRIOR)
        return shares_I


def _neighbour_shares(neighbours: Floats, viewers: Sequence[_Viewers], prior_I: NDArray[np.float64]) -> Floats:
    """Columns 6 to 10 of ``STATISTICS`` from the user's table of neighbours and the viewers of each item."""
    sizes_I = np.array([len(of_item) for of_item in viewers])
    shares_I5 = np.stack([*[prior_I] * 4, np.zeros(len(viewers))], 1)
    if not sizes_I.any():
        return shares_I5.astype(np.float32)
    likes, dislikes, against, product, shared = neighbours[:, np.concatenate([of.users for of in viewers])]
    liked = np.concatenate([of.liked for of in viewers])
    surprise = np.concatenate([of.surprise for of in viewers])
    # 0.2 is about the variance of a surprise, which makes this a correlation shrunk to nought.
    correlation = product / (shared + CORRELATION_PRIOR) / 0.2
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

    def make_room(self, num_users: int) -> None:
        """Prepares for users 0 … ``num_users`` - 1; where room must be made, the tables start anew."""
        if num_users <= len(self._place):
            return
        size = max(1024, 2 * len(self._place))
        self._asked.clear()
        self._place = np.full(size, -1)
        self._tables = np.zeros((max(1, min(size, NEIGHBOUR_BYTES // (20 * size))), 5, size), np.float32)

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
        if len(self._asked) == len(self._tables):
            oldest = next(iter(self._asked))
            del self._asked[oldest]
            place, self._place[oldest] = self._place[oldest], -1
        else:
            place = np.int64(len(self._asked))
        self._place[user] = place
        self._tables[place] = 0
        self._asked[user] = None


def _relation(theirs: NDArray[np.bool_], liked: bool) -> NDArray[np.int64]:
    return np.where(theirs == liked, BOTH_LIKE if liked else BOTH_DISLIKE, DISAGREE)
