"""Rows of a predicate are those that it admits, also after changes; the packed bits say the same."""

import numpy as np
import pytest
from pyroaring import BitMap

from m6rec.predicate import ALL, Attributes, Predicate
from m6rec.retrieval import inverted
from m6rec.retrieval.inverted import InvertedIndex, Matching

CHEAP = Predicate(any_of=("a", "b"), ranges={"price": (0, 5)})


def test_kept_rows_change_with_the_index():
    rng, index, known = np.random.default_rng(0), InvertedIndex(), {}
    for _ in range(500):
        row = int(rng.integers(90))
        if row in known:
            index.remove(row)
            del known[row]
        else:
            known[row] = Attributes((rng.choice(["a", "b", "c"]),), {"price": float(rng.integers(10))})
            index.put(row, known[row])
        for where in (ALL, CHEAP):
            expected = {one for one, attributes in known.items() if where.admits(attributes)}
            found = index.matching(where)
            assert set(found.rows) == expected
            bits = np.unpackbits(found.bit_R, bitorder="little")
            assert set(np.flatnonzero(bits).tolist()) == expected


@pytest.mark.parametrize("rows", [[], [0], [7, 8, 9, 300]])
def test_bits_without_rows_are_a_copy(rows):
    matching = Matching(BitMap(rows))
    left = matching.bits_without(BitMap(rows[1:]))
    assert np.flatnonzero(np.unpackbits(left, bitorder="little")).tolist() == rows[:1]
    assert np.flatnonzero(np.unpackbits(matching.bit_R, bitorder="little")).tolist() == rows


def test_the_predicates_that_were_asked_for_last_are_kept(monkeypatch):
    monkeypatch.setattr(inverted, "MAX_KEPT", 2)
    index, one, other = InvertedIndex(), Predicate(any_of=("a",)), Predicate(any_of=("b",))
    index.put(0, Attributes(("a",)))
    first = index.matching(one)
    for where in (other, one, Predicate(any_of=("c",))):
        index.matching(where)
    assert index.matching(one) is first
    assert index.matching(Predicate(any_of=("a",))) is first  # equal predicates are one
    index.put(1, Attributes(("b",)))
    assert set(index.matching(other).rows) == {1}
