from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest

from m6rec import hooks
from m6rec.errors import AssetError
from m6rec.features.interactions import MAX_LIKES
from m6rec.retrieval.blend import FILE, TEXT, HeldOut, WeightConfig, fit, load, ranked, weigh
from m6rec.retrieval.sources import MEMORY

RNG = np.random.default_rng(0)
EVENTS = [(f"u{u}", f"i{i}", bool(RNG.random() < 0.7)) for u in range(400) for i in RNG.permutation(12)[:6]]
EVENTS += [("u0", "hated", False)]
FITTED = fit(EVENTS)


def test_the_score_is_the_weighted_sum_of_parts_scaled_to_one():
    liked = ["i3", "never heard of", "i4"]
    rows = np.array([FITTED.numbers["i4"], FITTED.numbers["i3"]])
    expected = np.zeros(12)
    for (name, source), part in zip(hooks.SOURCES.all().items(), FITTED.parts(liked), strict=True):
        score = np.maximum(source.scores(FITTED.arrays[name], [rows])[0], 0)
        np.testing.assert_allclose(part, score / score.max(), rtol=1e-5)
        expected += FITTED.weights[name] * part
    np.testing.assert_allclose(FITTED.scores(liked), expected, rtol=1e-5)
    assert sum(FITTED.weights.values()) == pytest.approx(1)


def test_likes_count_once_at_their_latest_and_the_latest_of_many():
    np.testing.assert_array_equal(FITTED.scores(["i4", "i3", "i4"]), FITTED.scores(["i3", "i4"]))
    assert not FITTED.scores([]).any()
    assert not FITTED.scores(["hated", "other"]).any()
    many = fit([("u", f"x{n}", True) for n in range(MAX_LIKES + 9)])
    ids = [f"x{n}" for n in range(MAX_LIKES + 9)]
    np.testing.assert_array_equal(many.scores(ids), many.scores(ids[9:]))


def test_what_nobody_likes_is_unknown():
    assert set(FITTED.numbers) == {f"i{n}" for n in range(12)}
    nothing = fit([("u", "x", False)])
    assert nothing.strongest(["x"], 3) == {}
    assert nothing.text == FITTED.text


def test_where_all_scores_of_a_source_are_faint_they_stay_so():
    faint = {name: dict(arrays) for name, arrays in FITTED.arrays.items()}
    faint["ease"]["weight_W"] = faint["ease"]["weight_W"] * 1e-6
    place = hooks.SOURCES.names().index("ease")
    assert 0 < replace(FITTED, arrays=faint).parts(["i3"])[place].max() < 0.01


def test_the_strongest_are_those_of_the_greatest_scores():
    score_I = FITTED.scores(["i3", "i4"])
    strongest = FITTED.strongest(["i3", "i4"], 4)
    assert sorted(strongest.values()) == pytest.approx(np.sort(score_I)[-4:])
    assert all(score_I[FITTED.numbers[item]] == score for item, score in strongest.items())
    assert len(FITTED.strongest(["i3"], 100)) == (FITTED.scores(["i3"]) > 0).sum()


def likes_of_kinds():
    """Ten kinds of items; a user likes those of one kind."""
    random = np.random.default_rng(0)
    return [(f"u{u}", f"{u % 10}-{i}", True) for u in range(200) for i in random.permutation(20)[:8]]


KNOWN = fit(likes_of_kinds())
IDS = list(KNOWN.numbers)


def held_out(num_questions, *, text, sources, seed=0):
    """Each part names the kind of the target in its share of the questions, and another one in the others."""
    random = np.random.default_rng(seed)
    kind_I = np.array([int(item[0]) for item in IDS])
    target_Q = random.integers(len(IDS), size=num_questions)
    told_2Q = kind_I[target_Q] + np.where(random.random((2, num_questions)) < [[text], [sources]], 0, 5)
    items_IE = np.eye(10, dtype=np.float32)[kind_I]
    liked = [random.permutation(np.flatnonzero(kind_I == kind % 10))[:3] for kind in told_2Q[1]]
    return HeldOut(
        liked=liked,
        seen=[np.setdiff1d(row, target) for row, target in zip(liked, target_Q, strict=True)],
        target_Q=target_Q,
        users_QE=np.eye(10, dtype=np.float32)[told_2Q[0] % 10],
        ids=IDS,
        items_IE=items_IE,
    )


