"""Records that are on disk when a call returns, and whose bytes are gone once they are erased.

A record is JSON with the version of its schema and a checksum. On this machine records are rows of an SQLite file,
which several processes may use at once.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from m6rec.errors import DataError, StoreError
from m6rec.foundation.stores import add_checksum, open_environment, strip_checksum, sync_folder, transaction

SCHEMA = 1
"""Goes up when a field is renamed or changes its meaning; a new field with a default needs no other."""
BUSY_S = 10.0
"""Patience with another process that writes."""


def encode_record(key: bytes, record: Mapping[str, Any], what: str) -> bytes:
    """The bytes to store under a key.

    Args:
        key: The key, which the checksum covers.
        record: Values that JSON has.
        what: What it is, for the error.

    Raises:
        DataError: A number is not finite, a text is not Unicode, or a value is of another type.
    """
    try:
        return add_checksum(key, json.dumps({"schema": SCHEMA, **record}, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what} can't be stored ({error}); its fields must be finite numbers and texts of whole characters"
        ) from error


def decode_record(key: bytes, stored: bytes, where: object) -> dict[str, Any]:
    """What ``encode_record`` was given.

    Args:
        key: As then.
        stored: What it returned.
        where: Where the record is kept, for the error.

    Raises:
        StoreError: It is damaged, or of another schema.
    """
    value = strip_checksum(key, stored)
    if value is None:
        raise StoreError(f"record {key.hex()} in {where} is damaged; restore it from a backup")
    record: dict[str, Any] = json.loads(value)
    if (schema := record.pop("schema")) != SCHEMA:
        raise StoreError(
            f"record {key.hex()} in {where} has schema {schema}, this version reads {SCHEMA}; upgrade m6rec"
        )
    return record


class Database:
    """An SQLite file: a commit is on disk when it returns. Any thread may use it, and several processes at once.

    Args:
        file: Where it is kept, its folder made if need be; None keeps it in memory.
        schema: Statements that make its tables.
        version: Of the schema; a file of another is not read.

    Raises:
        StoreError: It can't be made, or is not such a file.
    """

    def __init__(self, file: Path | None, schema: str, version: int) -> None:
        self._where: object = file or "memory"
        self._lock = threading.RLock()
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                file or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._set_up(schema, version)
                if file is not None:
                    sync_folder(file.parent)
                    sync_folder(file.parent.parent)
            except BaseException:
                self._connection.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the store at {self._where} can't be opened ({error})") from error

    def _set_up(self, schema: str, version: int) -> None:
        connection = self._connection
        until = time.monotonic() + BUSY_S
        while True:  # of two that open a new file at once, SQLite refuses one without waiting
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS would leave a commit in the disk's own memory
        connection.execute("PRAGMA secure_delete = ON")
        with self.transaction(write=True):
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found == 0:
                for statement in schema.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version}")
            elif found != version:
                raise StoreError(
                    f"the store at {self._where} has schema {found}, this version reads {version}; "
                    f"{'upgrade m6rec' if found > version else 'it was made by something else'}"
                )

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction that ends with the block; what an exception leaves is as if it had never been.

        Raises:
            StoreError: It can't be read, or not be written, as when the disk is full.
        """
        with self._lock:
            connection = self._connection
            try:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                done = "written; is the disk full?" if write else "read"
                raise StoreError(f"the store at {self._where} can't be {done} ({error})") from error
            finally:
                with suppress(sqlite3.Error):  # a full disk ends the transaction by itself, or it is closed
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")

    def compact(self) -> None:
        """Writes the file anew: what was deleted leaves no bytes, and the file is as large as what it holds.

        Raises:
            StoreError: There is no room for it, or another process reads for too long. Nothing is lost; the bytes are
                still there until a later call succeeds.
        """
        until = time.monotonic() + BUSY_S
        with self._lock:
            try:
                self._connection.execute("VACUUM")
                while self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    if time.monotonic() > until:
                        raise sqlite3.OperationalError("another process reads it")
                    time.sleep(0.01)
            except sqlite3.Error as error:
                raise StoreError(
                    f"the store at {self._where} can't be compacted ({error}), so what was erased may still be in its "
                    "files; make room on the disk and try again"
                ) from error

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._connection.close()


def copy_database(file: Path, target: Path) -> None:
    """Copies an SQLite file as of one moment, which others may be writing to; the copy is on disk on return.

    Raises:
        StoreError: It can't be read, or the copy can't be written.
    """
    try:
        with (
            closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error as error:
        raise StoreError(f"the store at {file} can't be copied to {target} ({error})") from error


def lmdb_records(folder: Path, table: bytes | None = None) -> list[tuple[bytes, bytes]]:
    """(key, stored) of the records that an earlier version kept in a folder, in order; none where there are no such.

    Raises:
        StoreError: The folder's files are no LMDB environment.
    """
    if not (folder / _LMDB[0]).exists():
        return []
    environment = open_environment(folder, durable=True)
    with transaction(environment) as reading:
        opened = environment.open_db(table, reading, create=False) if table else None
        return [(bytes(key), bytes(stored)) for key, stored in reading.cursor(opened)]


def remove_lmdb(folder: Path) -> None:
    """Removes the files of ``lmdb_records``, whose records are kept elsewhere by now."""
    for name in _LMDB:
        with suppress(FileNotFoundError):
            os.remove(folder / name)


_LMDB = ("data.mdb", "lock.mdb")
