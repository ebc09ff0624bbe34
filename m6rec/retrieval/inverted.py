"""An inverted index of attributes: the rows that a predicate holds of, without a look at each."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from m6rec.predicate import ALL, NO_CATEGORY, Attributes, Predicate

MAX_KEPT = 64
"""Predicates whose rows are kept, those that were asked for last."""


class Matching:
    """The rows that a predicate holds of.

    Attributes:
        rows: As a compressed bitmap; not to be changed.
        bit_R: The same, eight rows a byte, the lowest bit first, as faiss takes them; not to be changed.
    """

    def __init__(self, rows: BitMap) -> None:
        self.rows = rows
        mask_R = np.zeros(rows.max() + 1 if rows else 0, np.bool_)
        mask_R[np.array(rows.to_array(), np.int64)] = True
        self.bit_R: NDArray[np.uint8] = np.packbits(mask_R, bitorder="little")

    def add(self, row: int) -> None:
        """The predicate holds of a further row."""
        self.rows.add(row)
        if row // 8 >= len(self.bit_R):
            longer_R = np.zeros(max(2 * len(self.bit_R), row // 8 + 1), np.uint8)
            longer_R[: len(self.bit_R)] = self.bit_R
            self.bit_R = longer_R
        self.bit_R[row // 8] |= 1 << row % 8

    def discard(self, row: int) -> None:
        """It doesn't hold of a row any more, if it did."""
        if row in self.rows:
            self.rows.remove(row)
            self.bit_R[row // 8] &= ~np.uint8(1 << row % 8)

    def bits_without(self, rows: BitMap) -> NDArray[np.uint8]:
        """A copy of ``bit_R`` without some of ``rows``."""
        bit_R = self.bit_R.copy()
        row_N = np.array(rows.to_array(), np.int64)
        np.bitwise_and.at(bit_R, row_N // 8, ~(1 << row_N % 8).astype(np.uint8))
        return bit_R


class InvertedIndex:
    """Rows by category, as compressed bitmaps, and by number, as columns. Both change in place.

    So do the rows of predicates that were asked for: a filter that many requests share is computed once.
    """

    def __init__(self) -> None:
        self._all = Matching(BitMap())
        self._kept: OrderedDict[Hashable, tuple[Predicate, Matching]] = OrderedDict()
        self._of_row: list[Attributes | None] = []
        self._by_category: dict[str, BitMap] = {}
        self._columns: dict[str, NDArray[np.float64]] = {}

    @property
    def categories(self) -> list[str]:
        """Those of any row, ``NO_CATEGORY`` among them where a row has none."""
        return [*self._by_category]

    def put(self, row: int, attributes: Attributes) -> None:
        """Adds a row that is not there."""
        self._all.add(row)
        for where, matching in self._kept.values():
            if where.admits(attributes):
                matching.add(row)
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
        self._all.discard(row)
        for _, matching in self._kept.values():
            matching.discard(row)
        attributes, self._of_row[row] = self._of_row[row], None
        assert attributes is not None
        for category in dict.fromkeys(attributes.categories or (NO_CATEGORY,)):
            self._by_category[category].remove(row)
            if not self._by_category[category]:
                del self._by_category[category]
        for name in attributes.numbers:
            self._columns[name][row] = np.nan

    def matching(self, where: Predicate) -> Matching:
        """The rows that a predicate holds of; they change with the index."""
        if where == ALL:
            return self._all
        key = where.any_of, where.all_of, where.none_of, tuple(sorted(where.ranges.items()))
        if key not in self._kept:
            self._kept[key] = where, Matching(self._rows_of(where))
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def _rows_of(self, where: Predicate) -> BitMap:
        rows = BitMap(self._all.rows)
        if where.any_of:
            rows &= BitMap.union(BitMap(), *(self._of(category) for category in where.any_of))
        for category in where.all_of:
            rows &= self._of(category)
        for category in where.none_of:
            rows -= self._of(category)
        for name, (least, greatest) in where.ranges.items():
            column = self._columns.get(name, np.zeros(0))
            within = np.flatnonzero((column >= least) & (column <= greatest)).astype(np.uint32)
            rows &= BitMap(array("I", within.tobytes()))
        return rows

    def _of(self, category: str) -> BitMap:
        return self._by_category.get(category, _NONE)


_NONE = BitMap()
