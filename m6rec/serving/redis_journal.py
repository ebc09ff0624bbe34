"""The journal on a Redis or Valkey server that machines share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from m6rec.errors import StoreError
from m6rec.foundation.stores import connect, served
from m6rec.serving.journal import (
    DIGEST_BYTES,
    READ_AT_ONCE,
    Changes,
    Digests,
    ErasedUser,
    FileJournal,
    Record,
    check_same,
    held,
    open_event,
    seal_event,
)
from m6rec.types import Event

R = TypeVar("R")

# Hash: number of an event → digests of its user, id and content, then the sealed record, which is left out where a
# prepared log holds the event. An erasure has the digest of the user for that of a content.
_EVENTS = "m6rec:journal"
_KNOWN = "m6rec:journal:known"  # hash: b"i" + digest of an id → digest of the content; b"c" + that digest → nothing
_FORGOTTEN = "m6rec:journal:forgotten"  # set of digests of users whose events are not kept
_ERASED = "m6rec:journal:erased"  # when a user was forgotten, by digest; of readmitted ones too
_NUMBER = "m6rec:journal:number"  # of the latest event; all who write watch it, so that each writes what it has seen
_SECRET = "m6rec:journal:key"
_OLD_LIST = "m6rec-histories"  # of earlier versions
_NAMELESS = bytes(DIGEST_BYTES)
_HEAD = 3 * DIGEST_BYTES
_OLD_FIRST = "m6rec:journal:moved"  # how many of the old list are here
_DURABLE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
_TIMEOUT_S = 2.0  # the server waits for its disk
_REWRITE_S = 600.0  # patience with the server's rewriting of its files


class RedisJournal:
    """A journal on a Redis or Valkey server that loses nothing: ``scripts/redis.sh --durable`` starts one.

    The server's settings are looked at before every append, as it may have been restarted with others. What is kept is
    a hash and no stream: a stream goes on holding the bytes of an entry that was deleted, in its files too.

    Args:
        url: ``redis://host:port/0``, ``rediss://…`` (TLS) or ``unix://path``; one database, one journal.

    Raises:
        ConfigError: The URL is none of these.
        ExtraError: The client library is not installed.
        StoreError: Nobody answers there, or a server that can lose events.
    """

    def __init__(self, url: str) -> None:
        self._client = connect(url, timeout_s=_TIMEOUT_S)
        self._where = "the Redis server"
        self._unsure: set[bytes] = set()  # what was sent and not answered: found there later, it is new to the caller
        _check(self._client)
        with served():
            self._client.set(_SECRET, secrets.token_bytes(32), nx=True)
            self._digests = Digests(self._client.get(_SECRET))
            self._move_list()

    def append(self, events: Sequence[Event]) -> list[bool]:
        """See ``Journal``."""
        if not events:
            return []
        _check(self._client)
        keys = [self._digests.of(event) for event in events]
        asked = [b"c" + one.content if one.name is None else b"i" + one.name for one in keys]
        sealed = [seal_event(one.content, event) for one, event in zip(keys, events, strict=True)]

        def add(pipe: Any) -> list[bool]:
            number = int(pipe.get(_NUMBER) or 0)
            known = dict(zip(asked, pipe.hmget(_KNOWN, asked), strict=True))
            gone = pipe.smismember(_FORGOTTEN, [one.user for one in keys])
            fresh: list[bool] = []
            entries: dict[bytes, bytes] = {}
            new: dict[bytes, bytes] = {}
            for place, (event, (user, name, content)) in enumerate(zip(events, keys, strict=True)):
                if gone[place]:
                    fresh.append(False)
                    continue
                before = known[asked[place]]
                if before is not None and name is not None:
                    check_same(event, content, before)
                fresh.append(before is None or asked[place] in self._unsure)
                if before is None:
                    number += 1
                    entries[b"%d" % number] = user + (name or _NAMELESS) + content + sealed[place]
                    added = {b"c" + content: b"", **({} if name is None else {b"i" + name: content})}
                    new |= added
                    known |= added  # a later one of this call may be the same by id or by content
            pipe.multi()
            if entries:
                pipe.set(_NUMBER, number)
                pipe.hset(_EVENTS, mapping=entries)
                pipe.hset(_KNOWN, mapping=new)
            return fresh

        fresh = self._change(add, lambda: self._unsure.update(asked))
        self._unsure.difference_update(asked)
        return fresh

    def replay(self) -> Iterator[Event]:
        """See ``Journal``."""
        with served():
            last = int(self._client.get(_NUMBER) or 0)
        yield from self._events(0, last)

    def since(self, number: int) -> Changes:
        """See ``Journal``."""
        with served():
            last = int(self._client.get(_NUMBER) or 0)
        events, erased = [], set()
        for _, head, content, sealed in self._entries(number, last):
            if sealed:
                events.append(open_event(content, sealed, self._where))
            elif head.startswith(content):
                erased.add(content)
        return Changes(last, events, frozenset(erased))

    def _events(self, after: int, last: int) -> Iterator[Event]:
        for _, _, content, sealed in self._entries(after, last):
            if sealed:
                yield open_event(content, sealed, self._where)

    def _entries(self, after: int, last: int) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
        """(number, digest of the user and of the id, … of the content, record) of the events in this range."""
        for first in range(after + 1, last + 1, READ_AT_ONCE):
            numbers = [b"%d" % number for number in range(first, min(first + READ_AT_ONCE, last + 1))]
            with served():
                found = self._client.hmget(_EVENTS, numbers)
            for number, entry in zip(numbers, found, strict=True):
                if entry is not None:
                    yield number, entry[: 2 * DIGEST_BYTES], entry[2 * DIGEST_BYTES : _HEAD], entry[_HEAD:]

    def forget(self, user: str) -> bool:
        """See ``Journal``."""
        _check(self._client)
        digest = self._digests.user(user)
        with served():
            self._client.hset(_ERASED, digest, int(time.time()))
            self._client.sadd(_FORGOTTEN, digest)  # first, so that no more come while the others are looked for
            last = int(self._client.get(_NUMBER) or 0)
        own = [entry for entry in self._entries(0, last) if entry[1].startswith(digest)]

        def erase(pipe: Any) -> bool:
            seen = int(pipe.get(_NUMBER) or 0)
            entries = [*own, *(entry for entry in self._entries(last, seen) if entry[1].startswith(digest))]
            pipe.multi()
            pipe.set(_NUMBER, seen + 1)  # tells writers who looked before that they have to look again
            for number, head, content, _ in entries:
                pipe.hdel(_EVENTS, number)
                pipe.hdel(_KNOWN, b"c" + content, b"i" + head[DIGEST_BYTES:])
            pipe.hset(_EVENTS, b"%d" % (seen + 1), digest + _NAMELESS + digest)
            return any(content != digest for _, _, content, _ in entries)

        erased = self._change(erase)
        _rewrite(self._client)
        return erased

    def readmit(self, user: str) -> None:
        """See ``Journal``."""
        _check(self._client)
        with served():
            self._client.srem(_FORGOTTEN, self._digests.user(user))

    def pseudonym(self, user: str) -> bytes:
        """See ``Journal``."""
        return self._digests.user(user)

    def refused(self, users: Iterable[str]) -> set[str]:
        """See ``Journal``."""
        with served():
            return set(self._digests.among(users, dict.fromkeys(self._client.smembers(_FORGOTTEN), 0)))

    def forgotten(self, users: Iterable[str]) -> dict[str, int]:
        """See ``Journal``."""
        with served():
            times = {digest: int(at) for digest, at in self._client.hgetall(_ERASED).items()}
        return self._digests.among(users, times)

    def compact(self, log: Iterable[Event] = ()) -> int:
        """See ``Journal``."""
        _check(self._client)
        with served():
            last = int(self._client.get(_NUMBER) or 0)
        entries = [entry for entry in self._entries(0, last) if entry[3]]
        events = [open_event(content, sealed, self._where) for _, _, content, sealed in entries]
        rest = (entry for entry, is_held in zip(entries, held(events, log), strict=True) if is_held)
        dropped = 0
        while chunk := {number: head + content for number, head, content, _ in islice(rest, READ_AT_ONCE)}:

            def shorten(pipe: Any, chunk: dict[bytes, bytes] = chunk) -> int:
                still = [number for number, entry in zip(chunk, pipe.hmget(_EVENTS, list(chunk)), strict=True) if entry]
                pipe.multi()
                pipe.incr(_NUMBER)
                if still:
                    pipe.hset(_EVENTS, mapping={number: chunk[number] for number in still})
                return len(still)

            dropped += self._change(shorten)
        _rewrite(self._client)
        return dropped

    def copy_to(self, folder: Path) -> int:
        """See ``Journal``."""
        with served():
            secret, last = self._client.get(_SECRET), int(self._client.get(_NUMBER) or 0)
        records = (
            Record(int(number), head[:DIGEST_BYTES], _name(head), content, sealed or None)
            for number, head, content, sealed in self._entries(0, last)
        )
        FileJournal.filled(folder, secret, records, _read_forgotten(self._client))
        return last

    def fill(self, copy: FileJournal) -> None:
        """Takes in what ``copy_to`` made, on a server without a journal; the last command makes all of it count.

        Raises:
            StoreError: The server holds a journal, or fails.
        """
        _check(self._client)
        secret, records, forgotten = copy.contents()
        with served():
            if self._client.exists(_NUMBER, _FORGOTTEN, _ERASED):
                raise StoreError("the Redis server holds a journal already; give an empty database of it")
            self._client.delete(_EVENTS, _KNOWN)  # of a call that was stopped
            self._client.set(_SECRET, secret)
            number = 0
            while chunk := list(islice(records, READ_AT_ONCE)):
                entries, known = _hashes(chunk)
                number = chunk[-1].number
                self._client.hset(_EVENTS, mapping=entries)
                if known:
                    self._client.hset(_KNOWN, mapping=known)
            with self._client.pipeline() as pipe:
                for one in forgotten:
                    pipe.hset(_ERASED, one.user, one.time)
                    if not one.readmitted:
                        pipe.sadd(_FORGOTTEN, one.user)
                pipe.set(_NUMBER, number)
                pipe.execute()
        self._digests = Digests(secret)

    def close(self) -> None:
        """See ``Journal``."""
        self._client.close()

    def _change(self, change: Callable[[Any], R], lost: Callable[[], None] = lambda: None, watched: str = _NUMBER) -> R:
        """What ``change`` returns of what it has read and queued; it is repeated while others write in between.

        ``lost`` is called where the server's answer doesn't come: all of it was done, or nothing. The client library
        takes that for somebody else's write, so that it is tried again.
        """
        from redis import RedisError, WatchError

        with served(), self._client.pipeline() as pipe:
            while True:
                pipe.watch(watched)
                result = change(pipe)
                try:
                    pipe.execute()
                    return result
                except WatchError as error:
                    if error.__context__ is not None:  # a connection that broke
                        lost()
                except RedisError:
                    lost()
                    raise

    def _move_list(self) -> None:
        """Takes in what an earlier version kept."""

        def move(pipe: Any) -> bool:
            records = pipe.lrange(_OLD_LIST, 0, READ_AT_ONCE - 1)
            first = int(pipe.get(_OLD_FIRST) or 0)
            keys = [(first + place).to_bytes(8, "big") for place in range(len(records))]
            self.append([open_event(key, record, self._where) for key, record in zip(keys, records, strict=True)])
            pipe.multi()
            pipe.set(_OLD_FIRST, first + len(records))
            pipe.ltrim(_OLD_LIST, len(records), -1)
            return bool(records)

        while self._change(move, watched=_OLD_FIRST):
            pass


def _rewrite(client: Any) -> None:
    """Has the server write its files anew, without what was deleted, and waits for that."""
    until = time.monotonic() + _REWRITE_S
    with served():
        while _rewriting(client):  # one that began before doesn't know what was deleted since
            _pause(until)
        client.bgrewriteaof()
        while _rewriting(client):
            _pause(until)
        if (status := client.info("persistence")["aof_last_bgrewrite_status"]) != "ok":
            raise StoreError(
                f"the Redis server couldn't write its files anew (status {status!r}; its log tells why), so what "
                "was erased may still be in them; try again"
            )


def _rewriting(client: Any) -> bool:
    state = client.info("persistence")
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])


def _check(client: Any) -> None:
    """Raises StoreError where the server could lose what it acknowledges."""
    if why := lossy(client):
        raise StoreError(
            f"the Redis server can lose acknowledged events: {why}. Set that, or start a server with "
            "`scripts/redis.sh --durable`"
        )


def _name(head: bytes) -> bytes | None:
    """The digest of the id at the head of an entry; None without an id."""
    name = head[DIGEST_BYTES:]
    return None if name == _NAMELESS else name


def _read_forgotten(client: Any) -> Iterator[ErasedUser]:
    """Who was forgotten, as of when the first is asked for."""
    with served():
        erased, refused = client.hgetall(_ERASED), client.smembers(_FORGOTTEN)
    for user, at in erased.items():
        yield ErasedUser(user, int(at), user not in refused)


def _hashes(records: Iterable[Record]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """What belongs into the hashes of events and of what is known."""
    entries: dict[bytes, bytes] = {}
    known: dict[bytes, bytes] = {}
    for number, user, name, content, sealed in records:
        entries[b"%d" % number] = user + (name or _NAMELESS) + content + (sealed or b"")
        if content != user:  # not an erasure
            known |= {b"c" + content: b"", **({} if name is None else {b"i" + name: content})}
    return entries, known


def lossy(client: Any) -> str:
    """By which setting a server could lose what it acknowledges; "" where it doesn't. Raises StoreError."""
    with served():
        settings = client.config_get(*_DURABLE)
    wrong = (name for name, wanted in _DURABLE.items() if settings.get(name) != wanted)
    return next((f"its {name} is {settings.get(name)!r}; it must be {_DURABLE[name]!r}" for name in wrong), "")


def _pause(until: float) -> None:
    """Waits a moment. Raises StoreError where it has been too long."""
    if time.monotonic() > until:
        raise StoreError("the Redis server hasn't written its files anew within ten minutes; try again")
    time.sleep(0.02)
