"""Times as tables write them → nanoseconds since 1970 (UTC), for a whole column at once, with the reason said."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from m6rec.errors import ConfigError, DataError

FORMATS = (
    "seconds, milliseconds, microseconds or nanoseconds since 1970; 2020-09-13T12:26:40, with or without fraction and "
    "zone; 2020/09/13, 13.09.2020, 09/13/2020 12:26, 13 Sep 2020; compact 20200913, 2020-09 or 2020; a position"
)
"""What is read without a format, in words."""
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "ns": 1}
"""Nanoseconds of a unit that ``--time-format`` can name."""
_WORDS = {10**9: "seconds", 10**6: "milliseconds", 10**3: "microseconds", 1: "nanoseconds"}
_BOUNDS = ((10**8, 10**11, 10**9), (10**11, 10**14, 10**6), (10**14, 10**17, 10**3), (10**17, 2**63 - 1, 1))
"""From, to, nanoseconds a unit; each range begins in March 1973."""
_CLOCKS = ("", " %H:%M:%S%.f", " %H:%M", " %I:%M:%S %p", " %I:%M %p", " %I:%M:%S%p", " %I:%M%p")
_DAYS = (
    "%Y-%m-%d", "%d.%m.%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y", "%d-%b-%Y",
    "%a, %d %b %Y", "%m %d, %Y",
)  # fmt: skip
_TRIAL = 64  # cells that a format is tried on before the whole column
_EXAMPLE = "--time-format '%d/%m/%Y'"


@dataclass(frozen=True)
class Times:
    """A column of times.

    Attributes:
        nanoseconds: Since 1970 in UTC, or of a position a second a step; null where a cell is no time.
        reason: What the column was read as and why, such as "milliseconds since 1970 (13 digits)".
        position: Whether they only tell the order.
    """

    nanoseconds: pl.Series
    reason: str
    position: bool = False


def parse(column: pl.Series, time_format: str | None = None) -> Times:
    """Reads a column.

    Args:
        column: Numbers, texts, dates or datetimes.
        time_format: A ``strftime`` format, s, ms, us, ns or position; None infers it.

    Raises:
        DataError: The type holds no times, or the order of day and month can't be told.
        ConfigError: The format is none.
    """
    dtype = column.dtype
    if dtype in (pl.Datetime, pl.Date):
        zone = getattr(dtype, "time_zone", None)
        moments = column.cast(pl.Datetime("us") if dtype == pl.Date else pl.Datetime(dtype.time_unit, zone))  # type: ignore[attr-defined]
        return Times(_nanoseconds(moments), f"dates of the table's own type{f' in {zone}' if zone else ', UTC'}")
    if dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    elif dtype.is_decimal():
        column = column.cast(pl.Float64)
    if column.dtype != pl.String and not column.dtype.is_numeric() and column.dtype != pl.Null:
        raise DataError(f"events: column {column.name!r} is of type {dtype}; a time is {FORMATS}.")
    if column.dtype == pl.String:
        column = column.str.strip_chars().replace("", None)
        numbers = _numbers(column)
    else:
        numbers = column.cast(pl.Int64, strict=False) if column.dtype.is_unsigned_integer() else column
    if time_format is not None:
        return _formatted(column, numbers, time_format)
    if numbers.dtype == pl.Null or numbers.null_count() == len(numbers):
        return Times(column.cast(pl.Int64, strict=False), "nothing") if column.dtype != pl.String else _texts(column)
    if column.dtype == pl.String and numbers.null_count() - column.null_count() > len(column) // 2:
        return _texts(column)
    return _infer(numbers)


def _numbers(column: pl.Series) -> pl.Series:
    """Digits as integers, else as floats; null for what isn't a plain number."""
    integers = column.cast(pl.Int64, strict=False)
    if integers.null_count() == column.null_count():
        return integers
    floats = column.cast(pl.Float64, strict=False)
    return floats.set(floats.is_nan() | floats.is_infinite(), None)


