"""How two items fare with users who met both: counts by pair, in a table of bounded size.

A pair has five numbers: how often a user liked both, liked the one of the lower row alone, the other alone, neither;
and the sum of products of their residuals. The table has sets of ``layout.WAYS`` slots, as caches of processors have.
Where a set is full, a new pair takes the place of the one that was counted least: the table is all but exact while it
can grow, and then forgets rare pairs first.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from m6rec.features.layout import WAYS

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ / φ: multiplicative hashing (Knuth, The Art of Computer Programming, vol. 3, section 6.4)."""

Keys = NDArray[np.int64]
Counts = NDArray[np.float32]


@njit(cache=True)
def key_of(one: int, other: int) -> int:
    """The key of two different rows, which is never 0."""
    return (min(one, other) << 32) | max(one, other)


@njit(cache=True)
def find(keys: Keys, key: int) -> int:
    """The slot of a pair; -1 where it isn't counted."""
    return find_in(keys, _set_of(keys, key), key)


@njit(cache=True)
def find_in(keys: Keys, at: int, key: int) -> int:
    """The slot of a key in a set, 0 for one that is free; -1 for none."""
    found = -1
    for way in range(WAYS):  # to the end, as where it is found can't be predicted
        found = at * WAYS + way if keys[at, way] == key else found
    return found


@njit(cache=True)
def add(keys: Keys, counts: Counts, lower: int, higher: int, kind: int, product: float) -> int:
    """Counts a user with both items.

    Args:
        keys: Of the table.
        counts: Of the table.
        lower: The lower row.
        higher: The other.
        kind: Which of the first four ``COUNTS``.
        product: Of the residuals.

    Returns:
        How many slots more are in use, 0 or 1.
    """
    key = key_of(lower, higher)
    slot, new = find(keys, key), 0
    if slot < 0:
        slot = find_in(keys, _set_of(keys, key), 0)
        new = slot >= 0
        if slot < 0:
            slot = _rarest(counts, _set_of(keys, key))
        keys[slot // WAYS, slot % WAYS] = key
        counts[slot] = 0
    counts[slot, kind] += 1
    counts[slot, 4] += product
    return new


@njit(cache=True)
def grow(keys: Keys, counts: Counts, larger_keys: Keys, larger_counts: Counts) -> int:
    """Puts all pairs into a larger empty table; returns how many there are."""
    num = 0
    for at in range(len(keys)):
        for way in range(WAYS):
            key = keys[at, way]
            if key == 0:
                continue
            there = _set_of(larger_keys, key)
            for free in range(WAYS):
                if larger_keys[there, free] == 0:
                    larger_keys[there, free] = key
                    larger_counts[there * WAYS + free] = counts[at * WAYS + way]
                    num += 1
                    break
    return num


@njit(cache=True)
def _rarest(counts: Counts, at: int) -> int:
    """The slot of a full set whose pair was met least."""
    rarest, least = -1, np.float32(np.inf)
    for slot in range(at * WAYS, (at + 1) * WAYS):
        met = counts[slot, 0] + counts[slot, 1] + counts[slot, 2] + counts[slot, 3]
        if met < least:
            rarest, least = slot, met
    return rarest


@njit(cache=True)
def _set_of(keys: Keys, key: int) -> int:
    return np.int64((np.uint64(key) * _GOLDEN) >> np.uint64(32)) & (len(keys) - 1)
