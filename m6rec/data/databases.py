"""A table of a database, by a URL: ``sqlite:///shop.db#events``, ``duckdb:///…``, ``postgresql://host/shop#events``.

What follows "#" is the name of a table, or one SELECT. A database is opened for reading only.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

import polars as pl
import pyarrow as pa

from m6rec.errors import DataError, ExtraError, M6RecError

SCHEMES = ("sqlite", "duckdb", "postgresql", "postgres")
_BATCH = 100_000  # rows held as Python objects at once


def is_text(url: str) -> bool:
    """Whether numbers come as text: SQLite's columns hold any type in any row."""
    return url.startswith("sqlite:")


def read(name: str, url: str) -> pl.DataFrame:
    """The table or query that the fragment of a URL names; of a database with one table that one.

    Args:
        name: events, items or users, for messages, which never tell a password.
        url: What to read.

    Raises:
        DataError: It can't be opened or read, or names no table.
        ExtraError: The driver isn't installed.
    """
    address, _, fragment = url.partition("#")
    shown, wanted = re.sub(r"//[^@/]*@", "//…@", url), unquote(fragment).strip()
    scheme, path = address.partition("://")[0], unquote(urlsplit(address).path)
    try:
        if scheme in ("postgresql", "postgres"):
            return _postgres(name, address, wanted, shown)
        file = Path(path.removeprefix("/")).expanduser()  # three slashes: relative, four: absolute
        if not file.is_file():
            raise DataError(f"{name}: {shown} can't be read: there is no file {file}.")
        return (_sqlite if scheme == "sqlite" else _duckdb)(name, file, wanted, shown)
    except M6RecError:
        raise
    except Exception as error:  # each driver has errors of its own
        raise DataError(f"{name}: {shown} can't be read: {(str(error) or repr(error)).splitlines()[0]}") from error


def _query(name: str, wanted: str, tables: Sequence[str], shown: str) -> str:
    """The SQL of what is wanted: one SELECT as it is, or all of a table."""
    if re.match(r"(select|with)\b", wanted, re.IGNORECASE):
        return wanted
    if not wanted and len(tables) == 1:
        wanted = tables[0]
    if wanted not in tables:
        asked = f"has no table {wanted!r}" if wanted else "names no table"
        raise DataError(
            f"{name}: {shown} {asked}; write one after '#' (…#events), or a SELECT. "
            f"There are: {', '.join(tables) or 'none'}."
        )
    return "SELECT * FROM " + ".".join('"' + part.replace('"', '""') + '"' for part in wanted.split("."))


def _sqlite(name: str, file: Path, wanted: str, shown: str) -> pl.DataFrame:
    """As text, floats to their last digit."""
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    try:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
        )
        cursor = connection.execute(_query(name, wanted, [row[0] for row in tables], shown))
        columns = [entry[0] for entry in cursor.description]
        frames = [pl.DataFrame(schema=dict.fromkeys(map(str, range(len(columns))), pl.String))]
        while rows := cursor.fetchmany(_BATCH):
            cells = ([_text(cell) for cell in column] for column in zip(*rows, strict=True))
            frames.append(pl.DataFrame([pl.Series(str(n), column, dtype=pl.String) for n, column in enumerate(cells)]))
        return _renamed(pl.concat(frames), columns)
    finally:
        connection.close()


def _text(cell: object) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell or None
    return cell.decode("utf-8") if isinstance(cell, bytes) else repr(cell)


def _renamed(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    twice = sorted({column for column in columns if list(columns).count(column) > 1})
    if twice:
        raise DataError(f"the column {twice[0]!r} occurs twice; rename one with AS")
    return frame.rename(dict(zip(frame.columns, columns, strict=True)))


def _duckdb(name: str, file: Path, wanted: str, shown: str) -> pl.DataFrame:
    import duckdb

    with duckdb.connect(str(file), read_only=True) as connection:
        tables = [row[0] for row in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()]
        return _from_arrow(connection.sql(_query(name, wanted, tables, shown)).to_arrow_table())


def _postgres(name: str, address: str, wanted: str, shown: str) -> pl.DataFrame:
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise ExtraError("Reading PostgreSQL", "postgres") from error
    with dbapi.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT CASE table_schema WHEN 'public' THEN '' ELSE table_schema || '.' END || table_name "
            "FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        tables = [row[0] for row in cursor.fetchall()]
        cursor.execute(_query(name, wanted, tables, shown))
        return _from_arrow(cursor.fetch_arrow_table())


def _from_arrow(table: pa.Table) -> pl.DataFrame:
    """Types of a database that Arrow lacks (numeric, uuid) come as text."""
    plain = [
        column.cast(column.type.storage_type) if isinstance(column.type, pa.BaseExtensionType) else column
        for column in table.columns
    ]
    return cast(pl.DataFrame, pl.from_arrow(pa.table(plain, names=table.column_names)))