def _infer(numbers: pl.Series) -> Times:
    """Numbers by their magnitude; those of another magnitude than most are no times."""
    if numbers.dtype.is_float():
        numbers = numbers.set(~numbers.is_finite().fill_null(True), None)
        whole = (numbers == numbers.floor()).all()
    else:
        whole = True
    known = numbers.drop_nulls()
    if known.is_empty():
        return Times(numbers.cast(pl.Int64), "nothing")
    if whole:
        for digits, form, words in (
            (8, "%Y%m%d", "compact dates such as 20200913"),
            (14, "%Y%m%d%H%M%S", "compact dates and times such as 20200913122640"),
            (12, "%Y%m%d%H%M", "compact dates and times such as 202009131226"),
        ):
            if 10 ** (digits - 1) <= known.min() and known.max() < 10**digits:
                day = numbers.cast(pl.Int64) // 10 ** (digits - 8)
                if day.is_between(19_000_000, 21_010_000).all():
                    moments = _strptime(numbers.cast(pl.Int64).cast(pl.String), form)
                    if moments.null_count() == numbers.null_count():
                        return Times(_nanoseconds(moments), words)
        if known.is_between(190_001, 210_012).all() and (known.cast(pl.Int64) % 100).is_between(1, 12).all():
            return Times(
                _nanoseconds(_strptime(numbers.cast(pl.Int64).cast(pl.String) + "01", "%Y%m%d")),
                "compact months such as 202009",
            )
        if known.is_between(1900, 2100).all():
            return Times(_nanoseconds(_strptime(numbers.cast(pl.Int64).cast(pl.String) + "0101", "%Y%m%d")), "years")
    middle = float(known.median())  # type: ignore[arg-type]
    if middle < _BOUNDS[0][0]:
        seconds = numbers.set((numbers >= _BOUNDS[0][0]).fill_null(False), None)
        reason = f"a position, as values such as {middle:g} are no times since 1970; it tells the order alone"
        return Times(_scaled(seconds, 10**9), reason, position=True)
    for low, high, unit in _BOUNDS:
        if middle < high:
            digits = len(str(int(middle)))
            other = (numbers >= 0) & ~numbers.is_between(low, high)
            return Times(
                _scaled(numbers.set(other.fill_null(False), None), unit),
                f"{_WORDS[unit]} since 1970, as it has {digits} digits",
            )
    return Times(pl.Series([None] * len(numbers), dtype=pl.Int64), f"nothing, as it has {len(str(int(middle)))} digits")


def _texts(column: pl.Series) -> Times:
    """Dates in words and digits; what most cells agree on, the others are no times."""
    known = column.drop_nulls()
    if known.is_empty():
        return Times(column.cast(pl.Int64, strict=False), "nothing")
    text = _canonical(column)
    slashed = text.str.extract_groups(r"^(\d{1,2})[/-](\d{1,2})[/-](\d{4})\b")
    first, second = (slashed.struct.field(str(n)).cast(pl.Int64) for n in (1, 2))
    days = list(_DAYS)
    if first.count() > len(known) // 2:
        day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
        if not day_first and not month_first:
            raise DataError(
                f"events: column {column.name!r}: {known[0]!r} may be day/month or month/day, and no row tells which; "
                f"say it: {_EXAMPLE} or '%m/%d/%Y' (with ' %H:%M' after it for a clock)."
            )
        days = ["%d/%m/%Y"] if (first > 12).sum() >= (second > 12).sum() else ["%m/%d/%Y"]
        text = text.str.replace(r"^(\d{1,2})-(\d{1,2})-(\d{4})", "$1/$2/$3")
    if _months(text):
        days, text = ["%Y-%m-%d"], text + "-01"
    moments, first_form = pl.Series(column.name, [None] * len(column), dtype=pl.Int64), ""
    for form in (day + clock + zone for day in days for clock in _CLOCKS for zone in (("", "%#z") if clock else ("",))):
        left = text.filter(moments.is_null() & text.is_not_null())
        if left.is_empty():
            break
        if _strptime(left.head(_TRIAL), form).count():
            moments = moments.fill_null(_nanoseconds(_strptime(text, form)))
            first_form = first_form or form
    return Times(moments, _said(first_form) if first_form else "nothing")


