from dataclasses import replace

import numpy as np
import pytest

from m6rec.errors import AssetError
from m6rec.text import links
from m6rec.text.links import FILE, MAX_LIKES, NEW_EVERY, NEXT_MEMORY, fit, load, mixed

RNG = np.random.default_rng(0)
EVENTS = [(f"u{u}", f"i{i}", bool(RNG.random() < 0.7)) for u in range(400) for i in RNG.permutation(12)[:6]]
EVENTS += [("u0", "hated", False)]
FITTED = fit(EVENTS)
IDS = [f"i{i}" for i in range(12)]
ORDER = [FITTED.numbers[item] for item in IDS]


def only(kind):
    """The links with what is liked by the same users alone, or what is liked next."""
    width = FITTED.factor_IF.shape[1]
    if kind == "next":
        return replace(FITTED, factor_IF=np.zeros((13, width), np.float32))
    return replace(FITTED, next_weight_IK=np.zeros_like(FITTED.next_weight_IK))


def dense(rows, weights):
    """Weights between IDS, [12, 12]."""
    whole = np.zeros((13, 13))
    np.put_along_axis(whole, rows.astype(np.int64), weights, 1)
    return whole[np.ix_(ORDER, ORDER)]


def test_factors_rebuild_who_liked_what():
    """Two kinds of items, two kinds of users: a like of one kind pulls its kind alone."""
    kinds = fit([(f"u{u}", f"{'ab'[u % 2]}{i}", True) for u in range(80) for i in RNG.permutation(8)[:5]])
    pulls = replace(kinds, next_weight_IK=np.zeros_like(kinds.next_weight_IK)).pulls(["a0"])
    assert min(pulls[kinds.numbers[f"a{i}"]] for i in range(8)) > 3 * max(
        pulls[kinds.numbers[f"b{i}"]] for i in range(8)
    )


def test_the_factors_of_a_user_are_a_weighted_least_squares():
    liked, links_alike = ["i3", "i5"], only("alike")
    weights = np.ones(13)
    weights[[FITTED.numbers["i3"], FITTED.numbers["i5"]]] = FITTED.confidence * np.array([FITTED.memory, 1])
    wanted = np.isin([*FITTED.numbers], liked).astype(float)
    factors = FITTED.factor_IF.astype(float)
    ridge = np.vstack([factors * weights[:, None] ** 0.5, np.eye(factors.shape[1]) * FITTED.regularisation**0.5])
    told = np.concatenate([wanted * weights**0.5, np.zeros(factors.shape[1])])
    pulls = np.maximum(factors @ np.linalg.lstsq(ridge, told)[0], 0)
    np.testing.assert_allclose(links_alike.pulls(liked), FITTED.weight * pulls / pulls.max(), atol=1e-3)


def test_next_are_the_positive_weights_of_a_regression_on_the_likes_before():
    before, after = [], []
    for user in range(400):
        known = np.zeros(12)
        for item in [item for who, item, liked in EVENTS if who == f"u{user}" and liked and item in IDS]:
            if known.any():
                before.append(known)
                after.append(np.eye(12)[IDS.index(item)])
            known = NEXT_MEMORY * known + np.eye(12)[IDS.index(item)]
    before, after = np.array(before), np.array(after)
    gram = before.T @ before + links.NEXT_REGULARISATION * np.eye(12)
    expected = np.maximum(np.linalg.solve(gram, before.T @ after), 0)
    np.testing.assert_allclose(dense(FITTED.next_IK, FITTED.next_weight_IK), expected, atol=1e-6)


def test_what_always_follows_is_pulled_most():
    follows = fit([(f"u{n}", item, True) for n in range(30) for item in (f"x{n % 5}", "a", "b")])
    assert next(iter(follows.strongest(["a"], 1))) == "b"
    assert follows.pulls(["a"])[follows.numbers["b"]] > follows.pulls(["b"])[follows.numbers["a"]]


def test_what_counts_is_chosen_on_the_latest_likes():
    """A walk on a ring, where only the last like tells, and sets without an order, where the next tells nothing."""
    starts = RNG.integers(30, size=300)
    ring = fit([(f"u{n}", f"i{(start + step) % 30}", True) for n, start in enumerate(starts) for step in range(10)])
    assert (ring.memory, ring.weight) == (min(links.MEMORIES), min(links.WEIGHTS))
    kinds = [(f"u{u}", f"{u % 8}-{i}", True) for u in range(400) for i in RNG.permutation(12)[:8]]
    assert fit(kinds).weight > min(links.WEIGHTS)


def test_what_is_next_is_a_sum_in_which_the_latest_like_weighs_most():
    three, four = (dense(FITTED.next_IK, FITTED.next_weight_IK)[n] for n in (3, 4))
    summed = NEXT_MEMORY * three + four
    both = only("next").pulls(["i3", "never heard of", "i4"])[ORDER]
    np.testing.assert_allclose(both, summed / summed.max(), rtol=1e-4, atol=1e-6)


def test_pulls_are_of_one_scale_and_of_the_likes_that_count():
    assert FITTED.pulls(["i3", "i4"]).max() <= FITTED.weight + 1
    assert only("next").pulls(["i3"]).max() == pytest.approx(1)
    assert only("alike").pulls(["i3"]).max() == pytest.approx(FITTED.weight)
    assert not FITTED.pulls([]).any()
    np.testing.assert_array_equal(FITTED.pulls(["i4", "i3", "i4"]), FITTED.pulls(["i3", "i4"]))
    many = fit([("u", f"x{n}", True) for n in range(MAX_LIKES + 9)])
    ids = [f"x{n}" for n in range(MAX_LIKES + 9)]
    np.testing.assert_array_equal(many.pulls(ids), many.pulls(ids[9:]))


def test_where_all_pulls_are_faint_they_stay_so():
    faint = replace(FITTED, factor_IF=FITTED.factor_IF * 1e-5, next_weight_IK=FITTED.next_weight_IK * 1e-6)
    assert 0 < faint.pulls(["i3"]).max() < 0.01


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
    assert few.next_IK.shape == few.next_weight_IK.shape == (13, 3)
    np.testing.assert_array_equal(few.next_weight_IK, FITTED.next_weight_IK[:, :3])


def test_saved_and_loaded(tmp_path):
    odd = fit([("a", 'line\nfeed, "quote"', True), ("a", "b", True)])
    odd.save(tmp_path)
    back = load(tmp_path)
    assert back.numbers == odd.numbers
    assert (back.confidence, back.regularisation, back.memory, back.weight) == (
        odd.confidence,
        odd.regularisation,
        odd.memory,
        odd.weight,
    )
    for name in ("factor_IF", "next_IK", "next_weight_IK"):
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
    known, new = [f"k{n}" for n in range(35)], ["n0", "n1", "n2", "n3"]
    whole = mixed(known, new, early=True)
    assert [whole.index(item) for item in new] == [9, 19, 29, 38]
    assert [item for item in whole if item[0] == "k"] == known
    later = mixed(known, new, early=False)
    assert [later.index(item) for item in new] == [19, 29, 37, 38]
    assert [item for item in later if item[0] == "k"] == known
    assert mixed([], new, early=False) == new
