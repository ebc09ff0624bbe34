"""A log: behaviours in the order of time, over items and users; columns until an event is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, cast, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from m6rec.types import Event, Item, User

CONTEXT = "context:"
"""Before the name of a column that holds one name of ``Event.context``."""
_TYPES: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "user": pl.String, "item": pl.String, "time": pl.Int64, "value": pl.Float64, "text": pl.String,
    "kind": pl.String, "impression": pl.String, "id": pl.String,
}  # fmt: skip
_CHUNK = 1 << 15  # events decoded at once by a walk
_HELD = 1 << 18  # events up to which one that was decoded is kept


class Events(Sequence[Event]):
    """Events as columns of a frame: user, item and time, and of the other fields those that are not all empty.

    Ids are kept as numbers into the distinct ids (Polars' Enum). ``events[n]`` makes an Event, a slice is a view.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        """Takes a frame whose columns are fields of Event, and ``context:name``."""
        ids: dict[Any, pl.Enum] = {
            name: pl.Enum(frame[name].unique(maintain_order=True))
            for name in ("user", "item")
            if not _coded(frame, name)
        }
        self.frame = frame.cast(ids) if ids else frame
        self._decoded: tuple[Event, ...] | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Events:
        """The same events as columns."""
        if isinstance(events, Events):
            return events
        rows = list(events)
        columns: dict[str, pl.Series] = {}
        for name, dtype in _TYPES.items():
            values = [getattr(row, name) for row in rows]
            if name in ("user", "item", "time", "value") or any(values):
                columns[name] = pl.Series(name, values, dtype=dtype)
        for name in sorted({key for row in rows for key, _ in row.context}):
            columns[CONTEXT + name] = _loose(CONTEXT + name, [dict(row.context).get(name) for row in rows])
        return cls(pl.DataFrame(columns))

    def ids(self, name: str) -> pl.Series:
        """The distinct ids of "user" or "item", in the order that ``codes`` number them."""
        dtype = self.frame.schema[name]
        assert isinstance(dtype, pl.Enum)
        return dtype.categories

    def codes(self, name: str, ids: Iterable[str] | None = None) -> NDArray[np.int64]:
        """For each event, the position of its user or item in ``ids``, or ``ids(name)``; -1 if absent."""
        codes = cast(NDArray[np.int64], self.frame[name].to_physical().cast(pl.Int64).to_numpy())
        if ids is None:
            return codes
        places = {key: place for place, key in enumerate(ids)}
        moved: NDArray[np.int64] = np.array([places.get(key, -1) for key in self.ids(name)], np.int64)
        return moved[codes]

    def column(self, name: str) -> pl.Series:
        """A field of all events; its default where no event has it, null for a value that is missing."""
        if name in self.frame.columns:
            return self.frame[name]
        return pl.Series(name, [None if name == "value" else ""], dtype=_TYPES[name]).new_from_index(0, len(self))

    def __len__(self) -> int:
        return self.frame.height

    @overload
    def __getitem__(self, at: int) -> Event: ...
    @overload
    def __getitem__(self, at: slice) -> Events: ...
    def __getitem__(self, at: int | slice) -> Event | Events:
        if isinstance(at, slice):
            return Events(self.frame[at])
        if self._decoded is None and len(self) <= _HELD:
            self._decoded = tuple(_decode(self.frame))
        if self._decoded is not None:
            return self._decoded[at]
        place = range(len(self))[at]  # raises IndexError
        return next(_decode(self.frame.slice(place, 1)))

    def __iter__(self) -> Iterator[Event]:
        if self._decoded is not None:
            yield from self._decoded
            return
        for start in range(0, len(self), _CHUNK):
            yield from _decode(self.frame.slice(start, _CHUNK))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Events({len(self)}: {', '.join(self.frame.columns)})"


@dataclass(frozen=True)
class Reading:
    """How a log was read, for whoever brought it.

    Attributes:
        columns: By table, the column of each role that was found.
        unused: By table, the columns that aren't read.
        time: What the times were read as and why; "" in a log without.
        timed: Whether the log's times are times; without, or where they are positions, they tell the order at most.
        repeats: Events whose user had done the same with the same item before.
        future: Events that lie more than a day ahead of when the log was read.
        notes: What else a reader should know, in sentences.
    """

    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    time: str = ""
    timed: bool = False
    repeats: int = 0
    future: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True, repr=False)
class Log:
    """Behaviours in the order of time, over items and users.

    Attributes:
        events: Sorted by time; events of one time keep the order of the file. Kept as columns (``table``).
        items: By id, in the order of the table; also those without events.
        users: By id.
        dropped: What was left out when reading, by reason.
        reading: How it was read.
    """

    events: Sequence[Event]
    items: Mapping[str, Item]
    users: Mapping[str, User]
    dropped: Mapping[str, int] = field(default_factory=dict)
    reading: Reading = field(default_factory=Reading, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", Events.of(self.events))

    @property
    def table(self) -> Events:
        """The events, as columns."""
        assert isinstance(self.events, Events)
        return self.events

    def __repr__(self) -> str:
        counts = f"{len(self.events)} events, {len(self.items)} items, {len(self.users)} users"
        return f"Log({counts}, {sum(self.dropped.values())} dropped)"


def met_before(events: Events) -> NDArray[np.bool_]:
    """Whether an event's user had done the same, by its kind, with the same item before; not for searches."""
    pairs = pl.Series(events.codes("user") * len(events.ids("item")) + events.codes("item"))
    if "kind" in events.frame.columns:
        kinds = events.frame["kind"].rank("dense")
        pairs = pairs * (kinds.max() or 1) + kinds
    return (~pairs.is_first_distinct() & (events.frame["item"] != "")).to_numpy()


def without_repeats(log: Log) -> Log:
    """The log without events whose user had done the same with the same item before; they are counted."""
    again = met_before(log.table)
    if not again.any():
        return log
    dropped = {**log.dropped, "events: its user had done the same with the item before": int(again.sum())}
    frame = log.table.frame.filter(~pl.Series(again))
    return replace(log, events=Events(frame), dropped=dropped, reading=replace(log.reading, repeats=0))


def _coded(frame: pl.DataFrame, name: str) -> bool:
    return isinstance(frame.schema[name], pl.Enum)


def _loose(name: str, values: Sequence[Any]) -> pl.Series:
    """Numbers where all are, else texts."""
    known = [value for value in values if value is not None]
    kinds = {type(value) for value in known}
    if kinds == {int}:
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds <= {int, float}:
        return pl.Series(name, values, dtype=pl.Float64, strict=False)
    return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)


def _decode(frame: pl.DataFrame) -> Iterator[Event]:
    columns = frame.to_dict(as_series=False)
    names = sorted(name for name in columns if name.startswith(CONTEXT))
    context: Iterable[tuple[tuple[str, Any], ...]] = repeat(())
    if names:
        keys = [name.removeprefix(CONTEXT) for name in names]
        context = (
            tuple((key, value) for key, value in zip(keys, row, strict=True) if value is not None)
            for row in zip(*(columns[name] for name in names), strict=True)
        )
    values = columns.get("value", repeat(None))
    text, kind, impression, key = (columns.get(name, repeat("")) for name in ("text", "kind", "impression", "id"))
    return map(Event, columns["user"], columns["item"], columns["time"], values, text, kind, impression, context, key)
