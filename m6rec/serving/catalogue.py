"""The items that can be recommended and the users that were told of, on disk: what was changed is so after a crash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m6rec.serving.records import Database, decode_record, encode_record, lmdb_records, remove_lmdb
from m6rec.text.records import item_of, record_of
from m6rec.types import Item, User


class Catalogue:
    """Items by id, in the order in which they first came, and users. Any thread may use it, and several processes.

    Args:
        folder: Where they are kept; made if need be.

    Raises:
        StoreError: The folder can't be made, or doesn't hold a catalogue.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = Database(folder / "catalogue.sqlite", _TABLES, version=1)
        self._seen: dict[bytes, int] = {}  # a hash of each item as it was last read or written here
        self._version = 0
        old = lmdb_records(folder, b"items")
        if old:
            self.upsert([item_of(decode_record(key, stored, folder)) for key, stored in old])
        remove_lmdb(folder)

    @property
    def initialised(self) -> bool:
        """Whether items were ever put in; then having none means that all were deleted."""
        with self._database.transaction() as reading:
            return bool(reading.execute("SELECT EXISTS (SELECT 1 FROM initialised)").fetchone()[0])

    def upsert(self, items: Sequence[Item]) -> None:
        """Adds the items, all or none; one whose id is known takes the place of the old. On return they are on disk.

        Raises:
            DataError: An item can't be written down; nothing is changed.
            StoreError: The disk is full or fails; nothing is changed, and later calls may succeed.
        """
        seen: dict[bytes, int] = {}
        with self._database.transaction(write=True) as writing:
            writing.execute("INSERT OR IGNORE INTO initialised VALUES (1)")
            for item in items:
                key = _key(item.id)
                record = encode_record(key, record_of(item), f"the item {item.id!r}")
                writing.execute("DELETE FROM item WHERE id = ? AND NOT live", (key,))  # it comes back as the latest
                writing.execute(_PUT_ITEM, (key, record))
                seen[key] = hash((record, 1))
        self._seen |= seen

    def delete(self, ids: Sequence[str]) -> int:
        """Takes items out, all or none; on return that is on disk.

        Returns:
            How many of them were there.

        Raises:
            StoreError: The disk is full or fails; nothing is changed, and later calls may succeed.
        """
        taken: list[tuple[bytes, bytes]] = []
        with self._database.transaction(write=True) as writing:
            for one in ids:
                taken += writing.execute(_TAKE_ITEM, (_key(one),)).fetchall()
        self._seen |= {key: hash((record, 0)) for key, record in taken}
        return len(taken)

    def items(self) -> dict[str, Item]:
        """All items by id.

        Raises:
            StoreError: A record is damaged or of a later version.
        """
        return self._items(live=True)

    def deleted(self) -> dict[str, Item]:
        """The items that were taken out, by id: events that name them stay. Raises StoreError likewise."""
        return self._items(live=False)

    def _items(self, *, live: bool) -> dict[str, Item]:
        with self._database.transaction() as reading:
            rows = reading.execute("SELECT id, record FROM item WHERE live = ? ORDER BY number", (live,)).fetchall()
        self._seen |= {key: hash((record, int(live))) for key, record in rows}
        items = [item_of(decode_record(key, record, self._folder)) for key, record in rows]
        return {item.id: item for item in items}

    def changed(self) -> tuple[list[Item], list[str]]:
        """(items that other processes have put in since they were last read, ids of those that they have taken out).

        Where no other process has written, it costs one look at the file; else each record is compared.

        Raises:
            StoreError: A record is damaged or of a later version.
        """
        with self._database.transaction() as reading:
            version = reading.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return [], []
            rows = reading.execute("SELECT id, record, live FROM item ORDER BY number").fetchall()
        new = [row for row in rows if self._seen.get(row[0]) != hash(row[1:])]
        items = [item_of(decode_record(key, record, self._folder)) for key, record, live in new if live]
        self._seen |= {key: hash((record, live)) for key, record, live in new}
        self._version = version
        return items, [key.decode(errors="surrogatepass") for key, _, live in new if not live]

    def put_user(self, user: User) -> None:
        """Adds a user, or replaces what was told of one; on return that is on disk.

        Raises:
            DataError: The user can't be written down; nothing is changed.
            StoreError: The disk is full or fails; nothing is changed, and later calls may succeed.
        """
        key = _key(user.id)
        record = encode_record(key, {"id": user.id, "details": dict(user.details)}, f"the user {user.id!r}")
        with self._database.transaction(write=True) as writing:
            writing.execute(_PUT_USER, (key, record))

    def users(self) -> dict[str, User]:
        """All users by id.

        Raises:
            StoreError: A record is damaged or of a later version.
        """
        with self._database.transaction() as reading:
            rows = reading.execute("SELECT id, record FROM user ORDER BY number").fetchall()
        users = [User(**decode_record(key, record, self._folder)) for key, record in rows]
        return {user.id: user for user in users}

    def forget(self, user: str) -> bool:
        """Erases what was told of a user; on return no file of the catalogue holds a byte of it.

        Returns:
            Whether there was anything.

        Raises:
            StoreError: It couldn't be done to the end; call it again.
        """
        with self._database.transaction(write=True) as writing:
            erased = writing.execute("DELETE FROM user WHERE id = ?", (_key(user),)).rowcount
        self._database.compact()
        return bool(erased)

    def close(self) -> None:
        """Lets go of the files."""
        self._database.close()


_TABLES = """
CREATE TABLE item (number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, record BLOB NOT NULL,
    live INTEGER NOT NULL DEFAULT 1);
CREATE TABLE user (number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, record BLOB NOT NULL);
CREATE TABLE initialised (yes INTEGER PRIMARY KEY)
"""
_PUT_ITEM = "INSERT INTO item (id, record) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record"
_TAKE_ITEM = "UPDATE item SET live = 0 WHERE id = ? AND live RETURNING id, record"
_PUT_USER = "INSERT INTO user (id, record) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record"


def _key(name: str) -> bytes:
    return name.encode(errors="surrogatepass")
