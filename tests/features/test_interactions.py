from fractions import Fraction
from math import exp, log, sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest

from m6rec.features import interactions as module
from m6rec.features.interactions import (
    EVENT_FEATURES,
    FEATURES,
    InteractionStore,
    PopularityCounts,
    without_neighbours,
)
from m6rec.features.item_columns import numbers
from m6rec.features.layout import NEIGHBOURLY, SHARES
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
    return InteractionStore(items, feedback)


def test_the_most_liked_come_first_and_follow_what_happens():
    interactions = make().update_all(LOG)
    assert interactions.most_liked() == ["x", "y"]
    interactions.update_all(Event(user, "z", 6, 1) for user in "abcd")
    assert interactions.most_liked() == ["z", "x", "y"]


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
    scale = 0.35 * np.std([log(1 + float(of.details["year"])) for of in CATALOGUE.values() if of.details])
    years = [float(CATALOGUE[of].details.get("year", 0)) for of in (item, *(mine.item for mine in own))]
    near = [
        (exp(-abs(log((1 + year) / (1 + years[0]))) / scale), mine)
        for year, mine in zip(years[1:], own, strict=True)
        if year and years[0]
    ]
    neighbours = [other for other in seen if other.user != user]
    weights, liking = [0, 0, 0], [0, 0, 0]
    odds, trusted, product, squares, together = 0.0, 2.0, 0.0, 0.1, 0.0
    for mine in own:
        pairs = [
            (one, other)
            for one in neighbours
            for other in neighbours
            if one.user == other.user and one.item == mine.item != item == other.item
        ]
        agreeing = [other.liked for one, other in pairs if one.liked == mine.liked]
        opposed = [other.liked for one, other in pairs if one.liked != mine.liked]
        for kind, crowd in ((0 if mine.liked else 1, agreeing), (2, opposed)):
            liking[kind] += sum(crowd)
            weights[kind] += len(crowd)
        trust = len(agreeing) / (len(agreeing) + 20)
        trusted += trust
        after = (sum(agreeing) + 3 * prior + 0.5) / (len(agreeing) - sum(agreeing) + 3 * (1 - prior) + 0.5)
        odds += trust * log(after / ((3 * prior + 0.5) / (3 * (1 - prior) + 0.5)))
        correlation = sum(one.surprise * other.surprise for one, other in pairs) / (len(pairs) + 10) / 0.8
        correlation *= len(pairs) / (len(pairs) + 30)
        product += correlation * abs(correlation) * mine.surprise
        squares += correlation**2
        fans = [sum(other.liked for other in seen if other.item == of) for of in (item, mine.item)]
        together += mine.liked * sum(agreeing) / sqrt(fans[0] * fans[1] + 1)
    shares = [(sum_of + 3 * prior) / (weight + 3) for sum_of, weight in zip(liking, weights, strict=True)]
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
        odds / trusted,
        product / squares,
        log(1 + together),
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
    row = make().update_all(LOG).features("c", ["y"])[0]
    # Three of five events are likes. c liked x, as a and b did before disliking y. Two items have a year.
    near, surprise, share = exp(-2 / 0.35), Fraction(5, 14), Fraction(4, 6)
    expected: dict[str, Any] = {
        "user_share": (1 + 5 * Fraction(3, 5)) / (1 + 5),
        "user_count": log(2),
        "recent_share": Fraction(85, 100) * Fraction(2, 4) + Fraction(15, 100),
        "item_share": (0 + 5 * Fraction(3, 5)) / (2 + 5),
        "item_count": log(3),
        "category_share": (1 + 3 * Fraction(2, 3)) / (1 + 3),
        "like_minded_share": (0 + 3 * Fraction(3, 7)) / (2 + 3),
        "dislike_minded_share": Fraction(3, 7),
        "opposed_share": Fraction(3, 7),
        "agreeing_odds": log((9 / 7 + 0.5) / (2 + 12 / 7 + 0.5) / ((9 / 7 + 0.5) / (12 / 7 + 0.5))) / (1 + 2 * 11),
        "neighbour_surprise": 0,  # the likes of a and b were like all before
        "liked_together": 0,  # nobody liked both
        "user_surprise": surprise / (1 + 5),
        "user_value": share,
        "item_value": Fraction(3, 7),
        "value_surprise": surprise / (1 + 5),
        "recent_value_surprise": Fraction(15, 100) * surprise,
        "category_value_surprise": (surprise + 3 * surprise / 6) / (1 + 3),
        "near_share": (near + 3 * share) / (near + 3),
        "near_value_surprise": (near * surprise + 3 * surprise / 6) / (near + 3),
    }
    assert tuple(expected) == FEATURES
    assert row.tolist() == pytest.approx([float(value) for value in expected.values()], rel=1e-6)


