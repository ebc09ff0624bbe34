"""Any table → checked columns → a log.

A log is read from one table of events and, where there are, tables of items and users. Columns are recognised by their
names, every row is checked; what is wrong stops the reading with the row and column named, or is dropped and counted.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import polars as pl

from m6rec.data.feedback import WITHOUT_ITEM
from m6rec.data.log import CONTEXT, Events, Log, Reading, met_before
from m6rec.data.rows import Rows, details_of, unknown
from m6rec.data.schema import Columns, Limits, Roles, no_column, recognise
from m6rec.data.tables import Table, raw
from m6rec.errors import ConfigError, DataError
from m6rec.types import Item, User, Value

_SAME = "events: an earlier one is the same in all"
_REPEATED = "events: an earlier one has the same user, item and time"
_SECOND, _DAY = 10**9, 86_400
_EVENT = ("user", "item", "time", "value", "kind", "text", "query", "impression")
_DETAIL = "item:detail:"
_NO_DETAILS: Mapping[str, Value] = {}  # one for millions of users
_COLUMNS = Columns()

Progress = Callable[[float, str], None]
"""Told the share that is done, from 0 to 1, and what is being done."""


def read(
    events: Table,
    items: Table | None = None,
    users: Table | None = None,
    *,
    columns: Columns = _COLUMNS,
    on_error: Literal["raise", "drop"] = "raise",
    time_format: str | None = None,
    duplicates: Literal["drop", "keep"] = "drop",
    now: float | None = None,
    progress: Progress = lambda share, label: None,
) -> Log:
    """Reads and checks a log.

    Args:
        events: One row a behaviour.
        items: One row an item. Without it, the items are the distinct ones of the events, and the first event of
            each that has a title, categories or a detail gives it.
        users: One row a user. Without it, the users are those of the events, with nothing known about them.
        columns: The names of the columns; those that aren't given are recognised (``data.schema``).
        on_error: Whether a bad row stops the reading or is dropped and counted in ``Log.dropped``. A missing
            column and a table that can't be read always stop it.
        time_format: How times are written (``data.times``); inferred for the whole column by default.
        duplicates: Whether rows that are the same in all, or in user, item, kind, impression and second, are dropped
            and counted but for the first.
        now: Seconds since 1970; times beyond the next day are counted as of the future. The clock's by default.
        progress: Told how far the reading is.

    Returns:
        The log, sorted by the full precision of its times. Ids are strings without surrounding white space, in
        Unicode's form NFC; whole numbers lose their decimals.

    Raises:
        DataError: A table can't be read, lacks a column, or has a bad row: an empty, duplicate or too long id or
            title, a time or value that is none, an event of an unknown item or user. Rows count from 1, the
            header apart.
        ConfigError: An option is something else.
    """
    for option, given, allowed in (
        ("on_error", on_error, ("raise", "drop")),
        ("duplicates", duplicates, ("drop", "keep")),
    ):
        if given not in allowed:
            raise ConfigError(f"{option} is {given!r}; allowed are {allowed[0]!r} and {allowed[1]!r}.")
    drop = on_error == "drop"
    found = raw("events", events, drop=drop, progress=lambda share: progress(0.6 * share, "reading"))
    rows = Rows(found, "events", drop=drop)
    roles = _roles_of_events(found.frame.columns, columns, alone=items is None)
    del found
    progress(0.6, "checking")
    frame = _event_columns(rows, roles, columns, time_format)
    told = None if items is None else _Entities("items", items, columns, drop)
    people = None if users is None else _Entities("users", users, columns, drop)
    others = [other for other in (told, people) if other is not None]
    for other in others:
        rows.check(roles.of[other.role], unknown(frame[other.role], other.ids), f"is not in the table of {other.name}")
    if not rows.alive.all():
        frame = frame.filter(rows.alive)
    if frame.is_empty():
        raise DataError(f"events: no row is left; dropped were {rows.dropped}.")
    if told is None:
        catalogue, frame = _items_of_events(frame, rows, roles)
    else:
        catalogue = told.items()
    user_ids = people.ids if people else frame["user"].unique(maintain_order=True).cast(pl.String)
    progress(0.8, "sorting")
    frame, repeated = _ordered(frame, duplicates == "drop")
    item_ids = pl.Series([*catalogue, *([""] if _without_item(frame) else [])], dtype=pl.String)
    frame = frame.with_columns(_recoded(frame["user"], user_ids), _recoded(frame["item"], item_ids))
    ahead = int((frame["time"] > (clock.time() if now is None else now) + _DAY).sum()) if rows.timed else 0
    made = Events(frame)
    tables = [rows, *(other.rows for other in others)]
    log = Log(
        events=made,
        items=catalogue,
        users=people.users() if people else {key: User(key, _NO_DETAILS) for key in user_ids.to_list()},
        dropped={key: count for one in tables for key, count in one.dropped.items()} | repeated,
        reading=Reading(
            columns={"events": roles.said()} | {other.name: other.roles.said() for other in others},
            unused={"events": roles.unused} | {other.name: other.roles.unused for other in others},
            time=rows.time_reason,
            timed=rows.timed,
            repeats=int(met_before(made).sum()),
            future=ahead,
            notes=[note for one in (roles, *(other.roles for other in others)) for note in one.notes]
            + [note for one in tables for note in one.notes],
        ),
    )
    progress(1.0, "read")
    return log


def _roles_of_events(present: Sequence[str], columns: Columns, *, alone: bool) -> Roles:
    roles = recognise("events", present, columns, (*_EVENT, "title", "category") if alone else _EVENT)
    if "user" not in roles.of:
        raise no_column("events", "user", present)
    if "item" in roles.of:
        return roles
    if not alone or "title" not in roles.of:
        raise no_column("events", "item", present)
    return replace(roles, of={"item": roles.of["title"], **roles.of})  # a title names its item


def _event_columns(rows: Rows, roles: Roles, columns: Columns, time_format: str | None) -> pl.DataFrame:
    """The checked columns of events; ``ns`` is the time, and items' own columns begin with ``item:``."""
    of = roles.of
    made = {"user": rows.id(of["user"]), "item": rows.id(of["item"])}
    rows.check(of["user"], made["user"].is_null(), "is empty")
    kind = rows.kind(of.get("kind"), named=columns.kind is not None and columns.kind != "")
    text = rows.words(of["text"], Limits.TEXT_CHARS, tidy=False) if "text" in of else None
    if "query" in of:
        query = rows.words(of["query"], Limits.TEXT_CHARS)
        text = query if text is None else text.fill_null(query)
        searched = made["item"].is_null() & query.is_not_null() & kind.is_null()
        kind = kind.scatter(searched.arg_true(), "search") if searched.any() else kind
    without = made["item"].is_null() & kind.is_in(WITHOUT_ITEM).fill_null(False)
    rows.check(of["item"], made["item"].is_null() & ~without, "is empty")
    if without.any():
        made["item"] = made["item"].cast(pl.String).set(without, "")
    made["ns"] = rows.time(of.get("time"), time_format)
    value = rows.value(of.get("value"))
    numbers = {of[role] for role in ("time", "value") if role in of}
    rows.release(numbers - {column for role, column in of.items() if role not in ("time", "value")})
    impression = rows.words(of["impression"], Limits.ID_CHARS) if "impression" in of else None
    for name, column in (("value", value), ("kind", kind), ("text", text), ("impression", impression)):
        if column is not None and column.null_count() < len(column):
            made[name] = column if name == "value" else column.fill_null("")
    for name in roles.context:
        made[CONTEXT + name] = rows.detail(name)
    if "title" in of and of["title"] != of["item"]:
        made["item:title"] = rows.words(of["title"], Limits.TITLE_CHARS)
    if "category" in of:
        made["item:categories"] = rows.categories(of["category"], columns)
    for name in roles.details:
        made[_DETAIL + name] = rows.detail(name)
    return pl.DataFrame([column.alias(name) for name, column in made.items()])


