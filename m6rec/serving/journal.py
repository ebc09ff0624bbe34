"""What users did, as a journal: an event is acknowledged when it is on disk, counts once, and can be erased.

Which events are the same is told by their ids. An event without an id is the same as any of equal content: user, item,
time, kind, value and text.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from m6rec import hooks
from m6rec.errors import DataError, StoreError
from m6rec.serving.records import Database, copy_database, decode_record, encode_record, lmdb_records, remove_lmdb
from m6rec.types import Event

DIGEST_BYTES = 16
_FILE = "journal.sqlite"
READ_AT_ONCE = 1_000


class Changes(NamedTuple):
    """What was written to a journal after a record.

    Attributes:
        number: Of the latest record.
        events: Those acknowledged since, the oldest first.
        erased: Pseudonyms of the users who were erased since. What was known of them before counts no more; of
            ``events``, those of these users came after their erasure.
    """

    number: int
    events: list[Event]
    erased: frozenset[bytes]


class Record(NamedTuple):
    """A record as it is stored: digests of what it is known by, and the sealed event.

    ``sealed`` is None where a prepared log holds the event, and where it is an erasure, whose content is the user's
    digest; ``name`` is None where the event has no id.
    """

    number: int
    user: bytes
    name: bytes | None
    content: bytes
    sealed: bytes | None


class ErasedUser(NamedTuple):
    """A user who was forgotten, by digest: when, in seconds since 1970, and whether they were readmitted."""

    user: bytes
    time: int
    readmitted: bool


class Journal(Protocol):
    """Events of all users and erasures, in one order. Any thread may use it, and several processes at once.

    Those who use one journal at the same time see each other's events at the next ``since`` or ``replay``.
    """

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Keeps the events that are new, all or none; on return they are on disk. One write, however many there are.

        Returns:
            Which are new. Others are here already, or are of a user who was forgotten and not readmitted.

        Raises:
            DataError: An event can't be written down, or its id belongs to another event; no event is kept.
            StoreError: The disk or the server is full or fails. The events are kept all or none; where it isn't known
                which, the same events may be appended again and count once.
        """

    def replay(self) -> Iterator[Event]:
        """All events acknowledged before the first is asked for, the oldest first.

        Raises:
            StoreError: A record is damaged or of a later version.
        """

    def since(self, number: int) -> Changes:
        """What was written after the record ``number``; 0 is before all.

        Raises:
            StoreError: As ``replay``.
        """

    def forget(self, user: str) -> bool:
        """Erases a user's events; on return no file of the journal holds a byte of them. Later ones are not kept.

        Returns:
            Whether there were any.

        Raises:
            StoreError: It couldn't be done to the end; call it again.
        """

    def readmit(self, user: str) -> None:
        """Keeps events of a user again who had been forgotten. Raises StoreError."""

    def pseudonym(self, user: str) -> bytes:
        """What the journal calls a user whom it mustn't name: a digest that needs the journal's key."""

    def refused(self, users: Iterable[str]) -> set[str]:
        """Those of the users whose events are not kept: forgotten and not readmitted. Raises StoreError."""

    def forgotten(self, users: Iterable[str]) -> dict[str, int]:
        """Those of the users who have been forgotten, and when, in seconds since 1970; readmitted ones too.

        What a prepared log holds of them up to then counts for nothing. Raises StoreError.
        """

    def compact(self, log: Iterable[Event] = ()) -> int:
        """Writes the journal anew without the events that a log holds; what they were stays known, by digests.

        Returns:
            How many events were dropped.

        Raises:
            StoreError: It couldn't be done; nothing is lost.
        """

    def copy_to(self, folder: Path) -> int:
        """Copies it into a new folder, where a ``FileJournal`` opens it, while others may write.

        Returns:
            The number of the latest record that the copy holds; it holds those before, too.

        Raises:
            StoreError: It can't be read, or the copy can't be written.
        """

    def close(self) -> None:
        """Lets go of files and connections."""


