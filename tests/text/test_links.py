from dataclasses import replace

import numpy as np
import pytest

from m6rec.errors import AssetError
from m6rec.text import links
from m6rec.text.links import ALIKE_WEIGHT, FILE, MAX_LIKES, NEW_EVERY, NEXT_WEIGHT, ease, fit, load, mixed

RNG = np.random.default_rng(0)
EVENTS = [(f"u{u}", f"i{i}", bool(RNG.random() < 0.7)) for u in range(40) for i in RNG.permutation(12)[:6]]
EVENTS += [("u0", "hated", False)]
FITTED = fit(EVENTS)
IDS = [f"i{i}" for i in range(12)]
ORDER = [FITTED.numbers[item] for item in IDS]


def dense(rows, weights):
    """Weights between IDS, [12, 12]."""
    whole = np.zeros((13, 13))
    np.put_along_axis(whole, rows.astype(np.int64), weights, 1)
    return whole[np.ix_(ORDER, ORDER)]


def test_alike_are_the_positive_weights_of_ease():
    liked = np.array([[(f"u{u}", item, True) in EVENTS for item in IDS] for u in range(40)], float)
    expected = np.maximum(ease(liked.T @ liked, links.REGULARISATION), 0)
    np.testing.assert_allclose(dense(FITTED.alike_IK, FITTED.alike_weight_IK), expected, atol=1e-6)


def test_next_are_the_positive_weights_of_a_regression_on_the_likes_before():
    before, after = [], []
    for user in range(40):
        known = np.zeros(12)
        for item in [item for who, item, liked in EVENTS if who == f"u{user}" and liked and item in IDS]:
            if known.any():
                before.append(known)
                after.append(np.eye(12)[IDS.index(item)])
            known = links.NEXT_MEMORY * known + np.eye(12)[IDS.index(item)]
    before, after = np.array(before), np.array(after)
    gram = before.T @ before + links.REGULARISATION * np.eye(12)
    expected = np.maximum(np.linalg.solve(gram, before.T @ after), 0)
    np.testing.assert_allclose(dense(FITTED.next_IK, FITTED.next_weight_IK), expected, atol=1e-6)


def test_what_always_follows_is_pulled_most():
    follows = fit([(f"u{n}", item, True) for n in range(30) for item in (f"x{n % 5}", "a", "b")])
    assert next(iter(follows.strongest(["a"], 1))) == "b"
    assert follows.pulls(["a"])[follows.numbers["b"]] > follows.pulls(["b"])[follows.numbers["a"]]


def test_ease_rebuilds_each_item_from_the_others():
    gram = np.array([[4.0, 1], [1, 2]])
    # Each column solves a ridge regression on the other item alone: 1 / (4 + 2) and 1 / (2 + 2).
    np.testing.assert_allclose(ease(gram, 2), [[0, 1 / 6], [1 / 4, 0]])


def test_pulls_are_a_sum_in_which_the_latest_like_weighs_most():
    three, four = FITTED.pulls(["i3"]), FITTED.pulls(["i4"])
    alike = replace(FITTED, next_weight_IK=np.zeros_like(FITTED.next_weight_IK)).pulls(["i3"])
    both = FITTED.pulls(["i3", "never heard of", "i4"])
    np.testing.assert_allclose(both, 0.81 * alike + 0.36 * (three - alike) + four, rtol=1e-4, atol=1e-6)
    assert not FITTED.pulls([]).any()
    np.testing.assert_allclose(FITTED.pulls(["i3"] * 500), FITTED.pulls(["i3"] * MAX_LIKES))
    row = FITTED.numbers["i3"]
    expected = ALIKE_WEIGHT * FITTED.alike_weight_IK[row].sum() + NEXT_WEIGHT * FITTED.next_weight_IK[row].sum()
    assert three.sum() == pytest.approx(expected, rel=1e-5)


def test_the_strongest_are_those_of_the_greatest_pulls():
    pull_I = FITTED.pulls(["i3", "i4"])
    strongest = FITTED.strongest(["i3", "i4"], 4)
    assert sorted(strongest.values()) == pytest.approx(np.sort(pull_I)[-4:])
    assert all(pull_I[FITTED.numbers[item]] == pull for item, pull in strongest.items())
    assert len(FITTED.strongest(["i3"], 100)) == (FITTED.pulls(["i3"]) > 0).sum()
    assert FITTED.strongest([], 4) == {}


def test_what_nobody_likes_is_known_and_what_nobody_saw_is_new():
    assert FITTED.new(["i1", "hated", "other"]).tolist() == [False, False, True]
    assert not FITTED.pulls(["hated", "other"]).any()
    nothing = fit([])
    assert nothing.new(["x"]).all()
    assert nothing.strongest(["x"], 3) == {}


def test_only_the_most_liked_have_links(monkeypatch):
    monkeypatch.setattr(links, "MAX_ITEMS", 2)
    events = [("a", "x", True), ("b", "x", True), ("a", "y", False), ("a", "z", True), ("a", "z", True)]
    assert list(fit(events).numbers) == ["x", "z"]


def test_only_the_strongest_links_are_kept(monkeypatch):
    monkeypatch.setattr(links, "NUM_LINKS", 3)
    few = fit(EVENTS)
    assert few.next_IK.shape == few.alike_weight_IK.shape == (13, 3)
    np.testing.assert_array_equal(few.next_weight_IK, FITTED.next_weight_IK[:, :3])


def test_saved_and_loaded(tmp_path):
    odd = fit([("a", 'line\nfeed, "quote"', True), ("a", "b", True)])
    odd.save(tmp_path)
    back = load(tmp_path)
    assert back.numbers == odd.numbers
    for name in ("alike_IK", "alike_weight_IK", "next_IK", "next_weight_IK"):
        np.testing.assert_array_equal(getattr(back, name), getattr(odd, name))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    replace(odd, next_IK=odd.next_IK + 7).save(tmp_path)
    with pytest.raises(AssetError, match=r"holds no readable links .*names others"):
        load(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a tensor")
    with pytest.raises(AssetError, match="holds no readable links"):
        load(tmp_path)


def test_every_tenth_is_new_while_there_are_both():
    assert NEW_EVERY == 10
    whole = mixed([f"k{n}" for n in range(25)], ["n0", "n1", "n2", "n3"])
    assert [whole.index(f"n{n}") for n in range(4)] == [9, 19, 27, 28]
    assert [item for item in whole if item[0] == "k"] == [f"k{n}" for n in range(25)]
