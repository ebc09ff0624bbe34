"""Any table → checked columns → a log.

A log is read from one table of events and, where there are, tables of items and users. Every row is checked;
what is wrong stops the reading with the row and column named, or is dropped and counted.
"""

import datetime
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol

import polars as pl

from m6rec.data.log import Log
from m6rec.data.schema import LONGEST_TEXT, LONGEST_TITLE, Columns
from m6rec.errors import ConfigError, DataError
from m6rec.types import Event, Item, User, Value

_COLUMNS = Columns()
_LATEST = 32_503_680_000  # the year 3000; milliseconds since 1970 land beyond it
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


class ArrowTable(Protocol):
    """Any table that speaks Arrow: pandas, pyarrow, a DuckDB relation."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


Table = str | Path | pl.DataFrame | pl.LazyFrame | ArrowTable
"""A file (.parquet, .csv, .tsv) or a table in memory (Polars, pandas, pyarrow, a DuckDB relation)."""


def read(
    events: Table,
    items: Table | None = None,
    users: Table | None = None,
    *,
    columns: Columns = _COLUMNS,
    on_error: Literal["raise", "drop"] = "raise",
    require_sorted: bool = False,
) -> Log:
    """Reads and validates a log.

    Args:
        events: One row a behaviour.
        items: One row an item. Without it, the items are the distinct ones of the events, and the first event of
            each gives title and category.
        users: One row a user. Without it, the users are those of the events, with nothing known about them.
        columns: The names of the columns.
        on_error: Whether a bad row stops the reading or is dropped and counted in ``Log.dropped``. A missing
            column and a table that can't be read always stop it.
        require_sorted: Whether an event before its predecessor is an error; by default events are sorted.

    Returns:
        The log. Ids are strings; whole numbers lose their decimals.

    Raises:
        DataError: A table can't be read, lacks a column, or has a bad row: an empty, duplicate or too long id or
            title, a time or value that is none, an event of an unknown item or user. Rows count from 1, the
            header apart.
        ConfigError: ``on_error`` is something else.
    """
    if on_error not in ("raise", "drop"):
        raise ConfigError(f"on_error is {on_error!r}; allowed are 'raise' and 'drop'.")
    drop = on_error == "drop"
    event_rows = _Rows("events", events, drop)
    event_rows.id(columns.user, "user")
    event_rows.id(columns.item if columns.item in event_rows or items is not None else columns.title, "item")
    event_rows.time(columns.time, require_sorted)
    event_rows.value(columns.value)
    event_rows.text(columns.text)
    if items is None:
        event_rows.title(columns.title)
        event_rows.categories(columns)
        item_rows = event_rows.distinct("item", ["clean:title", "clean:categories"])
    else:
        item_rows = _Rows("items", items, drop)
        item_rows.id(columns.item, "item", unique=True)
        item_rows.title(columns.title)
        item_rows.categories(columns)
        item_rows.details((columns.item, columns.title, columns.category))
        event_rows.known(columns.item, "item", item_rows)
    if users is None:
        user_rows = event_rows.distinct("user", [])
    else:
        user_rows = _Rows("users", users, drop)
        user_rows.id(columns.user, "user", unique=True)
        user_rows.details((columns.user,))
        event_rows.known(columns.user, "user", user_rows)
    frame = event_rows.frame.sort("clean:time", maintain_order=True)
    return Log(
        events=tuple(
            map(Event, *(frame[f"clean:{name}"].to_list() for name in ("user", "item", "time", "value", "text")))
        ),
        items={
            key: Item(key, title, tuple(categories), details)
            for key, title, categories, details in zip(
                *(item_rows.frame[f"clean:{name}"].to_list() for name in ("item", "title", "categories")),
                item_rows.extras(),
                strict=True,
            )
        },
        users={
            key: User(key, details)
            for key, details in zip(user_rows.frame["clean:user"].to_list(), user_rows.extras(), strict=True)
        },
        dropped=event_rows.dropped | item_rows.dropped | user_rows.dropped,
    )


class _Rows:
    """A table while it is checked: each method adds one clean column, ``clean:name``, or drops or raises."""

    def __init__(self, name: str, table: Table, drop: bool) -> None:
        self.name = name
        self.drop = drop
        self.dropped: dict[str, int] = {}
        self.detail_names: list[str] = []
        self.from_text = isinstance(table, str | Path) and Path(table).suffix in _SEPARATORS
        self.frame = _frame(name, table).with_row_index("clean:row", offset=1)

    def __contains__(self, column: str) -> bool:
        return column in self.frame.columns

    def id(self, column: str, name: str, *, unique: bool = False) -> None:
        """Adds an id as a string."""
        self._need(column)
        dtype = self.frame.schema[column]
        values = pl.col(column)
        if dtype.is_float():
            self._check(
                column, values.is_finite() & (values != values.floor()), "is not an id (a text or whole number)"
            )
            values = values.cast(pl.Int64, strict=False)
        elif not (dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum)):
            raise DataError(f"{self.name}: column {column!r} is of type {dtype}; an id is a text or whole number.")
        self._words(column, values.cast(pl.String), name, LONGEST_TITLE)
        if unique:
            self._check(column, ~pl.col(f"clean:{name}").is_first_distinct(), "is a duplicate id; keep one row an id")

    def title(self, column: str) -> None:
        """Adds the title."""
        self._need(column)
        self._wanted(column, pl.String, pl.Categorical, pl.Enum, what="text")
        self._words(column, pl.col(column).cast(pl.String), "title", LONGEST_TITLE)

    def text(self, column: str) -> None:
        """Adds what the user wrote, "" where there is none."""
        if not self._has(column, Columns.text):
            self.frame = self.frame.with_columns(pl.lit("").alias("clean:text"))
            return
        self._wanted(column, pl.String, what="text")
        values = pl.col(column).cast(pl.String).fill_null("")
        self._too_long(column, values, LONGEST_TEXT)
        self.frame = self.frame.with_columns(values.alias("clean:text"))

    def categories(self, columns: Columns) -> None:
        """Adds the categories as a list of strings without empty ones."""
        column = columns.category
        if not self._has(column, Columns.category):
            self.frame = self.frame.with_columns(pl.lit([], dtype=pl.List(pl.String)).alias("clean:categories"))
            return
        values = pl.col(column)
        if not isinstance(self.frame.schema[column], pl.List):
            values = values.cast(pl.String).str.split(columns.category_separator)
        words = values.cast(pl.List(pl.String)).list.eval(
            pl.element().str.strip_chars().filter(pl.element().str.strip_chars() != "")
        )
        self._too_long(column, words.list.join(""), LONGEST_TITLE)
        self.frame = self.frame.with_columns(
            words.fill_null(pl.lit([], dtype=pl.List(pl.String))).alias("clean:categories")
        )

    def value(self, column: str) -> None:
        """Adds the strength as a float, 1.0 where there is no such column."""
        if not self._has(column, Columns.value):
            self.frame = self.frame.with_columns(pl.lit(1.0).alias("clean:value"))
            return
        self._wanted(column, pl.String, pl.Boolean, what="a number")
        values = pl.col(column).cast(pl.Float64, strict=False)
        self._check(column, ~values.is_finite().fill_null(False), "is not a number")
        self.frame = self.frame.with_columns(values.alias("clean:value"))

    def time(self, column: str | None, require_sorted: bool) -> None:
        """Adds the time in seconds since 1970, 0 in a log without time."""
        if column is None:
            self.frame = self.frame.with_columns(pl.lit(0, dtype=pl.Int64).alias("clean:time"))
            return
        self._need(column)
        self._wanted(column, pl.String, pl.Datetime, pl.Date, what="seconds since 1970, or a date and time")
        dtype = self.frame.schema[column]
        if dtype in (pl.Datetime, pl.Date):
            seconds = pl.col(column).dt.epoch("s")
        elif dtype == pl.String:
            parsed = [_seconds(value) for value in self.frame[column]]
            self.frame = self.frame.with_columns(pl.Series("clean:time", parsed, dtype=pl.Float64))
            seconds = pl.col("clean:time")
        else:
            seconds = pl.col(column).cast(pl.Float64)
        self._check(
            column, ~seconds.is_finite().fill_null(False), "is not a time (seconds since 1970, or a date and time)"
        )
        self._check(column, seconds < 0, "is before 1970; times are seconds since 1970")
        self._check(column, seconds > _LATEST, "is after the year 3000; give seconds, not milliseconds")
        self.frame = self.frame.with_columns(seconds.floor().cast(pl.Int64).alias("clean:time"))
        if require_sorted:
            self._check(
                column,
                pl.col("clean:time") < pl.col("clean:time").cum_max(),
                "is out of order: earlier than a row above",
            )

    def known(self, column: str, name: str, others: "_Rows") -> None:
        """Checks that each id has its row in another table."""
        ids = others.frame[f"clean:{name}"]
        self._check(column, ~pl.col(f"clean:{name}").is_in(ids.implode()), f"is not in the table of {others.name}")

    def details(self, taken: Iterable[str]) -> None:
        """Keeps the other columns as details: numbers and texts; dates and lists become texts."""
        for column in [name for name in self.frame.columns if name not in taken and not name.startswith("clean:")]:
            dtype = self.frame.schema[column]
            values = pl.col(column)
            if dtype == pl.Boolean:
                values = values.cast(pl.Int64)
            elif dtype.is_decimal():
                values = values.cast(pl.Float64)
            elif isinstance(dtype, pl.List) and not dtype.inner.is_nested():
                values = values.cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
            elif dtype.is_nested() or dtype in (pl.Binary, pl.Object):
                raise DataError(
                    f"{self.name}: column {column!r} is of type {dtype}; drop it or make it text or numbers."
                )
            elif not dtype.is_numeric():
                values = values.cast(pl.String)
            self.frame = self.frame.with_columns(values.alias(column))
            if self.from_text:
                self.frame = self.frame.with_columns(_numbers(self.frame[column]))
            self.detail_names.append(column)

    def extras(self) -> list[dict[str, Value]]:
        """The details of each row; empty cells are left out."""
        rows: list[dict[str, Value]] = [{} for _ in range(self.frame.height)]
        for name in self.detail_names:
            for row, value in zip(rows, self.frame[name].to_list(), strict=True):
                if value is not None and value == value and value != "":  # NaN differs from itself
                    row[name] = value
        return rows

    def distinct(self, name: str, others: list[str]) -> "_Rows":
        """The rows of the first appearance of each id."""
        first = self.frame.unique(f"clean:{name}", keep="first", maintain_order=True)
        return _Rows(f"{name}s", first.select(f"clean:{name}", *others), self.drop)

    def _need(self, column: str) -> None:
        if column in self:
            return
        present = [name for name in self.frame.columns if not name.startswith("clean:")]
        close = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(
            f"{self.name}: column {column!r} is missing.{hint} Present are: {', '.join(present)}. "
            f"Rename the column, or name yours in Columns."
        )

    def _has(self, column: str, default: str) -> bool:
        """Whether an optional column is there; one that was named on purpose has to be."""
        if column != default:
            self._need(column)
        return column in self

    def _wanted(self, column: str, *types: type[pl.DataType], what: str) -> None:
        """Refuses a column that is neither numeric nor of one of the types (nor all empty)."""
        dtype = self.frame.schema[column]
        if not dtype.is_numeric() and dtype not in (*types, pl.Null):
            raise DataError(f"{self.name}: column {column!r} is of type {dtype}; it has to be {what}.")

    def _words(self, column: str, values: pl.Expr, name: str, longest: int) -> None:
        self._check(column, values.is_null() | (values.str.strip_chars() == ""), "is empty")
        self._too_long(column, values, longest)
        self.frame = self.frame.with_columns(values.alias(f"clean:{name}"))

    def _too_long(self, column: str, values: pl.Expr, longest: int) -> None:
        self._check(column, values.str.len_chars() > longest, f"is longer than {longest} characters")

    def _check(self, column: str, bad: pl.Expr, reason: str) -> None:
        """Raises for, or drops and counts, the rows where ``bad`` holds."""
        bad = bad.fill_null(False)
        found = self.frame.filter(bad)
        if found.is_empty():
            return
        if not self.drop:
            row, value = found.row(0, named=True)["clean:row"], found[column][0]
            shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "…"
            more = f" ({found.height} such rows)" if found.height > 1 else ""
            raise DataError(
                f"{self.name}: row {row}, column {column!r}: {shown} {reason}{more}. "
                "Correct the table, or drop such rows with on_error='drop'."
            )
        key = f"{self.name}: {column} {reason.split(';')[0]}"
        self.dropped[key] = self.dropped.get(key, 0) + found.height
        self.frame = self.frame.filter(~bad)


def _frame(name: str, table: Table) -> pl.DataFrame:
    if isinstance(table, pl.LazyFrame):
        table = table.collect()
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, str | Path):
        return _read_file(name, Path(table))
    if hasattr(table, "__arrow_c_stream__"):
        frame = pl.DataFrame(table)
        return frame.select(column for column in frame.columns if not column.startswith("__index_level_"))  # pandas
    raise DataError(
        f"{name}: a {type(table).__name__} is not a table; give a path (.parquet, .csv, .tsv), "
        "a Polars or pandas frame or a DuckDB relation."
    )


def _read_file(name: str, path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        if path.suffix in _SEPARATORS:
            # As text: ids and codes keep their leading zeros, and a bad cell can be named.
            return pl.read_csv(path, separator=_SEPARATORS[path.suffix], infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{name}: {path} can't be read: {str(error).splitlines()[0]}") from error
    raise DataError(f"{name}: {path} is of a kind that can't be read; allowed are .parquet, .csv and .tsv.")


def _numbers(column: pl.Series) -> pl.Series:
    """A column of a text file as integers or floats, if all its cells are such and lose nothing by it."""
    if (integers := column.cast(pl.Int64, strict=False)).cast(pl.String).eq_missing(column).all():
        return integers
    floats = column.cast(pl.Float64, strict=False)
    is_number = floats.is_finite() & ~column.str.contains(r"^-?0\d")
    return floats if column.is_null().all() or is_number.fill_null(column.is_null()).all() else column


def _seconds(text: str | None) -> float | None:
    """Seconds since 1970 from digits or an ISO date and time; None if it is neither."""
    try:
        return float(text or "")
    except ValueError:
        pass
    try:
        moment = datetime.datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
