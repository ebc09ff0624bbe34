"""Users who are told of, and users who are erased: in every store, then in memory."""

from __future__ import annotations

from dataclasses import replace

from m6rec.serving.catalogue import Catalogue
from m6rec.serving.event_ingestion import EventIngestion
from m6rec.serving.item_ingestion import ItemIngestion
from m6rec.serving.journal import Journal
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.serving.state import ServingState
from m6rec.serving.turn_taking import FairLock
from m6rec.tasks import task as tasks
from m6rec.types import User


class UserRegistry:
    """The users of a recommender. Neither items nor events come in while one of them changes.

    Args:
        state: Takes the users in.
        turn: The lock of ``state``, held while that changes and never while the disk is waited for.
        journal: Holds their events.
        catalogue: Holds what is told of them; None keeps it in memory only.
        items: Their lock is taken first.
        events: Their lock is taken second.
        context_bytes: Memory for the KV caches of users in ranking.
    """

    def __init__(
        self,
        state: ServingState,
        turn: FairLock,
        journal: Journal,
        catalogue: Catalogue | None,
        items: ItemIngestion,
        events: EventIngestion,
        context_bytes: int,
    ) -> None:
        self._state, self._turn, self._journal, self._catalogue = state, turn, journal, catalogue
        self._items, self._events, self._context_bytes = items, events, context_bytes

    def put(self, user: User) -> None:
        """See ``Backend.put_user``."""
        with self._items.lock, self._events.lock:
            self._state.models.admission.user(user)
            if self._catalogue is not None:
                self._catalogue.put_user(user)
            self._journal.readmit(user.id)
            with self._turn:
                self._state.users[user.id] = user
                self._state.search.put_users([user.id])

    def forget(self, user: str) -> bool:
        """See ``Backend``. Counts and likenesses in which the user had a part are made anew without them."""
        with self._items.lock, self._events.lock:
            erased = self._journal.forget(user)
            if self._catalogue is not None:
                erased |= self._catalogue.forget(user)
            if user not in self._state.users:
                return erased
            self._forget_in_memory(user)
        return True

    def _forget_in_memory(self, user: str) -> None:
        state, rank = self._state, self._state.models.rank
        with self._turn:
            words = tasks.context(rank.task, state.interactions, state.users[user], rank.domain, state.items)
            rank.cache.forget(segment.text for segment in words)
        interactions = self._events.drop(user)
        with self._turn:
            state.interactions = interactions
            del state.users[user]
            state.search.remove_user(user)
            # What was kept of the others was read beside this user.
            state.models = replace(state.models, ranking=KVCachePool(rank, self._context_bytes))
