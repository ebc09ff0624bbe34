"""Users who are told of, and users who are erased: in every store, then in memory."""

from __future__ import annotations

import logging
from dataclasses import replace

from m6rec.features.interactions import InteractionStore
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.event_ingestion import EventIngestion
from m6rec.serving.journal import Journal
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.serving.state import ServingState
from m6rec.serving.turn_taking import FairLock
from m6rec.tasks import task as tasks
from m6rec.types import User

_log = logging.getLogger(__name__)


class UserRegistry:
    """The users of a recommender. No events come in while one of them changes.

    Args:
        state: Takes the users in.
        turn: The lock of ``state``, held while that changes and never while the disk is waited for.
        journal: Holds their events.
        catalogue: Holds what is told of them; None keeps it in memory only.
        events: Events of the others come in under their lock.
        context_bytes: Memory for the KV caches of users in ranking.
    """

    def __init__(
        self,
        state: ServingState,
        turn: FairLock,
        journal: Journal,
        catalogue: Catalogue | None,
        events: EventIngestion,
        context_bytes: int,
    ) -> None:
        self._state, self._turn, self._journal, self._catalogue = state, turn, journal, catalogue
        self._events, self._context_bytes = events, context_bytes

    def put(self, user: User) -> None:
        """See ``Backend.put_user``."""
        with self._events.lock:
            self._state.models.admission.user(user)
            self._events.follow()  # an erasure that another process made before counts before
            if self._catalogue is not None:
                self._catalogue.put_user(user)
            self._journal.readmit(user.id)
            with self._turn:
                self._state.users[user.id] = user
                self._state.search.put_users([user.id])

    def forget(self, user: str) -> bool:
        """See ``Backend.forget``. All who share the journal read there that they have to ``erase`` the user."""
        with self._events.lock:
            known = user in self._state.users
            erased = self._journal.forget(user)
            if not known and self._catalogue is not None:
                erased |= self._catalogue.forget(user)
            self._events.follow()
        return known or erased

    def pseudonym(self, user: str) -> str:
        """See ``LocalBackend.pseudonym``."""
        return self._journal.pseudonym(user).hex()

    def erase(self, user: str, interactions: InteractionStore) -> None:
        """Erases a user here, as the journal tells. ``interactions`` are those of all others.

        Counts and likenesses in which the user had a part are thereby made anew without them.

        Raises:
            StoreError: The catalogue can't be written; the user is still here, and is to be erased again.
        """
        state = self._state
        if self._catalogue is not None and self._journal.refused([user]):  # a readmitted one's details are new
            self._catalogue.forget(user)
        with self._turn:
            rank = state.models.rank
            words = tasks.context(rank.task, state.interactions, state.users[user], rank.domain, state.items)
            rank.cache.forget(segment.text for segment in words)
            interactions.upsert_items(state.items.values())  # some may have come in meanwhile
            state.interactions = interactions
            del state.users[user]
            state.search.remove_user(user)
            # What was kept of the others was read beside this user.
            state.models = replace(state.models, ranking=KVCachePool(rank, self._context_bytes))
        _log.info("erased from memory", extra={"facts": {"user": self.pseudonym(user)}})
