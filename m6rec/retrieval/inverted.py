"""An inverted index of attributes: the rows that a predicate holds of, without a look at each."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from m6rec.predicate import NO_CATEGORY, Attributes, Predicate


class InvertedIndex:
    """Rows by category, as compressed bitmaps, and by number, as columns. Both change in place."""

    def __init__(self) -> None:
        self._rows = BitMap()
        self._of_row: list[Attributes | None] = []
        self._by_category: dict[str, BitMap] = {}
        self._columns: dict[str, NDArray[np.float64]] = {}

    @property
    def categories(self) -> list[str]:
        """Those of any row, ``NO_CATEGORY`` among them where a row has none."""
        return [*self._by_category]

    def put(self, row: int, attributes: Attributes) -> None:
        """Adds a row that is not there."""
        self._rows.add(row)
        self._of_row += [None] * (row + 1 - len(self._of_row))
        self._of_row[row] = attributes
        for category in attributes.categories or (NO_CATEGORY,):
            self._by_category.setdefault(category, BitMap()).add(row)
        for name, number in attributes.numbers.items():
            column = self._columns.get(name, np.zeros(0))
            if row >= len(column):  # twice as long each time, so that a row costs the same however many there are
                longer = np.full(max(2 * len(column), row + 1), np.nan)
                longer[: len(column)] = column
                column = self._columns[name] = longer
            column[row] = number

    def remove(self, row: int) -> None:
        """Takes out a row that is there."""
        self._rows.remove(row)
        attributes, self._of_row[row] = self._of_row[row], None
        assert attributes is not None
        for category in dict.fromkeys(attributes.categories or (NO_CATEGORY,)):
            self._by_category[category].remove(row)
            if not self._by_category[category]:
                del self._by_category[category]
        for name in attributes.numbers:
            self._columns[name][row] = np.nan

    def matching(self, where: Predicate) -> BitMap:
        """The rows that a predicate holds of; not to be changed."""
        rows = self._rows
        if where.any_of:
            rows = BitMap.union(BitMap(), *(self._of(category) for category in where.any_of))
        for category in where.all_of:
            rows = rows & self._of(category)
        for category in where.none_of:
            rows = rows - self._of(category)
        for name, (least, greatest) in where.ranges.items():
            column = self._columns.get(name, np.zeros(0))
            within = np.flatnonzero((column >= least) & (column <= greatest)).astype(np.uint32)
            rows = rows & BitMap(array("I", within.tobytes()))
        return rows

    def _of(self, category: str) -> BitMap:
        return self._by_category.get(category, _NONE)


_NONE = BitMap()
