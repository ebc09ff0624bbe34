"""Who was for or against each item, and what was written about it. Users and items are rows here."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from m6rec.types import Event

UNKNOWN = -1
"""The row of an item or a user that isn't known."""


class ItemFeedback:
    """The feedback on items 0, 1, … of all users."""

    def __init__(self) -> None:
        self._users: list[array[int]] = []  # twice the row of each user who was for or against the item, + 1 if for
        self._reviews: list[list[Event]] = []

    def add_item(self) -> None:
        """Makes room for one more item."""
        self._users.append(array("Q"))
        self._reviews.append([])

    def add(self, item: int, user: int, positive: int, event: Event) -> None:
        """Enters that a user was for (1) or against (0) an item."""
        self._users[item].append(2 * user + positive)
        if event.text:
            self._reviews[item].append(event)

    def opinions(self, item: int, num_users: int, without: int) -> NDArray[np.int8]:
        """Of each user 1 or 0 for whether they liked the item, by their latest event with it; -1 for none.

        Args:
            item: The item, or ``UNKNOWN``.
            num_users: How many there are.
            without: A user whose opinion is left out, or ``UNKNOWN``.
        """
        opinion_U = np.full(num_users, -1, np.int8)
        if item != UNKNOWN:
            user_N = np.array(self._users[item], np.int64)
            opinion_U[user_N >> 1] = user_N & 1  # in order, so that the latest stays
        if without != UNKNOWN:
            opinion_U[without] = -1
        return opinion_U

    def reviews(self, item: int) -> Sequence[Event]:
        """The events with a text, oldest first; none of ``UNKNOWN``."""
        return () if item == UNKNOWN else self._reviews[item]


def likes_among(opinion_U: NDArray[np.int8]) -> tuple[int, int]:
    """(how many of the opinions are likes, how many there are); see ``ItemFeedback.opinions``."""
    return int((opinion_U == 1).sum()), int((opinion_U >= 0).sum())
