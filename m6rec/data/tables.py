"""Whatever holds a table → one frame of raw columns: files of any common kind, frames in memory, databases.

Text files are read as text, so that ids and codes keep their leading zeros and a bad cell can be named.
"""

from __future__ import annotations

import codecs
import csv
import glob
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from m6rec.data import databases
from m6rec.errors import DataError


class ArrowTable(Protocol):
    """Any table that speaks Arrow: pandas, pyarrow, a DuckDB relation."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


Table = str | Path | pl.DataFrame | pl.LazyFrame | ArrowTable
"""A file, a folder or pattern of files, the URL of a database's table, or a table in memory."""

KINDS = ".csv, .tsv, .txt, .jsonl and .parquet (all but the last also with .gz or .zst)"
"""The files that can be read, in words."""
_SEPARATORS = {
    ".csv": ",",
    ".tsv": "\t",
    ".txt": "\t",
    ".tab": "\t",
    ".psv": "|",
    ".inter": "\t",
    ".item": "\t",
    ".user": "\t",
}
_JSON = frozenset((".jsonl", ".ndjson", ".json"))
_PARQUET = frozenset((".parquet", ".pq"))
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_PACKED_NAMES = frozenset((".gz", ".zst", ".bz2"))
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_CHUNK = 1 << 22
_BACKSLASHED = re.compile(r'\\"(?![,;\t|\r\n]|$)')  # a quote that a backslash keeps from closing its field
_READ_ERRORS = (OSError, EOFError, zlib.error, pa.ArrowInvalid, pa.ArrowNotImplementedError, pl.exceptions.PolarsError)

Progress = Callable[[float], None]
"""Told the share of the reading that is done, from 0 to 1."""


@dataclass
class Raw:
    """A table as it was found.

    Attributes:
        frame: Its columns, by the names that the table gives them, without white space around.
        from_text: Whether numbers came as text.
        notes: What a reader should know.
        ragged: Lines that were left out, as they have more or fewer fields than the header.
    """

    frame: pl.DataFrame
    from_text: bool = False
    notes: list[str] = field(default_factory=list)
    ragged: int = 0


def raw(name: str, table: Table, *, drop: bool = False, progress: Progress = lambda share: None) -> Raw:
    """Reads a table.

    Args:
        name: events, items or users, for messages.
        table: What holds it.
        drop: Whether lines with too many or too few fields are left out rather than refused.
        progress: Told how far the reading is.

    Raises:
        DataError: It can't be read, or isn't a table.
    """
    if isinstance(table, str) and is_url(table):
        found = Raw(databases.read(name, table), from_text=databases.is_text(table))
    elif isinstance(table, str | Path):
        found = _files(name, str(table), drop, progress)
    else:
        found = Raw(_frame(name, table))
    found.frame = _named(name, found.frame, found.notes)
    if found.frame.is_empty():
        raise DataError(f"{name}: the table holds no rows (its columns: {', '.join(found.frame.columns) or 'none'}).")
    progress(1.0)
    return found


def is_table(source: str) -> bool:
    """Whether a text looks like a file, folder, pattern or URL of a table, there or not."""
    return is_url(source) or Path(source).expanduser().exists() or glob.has_magic(source) or bool(_kind(Path(source)))


def is_url(table: str) -> bool:
    """Whether a text is the URL of a database rather than a path."""
    return "://" in table and table.partition("://")[0] in databases.SCHEMES