class _Entities:
    """A table of items or users."""

    def __init__(self, name: Literal["items", "users"], table: Table, columns: Columns, drop: bool) -> None:
        self.name, self.role = name, name[:-1]
        found = raw(name, table, drop=drop)
        wanted = ("item", "title", "category") if name == "items" else ("user",)
        self.rows, self.roles = Rows(found, name, drop=drop), recognise(name, found.frame.columns, columns, wanted)
        if self.role not in self.roles.of:
            raise no_column(name, self.role, found.frame.columns)
        if name == "items" and len(recognise("events", found.frame.columns, _COLUMNS, ("user", "time")).of) == 2:
            raise DataError(
                f"items: the table has columns of a user's behaviours ({', '.join(found.frame.columns)}); give several "
                "files of events as one pattern in quotes ('events-*.csv') or as a folder."
            )
        column = self.roles.of[self.role]
        ids = self.rows.id(column)
        self.rows.check(column, ids.is_null(), "is empty")
        self.rows.check(column, ids.is_not_null() & ~ids.is_first_distinct(), "is a duplicate id; keep one row an id")
        made = {"id": ids.cast(pl.String)}
        if name == "items":
            title = self.roles.of.get("title")
            if title is None:
                if columns.title:
                    raise no_column(name, columns.title, found.frame.columns)
                self.rows.notes.append("items: there is no column of titles, so the id stands for the title")
                made["title"] = made["id"]
            else:
                made["title"] = self.rows.words(title, Limits.TITLE_CHARS)
                self.rows.check(title, made["title"].is_null(), "is empty")
            made["categories"] = self.rows.categories(self.roles.of.get("category"), columns)
        if len(self.roles.details) > Limits.NUM_DETAILS:
            raise DataError(
                f"{name}: {len(self.roles.details)} columns of details; at most {Limits.NUM_DETAILS} are read. Name "
                "those to keep: --columns details=…+…"
            )
        made |= {_DETAIL + column: self.rows.detail(column) for column in self.roles.details}
        self.frame = pl.DataFrame([column.alias(key) for key, column in made.items()]).filter(self.rows.alive)
        self.ids = self.frame["id"]

    def items(self) -> dict[str, Item]:
        """By id, in the order of the table."""
        return _catalogue(self.frame)

    def users(self) -> dict[str, User]:
        """By id, in the order of the table."""
        return {key: User(key, details) for key, details in zip(self.ids.to_list(), _details(self.frame), strict=True)}


