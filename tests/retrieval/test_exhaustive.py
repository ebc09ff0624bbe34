from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from m6rec.predicate import ALL
from m6rec.retrieval.blend import fit
from m6rec.retrieval.exhaustive import ExhaustiveConfig, ExhaustiveSearch
from m6rec.serving.item_index import ItemIndex
from m6rec.types import Item
from tests import tiny

RNG = np.random.default_rng(3)
ITEMS = [Item(f"i{n:03}", f"Film {n} {'abcdefgh'[n % 8]}") for n in range(150)]
LIKES = [[f"i{n:03}" for n in RNG.permutation(150)[: RNG.integers(2, 30)]] for _ in range(40)]
WITHOUT = [frozenset(liked[::2]) | {"i007", "nobody knows it"} for liked in LIKES]


@pytest.fixture(scope="module")
def retrieve():
    """Of 150 items 120 are known to the sources."""
    made = tiny.retrieval(tiny.foundation(num_layers=4), ITEMS, "movielens")
    made.blend = fit((f"u{n}", item, True) for n, liked in enumerate(LIKES) for item in liked if item < "i120")
    return made


@pytest.fixture
def index(retrieve):
    """Where sources add to the ten best alone; of what they know, some is deleted."""
    return built(retrieve, num_from_sources=10)


def built(retrieve, **options):
    made = ItemIndex(retrieve, **options)
    made.put(ITEMS, retrieve.item_vectors(ITEMS))
    made.remove(["i000", "i001", "i140"])
    return made


def in_words(search, likes, without, count):
    rows, scores = search.search(likes, without, count)
    return [
        {search.ids[row]: score for row, score in zip(*of, strict=True) if row >= 0}
        for of in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def one_by_one(index, likes, without, count):
    return [
        dict(index.search(index.user_vector(liked), count, ALL, met, liked))
        for liked, met in zip(likes, without, strict=True)
    ]


@pytest.mark.parametrize("count", [1, 12, 147])
def test_many_users_get_what_each_gets_alone(index, count):
    found = in_words(index.exhaustive(), LIKES, WITHOUT, count)
    for one, alone in zip(found, one_by_one(index, LIKES, WITHOUT, count), strict=True):
        assert one == pytest.approx(alone, abs=2e-6)  # sums of 256 products in another order
        assert len(one) == len(alone)
        np.testing.assert_array_less(-1e-12, -np.diff([*one.values()]))


def test_the_vectors_alone_are_searched_where_there_is_no_blend(retrieve):
    plain = copy(retrieve)
    plain.blend = None
    index = built(plain)
    assert in_words(index.exhaustive(), LIKES[:9], WITHOUT[:9], 5) == [
        pytest.approx(alone, abs=2e-6) for alone in one_by_one(index, LIKES[:9], WITHOUT[:9], 5)
    ]


def test_blocks_change_nothing_but_rounding(retrieve):
    ids = [item.id for item in ITEMS]
    whole = ExhaustiveSearch(ids, retrieve.item_vectors(ITEMS), 0.8, retrieve.blend, 10)
    small = ExhaustiveSearch(
        ids, retrieve.item_vectors(ITEMS), 0.8, retrieve.blend, 10, ExhaustiveConfig(items=7, scores=300)
    )
    assert (whole.block, small.block) == (256, 2)
    expected = in_words(whole, LIKES, WITHOUT, 9)
    for user, liked in enumerate(LIKES):
        (found,) = in_words(small, [liked], [WITHOUT[user]], 9)
        assert found == pytest.approx(expected[user], abs=2e-6)


def test_equal_scores_come_in_the_order_of_ids(retrieve):
    alike = ExhaustiveSearch(["c", "a", "b"], np.ones((3, 4), np.float32), 0.8, None, 10)
    assert [*in_words(alike, [["a"]], [()], 3)[0]] == ["a", "b", "c"]


def test_whoever_liked_nothing_gets_what_scores_nothing(retrieve):
    found = in_words(built(retrieve).exhaustive(), [[]], [()], 4)[0]
    assert len(found) == 4
    assert not any(found.values())


def test_an_empty_catalogue_has_nothing(retrieve):
    nothing = ExhaustiveSearch([], np.zeros((0, 4), np.float32), 0.8, None, 10)
    assert in_words(nothing, [["a"], []], [(), ()], 3) == [{}, {}]
    weighed = replace(retrieve.blend, weights={**retrieve.blend.weights})
    gone = ExhaustiveSearch([], np.zeros((0, 32), np.float32), 0.8, weighed, 10)
    assert in_words(gone, [LIKES[0]], [()], 3) == [{}]
