"""An index answers as sorting all vectors does, whatever was put in, replaced and taken out before."""

import threading
from typing import Any

import faiss
import numpy as np
import pytest

from m6rec.predicate import NO_CATEGORY, Attributes, Predicate
from m6rec.retrieval.index import Index, IndexConfig

WIDTH = 16
ONE_LIST = IndexConfig()
MANY_LISTS = IndexConfig(exact=150, recall=0.99, neighbours=20, growth=1.5, gathered=0.1)
CONFIGS = pytest.mark.parametrize("config", [ONE_LIST, MANY_LISTS], ids=["exact", "lists"])
NAMES = [f"i{n}" for n in range(600)]
CATEGORIES = ("drama", "war", "comedy", "rare")
SHARES = (0.5, 0.3, 0.8, 0.02)
PREDICATES = [
    Predicate(),
    Predicate(any_of=("drama",)),
    Predicate(any_of=("rare", "war")),
    Predicate(any_of=("unheard of",)),
    Predicate(any_of=(NO_CATEGORY, "rare")),
    Predicate(all_of=("drama", "comedy"), none_of=("war",)),
    Predicate(ranges={"available": (1, 1)}),
    Predicate(any_of=("comedy",), ranges={"available": (1, 1), "price": (float("-inf"), 20)}),
    Predicate(ranges={"unheard of": (0, 1)}),
]


def rounded(vectors):
    return vectors.astype(np.float16).astype(np.float32)