def test_traces_worked_by_hand():
    interactions = make()
    for time, (user, value) in enumerate([("a", 1.0), ("b", 0.0), ("a", 1.0)]):
        interactions.update(Event(user, "x", 10 * time, value))
    first, last = interactions.event_features("a")
    expected: dict[str, Any] = {
        "liked": 1,
        "value": 1,
        "value_surprise": 1 - (1 + 5 * Fraction(1, 2)) / (2 + 5),
        # Expected of the item, and of this user, whose one event was 1 - 1/2 above.
        "surprise": 1 - (1 + 5 * Fraction(1, 2)) / (2 + 5) - Fraction(1, 2) / (1 + 5),
        "item_share": (1 + 5 * Fraction(1, 2)) / (2 + 5),
        "item_count": log(3),
        "pause": log(21),
    }
    assert tuple(expected) == EVENT_FEATURES
    assert last.tolist() == pytest.approx([float(value) for value in expected.values()], rel=1e-6)
    assert first.tolist() == pytest.approx([1, 1, 0, 0.5, 0.5, 0, 0])
    assert interactions.event_features("nobody").shape == (0, len(EVENT_FEATURES))


def test_statistics_of_strangers_are_priors():
    rate = 3 / 5
    interactions = make().update_all(LOG)
    row = interactions.features("nobody", ["z"])[0]
    priors = [rate, 0, 0, 0, rate, 0]  # of values and of what is near; values are 0 and 1
    assert row.tolist() == pytest.approx([rate, 0, rate, rate, 0, rate, rate, rate, rate, 0, 0, 0, 0, rate, *priors])
    known = interactions.features("nobody", ["y"])[0]
    item = 3 / 7
    shares = [rate, 0, rate, item, log(3), rate, item, item, item, 0, 0, 0, 0, rate, item, *priors[1:]]
    assert known.tolist() == pytest.approx(shares)
    assert (
        make().features("nobody", ["x", "not in the catalogue"]).tolist()
        == [pytest.approx([0.5, 0, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5, 0])] * 2
    )
    assert interactions.features("a", []).shape == (0, len(FEATURES))


def test_history_is_the_users_own_in_order():
    interactions = make().update_all(LOG)
    assert list(interactions.history("a")) == [LOG[0], LOG[2]]
    assert list(interactions.history("nobody")) == []
    assert interactions.seen("b") == {"x", "y"}
    assert interactions.like_rate == 3 / 5
    assert make().like_rate == 0.5


def test_what_is_kept_equals_what_is_counted_anew():
    events, rng = random_log(160, 12, 15), np.random.default_rng(1)
    interactions = make(CATALOGUE)
    for number, event in enumerate(events):
        if number % 5 == 0:
            user, item = f"u{rng.integers(14)}", f"i{rng.integers(17)}"
            expected = reference(events[:number], user, item)
            np.testing.assert_allclose(interactions.features(user, [item])[0], expected, rtol=1e-4, atol=1e-5)
        interactions.update(event)


def test_repeated_events_of_one_user_with_one_item():
    events = [
        Event("u1", "i1", 1, 1),
        Event("u2", "i1", 2, 1),
        Event("u2", "i1", 3, 0),
        Event("u1", "i1", 4, 1),
        Event("u2", "i2", 5, 1),
    ]
    expected = reference(events, "u1", "i2")
    late, early = make(CATALOGUE).update_all(events), make(CATALOGUE)
    for event in events:
        early.update(event)
        early.features("u1", ["i2"])
    np.testing.assert_allclose(late.features("u1", ["i2"])[0], expected, rtol=1e-5)
    np.testing.assert_allclose(early.features("u1", ["i2"])[0], expected, rtol=1e-5)
    # u1 likes i1 twice, u2 once: two pairs of likes, two of disagreement. Nobody is their own neighbour.
    item = (1 + 5 * 4 / 5) / (1 + 5)
    assert late.features("u1", ["i2"])[0, 6] == pytest.approx((2 + 3 * item) / (2 + 3))


