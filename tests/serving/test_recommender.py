import numpy as np
import pytest

from m6rec.domains.domain import named
from m6rec.errors import ConfigError, DataError
from m6rec.serving.recommender import Recommender
from m6rec.tasks.task import ask
from m6rec.text.log import Log
from m6rec.text.past import Past
from m6rec.tuned import TunedConfig, create
from m6rec.types import Event, Item, User
from tests import tiny

ITEMS = {f"i{n}": Item(f"i{n}", f"Film {n}") for n in range(12)}
USERS = {f"u{n}": User(f"u{n}") for n in range(3)}
EVENTS = tuple(Event(f"u{n % 3}", f"i{n % 5}", n, float(1 + n % 5)) for n in range(20))


@pytest.fixture(scope="module")
def parts():
    foundation = tiny.foundation(num_layers=4)
    config = TunedConfig(task="like", domain="movielens", foundation="tiny")
    rank = create(config, foundation)
    retrieve = create(TunedConfig(task="retrieve", domain="movielens", foundation="tiny"), foundation, cache=rank.cache)
    past = Past(ITEMS, named("movielens").likes).observe_all(EVENTS)
    return Recommender(retrieve, rank, Log(events=EVENTS, items=ITEMS, users=USERS), past), rank, past


def test_recommended_items_are_unseen_and_fall_in_score(parts):
    recommender, _, past = parts
    ranked = recommender.recommend("u0", 5)
    assert len(ranked) == 5
    assert not {r.item.id for r in ranked} & past.seen("u0")
    scores = [r.score for r in ranked]
    assert scores == sorted(scores, reverse=True)


def test_ranking_gives_the_scores_of_the_tuned_task(parts):
    recommender, rank, past = parts
    wanted = ["i7", "i9", "i0"]
    row = ask(rank.task, past, USERS["u1"], [ITEMS[i] for i in wanted], rank.domain, ITEMS)
    expected = dict(zip(wanted, rank.scores([row]), strict=True))
    found = {r.item.id: r.score for r in recommender.rank("u1", wanted)}
    assert found == pytest.approx(expected)
    assert np.ptp(list(expected.values())) > 0


def test_an_event_taken_in_is_not_recommended_again(parts):
    recommender, _, _ = parts
    first = recommender.recommend("u2", 1)[0].item.id
    recommender.past.observe(Event("u2", first, 99, 5.0))
    assert first not in {r.item.id for r in recommender.recommend("u2", 7)}


def test_unknown_ids_and_counts_are_named(parts):
    recommender, _, _ = parts
    with pytest.raises(DataError, match="nobody"):
        recommender.recommend("nobody")
    with pytest.raises(DataError, match="i99"):
        recommender.rank("u0", ["i99"])
    with pytest.raises(ConfigError, match="0"):
        recommender.recommend("u0", 0)
