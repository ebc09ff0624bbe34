"""The rows of a table while they are checked: each method makes one clean column, and names or drops what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import unescape

import polars as pl

from m6rec.data import times
from m6rec.data.feedback import kind_of
from m6rec.data.schema import Columns, Limits
from m6rec.data.tables import Raw
from m6rec.errors import DataError
from m6rec.types import Value

_NOTHING = ("", "nan", "null", "none", "na", "n/a", "-")
_TRUTH = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
_NO_CATEGORIES = "(no genres listed)"  # as MovieLens writes it
_SEPARATORS = ("|", ";", ",")
_CONTROL = r"[\x00-\x1f\x7f]"


class Rows:
    """A table of events, items or users."""

    def __init__(self, table: Raw, name: str, *, drop: bool) -> None:
        """Takes a table and whether its bad rows are dropped and counted, rather than raised."""
        self.name, self.frame, self.from_text, self.drop = name, table.frame, table.from_text, drop
        self.notes: list[str] = list(table.notes)
        self.dropped: dict[str, int] = {}
        self.time_reason = ""  # what the times were read as, and why
        self.timed = False  # whether they are times rather than positions
        self.alive = pl.Series([True]).new_from_index(0, self.frame.height)
        if table.ragged:
            self.dropped[f"{name}: a line with too many or too few fields"] = table.ragged

    def check(self, column: str, bad: pl.Series, reason: str) -> None:
        """Raises for, or drops and counts, the rows where ``bad`` holds."""
        bad = bad.fill_null(False) & self.alive
        found = int(bad.sum())
        if not found:
            return
        if not self.drop:
            row = bad.arg_true()[0]
            shown = repr(self.frame[column][row])
            shown = shown if len(shown) <= 60 else shown[:57] + "…"
            more = f" ({found} such rows)" if found > 1 else ""
            raise DataError(
                f"{self.name}: row {row + 1}, column {column!r}: {shown} {reason}{more}. "
                "Correct the table, or drop such rows with --on-error drop (on_error='drop')."
            )
        key = f"{self.name}: {column} {re.split('[;(]', reason)[0].strip()}"
        self.dropped[key] = self.dropped.get(key, 0) + found
        self.alive &= ~bad

    def release(self, columns: Iterable[str]) -> None:
        """Frees what the table holds in columns that are neither read nor shown again."""
        self.frame = self.frame.drop(columns)

    def id(self, column: str) -> pl.Series:
        """Ids as text, null where there is none; each distinct one is cleaned once.

        Surrounding white space goes, Unicode takes its form NFC, and whole numbers lose their decimals.
        """
        dtype = self.frame.schema[column]
        values = self.frame[column]
        if dtype.is_float():
            inexact = values.is_finite() & ((values != values.floor()) | (values.abs() >= Limits.NUMBER))
            self.check(column, inexact, "is not an id that is kept exactly (a text, or a whole number below 2^53)")
            values = values.cast(pl.Int64, strict=False).cast(pl.String)
        elif dtype.is_decimal():
            words = values.cast(pl.String).str.replace(r"\.0+$", "")
            self.check(column, words.str.contains(".", literal=True), "is not an id (a text or whole number)")
            values = words
        elif dtype.is_integer() or dtype in (pl.Categorical, pl.Enum, pl.Null):
            values = values.cast(pl.String)
        elif dtype == pl.Binary:
            values = self._decoded(column)
        elif dtype != pl.String:
            raise DataError(f"{self.name}: column {column!r} is of type {dtype}; an id is a text or whole number.")
        distinct = values.drop_nulls().unique(maintain_order=True)
        codes = values.cast(pl.Enum(distinct)).to_physical().cast(pl.UInt32)
        clean = _normal(distinct).str.strip_chars()
        # A column of whole numbers with a gap is written with decimals by pandas.
        if self.from_text and len(clean) and clean.str.contains(r"^-?\d{1,15}\.0$").all():
            clean = clean.str.strip_suffix(".0")
            self.notes.append(f"{self.name}: the ids of {column!r} are whole numbers and lose their '.0'")
        too_long, control = clean.str.len_chars() > Limits.ID_CHARS, clean.str.contains(_CONTROL)
        if too_long.any():
            self.check(column, _at(too_long, codes), f"is longer than {Limits.ID_CHARS} characters")
        if control.any():
            self.check(column, _at(control, codes), "holds a control character")
        clean = clean.set(clean == "", None)
        return _at(clean.cast(pl.Enum(clean.drop_nulls().unique(maintain_order=True))), codes)

    def words(self, column: str, longest: int, *, tidy: bool = True) -> pl.Series:
        """Text, null where there is none; without HTML entities and control characters, or as it was written."""
        dtype = self.frame.schema[column]
        if dtype == pl.Binary:
            values = self._decoded(column)
        elif dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            values = self.frame[column].cast(pl.String)
        else:
            raise DataError(f"{self.name}: column {column!r} is of type {dtype}; it has to be text.")
        if tidy:  # once for each distinct one: titles, kinds and impressions occur again and again
            distinct = values.drop_nulls().unique(maintain_order=True)
            values = _at(_tidy(distinct), values.cast(pl.Enum(distinct)).to_physical().cast(pl.UInt32))
        else:
            values = values.set((values.str.strip_chars() == "").fill_null(False), None)
        self.check(column, values.str.len_chars() > longest, f"is longer than {longest} characters")
        return values

    def kind(self, column: str | None, *, named: bool) -> pl.Series:
        """Kinds of events in the words of ``data.feedback``, null where there is none."""
        if column is None:
            return self._empty(pl.String)
        values = self.words(column, Limits.KIND_CHARS)
        distinct = values.drop_nulls().unique(maintain_order=True)
        if not named and len(distinct) and distinct.str.contains(r"^-?[\d.]+$").all():
            raise DataError(
                f"{self.name}: column {column!r} holds numbers; say whether they are the strength of an event or codes "
                f"of what was done: --columns value={column}, or --columns kind={column}."
            )
        return values.replace({word: kind_of(word) for word in distinct})

    def value(self, column: str | None) -> pl.Series:
        """Strengths as floats, null where there is none."""
        if column is None:
            return self._empty(pl.Float64)
        values, dtype = self.frame[column], self.frame.schema[column]
        if dtype in (pl.String, pl.Categorical, pl.Enum):
            words = values.cast(pl.String).str.strip_chars().str.to_lowercase()
            words = words.set(words.is_in(_NOTHING).fill_null(False), None)
            numbers = words.cast(pl.Float64, strict=False)
            if (left := words.filter(numbers.is_null()).drop_nulls().unique()).len():
                if left.is_in([*_TRUTH]).all():
                    numbers = numbers.fill_null(words.replace_strict(_TRUTH, default=None, return_dtype=pl.Float64))
                elif left.str.contains(r"^-?\d+,\d+$").all():
                    numbers = numbers.fill_null(words.str.replace(",", ".").cast(pl.Float64, strict=False))
            wrong = numbers.is_null() & words.is_not_null()
        elif dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
            numbers = values.cast(pl.Float64, strict=False).fill_nan(None)
            wrong = pl.Series([False]).new_from_index(0, len(values))
        else:
            raise DataError(f"{self.name}: column {column!r} is of type {dtype}; it has to be a number.")
        self.check(column, wrong | (numbers.abs() > Limits.NUMBER), "is not a number")
        return numbers

    def time(self, column: str | None, time_format: str | None) -> pl.Series:
        """Nanoseconds since 1970; a second a step where they only tell the order, 0 in a log without."""
        nothing = pl.Series([0]).new_from_index(0, self.frame.height)
        if column is None:
            return nothing
        found = times.parse(self.frame[column], time_format)
        stamps = found.nanoseconds
        if stamps.null_count() == 0 and not (stamps != 0).any():
            self.notes.append(f"{self.name}: every {column!r} is 0, so it is read as a log without time")
            return nothing
        self.check(column, stamps.is_null(), f"is not a time like the others; the column is read as {found.reason}. "
                   f"Times are {times.FORMATS}; name another with --time-format")  # fmt: skip
        self.check(column, stamps < 0, "is before 1970")
        if stamps.filter(self.alive).n_unique() == 1 and int(self.alive.sum()) > 1:
            self.notes.append(f"{self.name}: every {column!r} is the same, so nothing is known of the order")
        self.time_reason, self.timed = found.reason, not found.position
        return stamps

    def categories(self, column: str | None, columns: Columns) -> pl.Series:
        """Lists of texts without empty ones, each distinct text divided once."""
        kind = pl.List(pl.String)
        if column is None:
            return self._empty(kind)
        dtype, values = self.frame.schema[column], self.frame[column]
        if isinstance(dtype, pl.Array):
            dtype, values = pl.List(dtype.inner), values.arr.to_list()
        if isinstance(dtype, pl.List):
            if dtype.inner.is_nested() or dtype.inner in (pl.Binary, pl.Object) or dtype.inner.is_float():
                raise DataError(
                    f"{self.name}: column {column!r} is of type {dtype}; it has to be text, or lists of text."
                )
            lists = values.cast(kind)
        elif dtype.is_nested() or dtype in (pl.Object, pl.Boolean) or dtype.is_float():
            raise DataError(f"{self.name}: column {column!r} is of type {dtype}; it has to be text, or lists of text.")
        else:
            lists = self._divided(column, self.words(column, Limits.TITLE_CHARS * 4), columns.category_separator)
        clean = pl.element().str.strip_chars()
        lists = lists.list.eval(clean.filter((clean != "") & (clean != _NO_CATEGORIES)))
        longest = lists.list.eval(pl.element().str.len_chars()).list.max()
        self.check(
            column, longest > Limits.CATEGORY_CHARS, f"holds a category longer than {Limits.CATEGORY_CHARS} characters"
        )
        self.check(
            column, lists.list.len() > Limits.NUM_CATEGORIES, f"holds more than {Limits.NUM_CATEGORIES} categories"
        )
        return lists

    def _divided(self, column: str, values: pl.Series, separator: str) -> pl.Series:
        distinct = values.drop_nulls().unique(maintain_order=True)
        codes = values.cast(pl.Enum(distinct)).to_physical().cast(pl.UInt32)
        if len(distinct) and distinct.str.contains(r"^\[.*\]$").all():  # a list as Python or JSON writes it
            lists = distinct.str.extract_all(r"""'([^']*)'|"([^"]*)"|[^\[\]'",]+""")
            return _at(lists.list.eval(pl.element().str.strip_chars("'\" ")), codes)
        if not separator:
            separator = next((s for s in _SEPARATORS if distinct.str.contains(s, literal=True).any()), "|")
            if distinct.str.contains(separator, literal=True).any():
                self.notes.append(f"{self.name}: {column!r} is divided at {separator!r} into categories")
        return _at(distinct.str.split(separator), codes)

    def detail(self, column: str) -> pl.Series:
        """What else is said of a row: numbers and texts; dates and lists become texts. Null where there is nothing.

        Raises:
            DataError: The type is none that can be worded.
        """
        dtype, values = self.frame.schema[column], self.frame[column]
        if len(column) > Limits.KIND_CHARS:
            raise DataError(
                f"{self.name}: the name of column {column[:20]!r}… is longer than {Limits.KIND_CHARS} characters."
            )
        if isinstance(dtype, pl.Array):
            dtype, values = pl.List(dtype.inner), values.arr.to_list()
        if isinstance(dtype, pl.List) and dtype.inner.is_float():
            raise DataError(
                f"{self.name}: column {column!r} holds lists of numbers, as an embedding does, which can't be worded; "
                "drop the column, or name those to keep: --columns details=…+…"
            )
        if isinstance(dtype, pl.List) and not dtype.inner.is_nested() and dtype.inner not in (pl.Binary, pl.Object):
            values = values.cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
        elif dtype.is_nested() or dtype in (pl.Object, pl.Duration):
            raise DataError(
                f"{self.name}: column {column!r} is of type {dtype}; drop it, make it text or numbers, or name the "
                "columns to keep: --columns details=…+…"
            )
        elif dtype == pl.Boolean:
            return values.cast(pl.Int64)
        elif dtype == pl.Binary:
            values = self._decoded(column)
        elif dtype.is_decimal():
            values = values.cast(pl.Float64)
        elif dtype == pl.Datetime:
            values = values.dt.strftime("%Y-%m-%d %H:%M:%S").str.strip_suffix(" 00:00:00")
        elif not dtype.is_numeric():
            values = values.cast(pl.String)
        if values.dtype.is_float():
            values = values.fill_nan(None).cast(pl.Float64)
            if endless := int((values.is_infinite() | (values.abs() > Limits.NUMBER)).sum()):
                self.notes.append(f"{self.name}: {endless} infinite or huge numbers in {column!r} are left out")
                values = values.set((values.is_infinite() | (values.abs() > Limits.NUMBER)).fill_null(False), None)
            return values
        if values.dtype.is_integer():
            huge = bool((values.cast(pl.Float64).abs() > Limits.NUMBER).any())
            return values.cast(pl.String) if huge else values.cast(pl.Int64)
        values = _tidy(values)
        self.check(column, values.str.len_chars() > Limits.TEXT_CHARS, f"is longer than {Limits.TEXT_CHARS} characters")
        return _numbers(values) if self.from_text else values

    def _decoded(self, column: str) -> pl.Series:
        """Bytes as UTF-8."""
        try:
            return self.frame[column].cast(pl.String)
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{self.name}: column {column!r} holds bytes that are no UTF-8; make it text or drop it."
            ) from error

    def _empty(self, dtype: pl.DataType | type[pl.DataType]) -> pl.Series:
        return pl.Series([None], dtype=dtype).new_from_index(0, self.frame.height)


