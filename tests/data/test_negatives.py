import numpy as np
import pytest

from m6rec.data.examples import time_groups
from m6rec.data.negatives import Negatives, Sampler
from m6rec.errors import ConfigError
from m6rec.types import Event


def log(num_events=400, num_users=20, num_items=50):
    rng = np.random.default_rng(0)
    return [
        Event(f"u{rng.integers(num_users)}", f"i{int(num_items * rng.random() ** 2)}", 10 + n)
        for n in range(num_events)
    ]


def drawn(negatives, events, positive=lambda position: True):
    sampler, found = Sampler(negatives, events, positive), {}
    for group in time_groups(events):
        found |= {position: sampler.draw(position) for position in group.queries if positive(position)}
        sampler.update(group)
    return found


@pytest.mark.parametrize("source", ["popularity", "uniform", "in-batch"])
def test_no_negative_is_ever_wanted_by_its_user_and_each_was_met_before(source):
    events = log()
    wanted = {}
    for event in events:
        wanted.setdefault(event.user, set()).add(event.item)
    found = drawn(Negatives(source=source, count=3), events)
    for position, items in found.items():
        assert not wanted[events[position].user] & set(items)
        assert set(items) <= {event.item for event in events[:position]}
        assert len(items) == len(set(items)) <= 3
    assert sum(map(len, found.values())) > 2.5 * len(events)


def test_draws_are_seeded_and_do_not_depend_on_the_future():
    events = log()
    assert drawn(Negatives(), events) == drawn(Negatives(), events)
    assert drawn(Negatives(), events) != drawn(Negatives(seed=1), events)
    unwanted = [Event(event.user, f"new {n}", 10_000 + n) for n, event in enumerate(events)]
    assert {p: of for p, of in drawn(Negatives(), [*events, *unwanted]).items() if p < 400} == drawn(
        Negatives(), events
    )


def test_popular_items_are_drawn_as_often_as_they_are_wanted():
    events = log(4_000, 4_000)
    shares = {}
    for source in ("popularity", "uniform"):
        found = [item for items in drawn(Negatives(source=source, count=1), events).values() for item in items]
        shares[source] = found.count("i0") / sum(found.count(f"i{n}") for n in range(30, 50))
    assert shares["popularity"] > 4 * shares["uniform"]  # users who want it themselves, a quarter, never get it


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="popularity, uniform, in-batch, impression"):
        Negatives(source="hard")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        Negatives(count=0)
