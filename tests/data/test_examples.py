from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from m6rec.data.examples import num_known, time_groups
from m6rec.types import Event

LOGS = st.lists(
    st.builds(
        Event,
        st.sampled_from("uvw"),
        st.sampled_from("abc"),
        st.integers(0, 6),
        impression=st.sampled_from(["", "", "x", "y"]),
    ),
    max_size=30,
).map(lambda events: sorted(events, key=lambda event: event.time))


@given(LOGS)
def test_every_event_is_asked_once_and_observed_once_and_not_before(log):
    asked, observed = {}, {}
    for number, group in enumerate(time_groups(log)):
        for position in group.queries:
            assert position not in asked
            asked[position] = number
        for position in group.events:
            assert position not in observed
            observed[position] = number
    assert sorted(asked) == sorted(observed) == list(range(len(log)))
    assert all(asked[position] <= observed[position] for position in asked)


@given(LOGS)
def test_what_belongs_together_is_asked_before_any_of_it_is_observed(log):
    asked, observed = {}, {}
    for number, group in enumerate(time_groups(log)):
        asked |= dict.fromkeys(group.queries, number)
        observed |= dict.fromkeys(group.events, number)
    for _, members in groupby((p for p, event in enumerate(log) if event.time), key=lambda p: log[p].time):
        together = list(members)
        assert max(asked[p] for p in together) <= min(observed[p] for p in together)
    shown = {}
    for position, event in enumerate(log):
        if event.impression:
            shown.setdefault((event.user, event.impression), []).append(position)
    for together in shown.values():
        assert len({asked[p] for p in together}) == 1


@given(LOGS)
def test_what_is_known_is_what_was_observed(log):
    known = num_known(log)
    for position, event in enumerate(log):
        if not any(other.impression for other in log) and event.time:
            assert known[position] == sum(o.user == event.user and o.time < event.time for o in log)


def test_a_log_without_time_is_asked_event_by_event():
    log = [Event("u", "a", 0), Event("u", "b", 0), Event("u", "a", 0)]
    assert [(m.queries, m.events) for m in time_groups(log)] == [([0], [0]), ([1], [1]), ([2], [2])]
    assert num_known(log) == [0, 1, 2]