def _canonical(column: pl.Series) -> pl.Series:
    """One spelling for what ISO 8601 and its kin allow."""
    text = column.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "$1-$2-$3")
    text = text.str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})[Tt_]", "$1 ")
    text = text.str.replace(r"^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})", "$1-$2-$3 $4:$5:$6")
    text = text.str.replace(r"^(\w{3}) (\w{3}) +(\d{1,2}) (\d{2}:\d{2}:\d{2}) (\+\d{4}) (\d{4})$", "$3 $2 $6 $4$5")
    text = text.str.replace(r"^(\w{3}) (\w{3}) +(\d{1,2}) (\d{2}:\d{2}:\d{2}) (\d{4})$", "$3 $2 $5 $4")
    text = text.str.replace(r"(:\d{2}(?:[.,]\d+)?) ?(?:[Zz]|UTC|GMT)$", "$1+0000")
    text = text.str.replace(r"(:\d{2}(?:[.,]\d+)?) ?([+-]\d{2}):?(\d{2})$", "$1$2$3")
    text = text.str.replace(r"(:\d{2}(?:[.,]\d+)?) ?([+-]\d{2})$", "$1${2}00")
    text = text.str.replace(r"^(\d{4}-\d{2}-\d{2} \d{2})$", "$1:00")
    return text.str.replace(r"(:\d{2}),(\d+)", "$1.$2")


def _months(text: pl.Series) -> bool:
    return bool(text.str.contains(r"^\d{4}-\d{2}$").all())


def _formatted(column: pl.Series, numbers: pl.Series, time_format: str) -> Times:
    if time_format in UNITS:
        return Times(_scaled(numbers, UNITS[time_format]), f"{_WORDS[UNITS[time_format]]} since 1970, as asked")
    if time_format == "position":
        return Times(_scaled(numbers, 10**9), "a position, as asked", position=True)
    if not re.search("%[a-zA-Z#]", time_format):
        raise ConfigError(
            f"--time-format {time_format!r} is none; give a format such as '%d/%m/%Y %H:%M', or s, ms, us, ns, position"
        )
    text = column if column.dtype == pl.String else column.cast(pl.Int64, strict=False).cast(pl.String)
    return Times(_nanoseconds(_strptime(text, time_format)), f"{time_format}, as asked")


def _strptime(text: pl.Series, form: str) -> pl.Series:
    try:
        if not re.search("%[HIMSTcsR+]", form):
            return text.str.to_date(form, strict=False).cast(pl.Datetime("us"))
        unit = "ns" if "%.f" in form or "%f" in form else "us"
        return text.str.to_datetime(form, strict=False, time_unit=unit, time_zone="UTC" if "z" in form else None)  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"--time-format {form!r} can't be used: {str(error).splitlines()[0]}") from error


def _nanoseconds(moments: pl.Series) -> pl.Series:
    """Of datetimes; null beyond what 64 bits hold."""
    scale = {"ns": 1, "us": 10**3, "ms": 10**6}[moments.dtype.time_unit or "us"]  # type: ignore[attr-defined]
    counts = moments.to_physical()
    limit = (2**63 - 1) // scale
    return counts.set(~counts.is_between(-limit, limit).fill_null(True), None) * scale


def _scaled(numbers: pl.Series, unit: int) -> pl.Series:
    """Numbers of a unit as nanoseconds, exact for integers."""
    limit = (2**63 - 1) // unit
    kept = numbers.set(~numbers.is_between(-limit, limit).fill_null(True), None)
    if not kept.dtype.is_float():
        return kept.cast(pl.Int64) * unit
    whole = kept.floor()
    return whole.cast(pl.Int64) * unit + ((kept - whole) * unit).round().cast(pl.Int64)


def _said(form: str) -> str:
    zone = "with its zone" if form.endswith("z") else "UTC, as no zone is named"
    order = {"%d/%m/%Y": "day/month/year", "%m/%d/%Y": "month/day/year", "%d.%m.%Y": "day.month.year"}
    first = form.split(" ")[0]
    return f"dates, {order.get(first, 'year-month-day' if first == '%Y-%m-%d' else 'day and month in words')}, {zone}"
