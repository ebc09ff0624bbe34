"""Key-value stores of bytes: on disk (LMDB), on a shared server (Redis, Valkey), and an LRU cache in memory.

A store of states is a cache: lost or damaged values are misses, and ``FailOpenStore`` turns failures into misses.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

import lmdb

from m6rec import hooks
from m6rec.errors import AssetError, ConfigError, ExtraError, StoreError

MAP_BYTES = 1 << 40  # address space of an embedded store, not disk: LMDB files are as large as their data
LOCK_BYTES = 8192  # size of LMDB's lock file for its default number of readers
FORMAT = b"\x01"  # first byte of every stored value; another is not read
TIMEOUT_S = 0.25  # patience with a shared store, for each chunk
CHUNK = 256  # keys a command of a shared store
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # how long a store that failed is left alone; doubles from failure to failure

_log = logging.getLogger(__name__)


class Store(Protocol):
    """A key-value store of bytes, safe for several threads and processes."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key; None if absent or damaged. Raises StoreError."""

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Writes the values. Raises StoreError."""

    def delete(self, keys: Sequence[bytes]) -> None:
        """Deletes keys. Raises StoreError."""

    def close(self) -> None:
        """Closes files and connections."""


class LmdbStore:
    """A store in a folder. ``put`` is atomic; the last seconds of writes may be lost on power failure.

    Raises:
        AssetError: The folder doesn't hold a store.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._environment = open_environment(folder, durable=False)
        except StoreError as error:
            raise AssetError(f"{error}; delete the folder") from error

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See ``Store``."""
        with transaction(self._environment) as reading:
            return [strip_checksum(key, reading.get(key)) for key in keys]

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """See ``Store``."""
        with transaction(self._environment, write=True) as writing:
            for key, value in values.items():
                writing.put(key, add_checksum(key, value))

    def delete(self, keys: Sequence[bytes]) -> None:
        """See ``Store``."""
        with transaction(self._environment, write=True) as writing:
            for key in keys:
                writing.delete(key)

    def close(self) -> None:
        """See ``Store``."""
        self._environment = None  # others of this process may have it open; the last one closes it


def store_at(url: str) -> Store:
    """The store of a URL, whose scheme is a name of ``hooks.STATE_STORES``: ``redis://`` and others.

    Raises:
        ConfigError: The URL is none, or nothing opens URLs of its scheme.
        ExtraError: The client library of the server is not installed.
    """
    store: Store = hooks.STATE_STORES.find(url.partition("://")[0])(url)
    return store


class RedisStore:
    """A store on a Redis or Valkey server, which may evict values.

    A call gives up when the server hasn't answered a chunk of ``CHUNK`` keys within ``timeout_s``.

    Args:
        url: ``redis://host:port/0``, ``rediss://…`` (TLS) or ``unix://path``.
        timeout_s: Patience with the server.

    Raises:
        ConfigError: The URL is none of these. That nobody answers there is seen at the first call.
        ExtraError: The client library is not installed.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._client = connect(url, timeout_s=timeout_s)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See ``Store``."""
        values: list[Any] = []
        with served():
            for chunk in _chunks(keys):
                values += self._client.mget([_PREFIX + key for key in chunk])
        return [strip_checksum(key, value) for key, value in zip(keys, values, strict=True)]

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """See ``Store``."""
        with served():
            for chunk in _chunks(values):
                self._client.mset({_PREFIX + key: add_checksum(key, values[key]) for key in chunk})

    def delete(self, keys: Sequence[bytes]) -> None:
        """See ``Store``."""
        with served():
            for chunk in _chunks(keys):
                self._client.delete(*(_PREFIX + key for key in chunk))

    def close(self) -> None:
        """See ``Store``."""
        self._client.close()


_PREFIX = b"m6rec:"  # other programs may use the same server


def connect(url: str, *, timeout_s: float) -> Any:
    """A client of a Redis or Valkey server, which is first called when the client is asked something.

    Args:
        url: ``redis://host:port/0``, ``rediss://…`` (TLS) or ``unix://path``.
        timeout_s: Patience with each answer; nothing is tried again.

    Raises:
        ConfigError: The URL is none of these.
        ExtraError: The client library is not installed.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise ExtraError("A shared store", "serve") from error
    try:
        return redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise ConfigError(f"the URL of the shared store is none ({error}); give redis://host:port/0") from error


@contextmanager
def served() -> Iterator[None]:
    """Raises StoreError where a server refuses what the block asks, or doesn't answer."""
    from redis import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreError(f"the shared store doesn't serve ({error})") from error


