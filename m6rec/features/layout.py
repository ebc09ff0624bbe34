"""What is kept in columns of users, items and behaviours, and the names of the features made from them.

All rates are shrunk towards a prior so that few observations say little. An event's value is the strength of its
feedback (``types.Feedback``), from 0 to 1; its residual is how much more it is than that of the item's others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

FEATURES = (
    "user_share",  # of this user's events
    "user_count",  # … ln(1 + number)
    "recent_share",  # of this user's events, the latest weighing most: 0.85 per event back
    "item_share",  # of this item's events
    "item_count",  # … ln(1 + number)
    "category_share",  # of this user's latest events with an item of these categories
    "like_minded_share",  # among viewers of the item, weighted by the latest likes they share with this user
    "dislike_minded_share",  # … weighted by the dislikes they share
    "opposed_share",  # … weighted by the items they and this user disagree on
    "agreeing_odds",  # ln of how the odds of a like rise among who agrees on one of the user's items; mean over these
    "neighbour_surprise",  # how much more than expected this user values the items that are correlated with this one
    "liked_together",  # … ln(1 + sum) of the cosines of this item and the user's latest likes, by who likes them
    "user_surprise",  # how much more than their items' viewers this user likes what they see, in [-1, 1]
    "user_value",  # mean value of this user's events
    "item_value",  # mean value of this item's events
    "value_surprise",  # of this user's events
    "recent_value_surprise",  # of this user's events, the latest weighing most
    "category_value_surprise",  # of this user's latest events with an item of these categories
    "near_share",  # of this user's latest events, weighted by how near their items' numbers are to this one's
    "near_value_surprise",  # … weighted likewise
)
"""Names and meanings of the columns of ``InteractionStore.features``, in order."""
EVENT_FEATURES = (
    "liked",
    "value",  # strength of the feedback
    "value_surprise",  # … minus the mean of the item's events before it
    "surprise",  # how much more than expected the user liked it
    "item_share",
    "item_count",
    "pause",  # ln(1 + seconds) since the user's event before it
)
"""Names and meanings of the columns of ``InteractionStore.event_features``, in order, as of just before the event."""

NEIGHBOURLY = slice(6, 12)
"""The columns of ``FEATURES`` that compare the user with other users."""
SHARES = slice(6, 9)
"""Those of them that are the item's own share where nobody is compared with; the others are 0."""

# Pseudo-observations of a share's prior, and the memory of ``recent_share``; chosen on validation.
USER_PRIOR, ITEM_PRIOR, CATEGORY_PRIOR, NEIGHBOUR_PRIOR, NEAR_PRIOR = 5.0, 5.0, 3.0, 3.0, 3.0
CORRELATION_PRIOR, SURPRISE_PRIOR, SHARED_PRIOR = 10.0, 0.1, 30.0
ODDS_PRIOR, TRUST_PRIOR, HALF = 2.0, 20.0, 0.5
RECENT_MEMORY = 0.85
NEAR_SPREADS = 0.35
"""Items whose numbers are so many standard deviations apart are somewhat alike: they weigh 1/e."""
MOST_NUMBERS = 8
"""Names of numbers that are looked at, the first ones met; a catalogue may have any."""
LATEST = 128
"""Behaviours of a user that features look at one by one, the latest; what is older counts in sums alone."""

CONSTANTS = (
    *("USER_PRIOR", "ITEM_PRIOR", "CATEGORY_PRIOR", "NEIGHBOUR_PRIOR", "NEAR_PRIOR", "CORRELATION_PRIOR"),
    *("SURPRISE_PRIOR", "SHARED_PRIOR", "ODDS_PRIOR", "TRUST_PRIOR", "HALF", "RECENT_MEMORY", "LATEST"),
)
"""Names of those above that the compiled functions use."""

WAYS, COUNTS = 8, 5
"""Slots of a set of the table of pairs, whose keys fill a cache line; numbers of a pair, see ``kernels``."""
MOST_MET = 1_000
"""Number of events from which on an item counts as maximally popular."""

