import doctest

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m6rec.errors import DataError
from m6rec.text import verbalise
from m6rec.text.verbalise import age, ago, capped_count, listed, month, percentile, price, quote, share


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(verbalise)
    assert result.attempted >= 12
    assert result.failed == 0


@settings(deadline=None)
@given(st.text(), st.integers(2, 300))
@example('The "real" McCoy\n', 40)
def test_a_quoted_text_is_one_short_line_within_its_quotes(text: str, longest: int) -> None:
    quoted = quote(text, longest=longest)
    inner = quoted[1:-1]
    assert quoted == f'"{inner}"'
    assert '"' not in inner
    assert len(inner) <= longest
    assert quoted.splitlines() == [quoted]
    assert quote(inner, longest=longest) == quoted  # once is enough


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_words_of_ranks_and_shares_follow_the_order(a: float, b: float) -> None:
    low, high = sorted((a, b))
    order = [words for _, words in verbalise._PERCENTILES]
    assert order.index(percentile(low)) >= order.index(percentile(high))
    assert int(share(low)[:-1]) <= int(share(high)[:-1])
    assert int(share(low)[:-1]) % 5 == 0
    assert abs(int(share(a)[:-1]) - 100 * a) <= 2.5 + 1e-6


def test_edges_of_the_buckets() -> None:
    assert [ago(s) for s in (0, 59, 60, 3599, 3600, 86399, 86400)] == [
        "just now", "just now", "1 minute ago", "59 minutes ago", "1 hour ago", "23 hours ago", "1 day ago",
    ]  # fmt: skip
    days = (29, 30, 59, 60, 364, 365, 729, 730)
    assert [ago(86400 * day) for day in days] == [
        "29 days ago", "1 month ago", "1 month ago", "2 months ago", "11 months ago",
        "1 year ago", "1 year ago", "2 years ago",
    ]  # fmt: skip
    assert [age(y) for y in (9.9, 10, 19, 20, 23, 24, 26, 27, 29, 99, 100)] == [
        "under ten", "in their teens", "in their teens", *["in their early twenties"] * 2,
        *["in their mid twenties"] * 2,
        *["in their late twenties"] * 2, "in their late nineties", "over a hundred",
    ]  # fmt: skip
    assert [percentile(p) for p in (1, 0.99, 0.9899, 0.95, 0.5, 0.4999, 0)] == [
        *["very high, among the top 1%"] * 2, *["very high, among the top 5%"] * 2, "above average, in the upper half",
        "below average, in the lower half", "very low, among the bottom 10%",
    ]  # fmt: skip
    assert [price(x) for x in (4.99, 5, 9.99, 999, 1000)] == [
        "under $5", "$5 to $10", "$5 to $10", "$500 to $1000", "$1000 or more",
    ]  # fmt: skip
    assert [share(0.025), share(0.0249), share(0.575), share(0.3, step=10)] == ["5%", "0%", "60%", "30%"]
    assert [capped_count(10), capped_count(11), capped_count(2, cap=1)] == [
        "10 times", "more than 10 times", "more than 1 time",
    ]  # fmt: skip
    assert [month(0), month(86400 * 31), month(-1)] == ["January", "February", "December"]
    assert listed(["A", "B"]) == "A and B"


@pytest.mark.parametrize(
    "call",
    [
        lambda: ago(-1),
        lambda: ago(float("nan")),
        lambda: age(-1),
        lambda: percentile(1.01),
        lambda: percentile(float("nan")),
        lambda: share(-0.01),
        lambda: capped_count(-1),
        lambda: price(float("nan")),
    ],
)
def test_what_has_no_words_is_an_error(call) -> None:
    with pytest.raises(DataError):
        call()