def test_what_tells_held_out_likes_weighs_most():
    assert weigh(KNOWN, held_out(1_000, text=0.9, sources=0.1)).text > 0.5
    assert weigh(KNOWN, held_out(1_000, text=0.1, sources=0.9)).text < 0.2
    asked = held_out(1_000, text=0.9, sources=0.1, seed=1)
    learned = weigh(KNOWN, held_out(1_000, text=0.9, sources=0.1))
    assert ranked(learned, asked).mean() < ranked(KNOWN, asked).mean()
    assert sum(learned.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(("telling", "least", "most"), [("oldest", 0.9, 1.0), ("latest", 0.4, 0.7)])
def test_a_source_remembers_as_long_as_it_helps(telling, least, most):
    """Three of the oldest likes tell the kind of what is liked next, or the latest alone; the others are of others."""
    random, kind_I = np.random.default_rng(0), np.array([int(item[0]) for item in IDS])
    target_Q = random.integers(len(IDS), size=400)
    liked = []
    for target in target_Q:
        same = random.permutation(np.setdiff1d(np.flatnonzero(kind_I == kind_I[target]), target))
        others = random.permutation(np.flatnonzero(kind_I != kind_I[target]))[:5]
        other = random.permutation(np.flatnonzero(kind_I == (kind_I[target] + 1) % 10))[:6]
        liked.append(np.concatenate([same[:3], others] if telling == "oldest" else [other, same[:1]]))
    asked = replace(held_out(400, text=0, sources=0), liked=liked, seen=liked, target_Q=target_Q)
    learned = weigh(KNOWN, asked, WeightConfig(least=0))
    assert all(least <= float(arrays[MEMORY][0]) <= most + 1e-6 for arrays in learned.arrays.values())
    few = weigh(KNOWN, asked.drawn(50), WeightConfig(least=0))
    assert all(few.arrays[name][MEMORY] == KNOWN.arrays[name][MEMORY] for name in KNOWN.arrays)


def test_other_questions_of_the_kind_change_weights_little():
    first, second = (weigh(KNOWN, held_out(1_000, text=0.6, sources=0.6, seed=seed)).text for seed in (0, 1))
    assert abs(first - second) < 0.05


def test_a_few_questions_change_little_and_none_nothing():
    few, many = (weigh(KNOWN, held_out(count, text=1, sources=0)).text for count in (2, 1_000))
    assert FITTED.text - 0.01 < few < FITTED.text + 0.1 < many
    assert weigh(KNOWN, held_out(0, text=1, sources=0)) is KNOWN
    one = held_out(1, text=1, sources=0)
    others = np.setdiff1d(np.arange(len(IDS)), one.target_Q)
    assert weigh(KNOWN, replace(one, seen=[others])) is KNOWN  # no other item may be recommended


def test_sources_that_weigh_too_little_are_left_out(tmp_path):
    asked = held_out(1_000, text=1, sources=0)
    alone = weigh(KNOWN, asked, WeightConfig(least=0.3))  # by default each weighs .2, and text is better
    assert (dict(alone.weights), dict(alone.arrays)) == ({TEXT: 1.0}, {})
    assert not alone.scores(["1-2"]).any()
    alone.save(tmp_path)
    assert not load(tmp_path).scores(["1-2"]).any()
    ials = KNOWN.weighed({"ials": 0.5, TEXT: 0.5})
    assert list(ials.arrays) == ["ials"]
    np.testing.assert_allclose(ials.scores(["1-2"]), 0.5 * KNOWN.parts(["1-2"])[0])


def test_ranks_are_by_the_score_of_all_that_is_not_seen():
    """New items among them, of which no source knows."""
    asked = held_out(20, text=0.5, sources=0.5)
    vectors_IE = RNG.standard_normal((203, 10)).astype(np.float32)
    asked = replace(asked, ids=[*IDS, "new", "newer", "newest"], items_IE=vectors_IE)
    found, by_text = ranked(KNOWN, asked), ranked(None, asked)
    for number, target in enumerate(asked.target_Q):
        product_I = vectors_IE @ asked.users_QE[number]
        score_I = np.float32(KNOWN.text) * product_I
        score_I[:200] += KNOWN.scores([IDS[row] for row in asked.liked[number]])
        for score, rank in ((score_I, found[number]), (product_I, by_text[number])):
            others = np.setdiff1d(np.arange(203), [*asked.seen[number], target])
            assert rank == 1 + (score[others] > score[target]).sum() + (score[others] == score[target]).sum() / 2


def test_saved_and_loaded(tmp_path):
    odd = replace(fit([("a", 'line\nfeed, "quote"', True), ("a", "b.c", True)]), weights={**FITTED.weights, TEXT: 0.7})
    odd.save(tmp_path)
    back = load(tmp_path)
    assert (back.numbers, back.weights) == (odd.numbers, odd.weights)
    np.testing.assert_array_equal(back.scores(["b.c"]), odd.scores(["b.c"]))
    assert list(back.arrays) == list(odd.arrays)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_that_is_no_blend_is_refused(tmp_path, monkeypatch):
    FITTED.save(tmp_path)
    replace(FITTED, numbers={"a": 0}).save(tmp_path)
    with pytest.raises(AssetError, match=r"holds no readable blend \(1 items, but .* scores another number"):
        load(tmp_path)
    strange = {"of-another-package": FITTED.arrays["ease"]}
    replace(FITTED, arrays=strange, weights={"of-another-package": 1.0}).save(tmp_path)
    with pytest.raises(AssetError, match="there is no candidate source 'of-another-package'"):
        load(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a tensor")
    with pytest.raises(AssetError, match="holds no readable blend"):
        load(tmp_path)


@dataclass(frozen=True)
class Popular:
    """A source from outside of the package."""

    weight: float = 2.0

    def fit(self, likes):
        return {"count_I": np.bincount(np.concatenate(likes.sequences), minlength=likes.num_items)}

    def scores(self, arrays, likes):
        return np.stack([arrays["count_I"] * (len(rows) > 0) for rows in likes])


def test_a_further_source_is_fitted_weighed_and_saved(tmp_path, monkeypatch):
    monkeypatch.setitem(hooks.SOURCES.registered, "popular", Popular())
    blend = fit(EVENTS)
    count = Counter(item for _, item, liked in EVENTS if liked)
    np.testing.assert_allclose(
        blend.scores(["i1"]) - FITTED.scores(["i1"]) * blend.text / FITTED.text,
        [2 * blend.text * count[item] / max(count.values()) for item in blend.numbers],
        rtol=1e-3,
    )
    blend.save(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).scores(["i1"]), blend.scores(["i1"]))
    assert "popular" in weigh(fit(likes_of_kinds()), held_out(10, text=1, sources=0)).weights