def open_journal(where: str | Path) -> Journal:
    """The journal in a folder, or at a URL, whose scheme is a name of ``hooks.JOURNALS``: ``redis://`` and others.

    Raises:
        ConfigError: The URL is none, or nothing opens URLs of its scheme.
        ExtraError: The client library of the server is not installed.
        StoreError: It can't be opened, or the server can lose events.
    """
    scheme, is_url, _ = str(where).partition("://")
    if not is_url:
        return FileJournal(Path(where))
    journal: Journal = hooks.JOURNALS.find(scheme)(str(where))
    return journal


def later(journal: Journal, log: Iterable[Event]) -> Iterator[Event]:
    """The events of a journal that a log doesn't hold, the oldest first."""
    events = list(journal.replay())
    return (event for event, is_held in zip(events, held(events, log), strict=True) if not is_held)


def held(events: Sequence[Event], log: Iterable[Event]) -> list[bool]:
    """Of each event whether a log holds it.

    >>> view = Event("u", "i", 7, kind="view")
    >>> held([view, Event("u", "i", 7, kind="cart")], [view])
    [True, False]
    """
    users = {event.user for event in events}
    ids, contents, nameless = set(), set(), set()
    for event in log:
        if event.user in users:
            content = content_of(event)
            contents.add(content)
            if event.id:
                ids.add(event.id)
            else:
                nameless.add(content)
    return [
        event.id in ids or content_of(event) in nameless if event.id else content_of(event) in contents
        for event in events
    ]


def content_of(event: Event) -> bytes:
    """What an event without an id is known by: the same bytes for equal content."""
    value = None if event.value is None else float(event.value) + 0.0  # 5 is 5.0, and -0.0 is 0.0
    return json.dumps([event.user, event.item, event.time, event.kind, value, event.text]).encode()


class Keys(NamedTuple):
    """What an event is known by: digests of its user, of its id (None where it has none) and of its content."""

    user: bytes
    name: bytes | None
    content: bytes


class Digests:
    """Digests that don't tell what they are of to whom lacks the journal's key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def user(self, user: str) -> bytes:
        """That of a user's id."""
        return self._digest(b"user", user.encode(errors="surrogatepass"))

    def among(self, users: Iterable[str], times: Mapping[bytes, int]) -> dict[str, int]:
        """The times of those of the users whose digests have one."""
        if not times:
            return {}
        digests = {user: self.user(user) for user in users}
        return {user: times[digest] for user, digest in digests.items() if digest in times}

    def of(self, event: Event) -> Keys:
        """Those of an event."""
        name = self._digest(b"id", event.id.encode(errors="surrogatepass")) if event.id else None
        return Keys(self.user(event.user), name, self._digest(b"content", content_of(event)))

    def _digest(self, kind: bytes, of: bytes) -> bytes:
        return hashlib.blake2b(of, digest_size=DIGEST_BYTES, key=self._key, person=kind).digest()


def seal_event(content: bytes, event: Event) -> bytes:
    """An event as it is stored under the digest of its content. Raises DataError where it can't be written down."""
    return encode_record(content, asdict(event), f"the event of user {event.user!r} with item {event.item!r}")


def open_event(key: bytes, stored: bytes, where: object) -> Event:
    """What ``seal_event`` was given. Raises StoreError where it is damaged or of another version."""
    record = decode_record(key, stored, where)
    context = record.pop("context", ())
    return Event(**record, context=tuple((name, value) for name, value in context))


def check_same(event: Event, content: bytes, known: bytes) -> None:
    """Raises DataError where the id of an event is known as another's."""
    if content != known:
        raise DataError(
            f"the id {event.id!r} of the event of user {event.user!r} with item {event.item!r} belongs to another "
            "event; give each event an id of its own, and the same one only when it is sent again"
        )


