import numpy as np
import pytest

from m6rec.domains.domain import named
from m6rec.features.interactions import InteractionStore
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.tasks.task import ask
from m6rec.types import Event, Item, User
from tests import tiny

ITEMS = {f"i{n}": Item(f"i{n}", f"Film {n} of {'many ' * (n % 3)}") for n in range(9)}
USERS = {"u": User("u", {"age": 30, "gender": "F", "occupation": "writer"}), "v": User("v")}
MOVIES = named("movielens")
EVENTS = [Event("uv"[n % 3 == 0], f"i{n % 7}", n, float(1 + n % 5)) for n in range(20)]


def tuned_with(**options):

    foundation = tiny.foundation(num_layers=4, **options.pop("model", {}))
    config = TaskModelConfig(task="like", domain="movielens", foundation="tiny", **options)
    tuned = ScoreModel.create(config, foundation)
    tiny.as_if_trained(tuned.adapter.parameters())
    return tuned


def row_of(tuned, interactions, user, items=tuple(ITEMS)):
    return ask(tuned.task, interactions, USERS[user], [ITEMS[i] for i in items], MOVIES, ITEMS)


@pytest.mark.parametrize(
    "options",
    [{}, {"keep": 0}, {"keep": 2, "depth": 1}, {"depth": 3}, {"method": "head"}, {"bidirectional": True}],
    ids=str,
)
def test_turns_score_as_whole_rows_do(options):
    tuned = tuned_with(**options)
    turns, interactions = KVCachePool(tuned), InteractionStore(ITEMS, MOVIES.feedback)
    for number, event in enumerate(EVENTS):
        interactions.update(event)
        if number % 4:
            continue
        users = ["u", "v"] if number % 8 else ["v"]  # so that one user's context grows by more than one at a time
        rows = [(user, row_of(tuned, interactions, user, tuple(ITEMS)[: 3 + len(user) * number % 5])) for user in users]
        for (_, row), scores in zip(rows, turns.predict(rows), strict=True):
            np.testing.assert_allclose(scores, tuned.scores([row]), rtol=1e-5)
    again = row_of(tuned, interactions, "u")
    for _ in range(2):  # nothing new in between
        np.testing.assert_allclose(turns.predict([("u", again)])[0], tuned.scores([again]), rtol=1e-5)
    assert turns.predict([]) == []


def test_a_context_that_is_not_the_old_one_is_read_anew():
    tuned = tuned_with()
    turns, interactions = KVCachePool(tuned), InteractionStore(ITEMS, MOVIES.feedback).update_all(EVENTS)
    first = turns.predict([("u", row_of(tuned, interactions, "u"))])[0]
    changed = {**ITEMS, "i1": Item("i1", "Renamed")}
    row = ask(tuned.task, interactions, USERS["u"], [ITEMS["i2"]], MOVIES, changed)
    np.testing.assert_allclose(turns.predict([("u", row)])[0], tuned.scores([row]), rtol=1e-5)
    assert first[2] != pytest.approx(tuned.scores([row])[0], rel=1e-5)


def test_only_what_is_new_is_read_and_memory_is_bounded():
    tuned = tuned_with()
    read = []
    model = tuned.foundation.model
    forward = model.forward_cached

    def spy(turns, *args, **kwargs):
        read.append([len(turn.new_ND) for turn in turns])
        return forward(turns, *args, **kwargs)

    model.forward_cached = spy
    interactions = InteractionStore(ITEMS, MOVIES.feedback).update_all(EVENTS)
    turns = KVCachePool(tuned)
    turns.predict([("u", row_of(tuned, interactions, "u"))])
    interactions.update(Event("u", "i8", 99, 5.0))
    turns.predict([("u", row_of(tuned, interactions, "u"))])
    assert read == [[len(tuned.adapter.prompts_PD) + 1 + 13], [1]]
    small = KVCachePool(tuned, memory_bytes=100)
    for _ in range(2):
        small.predict([("u", row_of(tuned, interactions, "u"))])
    assert read[2] == read[3] == [read[0][0] + 1]


def test_keys_of_imagined_events_are_not_taken_for_those_of_others():
    """A conversation told twice has the same words, and other numbers where others have been at work meanwhile."""
    tuned = tuned_with()
    turns, interactions = KVCachePool(tuned), InteractionStore(ITEMS, MOVIES.feedback).update_all(EVENTS)
    told = [Event("u", "i7", 30, kind="like"), Event("u", "i5", 30, kind="dislike")]
    for number in range(3):
        with interactions.overlay("u", told):
            row = row_of(tuned, interactions, "u", ("i2", "i8"))
            np.testing.assert_allclose(turns.predict([("u", row)])[0], tuned.scores([row]), rtol=1e-5)
        interactions.update_all(Event("v", item, 40 + number, 5.0) for item in ("i7", "i5"))