def _named(name: str, frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """The columns under their names without white space; those without a name, which are an index, are left out."""
    names = [column.strip() for column in frame.columns]
    twice = sorted({column for column in names if column and names.count(column) > 1})
    if twice:
        raise DataError(f"{name}: the column {twice[0]!r} occurs twice; rename one of them.")
    unnamed = [
        n for n, column in enumerate(names) if not column or re.fullmatch(r"__index_level_\d+__|Unnamed: \d+", column)
    ]
    if unnamed:
        notes.append(f"{name}: {len(unnamed)} column(s) without a name, as of an index, are left out")
    kept = [n for n in range(len(names)) if n not in unnamed]
    return pl.DataFrame([frame.to_series(n).alias(names[n]) for n in kept])


# Files


def _files(name: str, path: str, drop: bool, progress: Progress) -> Raw:
    """One file, or all those of a folder or pattern, which have to agree in their columns."""
    paths = _paths(name, path)
    sizes = [max(1, one.stat().st_size) if one.exists() else 1 for one in paths]
    found: list[Raw] = []
    for number, one in enumerate(paths):
        done, share = sum(sizes[:number]) / sum(sizes), sizes[number] / sum(sizes)
        found.append(_file(name, one, drop, lambda part, done=done, share=share: progress(done + share * part)))  # type: ignore[misc]
        ours, first = {c.strip() for c in found[-1].frame.columns}, {c.strip() for c in found[0].frame.columns}
        if ours != first:
            raise DataError(
                f"{name}: {one} and {paths[0]} differ in the columns {', '.join(sorted(ours ^ first))}; "
                "files of one table have the same columns."
            )
    try:
        frame = pl.concat([one.frame for one in found], how="diagonal_relaxed") if len(found) > 1 else found[0].frame
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{name}: the files of {path} differ in the types of their columns: {_first_line(error)}"
        ) from error
    notes = [f"{name}: {len(paths)} files are read as one table"] if len(paths) > 1 else []
    notes += dict.fromkeys(note for one in found for note in one.notes)
    return Raw(frame, found[0].from_text, notes, sum(one.ragged for one in found))


def _paths(name: str, path: str) -> list[Path]:
    one = Path(path).expanduser()
    if one.is_dir():
        found = sorted(p for p in one.rglob("*") if p.is_file() and not p.name.startswith((".", "_")) and _kind(p))
        if not found:
            raise DataError(f"{name}: the folder {path} holds no file that can be read; allowed are {KINDS}.")
    elif one.exists() or not glob.has_magic(path):
        if _kind(one) and not one.exists():
            raise DataError(f"{name}: {path} can't be read: there is no such file.")
        found = [one]
    else:
        found = sorted(p for p in map(Path, glob.glob(str(one), recursive=True)) if p.is_file())
        if not found:
            raise DataError(f"{name}: no file matches {path}.")
    kinds = {_kind(p) for p in found}
    if len(kinds) > 1 and "parquet" in kinds | {"json"} and len(kinds & {"parquet", "json"}):
        raise DataError(
            f"{name}: {path} holds files of several kinds ({', '.join(sorted(map(str, kinds)))}); give one."
        )
    return found


