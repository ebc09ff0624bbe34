import numpy as np
import pytest

from m6rec.errors import AssetError
from m6rec.text import factors
from m6rec.text.factors import FILE, MAX_LIKES, NEW_EVERY, RANK, ease, fit, load, mixed

RNG = np.random.default_rng(0)
EVENTS = [(f"u{u}", f"i{i}", bool(RNG.random() < 0.7)) for u in range(40) for i in RNG.permutation(12)[:6]]
EVENTS += [("u0", "hated", False)]
FITTED = fit(EVENTS)


def test_products_are_the_weights_of_ease():
    liked = np.array([[(f"u{u}", f"i{i}", True) in EVENTS for i in range(12)] for u in range(40)], float)
    expected = ease(liked.T @ liked, factors.REGULARISATION)
    ids = [f"i{i}" for i in range(12)]
    order = [FITTED.numbers[item] for item in ids]
    np.testing.assert_allclose(FITTED.source_IF[order] @ FITTED.targets(ids).T, expected, atol=1e-6)


def test_ease_rebuilds_each_item_from_the_others():
    gram = np.array([[4.0, 1], [1, 2]])
    # Each column solves a ridge regression on the other item alone: 1 / (4 + 2) and 1 / (2 + 2).
    np.testing.assert_allclose(ease(gram, 2), [[0, 1 / 6], [1 / 4, 0]])


def test_a_taste_is_a_sum_in_which_the_latest_weighs_most():
    a, b = (FITTED.source_IF[FITTED.numbers[item]] for item in ("i3", "i4"))
    np.testing.assert_allclose(FITTED.taste(["i3", "never heard of", "i4"]), 0.81 * a + b, rtol=1e-6)
    np.testing.assert_array_equal(FITTED.taste([]), np.zeros(RANK))
    np.testing.assert_allclose(FITTED.taste(["i3"] * 500), FITTED.taste(["i3"] * MAX_LIKES))


def test_what_nobody_likes_is_known_and_what_nobody_saw_is_new():
    assert FITTED.new(["i1", "hated", "other"]).tolist() == [False, False, True]
    targets = FITTED.targets(["hated", "other"])
    assert targets.shape == (2, RANK)
    assert not targets.any()
    nothing = fit([])
    assert not nothing.targets(["x"]).any()
    assert not nothing.taste(["x"]).any()


def test_only_the_most_liked_have_factors(monkeypatch):
    monkeypatch.setattr(factors, "MAX_ITEMS", 2)
    events = [("a", "x", True), ("b", "x", True), ("a", "y", False), ("a", "z", True), ("a", "z", True)]
    assert list(fit(events).numbers) == ["x", "z"]


def test_saved_and_loaded(tmp_path):
    odd = fit([("a", 'line\nfeed, "quote"', True), ("a", "b", True)])
    odd.save(tmp_path)
    back = load(tmp_path)
    assert back.numbers == odd.numbers
    np.testing.assert_array_equal(back.source_IF, odd.source_IF)
    np.testing.assert_array_equal(back.target_IF, odd.target_IF)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    (tmp_path / FILE).write_bytes(b"not a tensor")
    with pytest.raises(AssetError, match="holds no readable factors"):
        load(tmp_path)


def test_every_tenth_is_new_while_there_are_both():
    assert NEW_EVERY == 10
    whole = mixed([f"k{n}" for n in range(25)], ["n0", "n1", "n2", "n3"])
    assert [whole.index(f"n{n}") for n in range(4)] == [9, 19, 27, 28]
    assert [item for item in whole if item[0] == "k"] == [f"k{n}" for n in range(25)]