def details_of(columns: Iterable[pl.Series], height: int) -> list[dict[str, Value]]:
    """The details of each row; empty cells are left out."""
    rows: list[dict[str, Value]] = [{} for _ in range(height)]
    for column in columns:
        for row, value in zip(rows, column.to_list(), strict=True):
            if value is not None:
                row[column.name] = value
    return rows


def _at(distinct: pl.Series, codes: pl.Series) -> pl.Series:
    """For each code its entry; null for null."""
    return distinct.gather(codes) if len(distinct) else distinct.clear(len(codes))


def _normal(values: pl.Series) -> pl.Series:
    """In Unicode's form NFC, which most text is in already."""
    ascii_only = values.str.len_bytes().sum() == values.str.len_chars().sum()
    return values if ascii_only else values.str.normalize("NFC")


def _tidy(values: pl.Series) -> pl.Series:
    """Text as a person reads it; "" becomes null."""
    values = _normal(values.str.strip_chars())
    entities = values.str.contains(r"&(#\d+|#x[0-9a-fA-F]+|[a-zA-Z]+);").fill_null(False)
    if entities.any():
        values = values.scatter(entities.arg_true(), [unescape(text) for text in values.filter(entities)])
    control = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
    if values.str.contains(control).any():
        values = values.str.replace_all(control, " ").str.strip_chars()
    return values.set((values == "").fill_null(False), None)


def _numbers(column: pl.Series) -> pl.Series:
    """A column of a text file as integers or floats, if all its cells are such and lose nothing by it."""
    if column.null_count() == len(column):
        return column
    integers = column.cast(pl.Int64, strict=False)
    if integers.cast(pl.String).eq_missing(column).all():
        return integers if (integers.abs() <= Limits.NUMBER).all() else column
    floats = column.cast(pl.Float64, strict=False)
    is_number = floats.is_finite() & ~column.str.contains(r"^-?0\d") & (floats.abs() <= Limits.NUMBER)
    return floats if is_number.fill_null(column.is_null()).all() else column


def unknown(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Where an id is none of those that are known; not where there is none, as of a search."""
    distinct = ids.cast(pl.String).drop_nulls().unique()
    lost: Sequence[str] = distinct.filter(~distinct.is_in(known.implode()) & (distinct != "")).to_list()
    if not lost:
        return pl.Series([False]).new_from_index(0, len(ids))
    return ids.cast(pl.String).is_in(lost)
