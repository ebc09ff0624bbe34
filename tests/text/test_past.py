from fractions import Fraction
from math import exp, log, sqrt
from typing import NamedTuple

import numpy as np
import pytest

from m6rec.text import past as module
from m6rec.text.past import STATISTICS, TRACES, Past, Popularity, scale, without_neighbours
from m6rec.types import Event, Feedback, Item

ITEMS = {
    "x": Item("x", "X", ("crime",), {"year": 2010}),
    "y": Item("y", "Y", ("crime", "drama"), {"year": 2005}),
    "z": Item("z", "Z"),
}
LOG = [
    Event("a", "x", 1, 1),
    Event("b", "x", 2, 1),
    Event("a", "y", 3, 0),
    Event("b", "y", 4, 0),
    Event("c", "x", 5, 1),
]


def likes(event):
    return event.value > 0


def feedback(event):
    return Feedback(likes(event), event.value, "chose {}")


def make(items=ITEMS):
    return Past(items, feedback)


def test_the_most_liked_come_first_and_follow_what_happens():
    past = make().observe_all(LOG)
    assert past.most_liked() == ["x", "y"]
    past.observe_all(Event(user, "z", 6, 1) for user in "abcd")
    assert past.most_liked() == ["z", "x", "y"]


def random_log(num_events, num_users, num_items, *, seed=0):
    """A log in which users come back and see items again."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(num_users, size=num_events), rng.integers(num_items, size=num_events)
    return [
        Event(f"u{user}", f"i{item}", time, int(rng.choice([0, 0, 1, 3])))
        for time, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True))
    ]


CATALOGUE = {
    f"i{n}": Item(f"i{n}", f"T{n}", ("odd",) * (n % 2) + ("third",) * (n % 3 == 0), {"year": 1990 + n} if n % 5 else {})
    for n in range(40)
}


class Seen(NamedTuple):
    user: str
    item: str
    liked: bool
    surprise: float
    value: float
    value_surprise: float


def reference(events, user, item):
    """One row of statistics, counted anew from the events by the definitions, pair by pair."""
    rate, recent, recent_value, tally, seen = 0.5, {}, {}, {}, []
    for event in events:
        liked = likes(event)
        times, sum_of_user, values_of_user = tally.get(event.user, (0, 0.0, 0.0))
        viewed = [other for other in seen if other.item == event.item]
        expected = (sum(other.liked for other in viewed) + 5 * rate) / (len(viewed) + 5)
        values = [other.value for other in seen]
        mean = sum(values) / len(values) if values else event.value
        spread = sqrt(sum((value - mean) ** 2 for value in values) / len(values)) if values else 0
        over = event.value - (sum(other.value for other in viewed) + 5 * mean) / (len(viewed) + 5)
        recent[event.user] = 0.85 * recent.get(event.user, rate) + 0.15 * liked
        recent_value[event.user] = 0.85 * recent_value.get(event.user, 0) + 0.15 * over
        tally[event.user] = times + 1, sum_of_user + liked - expected, values_of_user + over
        surprise = (over - values_of_user / (times + 5)) / spread if spread > 1e-9 else 0
        seen.append(Seen(event.user, event.item, liked, surprise, event.value, over))
        rate = sum(other.liked for other in seen) / len(seen)
    mean = sum(other.value for other in seen) / len(seen) if seen else 0
    own = [mine for mine in seen if mine.user == user]
    viewers = [other for other in seen if other.item == item]
    user_share = (sum(mine.liked for mine in own) + 5 * rate) / (len(own) + 5)
    prior = (sum(viewer.liked for viewer in viewers) + 5 * rate) / (len(viewers) + 5)
    wanted = CATALOGUE[item].categories
    alike = [mine for mine in own for category in CATALOGUE[mine.item].categories if category in wanted]
    year = CATALOGUE[item].details.get("year")
    numbered = [(CATALOGUE[mine.item].details.get("year"), mine) for mine in own]
    near = [(exp(-abs(its - year) / 5), mine) for its, mine in numbered if year and its]
    table = []
    for viewer in viewers:
        theirs = [other for other in seen if other.user == viewer.user != user]
        pairs = [(mine, other) for mine in own for other in theirs if mine.item == other.item]
        both_like = sum(mine.liked and other.liked for mine, other in pairs)
        disagree = sum(mine.liked != other.liked for mine, other in pairs)
        both_dislike = len(pairs) - both_like - disagree
        correlation = sum(mine.surprise * other.surprise for mine, other in pairs) / (len(pairs) + 10) / 0.8
        agreement = max(both_like + both_dislike - disagree, 0)
        table.append((both_like, both_dislike, disagree, agreement, correlation))
    *weights, correlations = zip(*table, strict=True) if table else [()] * 5
    shares = [
        (sum(w for w, viewer in zip(weight, viewers, strict=True) if viewer.liked) + 3 * prior) / (sum(weight) + 3)
        for weight in weights
    ]
    surprise = sum(c * viewer.surprise for c, viewer in zip(correlations, viewers, strict=True))
    times, sum_of_user, values_of_user = tally.get(user, (0, 0.0, 0.0))
    value_surprise = values_of_user / (times + 5)
    weight = sum(of for of, _ in near) + 3
    return [
        user_share,
        log(1 + len(own)),
        recent.get(user, rate),
        prior,
        log(1 + len(viewers)),
        (sum(mine.liked for mine in alike) + 3 * user_share) / (len(alike) + 3),
        *shares,
        surprise / (sum(map(abs, correlations)) + 0.5),
        sum_of_user / (times + 5),
        (sum(mine.value for mine in own) + 5 * mean) / (len(own) + 5),
        (sum(viewer.value for viewer in viewers) + 5 * mean) / (len(viewers) + 5),
        value_surprise,
        recent_value.get(user, 0),
        (sum(mine.value_surprise for mine in alike) + 3 * value_surprise) / (len(alike) + 3),
        (sum(of * mine.liked for of, mine in near) + 3 * user_share) / weight,
        (sum(of * mine.value_surprise for of, mine in near) + 3 * value_surprise) / weight,
    ]


def test_statistics_worked_by_hand():
    row = make().observe_all(LOG).statistics("c", ["y"])[0]
    # Three of five events are likes. c liked x, as a and b did before disliking y. It is five years older than x.
    near, surprise, share = exp(-1), Fraction(5, 14), Fraction(4, 6)
    expected = {
        "user_share": (1 + 5 * Fraction(3, 5)) / (1 + 5),
        "user_count": log(2),
        "recent_share": Fraction(85, 100) * Fraction(2, 4) + Fraction(15, 100),
        "item_share": (0 + 5 * Fraction(3, 5)) / (2 + 5),
        "item_count": log(3),
        "category_share": (1 + 3 * Fraction(2, 3)) / (1 + 3),
        "like_minded_share": (0 + 3 * Fraction(3, 7)) / (2 + 3),
        "dislike_minded_share": Fraction(3, 7),
        "opposed_share": Fraction(3, 7),
        "agreeing_share": (0 + 3 * Fraction(3, 7)) / (2 + 3),
        "neighbour_surprise": 0,  # the likes of a and b were like all before
        "user_surprise": surprise / (1 + 5),
        "user_value": share,
        "item_value": Fraction(3, 7),
        "value_surprise": surprise / (1 + 5),
        "recent_value_surprise": Fraction(15, 100) * surprise,
        "category_value_surprise": (surprise + 3 * surprise / 6) / (1 + 3),
        "near_share": (near + 3 * share) / (near + 3),
        "near_value_surprise": (near * surprise + 3 * surprise / 6) / (near + 3),
    }
    assert tuple(expected) == STATISTICS
    assert row.tolist() == pytest.approx([float(value) for value in expected.values()], rel=1e-6)


def test_traces_worked_by_hand():
    past = make()
    for time, (user, value) in enumerate([("a", 1.0), ("b", 0.0), ("a", 1.0)]):
        past.observe(Event(user, "x", 10 * time, value))
    first, last = past.traces("a")
    expected = {
        "liked": 1,
        "value": 1,
        "value_surprise": 1 - (1 + 5 * Fraction(1, 2)) / (2 + 5),
        # Expected of the item, and of this user, whose one event was 1 - 1/2 above.
        "surprise": 1 - (1 + 5 * Fraction(1, 2)) / (2 + 5) - Fraction(1, 2) / (1 + 5),
        "item_share": (1 + 5 * Fraction(1, 2)) / (2 + 5),
        "item_count": log(3),
        "pause": log(21),
    }
    assert tuple(expected) == TRACES
    assert last.tolist() == pytest.approx([float(value) for value in expected.values()], rel=1e-6)
    assert first.tolist() == pytest.approx([1, 1, 0, 0.5, 0.5, 0, 0])
    assert past.traces("nobody").shape == (0, len(TRACES))


def test_statistics_of_strangers_are_priors():
    rate = 3 / 5
    past = make().observe_all(LOG)
    row = past.statistics("nobody", ["z"])[0]
    priors = [rate, 0, 0, 0, rate, 0]  # of values and of what is near; values are 0 and 1
    assert row.tolist() == pytest.approx([rate, 0, rate, rate, 0, rate, rate, rate, rate, rate, 0, 0, rate, *priors])
    known = past.statistics("nobody", ["y"])[0]
    item = 3 / 7
    shares = [rate, 0, rate, item, log(3), rate, item, item, item, item, 0, 0, rate, item, *priors[1:]]
    assert known.tolist() == pytest.approx(shares)
    assert (
        make().statistics("nobody", ["x", "not in the catalogue"]).tolist()
        == [pytest.approx([0.5, 0, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0, 0, 0, 0, 0.5, 0])] * 2
    )
    assert past.statistics("a", []).shape == (0, len(STATISTICS))


def test_history_is_the_users_own_in_order():
    past = make().observe_all(LOG)
    assert list(past.history("a")) == [LOG[0], LOG[2]]
    assert list(past.history("nobody")) == []
    assert past.seen("b") == {"x", "y"}
    assert past.like_rate == 3 / 5
    assert make().like_rate == 0.5


@pytest.mark.parametrize("tables", [1, 2, 1000])
def test_kept_up_to_date_equals_counted_anew(monkeypatch, tables):
    """Whether a user's neighbours are still in memory, were evicted (few tables) or never asked for."""
    monkeypatch.setattr(module, "NEIGHBOUR_BYTES", tables * 20 * 1024)
    events, rng = random_log(160, 12, 15), np.random.default_rng(1)
    past = make(CATALOGUE)
    for number, event in enumerate(events):
        if number % 5 == 0:
            user, item = f"u{rng.integers(14)}", f"i{rng.integers(17)}"
            expected = reference(events[:number], user, item)
            np.testing.assert_allclose(past.statistics(user, [item])[0], expected, rtol=1e-4, atol=1e-5)
        past.observe(event)