def _kind(path: Path) -> str:
    """text, json, parquet, or "" for what can't be read, by the name alone."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED_NAMES:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return "text" if last in _SEPARATORS else "json" if last in _JSON else "parquet" if last in _PARQUET else ""


def _file(name: str, path: Path, drop: bool, progress: Progress) -> Raw:
    kind = _kind(path)
    if not kind:
        raise DataError(f"{name}: {path} is of a kind that can't be read; allowed are {KINDS}, a folder of them, or a "
                        "URL such as sqlite:///shop.db#events.")  # fmt: skip
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{name}: {path} is empty.")
        if kind == "parquet":
            return Raw(_parquet(path))
        return _json(name, path, progress) if kind == "json" else _Text(name, path, drop, progress).read()
    except _READ_ERRORS as error:
        raise DataError(f"{name}: {path} can't be read: {_first_line(error)}") from error


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError:
        import pyarrow.parquet as pq

        return _from_arrow(pq.read_table(path))


def _open(path: Path) -> pa.NativeFile:
    """The bytes of a file, unpacked by what they begin with, whatever its name."""
    with path.open("rb") as plain:
        head = plain.read(4)
    packed = next((name for mark, name in _PACKED.items() if head.startswith(mark)), None)
    return pa.input_stream(str(path), compression=packed)


class _Text:
    """A text file with a separator: how it is written is found first, then Arrow reads it."""

    def __init__(self, name: str, path: Path, drop: bool, progress: Progress) -> None:
        self.name, self.path, self.drop, self.progress = name, path, drop, progress
        self.notes: list[str] = []

    def read(self) -> Raw:
        encoding, backslashes, sample = self._survey()
        lines = re.split(r"\r\n|\r|\n", sample)
        before = next((n for n, line in enumerate(lines) if line.strip()), None)
        if before is None:
            raise DataError(f"{self.name}: {self.path} is empty.")
        header = lines[before].lstrip("\ufeff")
        separator = self._separator(header)
        quoted = separator != "\t" or self._quoted(lines, separator)
        names = next(
            csv.reader(
                [header], delimiter=separator, quotechar='"', quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
            )
        )
        names = [column.strip() or f"Unnamed: {number}" for number, column in enumerate(names)]
        twice = sorted({column for column in names if column and names.count(column) > 1})
        if twice:
            raise DataError(
                f"{self.name}: the column {twice[0]!r} occurs twice in the header of {self.path}; rename one."
            )
        keys = [str(n) for n in range(len(names))]
        parse = {"delimiter": separator, "quote_char": '"' if quoted else False, "newlines_in_values": quoted,
                 "escape_char": "\\" if backslashes and quoted else False}  # fmt: skip
        convert = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(keys, pa.string()), strings_can_be_null=True, quoted_strings_can_be_null=True,
            null_values=[""], check_utf8=True,
        )  # fmt: skip
        ragged = 0

        def skip(row: Any) -> str:
            nonlocal ragged
            ragged += 1
            return "skip"

        def load(handler: Callable[[Any], str], threads: bool) -> pa.Table:
            options = pa_csv.ReadOptions(
                column_names=keys, skip_rows=before + 1, encoding=encoding, use_threads=threads, block_size=_CHUNK
            )
            with _open(self.path) as stream:
                return pa_csv.read_csv(
                    stream, read_options=options, convert_options=convert,
                    parse_options=pa_csv.ParseOptions(invalid_row_handler=handler, **parse),
                )  # fmt: skip

        try:
            table = load(skip, True)
        except pa.ArrowInvalid as error:
            if "Empty CSV" not in str(error):
                raise
            table = pa.table({key: pa.array([], pa.string()) for key in keys})
        if ragged and not self.drop:
            self._refuse_ragged(load, len(names), separator)
        columns = table.columns
        del table
        frame = pl.DataFrame([pl.Series(name, columns.pop(0)) for name in names])  # each is freed when it is copied
        pa.default_memory_pool().release_unused()
        if quoted:
            self._check_quotes(frame, separator)
        if not frame.is_empty():
            self._check_header(names, frame)
        return Raw(frame, True, self.notes, ragged)

    def _survey(self) -> tuple[str, bool, str]:
        """(Encoding, whether backslashes escape quotes, the beginning as text), from all bytes of the file."""
        with _open(self.path) as stream:
            head = stream.read(1 << 16)
        mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
        if mark:
            guesses = [_MARKS[mark]]
        elif head[:1000].count(0) * 3 > len(head[:1000]):
            guesses = ["utf-16-le" if head[1:2] == b"\0" else "utf-16-be"]
        else:
            guesses = ["utf-8", "cp1252"]
        for encoding in guesses:
            try:
                backslashes = False
                decoder = codecs.getincrementaldecoder(encoding)()
                for chunk in self._chunks():
                    text = decoder.decode(chunk)
                    backslashes = backslashes or ('\\"' in text and _BACKSLASHED.search(text) is not None)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                continue
            if encoding not in ("utf-8", "utf-16"):
                self.notes.append(
                    f"{self.name}: {self.path.name} is not UTF-8 and is read as {encoding}; where titles look wrong, "
                    f"convert it: iconv -f … -t utf-8 {self.path.name}"
                )
            return encoding, backslashes, codecs.getincrementaldecoder(encoding)().decode(head)
        raise DataError(
            f"{self.name}: {self.path} is neither UTF-8 nor Windows-1252; convert it: "
            f"iconv -f … -t utf-8 {self.path.name}"
        )

    def _chunks(self) -> Iterator[bytes]:
        size, done = max(1, self.path.stat().st_size), 0
        with _open(self.path) as stream:
            while chunk := stream.read(_CHUNK):
                done += len(chunk)
                self.progress(min(0.5, 0.5 * done / size))
                yield chunk

    def _separator(self, header: str) -> str:
        """What divides the header into most fields; of a tie, what the file's name says."""
        usual = next((_SEPARATORS[s.lower()] for s in reversed(self.path.suffixes) if s.lower() in _SEPARATORS), ",")
        counts = {s: len(next(csv.reader([header], delimiter=s))) for s in dict.fromkeys((usual, ",", ";", "\t", "|"))}
        best = max(counts, key=lambda separator: counts[separator])
        if best != usual:
            self.notes.append(f"{self.name}: the fields of {self.path.name} are divided by {best!r}")
        return best

    @staticmethod
    def _quoted(lines: Sequence[str], separator: str) -> bool:
        """Whether quotes enclose fields rather than stand for themselves, as inches do in tables with tabs."""
        fields = [cell for line in lines[:1000] for cell in line.split(separator) if cell.startswith('"')]
        return bool(fields) and all(len(cell) > 1 and cell.endswith('"') for cell in fields)

    def _refuse_ragged(
        self, load: Callable[[Callable[[Any], str], bool], pa.Table], width: int, separator: str
    ) -> None:
        first: list[Any] = []

        def stop(row: Any) -> str:
            first.append(row)
            return "error"

        with_row = "a row"
        with suppress(pa.ArrowInvalid):
            load(stop, False)
        shown = ""
        if first:
            with_row = f"row {first[0].number - 1}" if first[0].number else "a row"
            text = first[0].text if len(first[0].text) <= 60 else first[0].text[:57] + "…"
            shown = f" has {first[0].actual_columns} fields ({text!r})"
        raise DataError(
            f"{self.name}: {with_row} of {self.path}{shown}, but the header has {width}. Enclose a field that holds "
            f"{separator!r} in double quotes, or leave such rows out with --on-error drop (on_error='drop')."
        )

    def _check_quotes(self, frame: pl.DataFrame, separator: str) -> None:
        """Refuses a field that has swallowed whole rows, as a quote was opened that isn't closed."""
        for column in frame.iter_columns():
            if not (several := column.str.contains("\n", literal=True).fill_null(False)).any():
                continue
            for row, cell in zip(several.arg_true().to_list(), column.filter(several).to_list(), strict=True):
                inner = cell.rstrip("\r\n").split("\n")[1:]
                width = frame.width - 1
                tight = [line.count(separator) >= width and f"{separator} " not in line for line in inner]
                if cell.endswith('"') or (inner and all(tight)):
                    raise DataError(
                        f"{self.name}: row {row + 1} of {self.path}, column {column.name!r}: a double quote is opened "
                        "and not closed, so that rows below are part of the field; close it, or write a quote "
                        "within a field twice and enclose the field."
                    )

    def _check_header(self, names: Sequence[str], frame: pl.DataFrame) -> None:
        """Refuses a file whose first line is data: a number is no name, nor is what the rows below hold too."""
        numbers = [column for column in names if re.fullmatch(r"[-+]?\d+([.,]\d+)?", column)]
        if numbers:
            raise DataError(
                f"{self.name}: {self.path} seems to have no header: its first line holds {numbers[0]!r} where a column "
                f"has its name. Put a line such as user{_join(frame.width)} at its top."
            )


