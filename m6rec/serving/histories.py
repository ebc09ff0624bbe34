"""What users did, as a journal that only grows: an event is acknowledged when it is on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from m6rec.foundation.stores import MAP_BYTES, open_environment, transaction
from m6rec.serving.records import next_number, number_key, pack, unpack
from m6rec.types import Event


class Histories:
    """Events of all users, in the order of their acknowledgement. Any thread may use it, and several processes at once.

    Args:
        folder: Where they are kept; made if need be.
        map_bytes: How large the journal can grow.

    Raises:
        StoreError: The folder can't be made, or doesn't hold a journal.
    """

    def __init__(self, folder: Path, *, map_bytes: int = MAP_BYTES) -> None:
        self._folder = folder
        self._environment = open_environment(folder, durable=True, map_bytes=map_bytes)

    def append(self, events: Sequence[Event]) -> None:
        """Keeps the events, all or none; on return they are on disk. One write to disk, however many there are.

        Raises:
            DataError: An event can't be written down; no event is kept.
            StoreError: The disk is full or fails; no event is kept, and later calls may succeed.
        """
        if not events:
            return
        with transaction(self._environment, write=True) as writing:
            first = next_number(writing.cursor())
            for number, event in enumerate(events, start=first):
                key = number_key(number)
                what = f"the event of user {event.user!r} with item {event.item!r}"
                writing.put(key, pack(key, asdict(event), what), append=True)

    def replay(self) -> Iterator[Event]:
        """All acknowledged events, the first one first.

        Raises:
            StoreError: A record is damaged or of a later version.
        """
        with transaction(self._environment) as reading:
            for key, stored in reading.cursor():
                yield Event(**unpack(key, stored, self._folder))

    def close(self) -> None:
        """Lets go of the files."""
        self._environment = None