def test_repeated_events_of_one_user_with_one_item():
    events = [
        Event("u1", "i1", 1, 1),
        Event("u2", "i1", 2, 1),
        Event("u2", "i1", 3, 0),
        Event("u1", "i1", 4, 1),
        Event("u2", "i2", 5, 1),
    ]
    expected = reference(events, "u1", "i2")
    late, early = make(CATALOGUE).observe_all(events), make(CATALOGUE)
    for event in events:
        early.observe(event)
        early.statistics("u1", ["i2"])
    np.testing.assert_allclose(late.statistics("u1", ["i2"])[0], expected, rtol=1e-5)
    np.testing.assert_allclose(early.statistics("u1", ["i2"])[0], expected, rtol=1e-5)
    # u1 likes i1 twice, u2 once: two pairs of likes, two of disagreement. Nobody is their own neighbour.
    item = (1 + 5 * 4 / 5) / (1 + 5)
    assert late.statistics("u1", ["i2"])[0, 6] == pytest.approx((2 + 3 * item) / (2 + 3))


@pytest.mark.parametrize("first_question", [5, 1500, 2999])
def test_more_users_than_a_table_starts_with(first_question):
    """Room is made for all users, whether they come before the first question or after it."""
    events = [Event(f"u{n}", f"i{n % 3}", n, n % 2) for n in range(3000)]
    events += [Event("u0", "i1", 3000, 1), Event("u2998", "i0", 3001, 1)]
    grown, fresh = make(CATALOGUE), make(CATALOGUE).observe_all(events)
    for event in events:
        grown.observe(event)
        if event.time >= first_question and event.time % 500 in (0, 499):
            grown.statistics("u0", ["i2"])
            grown.statistics(event.user, ["i0", "i1"])
    for user in ("u0", "u1", "u1023", "u1024", "u2998", "u2999"):
        np.testing.assert_allclose(
            grown.statistics(user, ["i0", "i1", "i2"]), fresh.statistics(user, ["i0", "i1", "i2"]), rtol=1e-4, atol=1e-5
        )