def _join(width: int) -> str:
    return "".join(f",{name}" for name in ("item", "time", "title", "value", "text")[: max(1, width - 1)])


def _json(name: str, path: Path, progress: Progress) -> Raw:
    """An object a line, or an array of objects."""
    with _open(path) as stream:
        data = stream.read().removeprefix(codecs.BOM_UTF8)
    progress(0.3)
    if not data.strip():
        raise DataError(f"{name}: {path} is empty.")
    try:
        if data.lstrip()[:1] == b"[":
            return Raw(pl.read_json(io.BytesIO(data), infer_schema_length=None))
        return Raw(pl.read_ndjson(io.BytesIO(data), infer_schema_length=None))
    except (pl.exceptions.PolarsError, ValueError):
        return Raw(_objects(name, path, data))


def _objects(name: str, path: Path, data: bytes) -> pl.DataFrame:
    """What Polars refused, a line at a time, so that a wrong line can be named and a mixed column becomes text."""
    rows: list[dict[str, Any]] = []
    lines = data.decode("utf-8", errors="replace").split("\n")
    if data.lstrip()[:1] == b"[":
        try:
            lines = [json.dumps(row) for row in json.loads(data)]
        except ValueError as error:
            raise DataError(f"{name}: {path} is no JSON: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"a {type(row).__name__}, not an object")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}: line {number} of {path} is no JSON object: {error}; give one a line.") from error
        rows.append(row)
    names = list(dict.fromkeys(key for row in rows for key in row))
    return pl.DataFrame([_series(key, [row.get(key) for row in rows]) for key in names])