def test_questions_leave_no_trace():
    """What is asked, of whom and in which order changes no answer."""
    events = random_log(120, 10, 12)
    quiet, asked = make(CATALOGUE), make(CATALOGUE)
    for event in events:
        asked.features("stranger", ["i39", "nothing"])
        asked.features(event.user, [f"i{n}" for n in range(11, -1, -1)])
        quiet.update(event)
        asked.update(event)
    items = [f"i{n}" for n in range(12)]
    for user in ("u3", "u0", "u7", "stranger"):
        whole = quiet.features(user, items)
        np.testing.assert_allclose(asked.features(user, items), whole, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(quiet.features(user, items[::-1])[::-1], whole)
        np.testing.assert_array_equal(quiet.features(user, items[4:5])[0], whole[4])


def test_verdicts_are_those_of_the_latest_event_of_each_other_user():
    again = [Event("a", "x", 6, 0), Event("a", "x", 7, 1), Event("c", "x", 8, 0), Event("b", "x", 9, 1)]
    interactions = make().update_all([*LOG, *again])
    assert interactions.like_counts("x", without="nobody") == (2, 3)
    assert interactions.like_counts("x", without="a") == (1, 2)
    assert interactions.like_counts("unknown", without="a") == (0, 0)
    interactions.update_all([Event("a", "z", 10, 1), Event("b", "z", 11, 0)])
    assert interactions.also_liked("x", ["z", "y", "unknown"], without="c") == [(1, 1), (0, 0), (0, 0)]
    assert interactions.also_liked("z", ["x"], without="") == [(1, 2)]
    assert interactions.also_liked("z", ["x"], without="a") == [(0, 1)]


def test_reviews_are_those_that_others_wrote():
    written = [Event("a", "x", 6, 1, "first"), Event("b", "x", 7, 0, "second"), Event("b", "y", 8, 0, "of y")]
    interactions = make().update_all([*LOG, *written])
    assert interactions.reviews("x", without="nobody") == ["first", "second"]
    assert interactions.reviews("x", without="a") == ["second"]
    assert interactions.reviews("unknown", without="a") == []


def test_passing_events_count_for_the_user_alone_and_leave_nothing():
    events = random_log(600, 12, 40)
    interactions, plain = (InteractionStore(CATALOGUE, feedback).update_all(events[:590]) for _ in range(2))
    items = list(CATALOGUE)
    fresh = next(item for item in CATALOGUE if item not in plain.seen("u3"))
    new = [Event("u3", "i5", 700, 1), Event("u3", "i7", 700, 0), Event("u3", fresh, 700, 0)]
    for user in ("u3", "u4", "nobody"):
        plain.features(user, items)
    others = {user: interactions.features(user, items) for user in ("u4", "nobody")}
    with interactions.overlay("u3", new):
        assert list(interactions.history("u3")[-3:]) == new
        assert fresh in interactions.seen("u3")
        assert len(interactions.event_features("u3")) == len(interactions.history("u3"))
        told = interactions.features("u3", items)
        for user, before in others.items():
            np.testing.assert_array_equal(interactions.features(user, items), before)
        assert interactions.like_counts("i5", without="u3") == plain.like_counts("i5", without="u3")
    assert interactions.seen("u3") == plain.seen("u3")
    assert not np.array_equal(told[:, :3], plain.features("u3", items)[:, :3])
    assert not np.array_equal(told[:, 6:12], plain.features("u3", items)[:, 6:12])
    with interactions.overlay("nobody", [Event("nobody", "i1", 700, 1)]):
        assert interactions.features("nobody", items)[0, 1] > 0
    for event in events[590:]:
        interactions.update(event)
        plain.update(event)
    for user in ("u3", "u4", "nobody"):
        np.testing.assert_array_equal(interactions.features(user, items), plain.features(user, items))
        np.testing.assert_array_equal(interactions.event_features(user), plain.event_features(user))
        assert list(interactions.history(user)) == list(plain.history(user))


def test_passing_events_count_as_observed_ones_do_for_their_user():
    events = random_log(300, 8, 40)
    interactions, observed = (InteractionStore(CATALOGUE, feedback).update_all(events) for _ in range(2))
    fresh = [item for item in CATALOGUE if item not in interactions.seen("u1")][:2]
    new = [Event("u1", item, 400, 1) for item in fresh]
    observed.update_all(new)
    others = [item for item in CATALOGUE if item not in interactions.seen("u1") and item not in fresh]
    with interactions.overlay("u1", new):
        mine = interactions.features("u1", others)
    columns = [FEATURES.index(name) for name in ("user_count", "like_minded_share", "dislike_minded_share")]
    np.testing.assert_allclose(mine[:, columns], observed.features("u1", others)[:, columns], atol=0.02)


def test_a_failure_while_events_pass_leaves_nothing_either():
    interactions = make().update_all(LOG)
    before = interactions.features("a", ["x", "z"])
    with pytest.raises(RuntimeError, match="within"), interactions.overlay("a", [Event("a", "z", 9, 1)]):
        raise RuntimeError("within")
    np.testing.assert_array_equal(interactions.features("a", ["x", "z"]), before)
    assert interactions.seen("a") == {"x", "y"}


def test_popularity_counts_what_happened_without_who():
    interactions = make().update_all(LOG)
    scales: Any = {"year": pytest.approx(log(2011 / 2006) / 2)}
    counts = {"x": (3, 3, 3.0), "y": (2, 0, 0.0)}
    assert interactions.popularity(["x", "y", "z", "w"]) == PopularityCounts((5, 3, 3.0), counts, scales)
    assert make().popularity(["x"]) == PopularityCounts(scales=scales)


def test_a_past_that_goes_on_from_popularity_lacks_neighbours_alone():
    """One user's events after those of others, who are known by name or only counted."""
    events = random_log(600, 9, 30)
    others, mine = ([event for event in events if (event.user == "u0") == own] for own in (False, True))
    named = InteractionStore(CATALOGUE, feedback).update_all(others)
    counted = InteractionStore(CATALOGUE, feedback, named.popularity(CATALOGUE))
    for interactions in (named, counted):
        interactions.update_all(mine)
    np.testing.assert_array_equal(counted.event_features("u0"), named.event_features("u0"))
    by_name, by_count = (interactions.features("u0", list(CATALOGUE)) for interactions in (named, counted))
    neighbours = [*range(NEIGHBOURLY.start, NEIGHBOURLY.stop)]
    others_I = np.delete(np.arange(len(FEATURES)), neighbours)
    np.testing.assert_array_equal(by_count[:, others_I], by_name[:, others_I])
    seen = [event.item for event in mine]
    unseen = [number for number, item in enumerate(CATALOGUE) if item not in seen]
    shares = [*range(SHARES.start, SHARES.stop)]
    expected = np.repeat(by_count[unseen][:, [FEATURES.index("item_share")]], len(shares), 1)
    np.testing.assert_array_equal(by_count[unseen][:, shares], expected)
    assert not np.array_equal(by_name[:, neighbours], by_count[:, neighbours])


def test_values_are_those_that_were_observed():
    log = [Event("a", "x", 1, 2.5), Event("b", "x", 2, 0), Event("b", "y", 3, 2.5)]
    assert make().values == []
    assert make().update_all(log).values == [0, 2.5]


def test_statistics_without_neighbours_are_those_of_a_user_whom_nobody_is_compared_with():
    events = random_log(60, 5, 6)
    items = {f"i{n}": Item(f"i{n}", "") for n in range(6)}
    interactions = InteractionStore(items, feedback).update_all(events)
    mine = [event for event in events if event.user == "u0"]
    others = InteractionStore(items, feedback).update_all(event for event in events if event.user != "u0")
    alone = InteractionStore(items, feedback, others.popularity(items)).update_all(mine)
    together = interactions.features("u0", list(items))
    expected = alone.features("u0", list(items))
    found = without_neighbours(together)
    np.testing.assert_allclose(found[:, 3:5], expected[:, 3:5], rtol=1e-6)
    np.testing.assert_allclose(found[:, 6:12], expected[:, 6:12], rtol=1e-6, atol=1e-9)  # products are kept in 32 bits
    assert (found[:, 6:12] != together[:, 6:12]).any()
    assert (found[:, 12] == together[:, 12]).all()


def test_any_number_of_an_item_is_one():
    found = numbers(Item("i", "", details={"year": 2010, "price": 9.5, "change": -1.0, "author": "Ann", "pages": "12"}))
    assert found == pytest.approx({"year": log(2011), "price": log(10.5), "change": -log(2)})
    assert numbers(Item("i", "", details={"a": float("nan"), "b": float("inf"), "c": 10**400})) == {}


def test_numbers_are_near_by_how_much_those_of_the_catalogue_differ():
    """Whatever they are called, and whatever they are measured in."""

    def near(details):
        items = {f"i{n}": Item(f"i{n}", "", (), details(n)) for n in range(6)}
        interactions = make(items).update_all([Event("a", "i0", 1, 1), Event("a", "i5", 2, 0), Event("b", "i2", 3, 1)])
        return interactions.features("a", list(items))[:, FEATURES.index("near_share")]

    prices = near(lambda n: {"price": 1000 * 2**n})
    assert (np.diff(prices) < 0).all()
    np.testing.assert_allclose(near(lambda n: {"weight": 50_000 * 2**n}), prices, rtol=1e-3)
    np.testing.assert_allclose(near(lambda n: {"price": 1000 * 2**n, "size": 3}), prices)  # all of one size
    assert np.ptp(near(lambda n: {})) == 0
    twice = near(lambda n: {"price": 1000 * 2**n, "rank": 1000 * 2 ** (5 - n)})
    np.testing.assert_allclose(twice, prices, rtol=0.01)


def test_a_device_goes_by_the_scales_that_it_is_told():
    events = [Event("a", "x", 1, 1), Event("a", "y", 2, 0)]
    told = make().popularity(ITEMS)
    few = {item: ITEMS[item] for item in ("x", "z")}
    alone, goes_on = (InteractionStore(few, feedback, of).update_all(events) for of in (PopularityCounts(), told))
    assert goes_on.popularity(few).scales == told.scales != alone.popularity(few).scales


def test_what_is_near_follows_a_year_that_changes():
    interactions = make().update_all(LOG)
    before = interactions.features("c", ["z"])[0]
    interactions.upsert_items([Item("z", "Z", details={"year": 2010})])
    after = interactions.features("c", ["z"])[0]
    assert [FEATURES[n] for n in np.flatnonzero(before != after)] == ["near_share", "near_value_surprise"]


def test_a_log_and_its_questions_at_once_are_as_one_by_one(monkeypatch):
    """In batches of any size, with late events, views and searches."""
    monkeypatch.setattr(module, "BATCH", 70)
    rng = np.random.default_rng(0)

    def said(event):
        return feedback(event) if event.value is not None else Feedback(None, 0.5, "saw {}")

    events = [
        Event(
            f"u{rng.integers(9)}",
            f"i{rng.integers(40)}" if n % 7 else "",
            n - int(rng.integers(20)) * (n % 4 == 0),
            None if n % 5 == 0 or not n % 7 else float(n % 2),
        )
        for n in range(300)
    ]
    questions = [
        (int(at), f"u{rng.integers(10)}", f"i{rng.integers(42)}") for at in np.sort(rng.integers(301, size=400))
    ]
    bulk, single = InteractionStore(CATALOGUE, said), InteractionStore(CATALOGUE, said)
    found = bulk.replay(events, questions)
    expected = []
    for n in range(301):
        expected += [single.features(user, [item])[0] for at, user, item in questions if at == n]
        if n < 300:
            single.update(events[n])
    np.testing.assert_array_equal(found, expected)
    for user in {event.user for event in events}:
        assert (
            list(bulk.timeline(user))
            == list(single.timeline(user))
            == sorted(single.timeline(user), key=lambda one: one.time)
        )
        np.testing.assert_array_equal(bulk.event_features(user), single.event_features(user))
        assert bulk.seen(user) == single.seen(user)
