import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m6rec.data.feedback import KINDS, Rule, fitted, infer, kind_of, parse
from m6rec.errors import DataError


def frame(values, kinds=None):
    return pl.DataFrame(
        {"value": values, "kind": kinds or [""] * len(values)}, schema={"value": pl.Float64, "kind": pl.String}
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None, None], {None: True}),
        ([1, 1, 1], {1: True, None: True}),
        ([0, 1, 1], {0: False, 1: True}),
        ([-1, 1, 0], {-1: False, 0: False, 1: True}),
        ([1, 2, 3, 4, 5], {3: False, 4: True, 5: True, None: True}),
        ([0.5, 3.5, 4, 5], {3.5: False, 4: True}),
        ([3, 8, 10, 6], {6: False, 7: True}),
        ([1, 2, 17, 400], {1: True, 400: True}),
        ([0, 2, 17, 400], {0: False, 2: True}),
        ([0.2, 0.9, 0.4], {0.2: False, 0.9: True}),
    ],
)
def test_what_counts_as_positive_is_inferred_from_values(values, expected):
    rule, why = infer(frame(values))
    assert {value: rule.positive("", value) for value in expected} == expected
    assert why


def test_stars_are_worded_by_degree():
    rule, _ = infer(frame([1, 2, 3, 4, 5]))
    assert [rule.rating(stars).words for stars in (1, 3, 5)] == ["hated {}", "was lukewarm about {}", "loved {}"]
    assert rule.rating(5).strength == 1.0
    assert rule.rating(1e300).strength == 1.0


def test_kinds_of_a_shop():
    kinds = ["view", "cart", "purchase", "search", "skip", "test drive"]
    rule, why = infer(frame([None] * 6, kinds))
    assert [rule.positive(kind, None) for kind in kinds] == [None, True, True, None, False, True]
    assert "neither: search, view" in why


def test_views_are_positive_where_there_is_nothing_more():
    rule, _ = infer(frame([None, None], ["view", "search"]))
    assert rule.positive("view", None) is True
    assert rule.positive("search", None) is None


def test_ratings_beside_other_kinds_are_compared():
    rule, _ = infer(frame([5, 1, None], ["rating", "rating", "view"]))
    assert [rule.positive("rating", 5), rule.positive("rating", 1), rule.positive("view", None)] == [True, False, None]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rating>=4", Rule(test=">=", number=4, high=4)),
        ("value > 0", Rule(test=">", number=0)),
        ("event=purchase", Rule(kinds=("purchase",))),
        ("event in click, addToCart", Rule(kinds=("cart", "click"))),
    ],
)
def test_rules_are_parsed(text, rule):
    assert parse(text) == rule


@pytest.mark.parametrize("text", ["", "rating", ">=4", "rating>=many", "event in ", "4"])
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(DataError, match="rating>=4"):
        parse(text)


RULES = st.builds(
    Rule,
    kinds=st.lists(st.sampled_from([*KINDS, "own"]), max_size=3, unique=True).map(tuple),
    test=st.sampled_from(["", ">=", "<", "=="]),
    number=st.floats(-2, 6),
)


@given(RULES, st.lists(st.tuples(st.sampled_from(["", "own", "other", *KINDS]), st.none() | st.floats(-3, 9))))
def test_a_frame_is_labelled_as_single_events_are(rule, events):
    table = frame([value for _, value in events], [kind for kind, _ in events])
    labels = table.select(rule.label().alias("label"))["label"].to_list() if events else []
    expected = [rule.positive(kind, value) for kind, value in events]
    assert labels == [None if of is None else int(of) for of in expected]


@given(RULES)
def test_a_rule_survives_json(rule):
    assert Rule.from_json(rule.to_json()) == rule


def test_a_rule_is_fitted_to_the_range_of_the_log():
    assert fitted(parse("rating>=4"), frame([2, 5])) == Rule(test=">=", number=4, low=1, high=5)


def test_words_of_the_wild_are_known():
    assert [kind_of(word) for word in ("Add-To-Cart", "page_view", "PLAY", "spin")] == ["cart", "view", "play", "spin"]
