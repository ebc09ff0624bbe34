"""Events that come in: written to the journal first, then read from it in the order that all who share it see."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence

from m6rec.errors import DataError, StoreError, UnknownError
from m6rec.features.interactions import InteractionStore
from m6rec.serving.admission import Admission
from m6rec.serving.backend import IngestResult
from m6rec.serving.journal import Journal, held
from m6rec.serving.state import ServingState
from m6rec.serving.turn_taking import FairLock
from m6rec.types import Event, User

MOST_WAITING = 10_000
"""Events that wait for their items; the oldest are given up first, until the next start."""

_log = logging.getLogger(__name__)


class EventIngestion:
    """The events of a recommender: those of its log, then those of its journal, its own and those of other processes.

    An event that is written counts once it is read back, so that one that comes from elsewhere takes the same way.

    Args:
        state: Takes the events in.
        turn: The lock of ``state``, held while that changes and never while the disk is waited for.
        journal: Where events are kept.
        events: Those of the log, which ``state.interactions`` has observed, in its order.
        erase: Called with a user who is known here and was erased, by this process or another, and with the
            interactions of all others; ``lock`` is held.

    Attributes:
        lock: Held by whoever writes events, or erases them, so that memory changes in the order of the journal. It is
            taken before ``turn``.
        changed: When the last event was taken in after the start, in seconds since 1970; None before.
    """

    def __init__(
        self,
        state: ServingState,
        turn: FairLock,
        journal: Journal,
        events: Sequence[Event],
        erase: Callable[[str, InteractionStore], None],
    ) -> None:
        self.lock = threading.RLock()
        self.changed: float | None = None
        self._state, self._turn, self._journal, self._erase = state, turn, journal, erase
        self._events = list(events)  # all that ``interactions`` has observed, in its order
        self._num_prepared = len(self._events)  # the first ones, which the log holds
        self._number = 0  # of the last record of the journal that was read
        self._waiting: list[Event] = []  # of the journal, for items that are not known here

    @property
    def events(self) -> Sequence[Event]:
        """All that were taken in, in that order."""
        return self._events

    @property
    def num_new(self) -> int:
        """How many of them the log doesn't hold."""
        return len(self._events) - self._num_prepared

    def replay(self, admission: Admission) -> None:
        """Takes in what the journal holds and the log doesn't, at the start.

        Raises:
            StoreError: The journal can't be read.
        """
        self._number, events, _ = self._journal.since(0)
        left = [event for event, is_held in zip(events, held(events, self._events), strict=True) if not is_held]
        self._take_in_all(left, admission)

    def follow(self) -> int:
        """Takes in what was put into the journal since it was last read, erasures first; returns how many events.

        Raises:
            StoreError: It can't be read; a later call goes on where this one began.
        """
        with self.lock:
            number, events, erased = self._journal.since(self._number)
            if erased:
                self._drop_all(erased)
            with self._turn:
                num = self._take_in_all(events, self._state.models.admission) if events else 0
            self._number = number
            if num:
                self.changed = time.time()
            return num

    def ingest_many(self, writes: Sequence[Sequence[Event]]) -> list[IngestResult]:
        """See ``Backend``. A user who is new is known from here on."""
        with self.lock:
            with self._turn:
                admitted = [self._admitted(write) for write in writes]
            fresh = iter(self._journal.append([event for events, _ in admitted for event in events]))
            try:
                self.follow()  # in the order of the journal, so that all who share it come to know the same
            except StoreError as error:
                _log.warning("events were acknowledged and can't be read yet, so they will count later: %s", error)
        made = []
        for events, unknown in admitted:
            num_new = sum(next(fresh) for _ in events)
            made.append(IngestResult(num_new, len(events) - num_new, unknown))
        return made

    def retry(self, items: Collection[str]) -> None:
        """Takes in the events that have waited for these items, which are known by now."""
        if any(event.item in items for event in self._waiting):
            with self.lock, self._turn:
                waiting, self._waiting = self._waiting, []
                self._take_in_all(waiting, self._state.models.admission)

    def _drop_all(self, erased: Collection[bytes]) -> None:
        """Leaves out all that is known of the users with these pseudonyms."""
        pseudonym = self._journal.pseudonym
        self._waiting = [event for event in self._waiting if pseudonym(event.user) not in erased]
        for user in [user for user in self._state.users if pseudonym(user) in erased]:
            prepared = self._events[: self._num_prepared]
            self._num_prepared -= sum(event.user == user for event in prepared)
            self._events = [event for event in self._events if event.user != user]
            with self._turn:
                items = dict(self._state.items)
            interactions = InteractionStore(items, self._state.models.rank.domain.feedback).update_all(self._events)
            self._erase(user, interactions)

    def _admitted(self, events: Sequence[Event]) -> tuple[list[Event], tuple[str, ...]]:
        """(those that may be kept, the unknown items of the others). Raises as ``Backend.ingest``."""
        state = self._state
        known = [event for event in events if not event.item or event.item in state.live]
        for event in known:
            state.models.admission.event(event, state.live.get(event.item))
        unknown = tuple(dict.fromkeys(one.item for one in events if one.item and one.item not in state.live))
        if unknown and not known:
            state.need(unknown, "upsert it first")
        return known, unknown

    def _take_in_all(self, events: Sequence[Event], admission: Admission) -> int:
        """Takes in events of the journal, and returns how many. What can't be read any more is left there, and told.

        Events of items that are not known here wait for them, as another process may know them already.
        """
        unread: list[str] = []
        num = 0
        for event in events:
            item = self._state.items.get(event.item)
            try:
                if event.item and item is None:
                    self._waiting = [*self._waiting[1 - MOST_WAITING :], event]
                    raise UnknownError(f"item {event.item!r} is not known here, or was deleted by an earlier version")
                admission.event(event, item)
            except (DataError, UnknownError) as error:
                unread.append(str(error))
            else:
                self._take_in(event)
                num += 1
        if unread:
            _log.warning("%d events of the journal can't be read, so they don't count: %s, …", len(unread), unread[0])
        return num

    def _take_in(self, event: Event) -> None:
        self._events.append(event)
        if event.user not in self._state.users:
            self._state.users[event.user] = User(event.user)
            self._state.search.put_users([event.user])
        self._state.interactions.update(event)