def test_questions_leave_no_trace():
    """What is asked, of whom and in which order changes no answer."""
    events = random_log(120, 10, 12)
    quiet, asked = make(CATALOGUE), make(CATALOGUE)
    for event in events:
        asked.statistics("stranger", ["i39", "nothing"])
        asked.statistics(event.user, [f"i{n}" for n in range(11, -1, -1)])
        quiet.observe(event)
        asked.observe(event)
    items = [f"i{n}" for n in range(12)]
    for user in ("u3", "u0", "u7", "stranger"):
        whole = quiet.statistics(user, items)
        np.testing.assert_allclose(asked.statistics(user, items), whole, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(quiet.statistics(user, items[::-1])[::-1], whole)
        np.testing.assert_array_equal(quiet.statistics(user, items[4:5])[0], whole[4])


def test_verdicts_are_those_of_the_latest_event_of_each_other_user():
    again = [Event("a", "x", 6, 0), Event("a", "x", 7, 1), Event("c", "x", 8, 0), Event("b", "x", 9, 1)]
    past = make().observe_all([*LOG, *again])
    assert past.verdicts("x", without="nobody") == (2, 3)
    assert past.verdicts("x", without="a") == (1, 2)
    assert past.verdicts("unknown", without="a") == (0, 0)
    past.observe_all([Event("a", "z", 10, 1), Event("b", "z", 11, 0)])
    assert past.also_liked("x", ["z", "y", "unknown"], without="c") == [(1, 1), (0, 0), (0, 0)]
    assert past.also_liked("z", ["x"], without="") == [(1, 2)]
    assert past.also_liked("z", ["x"], without="a") == [(0, 1)]


def test_reviews_are_those_that_others_wrote():
    written = [Event("a", "x", 6, 1, "first"), Event("b", "x", 7, 0, "second"), Event("b", "y", 8, 0, "of y")]
    past = make().observe_all([*LOG, *written])
    assert past.reviews("x", without="nobody") == ["first", "second"]
    assert past.reviews("x", without="a") == ["second"]
    assert past.reviews("unknown", without="a") == []


def test_passing_events_count_for_the_user_alone_and_leave_nothing():
    events = random_log(600, 12, 40)
    past, plain = (Past(CATALOGUE, feedback).observe_all(events[:590]) for _ in range(2))
    items = list(CATALOGUE)
    new = [Event("u3", "i5", 700, 1), Event("u3", "i7", 700, 0)]
    for user in ("u3", "u4", "nobody"):
        plain.statistics(user, items)
    others = {user: past.statistics(user, items) for user in ("u4", "nobody")}
    with past.passing("u3", new):
        assert list(past.history("u3")[-2:]) == new
        assert len(past.traces("u3")) == len(past.history("u3"))
        told = past.statistics("u3", items)
        for user, before in others.items():
            np.testing.assert_array_equal(past.statistics(user, items), before)
        assert past.verdicts("i5", without="u3") == plain.verdicts("i5", without="u3")
    assert not np.array_equal(told[:, :3], plain.statistics("u3", items)[:, :3])
    assert not np.array_equal(told[:, 6:11], plain.statistics("u3", items)[:, 6:11])
    with past.passing("nobody", [Event("nobody", "i1", 700, 1)]):
        assert past.statistics("nobody", items)[0, 1] > 0
    for event in events[590:]:
        past.observe(event)
        plain.observe(event)
    for user in ("u3", "u4", "nobody"):
        np.testing.assert_array_equal(past.statistics(user, items), plain.statistics(user, items))
        np.testing.assert_array_equal(past.traces(user), plain.traces(user))
        assert list(past.history(user)) == list(plain.history(user))


def test_passing_events_count_as_observed_ones_do_for_their_user():
    events = random_log(300, 8, 40)
    past, observed = (Past(CATALOGUE, feedback).observe_all(events) for _ in range(2))
    fresh = [item for item in CATALOGUE if item not in past.seen("u1")][:2]
    new = [Event("u1", item, 400, 1) for item in fresh]
    observed.observe_all(new)
    others = [item for item in CATALOGUE if item not in past.seen("u1") and item not in fresh]
    with past.passing("u1", new):
        mine = past.statistics("u1", others)
    columns = [STATISTICS.index(name) for name in ("user_count", "like_minded_share", "dislike_minded_share")]
    np.testing.assert_allclose(mine[:, columns], observed.statistics("u1", others)[:, columns], atol=0.02)


def test_a_failure_while_events_pass_leaves_nothing_either():
    past = make().observe_all(LOG)
    before = past.statistics("a", ["x", "z"])
    with pytest.raises(RuntimeError, match="within"), past.passing("a", [Event("a", "z", 9, 1)]):
        raise RuntimeError("within")
    np.testing.assert_array_equal(past.statistics("a", ["x", "z"]), before)
    assert past.seen("a") == {"x", "y"}


def test_popularity_counts_what_happened_without_who():
    past = make().observe_all(LOG)
    assert past.popularity(["x", "y", "z", "w"]) == Popularity((5, 3, 3.0), {"x": (3, 3, 3.0), "y": (2, 0, 0.0)})
    assert make().popularity(["x"]) == Popularity()


def test_a_past_that_goes_on_from_popularity_lacks_neighbours_alone():
    """One user's events after those of others, who are known by name or only counted."""
    events = random_log(600, 9, 30)
    others, mine = ([event for event in events if (event.user == "u0") == own] for own in (False, True))
    named = Past(CATALOGUE, feedback).observe_all(others)
    counted = Past(CATALOGUE, feedback, named.popularity(CATALOGUE))
    for past in (named, counted):
        past.observe_all(mine)
    np.testing.assert_array_equal(counted.traces("u0"), named.traces("u0"))
    by_name, by_count = (past.statistics("u0", list(CATALOGUE)) for past in (named, counted))
    neighbours = [number for number, name in enumerate(STATISTICS) if "minded" in name or "neighbour" in name]
    neighbours += [STATISTICS.index("opposed_share"), STATISTICS.index("agreeing_share")]
    others_I = np.delete(np.arange(len(STATISTICS)), neighbours)
    np.testing.assert_array_equal(by_count[:, others_I], by_name[:, others_I])
    seen = [event.item for event in mine]
    unseen = [number for number, item in enumerate(CATALOGUE) if item not in seen]
    shares = [number for number in neighbours if STATISTICS[number] != "neighbour_surprise"]
    expected = np.repeat(by_count[unseen][:, [STATISTICS.index("item_share")]], len(shares), 1)
    np.testing.assert_array_equal(by_count[unseen][:, shares], expected)
    assert not np.array_equal(by_name[:, neighbours], by_count[:, neighbours])


def test_values_are_those_that_were_observed():
    log = [Event("a", "x", 1, 2.5), Event("b", "x", 2, 0), Event("b", "y", 3, 2.5)]
    assert make().values == []
    assert make().observe_all(log).values == [0, 2.5]


def test_statistics_without_neighbours_are_those_of_a_user_whom_nobody_is_compared_with():
    events = random_log(60, 5, 6)
    items = {f"i{n}": Item(f"i{n}", "") for n in range(6)}
    past = Past(items, feedback).observe_all(events)
    mine = [event for event in events if event.user == "u0"]
    others = Past(items, feedback).observe_all(event for event in events if event.user != "u0")
    alone = Past(items, feedback, others.popularity(items)).observe_all(mine)
    together = past.statistics("u0", list(items))
    expected = alone.statistics("u0", list(items))
    found = without_neighbours(together)
    np.testing.assert_allclose(found[:, 3:5], expected[:, 3:5], rtol=1e-6)
    np.testing.assert_allclose(found[:, 6:11], expected[:, 6:11], rtol=1e-6)
    assert (found[:, 6:11] != together[:, 6:11]).any()
    assert (found[:, 11] == together[:, 11]).all()


def test_a_scale_has_the_year_or_the_price_of_an_item():
    assert scale(Item("i", "", details={"year": 2010, "price": 9.5})) == 2
    assert scale(Item("i", "", details={"price": 10})) - scale(Item("i", "", details={"price": 5})) == pytest.approx(
        2 * log(2)
    )
    for nothing in ({}, {"year": "2010"}, {"price": 0}, {"price": "free"}):
        assert scale(Item("i", "", details=nothing)) is None


def test_what_is_near_follows_a_year_that_changes():
    past = make().observe_all(LOG)
    before = past.statistics("c", ["z"])[0]
    past.know([Item("z", "Z", details={"year": 2010})])
    after = past.statistics("c", ["z"])[0]
    assert [STATISTICS[n] for n in np.flatnonzero(before != after)] == ["near_share", "near_value_surprise"]
