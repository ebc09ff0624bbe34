"""The items that can be recommended, kept on disk: what was put in or taken out is there, or gone, after a crash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from m6rec.foundation.stores import MAP_BYTES, open_environment, transaction
from m6rec.serving.records import next_number, number_key, pack, unpack
from m6rec.text.records import item_of, record_of
from m6rec.types import Item


class Catalogue:
    """Items by id, in the order in which they first came. Any thread may use it, and several processes at once.

    Args:
        folder: Where they are kept; made if need be.
        map_bytes: How large it can grow.

    Raises:
        StoreError: The folder can't be made, or doesn't hold a catalogue.
    """

    def __init__(self, folder: Path, *, map_bytes: int = MAP_BYTES) -> None:
        self._folder = folder
        self._environment = open_environment(folder, durable=True, map_bytes=map_bytes)
        with transaction(self._environment, write=True) as writing:
            self._places = self._environment.open_db(b"places", writing)  # digest of an id → its number
            self._items = self._environment.open_db(b"items", writing)  # number → item

    def upsert(self, items: Sequence[Item]) -> None:
        """Adds the items, all or none; one whose id is known takes the place of the old. On return they are on disk.

        Raises:
            DataError: An item can't be written down; nothing is changed.
            StoreError: The disk is full or fails; nothing is changed, and later calls may succeed.
        """
        if not items:
            return
        with transaction(self._environment, write=True) as writing:
            fresh = next_number(writing.cursor(self._items))
            for item in items:
                digest = _digest(item.id)
                key = writing.get(digest, db=self._places)
                if key is None:
                    key = number_key(fresh)
                    fresh += 1
                    writing.put(digest, key, db=self._places)
                writing.put(key, pack(key, record_of(item), f"the item {item.id!r}"), db=self._items)

    def delete(self, ids: Sequence[str]) -> int:
        """Takes items out, all or none; on return that is on disk.

        Returns:
            How many of them were there.

        Raises:
            StoreError: The disk is full or fails; nothing is changed, and later calls may succeed.
        """
        deleted = 0
        with transaction(self._environment, write=True) as writing:
            for digest in map(_digest, ids):
                key = writing.pop(digest, db=self._places)
                if key is not None:
                    writing.delete(key, db=self._items)
                    deleted += 1
        return deleted

    def items(self) -> dict[str, Item]:
        """All items by id.

        Raises:
            StoreError: A record is damaged or of a later version.
        """
        with transaction(self._environment) as reading:
            items = [item_of(unpack(key, stored, self._folder)) for key, stored in reading.cursor(self._items)]
        return {item.id: item for item in items}

    def close(self) -> None:
        """Lets go of the files."""
        self._environment = None


def _digest(item: str) -> bytes:
    return hashlib.blake2b(
        item.encode(errors="surrogatepass"), digest_size=16
    ).digest()  # an id may outgrow LMDB's keys