# Tables in memory


def _frame(name: str, table: Any) -> pl.DataFrame:
    if isinstance(table, pl.LazyFrame):
        table = table.collect()
    if isinstance(table, pl.DataFrame):
        return table
    if hasattr(table, "__arrow_c_stream__") or hasattr(table, "iloc"):
        try:
            return _pandas(name, table) if hasattr(table, "iloc") else _from_arrow(pa.table(table))
        except (pa.ArrowException, pl.exceptions.PolarsError, UnicodeError, ValueError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{name}: the {type(table).__name__} can't be read: {_first_line(error)}") from error
    raise DataError(
        f"{name}: a {type(table).__name__} is not a table; give a path ({KINDS}), a URL, "
        "a Polars or pandas frame, an Arrow table or a DuckDB relation."
    )


def _pandas(name: str, table: Any) -> pl.DataFrame:
    """A pandas frame; levels of its index that have a name are columns, and columns of mixed type become text."""
    levels = [level for level in table.index.names if level is not None and level not in table.columns]
    if levels:
        table = table.reset_index(levels)
    columns = [str(column) for column in table.columns]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise DataError(f"{name}: the column {twice[0]!r} occurs twice; rename one of them.")
    series = []
    for number, column in enumerate(columns):
        values = table.iloc[:, number]
        try:
            series.append(_from_arrow(pa.table({column: pa.Array.from_pandas(values)})).to_series())
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            missing = values.isna().to_list()
            series.append(_series(column, [None if no else value for no, value in zip(missing, values, strict=True)]))
    return pl.DataFrame(series)


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    """Values of one type as they are, mixed ones as text."""
    try:
        return pl.Series(name, values)
    except (TypeError, pl.exceptions.PolarsError, OverflowError):
        plain = (str, int, float, bool)
        words = [
            value
            if value is None or isinstance(value, str)
            else str(value)
            if isinstance(value, plain)
            else json.dumps(value, default=str, ensure_ascii=False)
            for value in values
        ]
        return pl.Series(name, words, dtype=pl.String)


def _from_arrow(table: pa.Table) -> pl.DataFrame:
    """Arrow's types that Polars doesn't know, spelled out."""
    columns = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_run_end_encoded(kind):
            column = pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type)
        elif pa.types.is_dictionary(kind) and not pa.types.is_string(kind.value_type):
            column = column.cast(kind.value_type)
        columns.append(column)
    return cast(pl.DataFrame, pl.from_arrow(pa.table(columns, names=table.column_names)))


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