def _items_of_events(frame: pl.DataFrame, rows: Rows, roles: Roles) -> tuple[dict[str, Item], pl.DataFrame]:
    """The items as the events tell of them, and the events without the columns that do."""
    ids = frame["item"].unique(maintain_order=True).cast(pl.String)
    told = pl.DataFrame({"id": ids.filter(ids != "")})
    for column in [name for name in frame.columns if name.startswith("item:")]:
        said = frame.lazy().select(id=pl.col("item").cast(pl.String), said=column).filter(pl.col("said").is_not_null())
        first = said.unique("id", keep="first", maintain_order=True).collect().rename({"said": column})
        told = told.join(first, on="id", how="left", maintain_order="left")
    if "item:title" in told.columns:
        nameless = told.filter(pl.col("item:title").is_null())["id"]
        lost = unknown(frame["item"], told.filter(pl.col("item:title").is_not_null())["id"]) & (frame["item"] != "")
        if len(nameless) and not rows.drop:
            raise DataError(
                f"events: column {roles.of['title']!r} is empty in every row of item {nameless[0]!r} ({len(nameless)} "
                "such items). Correct the table, or drop such rows with --on-error drop (on_error='drop')."
            )
        if len(nameless):
            rows.dropped[f"events: {roles.of['title']} is empty"] = int(lost.sum())
            frame, told = frame.filter(~lost), told.filter(pl.col("item:title").is_not_null())
    elif roles.of.get("title") != roles.of["item"]:
        rows.notes.append("events: there is no column of titles, so the id stands for the title")
    told = told.rename({name: name.removeprefix("item:") for name in told.columns})
    if "title" not in told.columns:
        told = told.with_columns(title="id")
    if "categories" not in told.columns:
        told = told.with_columns(categories=pl.lit(None, pl.List(pl.String)))
    return _catalogue(told), frame.select(name for name in frame.columns if not name.startswith("item:"))


