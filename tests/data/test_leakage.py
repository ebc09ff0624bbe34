from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m6rec.data import leakage
from m6rec.data.leakage import FUTURE, KNOWN, LATE, OWN_LATE, PROTOCOL, REPEATED, SAME_TIME, SHARED, check, find, future
from m6rec.data.log import Log
from m6rec.data.split import TEST, TRAIN, VALID, Split, leave_one_out, split_by_item, split_by_time, split_by_user
from m6rec.errors import DataError
from m6rec.types import Event, Item, User


def split(*rows):
    """From (user, item, time, part)."""
    events = tuple(Event(user, item, time) for user, item, time, _ in rows)
    log = Log(events, {e.item: Item(e.item, e.item) for e in events}, {e.user: User(e.user) for e in events})
    return Split(log, np.array([part for *_, part in rows], np.uint8))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("u", "a", 1, TRAIN), ("u", "b", 2, VALID), ("u", "c", 3, TEST)], {}),
        ([("u", "a", 1, TRAIN), ("u", "a", 1, TRAIN)], {REPEATED: 1}),
        ([("u", "a", 1, TRAIN), ("u", "a", 1, TEST)], {REPEATED: 1, SHARED: 1, KNOWN: 1, SAME_TIME: 1}),
        ([("u", "a", 1, TRAIN), ("u", "a", 2, TRAIN), ("u", "a", 3, TEST)], {KNOWN: 1}),
        ([("u", "a", 1, TRAIN), ("u", "b", 1, TEST), ("v", "a", 1, TEST)], {SAME_TIME: 1}),
        ([("u", "a", 0, TRAIN), ("u", "b", 0, TEST)], {}),  # a log without time
        ([("u", "a", 1, TEST), ("v", "a", 2, VALID), ("v", "b", 3, TRAIN)], {LATE: 2, OWN_LATE: 1}),
        ([("u", "a", 1, VALID), ("u", "b", 2, TRAIN), ("u", "c", 3, TRAIN)], {LATE: 2, OWN_LATE: 2}),
    ],
)
def test_each_leak_is_found_by_name(rows, expected):
    made = split(*rows)
    assert {leak.name: leak.count for leak in find(made)} == expected
    check(made, allowed=expected)
    for name in expected:
        with pytest.raises(DataError, match=f"flattered by {expected[name]} {name} \\(the first: event"):
            check(made, allowed=set(expected) - {name})


def test_the_first_case_is_told():
    made = split(("u", "a", 1, TRAIN), ("w", "b", 7, TRAIN), ("w", "b", 7, TRAIN))
    message = r"1 repeated events \(the first: event 2, user 'w', item 'b', time 7\)\. Correct the log or the split"
    with pytest.raises(DataError, match=message):
        check(made, allowed=PROTOCOL)


rows = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdef"), st.integers(1, 99)), max_size=40, unique=True
)


@settings(deadline=None)
@given(rows)
def test_our_splits_leak_only_what_their_protocol_means(made):
    log = split(*((*row, TRAIN) for row in sorted(made, key=lambda row: row[2]))).log
    for parts, allowed in (
        (split_by_time(log), {KNOWN, SAME_TIME}),
        (leave_one_out(log), {KNOWN, SAME_TIME, LATE}),
        (split_by_item(log), {KNOWN, SAME_TIME, LATE, OWN_LATE}),
        (split_by_user(log), {KNOWN, SAME_TIME, LATE}),
    ):
        assert {leak.name for leak in find(parts)} <= allowed


EVENTS = [Event(f"u{n % 3}", f"i{n % 7}", n, float(n % 5)) for n in range(40)]
LAYOUTS = {
    "sees its own value": lambda events, n: events[n].value,
    "sees the next event": lambda events, n: events[n + 1 : n + 2],
    "counts the whole log": lambda events, n: sum(event.item == events[n].item for event in events),
}


def lay(told):
    return lambda events: {n: told(events, n) for n in range(len(events))}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_sees_what_comes_is_found(layout):
    (leak,) = future(EVENTS, lay(LAYOUTS[layout]), [10, 25])
    assert leak.name == FUTURE
    assert leak.count > 0
    with pytest.raises(DataError, match=FUTURE):
        leakage.fail([leak])


def test_a_layout_of_the_past_and_the_item_asked_about_is_clean():
    assert future(EVENTS, lay(lambda events, n: (events[:n], events[n].item)), [0, 10, 39]) == ()


def test_an_event_may_ask_nothing_when_its_value_is_another():
    liked = lambda events: {n: events[:n] for n in range(len(events)) if events[n].value > 2}  # noqa: E731
    assert future(EVENTS, liked, [8, 9, 13, 14]) == ()
    with_answers = lambda events: {n: question for n, question in liked(events).items() if n + 1 < len(events)}  # noqa: E731
    assert future(EVENTS, with_answers, [9, 14]) == ()


def test_a_question_that_is_gone_is_a_change():
    (leak,) = future(EVENTS, lambda events: {n: n for n in range(len(events)) if len(events) == 40}, [20])
    assert leak.count == 20
    assert "event 0, user 'u0'" in leak.example


def test_nothing_of_the_events_is_changed():
    kept = [replace(event) for event in EVENTS]
    future(EVENTS, lay(lambda events, n: 0), [10])
    assert kept == EVENTS