TOTAL = np.dtype(
    {
        "names": ["count", "likes", "values", "num_values", "mean", "squares", "met", "behaviours", "pairs"],
        "formats": ["i8", "i8", "f8", "i8", "f8", "f8", "i8", "i8", "i8"],
    }
)
"""Of the log: events, likes, the sum of their values; Welford's mean and squares of values; items met; rows in use."""
USER = np.dtype(
    {
        "names": "count likes surprise values value_surprise recent recent_value_surprise start size room".split(),
        "formats": "i8 i8 f8 f8 f8 f8 f8 i8 i8 i8".split(),
    }
)
"""Sums over a user's events, and where their latest behaviours are."""
ITEM = np.dtype(
    {
        "names": "count likes values first first_category num_categories".split(),
        "formats": "i8 i8 f8 i8 i8 i8".split(),
    }
)
"""Sums over an item's events, which number in the log its first had, and where its categories are."""
BEHAVIOUR = np.dtype(
    [("time", "i8"), ("item", "i4"), ("value_surprise", "f4"), ("residual", "f4"), ("liked", "?")], align=True
)
"""A positive or negative event of a user; ``residual`` is also relative to the user, in spreads of all values."""


def constants() -> NDArray[np.void]:
    """One record of the ``CONSTANTS``."""
    formats = ["i8" if name == "LATEST" else "f8" for name in CONSTANTS]
    record = np.dtype({"names": [*CONSTANTS], "formats": formats})
    return np.array([tuple(globals()[name] for name in CONSTANTS)], record)


class FeatureState(NamedTuple):
    """All columns, as the compiled functions take them; they are changed in place.

    Attributes:
        constants: One record of the ``CONSTANTS``.
        total: One ``TOTAL``.
        users: A ``USER`` each.
        items: An ``ITEM`` each.
        items_by_count_C: How many items were met 1, 2, … times, the last for as many and more.
        behaviours: Of all users; those of one are side by side, in order of time.
        keys: Of the table of pairs of items (``kernels``).
        counts: Of the same.
        categories: Rows of categories; those of one item are side by side.
        numbers_IM: Numbers that items carry, such as a year or a price, on scales of their own; NaN for none.
        units_M: How far apart two of them are that are somewhat alike; 0 where all are the same.
        scratch_3C: Zeros; a question sums a user's behaviours in it by category.
    """

    constants: Any
    total: Any
    users: Any
    items: Any
    items_by_count_C: NDArray[np.int64]
    behaviours: Any
    keys: NDArray[np.int64]
    counts: NDArray[np.float32]
    categories: NDArray[np.int32]
    numbers_IM: NDArray[np.float64]
    units_M: NDArray[np.float64]
    scratch_3C: NDArray[np.float64]


class EventColumns(NamedTuple):
    """Events in columns.

    Attributes:
        users: int64 rows.
        items: int64 rows; -1 where there is none that is known.
        positive: int64, 1 for the item, 0 against it, -1 for neither.
        strengths: float64 from 0 to 1.
        times: int64 seconds since 1970.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    positive: NDArray[np.int64]
    strengths: NDArray[np.float64]
    times: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, float, int]]) -> Self:
        """The columns of events that are given as rows."""
        users, items, positive, strengths, times = zip(*rows, strict=True) if rows else [()] * len(cls._fields)
        user_N, item_N, positive_N, time_N = (np.array(column, np.int64) for column in (users, items, positive, times))
        return cls(user_N, item_N, positive_N, np.array(strengths, np.float64), time_N)


class QueryColumns(NamedTuple):
    """Questions between events, in columns.

    Attributes:
        known: int64, ascending: how many of the events are taken in before.
        users: int64 rows; -1 for nobody known.
        items: int64 rows; -1 for none known.
    """

    known: NDArray[np.int64]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
