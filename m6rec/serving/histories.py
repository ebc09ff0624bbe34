"""What users did, as a journal that only grows: an event is acknowledged when it is on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from m6rec.errors import StoreError
from m6rec.foundation.stores import MAP_BYTES, connect, open_environment, served, transaction
from m6rec.serving.records import next_number, number_key, pack, unpack
from m6rec.types import Event


class Histories(Protocol):
    """Events of all users, in the order of their acknowledgement. Any thread may use it, and several processes at once.

    Those who use one journal at the same time see each other's events at the next ``replay``.
    """

    def append(self, events: Sequence[Event]) -> None:
        """Keeps the events, all or none; on return they are on disk. One write to disk, however many there are.

        Raises:
            DataError: An event can't be written down; no event is kept.
            StoreError: The disk or the server is full or fails; no event is kept, and later calls may succeed.
        """

    def replay(self) -> Iterator[Event]:
        """All events acknowledged before the first is asked for, the oldest first.

        Raises:
            StoreError: A record is damaged or of a later version.
        """

    def close(self) -> None:
        """Lets go of files and connections."""


class LmdbHistories:
    """A journal in a folder, without a server.

    Args:
        folder: Where it is kept; made if need be.
        map_bytes: How large it can grow.

    Raises:
        StoreError: The folder can't be made, or doesn't hold a journal.
    """

    def __init__(self, folder: Path, *, map_bytes: int = MAP_BYTES) -> None:
        self._folder = folder
        self._environment = open_environment(folder, durable=True, map_bytes=map_bytes)

    def append(self, events: Sequence[Event]) -> None:
        """See ``Histories``."""
        if not events:
            return
        with transaction(self._environment, write=True) as writing:
            for key, record in _records(next_number(writing.cursor()), events):
                writing.put(key, record, append=True)

    def replay(self) -> Iterator[Event]:
        """See ``Histories``."""
        with transaction(self._environment) as reading:
            for key, stored in reading.cursor():
                yield Event(**unpack(key, stored, self._folder))

    def close(self) -> None:
        """See ``Histories``."""
        self._environment = None


_LIST = "m6rec-histories"  # an event's place in it is its number
# All or none, in memory as on disk; a full server refuses a script at its first write. Not WATCH and MULTI: where their
# answer is lost, the client library can't tell that from somebody else's push, and a second try is a second event.
_PUSH = """
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
for place = 2, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[place]) end
return 1
"""
_DURABLE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
_TIMEOUT_S = 2.0  # the server waits for its disk
_READ_AT_ONCE = 1_000


class RedisHistories:
    """A journal on a Redis or Valkey server that loses nothing: ``scripts/redis.sh --durable`` starts one.

    The server's settings are looked at before every append, as it may have been restarted with others. Where its
    answer to an append doesn't come, the events are kept all or none, but it isn't known which.

    Args:
        url: ``redis://host:port/0``, ``rediss://…`` (TLS) or ``unix://path``; one database, one journal.

    Raises:
        ConfigError: The URL is none of these.
        ExtraError: The client library is not installed.
        StoreError: Nobody answers there, or a server that can lose events.
    """

    def __init__(self, url: str) -> None:
        self._client = connect(url, timeout_s=_TIMEOUT_S)
        self._check()

    def append(self, events: Sequence[Event]) -> None:
        """See ``Histories``."""
        if not events:
            return
        self._check()
        with served():
            pushed = False
            while not pushed:  # once, unless somebody else pushes between count and push
                count = self._client.llen(_LIST)
                records = [record for _, record in _records(count, events)]
                pushed = self._client.eval(_PUSH, 1, _LIST, count, *records) == 1

    def replay(self) -> Iterator[Event]:
        """See ``Histories``."""
        with served():
            count = self._client.llen(_LIST)
        for first in range(0, count, _READ_AT_ONCE):
            last = min(first + _READ_AT_ONCE, count) - 1
            with served():
                records = self._client.lrange(_LIST, first, last)
            for number, record in enumerate(records, start=first):
                yield Event(**unpack(number_key(number), record, f"the list {_LIST} of the Redis server"))

    def close(self) -> None:
        """See ``Histories``."""
        self._client.close()

    def _check(self) -> None:
        """Raises StoreError where the server could lose what it acknowledges."""
        with served():
            settings = self._client.config_get(*_DURABLE)
        for name, wanted in _DURABLE.items():
            if (given := settings.get(name)) != wanted:
                raise StoreError(
                    f"the Redis server can lose acknowledged events: its {name} is {given!r}; it must be {wanted!r}. "
                    "Set that, or start a server with `scripts/redis.sh --durable`"
                )


def _records(first: int, events: Sequence[Event]) -> Iterator[tuple[bytes, bytes]]:
    """(key, record) of each event, the first of which has this number."""
    for number, event in enumerate(events, start=first):
        key = number_key(number)
        yield key, pack(key, asdict(event), f"the event of user {event.user!r} with item {event.item!r}")