class FileJournal:
    """A journal in a folder, without a server.

    Args:
        folder: Where it is kept; made if need be. None keeps it in memory.

    Raises:
        StoreError: The folder can't be made, or doesn't hold a journal.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._where = folder, folder or "memory"
        self._database = Database(folder and folder / _FILE, _TABLES, version=2)
        with self._database.transaction(write=True) as writing:
            writing.execute("INSERT OR IGNORE INTO secret VALUES (0, ?)", (secrets.token_bytes(32),))
            self._digests = Digests(writing.execute("SELECT key FROM secret").fetchone()[0])
        if folder is not None:
            self.append([open_event(key, stored, folder) for key, stored in lmdb_records(folder)])
            remove_lmdb(folder)

    def append(self, events: Sequence[Event]) -> list[bool]:
        """See ``Journal``."""
        if not events:
            return []
        with self._database.transaction(write=True) as writing:
            return [self._put(writing, event) for event in events]

    def _put(self, writing: Any, event: Event) -> bool:
        """Whether the event is new."""
        keys = self._digests.of(event)
        sealed = seal_event(keys.content, event)
        if writing.execute("SELECT 1 FROM forgotten WHERE user = ? AND NOT readmitted", (keys.user,)).fetchone():
            return False
        if keys.name is None:
            known = writing.execute("SELECT content FROM event WHERE content = ? LIMIT 1", (keys.content,)).fetchone()
        else:
            known = writing.execute("SELECT content FROM event WHERE name = ?", (keys.name,)).fetchone()
            if known is not None:
                check_same(event, keys.content, known[0])
        if known is None:
            writing.execute("INSERT INTO event (user, name, content, sealed) VALUES (?, ?, ?, ?)", (*keys, sealed))
        return known is None

    def replay(self) -> Iterator[Event]:
        """See ``Journal``."""
        return (event for _, event in self._numbered())

    def since(self, number: int) -> Changes:
        """See ``Journal``."""
        records = list(self._records(number))
        return Changes(
            records[-1][0] if records else number,
            [event for _, _, event in records if event is not None],
            frozenset(user for _, user, event in records if event is None),
        )

    def _numbered(self) -> Iterator[tuple[int, Event]]:
        return ((number, event) for number, _, event in self._records() if event is not None)

    def _records(self, number: int = 0) -> Iterator[tuple[int, bytes, Event | None]]:
        """(number, digest of the user, event) in order; None for an erasure."""
        last = None
        while True:
            with self._database.transaction() as reading:
                if last is None:
                    last = reading.execute("SELECT coalesce(max(number), 0) FROM event").fetchone()[0]
                rows = reading.execute(_NEXT, (number, last, READ_AT_ONCE)).fetchall()
            if not rows:
                return
            for number, user, content, sealed in rows:
                yield number, user, None if sealed is None else open_event(content, sealed, self._where)

    def forget(self, user: str) -> bool:
        """See ``Journal``."""
        digest = self._digests.user(user)
        with self._database.transaction(write=True) as writing:
            erased = writing.execute("DELETE FROM event WHERE user = ? AND content != user", (digest,)).rowcount
            writing.execute("DELETE FROM event WHERE user = ?", (digest,))  # an erasure that this one repeats
            writing.execute("INSERT INTO event (user, content) VALUES (?, ?)", (digest, digest))
            writing.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?, 0)", (digest, int(time.time())))
        self._database.compact()
        return bool(erased)

    def readmit(self, user: str) -> None:
        """See ``Journal``."""
        with self._database.transaction(write=True) as writing:
            writing.execute("UPDATE forgotten SET readmitted = 1 WHERE user = ?", (self._digests.user(user),))

    def pseudonym(self, user: str) -> bytes:
        """See ``Journal``."""
        return self._digests.user(user)

    def refused(self, users: Iterable[str]) -> set[str]:
        """See ``Journal``."""
        with self._database.transaction() as reading:
            rows = reading.execute("SELECT user, time FROM forgotten WHERE NOT readmitted").fetchall()
        return set(self._digests.among(users, dict(rows)))

    def forgotten(self, users: Iterable[str]) -> dict[str, int]:
        """See ``Journal``."""
        with self._database.transaction() as reading:
            times: dict[bytes, int] = dict(reading.execute("SELECT user, time FROM forgotten").fetchall())
        return self._digests.among(users, times)

    def compact(self, log: Iterable[Event] = ()) -> int:
        """See ``Journal``."""
        numbered = list(self._numbered())
        dropped = [
            (number,)
            for (number, _), is_held in zip(numbered, held([event for _, event in numbered], log), strict=True)
            if is_held
        ]
        with self._database.transaction(write=True) as writing:
            writing.executemany("UPDATE event SET sealed = NULL WHERE number = ?", dropped)
        self._database.compact()
        return len(dropped)

    def copy_to(self, folder: Path) -> int:
        """See ``Journal``."""
        if self._folder is None:
            raise StoreError("a journal that is kept in memory can't be copied; give it a folder")
        folder.mkdir(parents=True)
        copy_database(self._folder / _FILE, folder / _FILE)
        with closing(FileJournal(folder)) as copied:
            return copied.since(0).number

    @classmethod
    def filled(cls, folder: Path, secret: bytes, records: Iterable[Record], forgotten: Iterable[ErasedUser]) -> None:
        """Makes a journal of the records of another, which may be written to.

        Who was forgotten is asked for after the records, so that no event stays of who was erased meanwhile.
        """
        began = int(time.time())
        with closing(cls(folder)) as journal, journal._database.transaction(write=True) as writing:
            writing.execute("UPDATE secret SET key = ?", (secret,))
            writing.executemany(
                "INSERT INTO event (number, user, name, content, sealed) VALUES (?, ?, ?, ?, ?)", records
            )
            for one in forgotten:
                writing.execute("INSERT INTO forgotten VALUES (?, ?, ?)", one)
                if not one.readmitted or one.time > began:
                    writing.execute("DELETE FROM event WHERE user = ? AND content != user", (one.user,))

    def contents(self) -> tuple[bytes, Iterator[Record], list[ErasedUser]]:
        """(the key of its digests, its records in order, who was forgotten), as ``filled`` takes them."""
        with self._database.transaction() as reading:
            secret = reading.execute("SELECT key FROM secret").fetchone()[0]
            forgotten = [ErasedUser(*row) for row in reading.execute("SELECT user, time, readmitted FROM forgotten")]
        return secret, self._all(), forgotten

    def _all(self) -> Iterator[Record]:
        number = 0
        while True:
            with self._database.transaction() as reading:
                rows = reading.execute(
                    "SELECT number, user, name, content, sealed FROM event WHERE number > ? ORDER BY number LIMIT ?",
                    (number, READ_AT_ONCE),
                ).fetchall()
            if not rows:
                return
            yield from (Record(*row) for row in rows)
            number = rows[-1][0]

    def close(self) -> None:
        """See ``Journal``."""
        self._database.close()


# ``sealed`` is NULL where a prepared log holds the event; ``name`` where it has no id. An erasure is a row whose
# ``content`` is ``user``, which the content of no event is.
_TABLES = """
CREATE TABLE event (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    user BLOB NOT NULL,
    name BLOB UNIQUE,
    content BLOB NOT NULL,
    sealed BLOB
);
CREATE INDEX event_user ON event (user);
CREATE INDEX event_content ON event (content);
CREATE TABLE forgotten (user BLOB PRIMARY KEY, time INTEGER NOT NULL, readmitted INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE secret (number INTEGER PRIMARY KEY, key BLOB NOT NULL)
"""
_NEXT = """
SELECT number, user, content, sealed FROM event
WHERE number > ? AND number <= ? AND (sealed IS NOT NULL OR content = user) ORDER BY number LIMIT ?
"""
