"""Items that come in and go: encoded, written to the catalogue, then put into memory, here and by other processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m6rec.readouts import EmbedModel
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.event_ingestion import EventIngestion
from m6rec.serving.item_encoder import ItemEncoder
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.state import ServingState
from m6rec.serving.turn_taking import FairLock
from m6rec.types import Item


class ItemIngestion:
    """The items of a recommender, its own and those of other processes.

    Args:
        state: Takes the items in.
        turn: The lock of ``state``, held while that changes and never while the disk is waited for.
        catalogue: Where items are kept; None keeps them in memory only.
        encoder: Encodes them.
        events: Those that have waited for an item are taken in with it.

    Attributes:
        lock: Held by whoever changes items, so that memory changes in the order of the catalogue. It is taken before
            that of ``events``, and both before ``turn``.
        changed: When the index of items changed last, in seconds since 1970.
    """

    def __init__(
        self,
        state: ServingState,
        turn: FairLock,
        catalogue: Catalogue | None,
        encoder: ItemEncoder,
        events: EventIngestion,
    ) -> None:
        self.lock = threading.RLock()
        self.changed = time.time()
        self._state, self._turn, self._catalogue = state, turn, catalogue
        self._encoder, self._events = encoder, events

    def upsert(self, items: Sequence[Item]) -> None:
        """See ``Backend``."""
        if not items:
            return
        with self.lock:
            models = self._state.models
            for item in items:
                models.admission.item(item)

            # First, as a text that can't be read must change nothing.
            encoded = self._encoder.encode(items, models.retrieve, models.rank)
            vectors_IE = np.concatenate([some_IE for _, some_IE in encoded])
            if self._catalogue is not None:
                self._catalogue.upsert(items)
            self._put(items, vectors_IE)

    def delete(self, ids: Sequence[str]) -> int:
        """See ``Backend``. Histories go on naming what was deleted."""
        with self.lock:
            if self._catalogue is not None:
                self._catalogue.delete(ids)
            return self._take_out(ids)

    def follow(self) -> int:
        """Takes in what other processes have put into the catalogue, or out of it; returns how many items.

        Raises:
            StoreError: It can't be read; a later call goes on where this one began.
        """
        if self._catalogue is None:
            return 0
        with self.lock:
            items, gone = self._catalogue.changed()
            models = self._state.models
            for some, vectors_IE in self._encoder.encode(items, models.retrieve, models.rank):
                self._put(some, vectors_IE)
            return len(items) + self._take_out([item for item in gone if item in self._state.live])

    @contextmanager
    def indexing(self, index: ItemIndex, retrieve: EmbedModel, snapshot: Path | None) -> Iterator[None]:
        """Fills an index that nobody searches yet, by another model. It holds what is live while the block lasts.

        Args:
            index: An empty index.
            retrieve: Its model.
            snapshot: A folder of vectors that need not be computed; None if there is none.
        """
        live = self._state.live
        with self._turn:
            known = dict(live)
        if snapshot is not None:
            index.restore(snapshot, known)
        self._fill(index, retrieve, [item for item in known.values() if item.id not in index])
        with self.lock:
            self._fill(index, retrieve, [item for item in live.values() if known.get(item.id) is not item])
            index.remove([item for item in known if item not in live])
            yield
            self.changed = time.time()

    def _fill(self, index: ItemIndex, retrieve: EmbedModel, items: Sequence[Item]) -> None:
        for some, vectors_IE in self._encoder.encode(items, retrieve):
            index.put(some, vectors_IE)

    def _put(self, items: Sequence[Item], vectors_IE: NDArray[np.float32]) -> None:
        """Adds items to memory, and the events that have waited for them."""
        state, fresh = self._state, {item.id: item for item in items}
        with self._turn:
            state.interactions.upsert_items(items)
            state.live |= fresh
            state.items |= fresh
            state.lexicon.put(items)
            state.search.put_items(items)
        state.models.index.put(items, vectors_IE)  # whose searches go on beside it
        self.changed = time.time()
        self._events.retry(fresh)

    def _take_out(self, ids: Sequence[str]) -> int:
        state = self._state
        with self._turn:
            for item in ids:
                state.live.pop(item, None)
            state.lexicon.remove(ids)
            state.search.remove_items(ids)
            self.changed = time.time()
            return state.models.index.remove(ids)
