"""Tables from published files with one record a line: JSON, Python literals, or fields between separators.

A file may be gzipped and of any size: lines are read one after the other, and only what is picked from them is held.
"""

import ast
import gzip
import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from m6rec.errors import DataError

Schema = Mapping[str, pl.DataType | type[pl.DataType]]
_BATCH = 100_000  # rows held as Python objects at once
_GZIP = b"\x1f\x8b"
_NOT_AS_PROMISED = (ValueError, SyntaxError, LookupError, TypeError, AttributeError, RecursionError, MemoryError)


def record(line: str) -> Any:
    """A JSON value, or a Python literal, as which Amazon's metadata of 2014 and Steam's files were printed.

    >>> record('{"asin": "B1", "price": 4.5}') == record("{'asin': u'B1', 'price': 4.5}")
    True

    Raises:
        ValueError, SyntaxError, RecursionError, MemoryError: It is neither; nothing in it is ever run.
    """
    try:
        return json.loads(line)
    except ValueError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python doesn't know
            return ast.literal_eval(line)


def table(
    path: str | Path,
    schema: Schema,
    pick: Callable[[Any], Sequence[object] | None],
    *,
    of: str,
    parse: Callable[[str], Any] = record,
    encoding: str = "utf-8",
) -> pl.DataFrame:
    """Reads what is picked from each line of a file; empty lines are left out.

    Args:
        path: Plain or gzipped, whatever its name.
        schema: The columns and their types; a value of another type becomes null.
        pick: From a parsed line to its row, in the order of ``schema``; None leaves the line out.
        of: What the file has to hold, in words, for the message of an error.
        parse: From the text of a line to what ``pick`` takes.
        encoding: Of the text.

    Raises:
        DataError: The file can't be read, or a line can't be parsed or picked from; the message names it.
    """
    number = 0
    frames: list[pl.DataFrame] = []
    rows: list[Sequence[object]] = []

    def keep() -> None:
        frames.append(pl.DataFrame(rows, schema, orient="row", strict=False))
        rows.clear()

    try:
        for raw in _lines(Path(path)):
            number += 1
            if not (line := raw.decode(encoding).rstrip("\r\n")):
                continue
            if (row := pick(parse(line))) is not None:
                rows.append(row)
            if len(rows) == _BATCH:
                keep()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}); give {of}") from error
    except _NOT_AS_PROMISED as error:
        wrong = f"lacks {error}" if isinstance(error, KeyError) else f"can't be read ({error})"
        raise DataError(f"{path}: line {number} {wrong}; give {of}") from error
    keep()
    return pl.concat(frames)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as plain:
        zipped = plain.read(2) == _GZIP
        plain.seek(0)
        if zipped:
            with gzip.open(plain) as unpacked:
                yield from unpacked
        else:
            yield from plain
