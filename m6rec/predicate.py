"""Which items may be found, by what is known of them besides their text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from m6rec.types import Item, Value

TITLE_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")

_SCALES = {
    "year": ("year",),
    "length": ("length", "runtime", "duration", "minutes", "pages", "num_pages"),
    "price": ("price",),
}
"""Numbers that go by several names, or are written as text."""


NO_CATEGORY = ""
"""The category of an item that has none."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What an item is found by.

    Attributes:
        categories: In any order.
        numbers: By name: the details that are numbers, and "year", "length" and "price" under whatever name.
    """

    categories: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)


NO_ATTRIBUTES = Attributes()


def attributes(item: Item) -> Attributes:
    """What an item is found by.

    >>> attributes(Item("1", "Heat (1995)", ("Crime",), {"runtime": "170", "available": 1}))
    Attributes(categories=('Crime',), numbers={'available': 1.0, 'length': 170.0, 'year': 1995.0})
    """
    told: dict[str, Value] = {name: value for name, value in item.details.items() if not isinstance(value, str)}
    for scale, names in _SCALES.items():
        if name := next((name for name in names if name in item.details), ""):
            told[scale] = item.details[name]
    numbers = {name: number for name, value in told.items() if (number := _number(value)) is not None}
    if "year" not in numbers and (found := TITLE_YEAR.search(item.title)):
        numbers["year"] = float(found.group(1))
    return Attributes(item.categories, numbers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicate:
    """What must hold of an item. One without conditions holds of all, and is false in a condition of Python.

    Attributes:
        any_of: Categories, of which it has one at least; empty for any.
        all_of: Categories that it has.
        none_of: Categories that it hasn't.
        ranges: The least and the greatest that a number may be, by name; an item without the number is left out.
    """

    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.any_of or self.all_of or self.none_of or self.ranges)

    def admits(self, item: Attributes) -> bool:
        """Whether it holds of one item; ``retrieval.InvertedIndex`` answers for all items at once."""
        own = set(item.categories or (NO_CATEGORY,))
        if not own.issuperset(self.all_of) or own.intersection(self.none_of):
            return False
        if self.any_of and not own.intersection(self.any_of):
            return False
        numbers = ((item.numbers.get(name), bounds) for name, bounds in self.ranges.items())
        return all(number is not None and least <= number <= greatest for number, (least, greatest) in numbers)


ALL = Predicate()


def _number(value: Value) -> float | None:
    """A detail as a finite number; None where it isn't one."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