class FailOpenStore:
    """A fail-open store with a circuit breaker: failed reads are misses, failed writes are dropped.

    After a failure the store is not called for ``FIRST_WAIT_S``, which doubles with each further failure up to
    ``LONGEST_WAIT_S``, so that few requests wait for a timeout. Reads and writes have breakers of their own, as a full
    store can still be read.

    Attributes:
        failures: Calls that failed since the start.
    """

    def __init__(self, store: Store) -> None:
        self.failures = 0
        self._store = store
        self._reads, self._writes = _CircuitBreaker(), _CircuitBreaker()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, or None."""
        found: list[bytes | None] = [None] * len(keys)
        if keys and self._reads.is_over():
            with self._forgive(self._reads, "read"):
                found = self._store.get(keys)
        return found

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Writes the values, if possible."""
        if values and self._writes.is_over():
            with self._forgive(self._writes, "written"):
                self._store.put(values)

    def delete(self, keys: Sequence[bytes]) -> None:
        """See ``Store``; a failed deletion is not ignored."""
        self._store.delete(keys)

    def close(self) -> None:
        """See ``Store``."""
        self._store.close()

    @contextmanager
    def _forgive(self, pause: _CircuitBreaker, done: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self.failures += 1
            wait_s = pause.prolong()
            _log.warning("states can't be %s, and are computed: %s; next try in %.0f s", done, error, wait_s)
        else:
            pause.end()


class _CircuitBreaker:
    def __init__(self) -> None:
        self._wait_s = self._until = 0.0

    def is_over(self) -> bool:
        return time.monotonic() >= self._until

    def prolong(self) -> float:
        self._wait_s = min(max(FIRST_WAIT_S, 2 * self._wait_s), LONGEST_WAIT_S)
        self._until = time.monotonic() + self._wait_s
        return self._wait_s

    def end(self) -> None:
        self._wait_s = 0.0


K = TypeVar("K")
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """An LRU cache with a budget of bytes. Thread-safe.

    >>> memory = LRUCache[str, str](100)
    >>> for key in "abc":
    ...     memory.put(key, key.upper(), 40)
    >>> memory.get("a"), memory.get("c"), len(memory), memory.bytes
    (None, 'C', 2, 80)

    Args:
        budget: Bytes that the values may take together; a value above it is not kept.

    Attributes:
        bytes: What they take now.
    """

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise ConfigError(f"the budget is {budget} bytes; it must be at least 0 (0 keeps nothing)")
        self.bytes = 0
        self._budget = budget
        self._entries: OrderedDict[K, tuple[V, int, float]] = OrderedDict()  # value, its bytes, time of its last use
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        """The value, now the most recently used; None if absent."""
        return self.get_all((key,))[0]

    def get_all(self, keys: Sequence[K]) -> list[V | None]:
        """``get`` of several keys, under one lock."""
        found: list[V | None] = []
        entries, used = self._entries, time.monotonic()
        with self._lock:
            for key in keys:
                entry = entries.get(key)
                if entry is None:
                    found.append(None)
                    continue
                value, num_bytes, _ = entry
                entries[key] = value, num_bytes, used
                entries.move_to_end(key)
                found.append(value)
        return found

    def put(self, key: K, value: V, num_bytes: int) -> None:
        """Adds a value of ``num_bytes`` and evicts the least recently used ones to make room."""
        with self._lock:
            _, replaced, _ = self._entries.pop(key, (None, 0, 0.0))
            self.bytes -= replaced
            if num_bytes > self._budget:
                return
            self._entries[key] = value, num_bytes, time.monotonic()
            self.bytes += num_bytes
            while self.bytes > self._budget:
                _, (_, dropped, _) = self._entries.popitem(last=False)
                self.bytes -= dropped

    def drop(self, key: K) -> None:
        """Removes a value, if present."""
        with self._lock:
            _, dropped, _ = self._entries.pop(key, (None, 0, 0.0))
            self.bytes -= dropped

    def oldest_s(self) -> float:
        """Seconds since the last use of the next value to evict; 0 if empty."""
        with self._lock:
            return time.monotonic() - next((used for _, _, used in self._entries.values()), time.monotonic())


def add_checksum(key: bytes, value: bytes) -> bytes:
    """The stored form of a value: format, checksum of key and value, value."""
    return FORMAT + _checksum(key, value) + value


def strip_checksum(key: bytes, sealed: bytes | None) -> bytes | None:
    """The inverse of ``add_checksum``; None if the checksum doesn't match."""
    if sealed is None or sealed[:1] != FORMAT or sealed[1:5] != _checksum(key, sealed[5:]):
        return None
    return sealed[5:]


def _checksum(key: bytes, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(FORMAT + key)).to_bytes(4, "big")


_environments: WeakValueDictionary[Path, Any] = WeakValueDictionary()  # LMDB allows one for each file of a process
_opening = threading.Lock()


def open_environment(folder: Path, *, durable: bool, map_bytes: int = MAP_BYTES) -> Any:
    """The LMDB environment of a folder, which is made if need be. It is closed when nobody refers to it any more.

    Args:
        folder: Where its files are.
        durable: Whether a commit returns only when it is on disk.
        map_bytes: How large it can grow.

    Raises:
        StoreError: It can't be made, or it is not one.
    """
    path = folder.resolve()
    with _opening:
        environment: Any = _environments.get(path)
        if environment is None:
            try:
                path.mkdir(parents=True, exist_ok=True)
                _reserve(path / "lock.mdb")
                environment = lmdb.open(str(path), map_size=map_bytes, max_dbs=2, metasync=durable)
                if durable:
                    for changed in (path, path.parent):
                        sync_folder(changed)
            except (lmdb.Error, OSError) as error:
                raise StoreError(f"the store at {folder} can't be opened ({error})") from error
            _environments[path] = environment
    return environment


def _reserve(lock: Path) -> None:
    """Takes the disk space of a lock file, which LMDB maps and writes to: on a full disk that kills the process."""
    if hasattr(os, "posix_fallocate"):
        with lock.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, LOCK_BYTES)


def sync_folder(folder: Path) -> None:
    """Puts the names of a folder's files on disk; LMDB and SQLite do so with their contents only."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def transaction(environment: Any, *, write: bool = False) -> Iterator[Any]:
    """A transaction that ends with the block; what an exception leaves is as if it had never been.

    Raises:
        StoreError: It can't be read, or not be written, as when the disk is full.
    """
    if environment is None:
        raise StoreError("the store is closed; open it again")
    try:
        with environment.begin(write=write) as begun:
            yield begun
    except lmdb.Error as error:
        done = "written; is the disk full?" if write else "read"
        raise StoreError(f"the store at {environment.path()} can't be {done} ({error})") from error


def _chunks(keys: Sequence[bytes] | Mapping[bytes, bytes]) -> Iterator[list[bytes]]:
    rest = iter(keys)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