def vectors_of(rng, count):
    """Unit vectors around a few centres."""
    centres = np.random.default_rng(9).standard_normal((12, WIDTH))
    vectors = centres[rng.integers(12, size=count)] + 0.6 * rng.standard_normal((count, WIDTH))
    return rounded(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def attributes_of(rng):
    numbers = {"available": float(rng.random() < 0.7)} | ({"price": rng.uniform(0, 40)} if rng.random() < 0.8 else {})
    chosen = tuple(name for name, share in zip(CATEGORIES, SHARES, strict=True) if rng.random() < share)
    return Attributes(chosen, numbers)


class Reference:
    """What an index is to answer: a dictionary, sorted at each search."""

    def __init__(self):
        self.vectors, self.attributes = {}, {}

    def put(self, ids, vectors, attributes):
        self.vectors |= dict(zip(ids, vectors, strict=True))
        self.attributes |= dict(zip(ids, attributes, strict=True))

    def remove(self, ids):
        for item in ids:
            self.vectors.pop(item, None)

    def search(self, query, count, where, without, scores):
        products = {
            item: float(vector @ query) + scores.get(item, 0.0)
            for item, vector in self.vectors.items()
            if item not in without and where.admits(self.attributes[item])
        }
        return sorted(products.items(), key=lambda one: -one[1])[:count]


def changed_at_random(seed, config, steps=40):
    """An index and its reference after a random sequence of changes, with what was drawn from."""
    rng = np.random.default_rng(seed)
    index, reference = Index(WIDTH, config), Reference()
    for step in range(steps):
        index.some(PREDICATES[step % len(PREDICATES)], 1)  # from now on its rows are kept, and change with the index
        ids = rng.choice(NAMES, rng.integers(1, 60)).tolist()  # an id may come twice, and be known already
        if rng.random() < 0.7:
            given = vectors_of(rng, len(ids)), [attributes_of(rng) for _ in ids]
            index.put(ids, *given)
            reference.put(ids, *given)
        else:
            there = {item for item in ids if item in reference.vectors}
            assert index.remove(ids) == len(there)
            reference.remove(ids)
    return index, reference, rng


@CONFIGS
@pytest.mark.parametrize("seed", range(4))
def test_any_search_equals_sorting_all_vectors(config, seed):
    index, reference, rng = changed_at_random(seed, config)
    assert len(index) == len(reference.vectors)
    assert all((name in index) == (name in reference.vectors) for name in NAMES)
    shares = []
    for number in range(80):
        query, where = vectors_of(rng, 1)[0], PREDICATES[number % len(PREDICATES)]
        count = int(rng.choice([1, 20, 1_000]))
        without = set(rng.choice(NAMES, rng.integers(0, 100)).tolist())
        scores = dict.fromkeys(rng.choice(NAMES, 5).tolist(), 0.4) if number % 2 else {}
        found = index.search(query, count, where=where, without=without, scores=scores)
        expected = reference.search(query, count, where, without, scores)
        assert len(found) == len(expected) == len(dict(found))
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        everything = dict(reference.search(query, 1_000, where, without, scores))
        assert {item: everything[item] for item, _ in found} == pytest.approx(dict(found), abs=1e-5)
        if config is ONE_LIST or count > len(expected):
            assert {item for item, _ in found} == {item for item, _ in expected}
        if expected:
            shares.append(len(dict(found).keys() & dict(expected).keys()) / len(expected))
    assert np.mean(shares) >= config.recall


def test_many_vectors_are_in_lists_of_which_not_all_are_looked_into():
    index, *_ = changed_at_random(0, MANY_LISTS)
    lists = index.arrays()[1]["lists"]
    kept: Any = faiss.deserialize_index(lists)
    assert kept.nlist > 40
    assert kept.nprobe < kept.nlist


@CONFIGS
def test_what_was_taken_out_never_comes_back(config):
    index, reference, rng = changed_at_random(5, config)
    gone = list(reference.vectors)[::2]
    index.remove(gone)
    for _ in range(3):  # new items take their rows
        index.put([f"new{n}" for n in range(300)], vectors_of(rng, 300))
        index.remove([f"new{n}" for n in range(0, 300, 2)])
    found = {item for item, _ in index.search(vectors_of(rng, 1)[0], 10_000)}
    assert not found & set(gone)
    assert found == {*list(reference.vectors)[1::2], *(f"new{n}" for n in range(1, 300, 2))}
    assert "drama" not in {name for item in found if item.startswith("new") for name in index.some(DRAMA, 10_000)}


DRAMA = Predicate(any_of=("drama",))


@CONFIGS
def test_ids_by_a_predicate(config):
    index, reference, _ = changed_at_random(6, config)
    for where in PREDICATES:
        expected = {item for item in reference.vectors if where.admits(reference.attributes[item])}
        assert set(index.some(where, 10_000)) == expected
        assert len(index.some(where, 7)) == min(7, len(expected))
        assert index.admitted(where, ["nobody", *NAMES]) == [name for name in NAMES if name in expected]


@CONFIGS
def test_arrays_make_the_same_index_again(config):
    index, reference, rng = changed_at_random(7, config)
    ids, arrays = index.arrays()
    again = Index.of(WIDTH, ids, arrays, [reference.attributes[item] for item in ids], config)
    for where in PREDICATES:
        query = vectors_of(rng, 1)[0]
        assert again.search(query, 50, where=where) == index.search(query, 50, where=where)
    new = vectors_of(rng, 2)
    for one in (index, again):
        one.remove(ids[:30])
        one.put([ids[0], "new"], new)
    assert again.search(new[0], 700, without=ids[40:50]) == index.search(new[0], 700, without=ids[40:50])
    assert len(Index.of(WIDTH, *Index(WIDTH).arrays())) == 0


@CONFIGS
def test_vectors_are_kept_in_half_precision(config):
    index, reference, _ = changed_at_random(8, config)
    ids = list(reference.vectors)
    np.testing.assert_array_equal(index.vectors(ids), np.stack([reference.vectors[item] for item in ids]))
    assert index.vectors([]).shape == (0, WIDTH)
    index.put(["long"], np.full((1, WIDTH), 1 / 3, np.float32))
    np.testing.assert_allclose(index.vectors(["long"]), 1 / 3, rtol=2**-11)


def test_a_filter_far_from_the_query_still_finds_all_that_are_asked_for():
    rng = np.random.default_rng(0)
    index = Index(WIDTH, MANY_LISTS)
    here, there = np.eye(2, WIDTH, dtype=np.float32)
    near = here + 0.1 * rng.standard_normal((800, WIDTH)).astype(np.float32)
    far = there + 0.1 * rng.standard_normal((400, WIDTH)).astype(np.float32)
    index.put([f"n{n}" for n in range(800)], near, [Attributes()] * 800)
    index.put([f"f{n}" for n in range(400)], far, [Attributes(("far",))] * 400)
    found = index.search(here, 350, where=Predicate(any_of=("far",)))
    assert len(found) == 350
    best = {f"f{n}" for n in np.argsort(-(rounded(far) @ here))[:350]}
    assert len(best & dict(found).keys()) >= 0.9 * 350


def test_searches_go_on_while_vectors_are_put_and_lists_made_anew():
    rng = np.random.default_rng(0)
    index, stays = Index(WIDTH, MANY_LISTS), vectors_of(rng, 50)
    index.put([f"s{n}" for n in range(50)], stays, [Attributes(("stays",))] * 50)
    wrong, done = [], threading.Event()

    def search():
        while not done.is_set():
            found = index.search(stays[0], 50, where=Predicate(any_of=("stays",)))
            if {item for item, _ in found} != {f"s{n}" for n in range(50)}:
                wrong.append(found)
            if any(item.startswith("gone") for item, _ in index.search(stays[1], 500)):
                wrong.append([("gone", 0.0)])

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(40):
        index.put([f"p{number}-{n}" for n in range(20)], vectors_of(rng, 20))
        index.put([f"p{number}-0", f"p{number}-1"], vectors_of(rng, 2))
        index.remove([f"p{number}-2"])
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(index) == 50 + 40 * 19
