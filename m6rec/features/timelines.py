"""What each user did, in order of time, with the features of each event. Users and items are rows here."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from m6rec.features.layout import EVENT_FEATURES
from m6rec.types import Event

Floats = NDArray[np.float32]


class Timelines:
    """The events of users 0, 1, … and the items that they were for or against."""

    def __init__(self) -> None:
        self._events: list[list[Event]] = []
        self._feature_rows: list[array[int]] = []  # parallel to the events
        self._judged: list[array[int]] = []
        self._feature_NT = np.zeros((16, len(EVENT_FEATURES) - 1), np.float32)  # without the pause, which may change
        self._num_events = 0

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, user: int) -> Sequence[Event]:
        """The user's events, oldest first."""
        return self._events[user]

    def add_user(self) -> None:
        """Makes room for one more user."""
        self._events.append([])
        self._feature_rows.append(array("I"))
        self._judged.append(array("I"))

    def drop_user(self) -> None:
        """Takes the last user away."""
        for of_users in (self._events, self._feature_rows, self._judged):
            of_users.pop()

    def judged(self, user: int) -> Sequence[int]:
        """The items that the user was for or against."""
        return self._judged[user]

    def values(self) -> list[float | None]:
        """The values of all events with an item, ascending; None, where there is one, comes last."""
        found = {event.value for events in self._events for event in events if event.item}
        return [*sorted(value for value in found if value is not None), *([None] if None in found else [])]

    def features(self, user: int) -> Floats:
        """The ``EVENT_FEATURES`` of the user's events, oldest first: float32 [N, len(EVENT_FEATURES)]."""
        times = np.array([event.time for event in self._events[user]], np.int64)
        pause_N1 = np.log1p(np.maximum(0, np.diff(times, prepend=times[:1])))[:, None]
        return np.concatenate([self._feature_NT[np.array(self._feature_rows[user])], pause_N1.astype(np.float32)], 1)

    def add(self, user: int, event: Event, judged: int | None, *, late: bool) -> None:
        """Enters an event.

        Args:
            user: Whose it is.
            event: The event.
            judged: The item that it is for or against; None if it is neither.
            late: Whether it may have been before events that are there, and so belongs between them.
        """
        events = self._events[user]
        place = len(events)
        if late and events and event.time < events[-1].time:
            place = bisect_right(events, event.time, key=lambda one: one.time)
        events.insert(place, event)
        self._feature_rows[user].insert(place, self._num_events)
        self._num_events += 1
        if judged is not None:
            self._judged[user].append(judged)

    def put_features(self, feature_NT: Floats) -> None:
        """Keeps the features of the events that were added last, in the order of their adding, without the pause."""
        begin = self._num_events - len(feature_NT)
        if self._num_events > len(self._feature_NT):
            kept, self._feature_NT = self._feature_NT, np.zeros((2 * self._num_events, feature_NT.shape[1]), np.float32)
            self._feature_NT[:begin] = kept[:begin]
        self._feature_NT[begin : self._num_events] = feature_NT

    @contextmanager
    def restoring(self, user: int) -> Iterator[None]:
        """Takes away at the end of the block what it has added at the end of one user's timeline."""
        num, num_events, num_judged = self._num_events, len(self._events[user]), len(self._judged[user])
        try:
            yield
        finally:
            del self._events[user][num_events:], self._feature_rows[user][num_events:], self._judged[user][num_judged:]
            self._num_events = num
