import numpy as np
import pytest

from m6rec.serving import index as module
from m6rec.serving.index import Index

RNG = np.random.default_rng(0)
IDS = [f"i{n}" for n in range(50)]
VECTORS = RNG.standard_normal((50, 8)).astype(np.float32)


@pytest.fixture
def index():
    made = Index(8)
    made.put(IDS, VECTORS)
    return made


def by_hand(query, count, allowed):
    scores = {item: float(vector @ query) for item, vector in zip(IDS, VECTORS, strict=True) if item in allowed}
    return sorted(scores.items(), key=lambda pair: -pair[1])[:count]


FILTERS = [{}, {"only": IDS[5:9]}, {"without": IDS[:20]}, {"only": IDS[:30], "without": IDS[10:]}, {"only": ["none"]}]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("count", [1, 7, 100])
def test_search_equals_sorting_what_the_filters_leave(index, filters, count):
    allowed = set(filters.get("only", IDS)) - set(filters.get("without", ()))
    found, expected = index.search(VECTORS[3], count, **filters), by_hand(VECTORS[3], count, allowed)
    assert [item for item, _ in found] == [item for item, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], rel=1e-5, abs=1e-5)


def test_a_put_replaces_and_a_removal_forgets(index):
    index.put(["i3", "new", "i3"], np.stack([VECTORS[0], VECTORS[1], 100 * VECTORS[2]]))
    assert len(index) == 51
    assert index.search(VECTORS[2], 1)[0][0] == "i3"
    np.testing.assert_array_equal(index.vectors(["new", "i3"]), [VECTORS[1], 100 * VECTORS[2]])
    assert index.remove(["i3", "i3", "unknown"]) == 1
    assert "i3" not in index
    assert "i3" not in {item for item, _ in index.search(VECTORS[2], 60)}
    assert index.remove([*IDS, "new"]) == 50
    assert index.search(VECTORS[2], 5) == []


def test_a_large_catalogue_is_kept_in_8_bits_and_searched_the_same(monkeypatch):
    monkeypatch.setattr(module, "EXACT", 1_000)
    vectors = RNG.standard_normal((3_000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"n{n}" for n in range(3_000)]
    index = Index(32)
    index.put(ids[:900], vectors[:900])
    np.testing.assert_array_equal(index.vectors(["n5"]), vectors[5:6])
    index.put(ids[900:1_100], vectors[900:1_100])  # here it changes
    index.put(ids[1_100:], vectors[1_100:])
    assert len(index) == 3_000
    np.testing.assert_allclose(index.vectors(["n5", "n2000"]), vectors[[5, 2000]], atol=0.01)
    found = [{item for item, _ in index.search(vectors[n], 50, without=["n7"])} for n in range(20)]
    exact = [{ids[m] for m in np.argsort(-(vectors @ vectors[n]))[:51]} - {"n7"} for n in range(20)]
    assert np.mean([len(a & b) / 50 for a, b in zip(found, exact, strict=True)]) > 0.9
    assert index.search(vectors[2], 1)[0][0] == "n2"
    assert index.remove(["n2"]) == 1
    assert "n2" not in {item for item, _ in index.search(vectors[2], 100)}
    assert {item for item, _ in index.search(vectors[2], 9, only=ids[10:13])} == set(ids[10:13])


@pytest.mark.parametrize("exact", [1_000, 20], ids=["exact", "rounded"])
def test_arrays_make_the_same_index_again(monkeypatch, exact):
    monkeypatch.setattr(module, "EXACT", exact)
    index = Index(8)
    index.put(IDS, VECTORS)
    index.remove(IDS[3:9])
    index.put(IDS[:2], VECTORS[10:12])
    again = Index.of(8, *index.arrays())
    assert again.search(VECTORS[3], 60) == index.search(VECTORS[3], 60)
    for one in (index, again):
        one.remove(["i20"])
        one.put(["i21", "new"], VECTORS[3:5])
    assert again.search(VECTORS[3], 60, without=["i30"]) == index.search(VECTORS[3], 60, without=["i30"])
    assert len(Index.of(8, *Index(8).arrays())) == 0
