"""The columns that the categories and the numeric details of items have in a ``FeatureStore``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from math import copysign, log1p

from m6rec.features.layout import MOST_NUMBERS
from m6rec.types import Item


def numbers(item: Item) -> dict[str, float]:
    """The numeric details of an item, on a logarithmic scale, as preferences depend on price ratios.

    For years the scale is practically linear.
    """
    found = {}
    for name, value in item.details.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            found[name] = copysign(log1p(abs(value)), value)
    return found


class ItemColumns:
    """Gives a column to each category, and to the first ``MOST_NUMBERS`` names of numbers."""

    def __init__(self) -> None:
        self._categories: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def of(self, item: Item) -> tuple[list[int], dict[int, float]]:
        """(the columns of its categories, its numbers by column)."""
        categories = [self._categories.setdefault(name, len(self._categories)) for name in item.categories]
        columns = {}
        for name, number in numbers(item).items():
            if name in self._numbers or len(self._numbers) < MOST_NUMBERS:
                columns[self._numbers.setdefault(name, len(self._numbers))] = number
        return categories, columns

    def by_column(self, values: Mapping[str, float]) -> dict[int, float]:
        """Values by the name of a number as values by its column; without those that have none."""
        return {self._numbers[name]: value for name, value in values.items() if name in self._numbers}

    def by_name(self, values: Sequence[float]) -> dict[str, float]:
        """The values of columns 0, 1, … by the name of their number."""
        return dict(zip(self._numbers, values, strict=False))