def _catalogue(frame: pl.DataFrame) -> dict[str, Item]:
    columns = (frame[name].to_list() for name in ("id", "title", "categories"))
    return {
        key: Item(key, title, tuple(categories or ()), details)
        for key, title, categories, details in zip(*columns, _details(frame), strict=True)
    }


def _details(frame: pl.DataFrame) -> Iterable[Mapping[str, Value]]:
    own = [frame[name].alias(name.rpartition("detail:")[2]) for name in frame.columns if "detail:" in name]
    return details_of(own, frame.height) if own else [_NO_DETAILS] * frame.height


def _ordered(frame: pl.DataFrame, once: bool) -> tuple[pl.DataFrame, dict[str, int]]:
    """By time, rows of one time in the order of the file, without repeated rows."""
    stamps = frame["ns"].to_numpy()
    if np.any(stamps[1:] < stamps[:-1]):
        frame = frame[np.argsort(stamps, kind="stable")]
    frame = frame.with_columns((pl.col("ns") // _SECOND).alias("time"))
    dropped: dict[str, int] = {}
    if once:
        same = _repeats(frame, [name for name in frame.columns if name != "time"])
        if same.any():
            dropped[_SAME] = int(same.sum())
            frame = frame.filter(~same)
        if (frame["ns"] != 0).any():  # in a log without time, what differs in any column may be another event
            named = [name for name in ("user", "item", "time", "kind", "impression") if name in frame.columns]
            asked = [pl.when(pl.col("item") == "").then("text").alias("asked")] if "text" in frame.columns else []
            again = _repeats(frame.select(*named, *asked), [*named, *(["asked"] if asked else [])])
            if again.any():
                dropped[_REPEATED] = int(again.sum())
                frame = frame.filter(~again)
    order = [name for name in ("user", "item", "time") if name in frame.columns]
    return frame.select(*order, *(name for name in frame.columns if name not in (*order, "ns"))), dropped


def _repeats(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Rows that have one before them that is alike in the columns; only rows of one second need be compared."""
    seconds = frame["time"]
    beside = seconds == seconds.shift(1)
    near = (beside | beside.shift(-1)).fill_null(False)
    places = near.arg_true()
    again = frame.select(columns)[places].with_columns(place=places)
    first = again.unique(list(columns), keep="first", maintain_order=True)["place"]
    repeated = np.zeros(frame.height, np.bool_)
    repeated[places.to_numpy()] = True
    repeated[first.to_numpy()] = False
    return pl.Series(repeated)


def _without_item(frame: pl.DataFrame) -> bool:
    return bool((frame["item"] == "").any())


def _recoded(column: pl.Series, ids: pl.Series) -> pl.Series:
    """A column of ids whose codes number these ids."""
    dtype = pl.Enum(ids)
    if not isinstance(column.dtype, pl.Enum):
        return column.cast(dtype)
    used = column.unique().cast(pl.String)
    codes = column.to_physical().cast(pl.UInt32)
    places = column.dtype.categories
    moved = pl.Series(places.set(~places.is_in(used.implode()), None)).cast(dtype)
    return moved.gather(codes).alias(column.name)
