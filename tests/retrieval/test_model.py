from dataclasses import replace

import numpy as np
import pytest

from m6rec.data.log import Log
from m6rec.data.split import TRAIN, VALID, Split
from m6rec.domains import domain as domains
from m6rec.errors import ConfigError
from m6rec.foundation.states import StateCache
from m6rec.metrics import ndcg
from m6rec.retrieval import blend
from m6rec.retrieval.embeddings import user_vectors
from m6rec.retrieval.model import likes_of, load, questions_of, states_config, train
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.tasks.retrieve import describe
from m6rec.types import Event, Item, User
from tests import tiny

KINDS = ("Drama", "Comedy", "War")
ITEMS = {f"i{n}": Item(f"i{n}", f"Film {n}", (KINDS[n % 3],), {"plot": "It rains."}) for n in range(30)}
FOUNDATION = tiny.foundation()
MODEL = tiny.retrieval(FOUNDATION, list(ITEMS.values()), "movielens")
DOMAIN = domains.named("movielens")


def log(num_users=40):
    """Each user likes films of one kind (5 stars), and has one of another that they don't like."""
    random, events = np.random.default_rng(0), []
    for user in range(num_users):
        for at, number in enumerate(3 * random.permutation(10)[:6] + user % 3):
            events.append(Event(f"u{user}", f"i{number}", 1 + 10 * at, 5.0))
        events.append(Event(f"u{user}", f"i{(user + 1) % 3}", 25, 1.0))
    events.sort(key=lambda event: event.time)
    users = {f"u{n}": User(f"u{n}") for n in range(num_users)}
    part = np.array([VALID if event.time > 50 else TRAIN for event in events], np.uint8)
    return Split(Log(events=tuple(events), items=ITEMS, users=users), part)


SPLIT = log()


def trained(**options):
    training = EmbeddingConfig(hidden=32, users=16, epochs=4, **options)
    likes, asked = likes_of(SPLIT, DOMAIN), questions_of(SPLIT, DOMAIN)
    return train(MODEL, list(ITEMS.values()), likes, asked, training)


def test_likes_are_those_of_training_in_their_order_each_once():
    likes = likes_of(SPLIT, DOMAIN)
    assert len(likes) == 40
    first = [event for event in SPLIT.log.events if event.user == "u0" and event.time <= 50 and event.value == 5]
    assert [f"i{row}" for row in likes[0]] == [event.item for event in first]


def test_the_future_changes_no_question():
    """Likes at or after a question's own second are unknown to it."""
    asked = questions_of(SPLIT, DOMAIN)
    assert len(asked.targets) == 40
    more = [Event(f"u{n}", f"i{(n + 2) % 3}", 51, 5.0) for n in range(40)]
    events = (*SPLIT.log.events, *more)
    part = np.concatenate([SPLIT.part, np.full(40, TRAIN, np.uint8)])
    again = questions_of(Split(replace(SPLIT.log, events=events), part), DOMAIN)
    for one in (asked, again):
        assert all(
            len(liked) == 5 and target not in liked for liked, target in zip(one.likes, one.targets, strict=True)
        )
    np.testing.assert_array_equal(again.targets, asked.targets)
    for before, after in zip(asked.likes, again.likes, strict=True):
        np.testing.assert_array_equal(before, after)


def test_training_finds_more_of_what_is_liked_next():
    made, history = trained()
    asked = questions_of(SPLIT, DOMAIN)

    def found(model):
        return ndcg(asked.ranks(model.item_vectors(list(ITEMS.values())), model.embeddings.decay), 10)

    assert history.epochs > 0
    assert found(made) > found(MODEL)


def test_what_is_loaded_is_what_was_saved(tmp_path):
    made = replace(trained()[0], blend=blend.fit((e.user, e.item, e.value == 5) for e in SPLIT.log.events))
    made.save(tmp_path)
    again, items = load(tmp_path, FOUNDATION, made.cache), [*ITEMS.values(), Item("new", "Rain", ("War",))]
    np.testing.assert_array_equal(again.item_vectors(items), made.item_vectors(items))
    assert again.digest() == made.digest() != MODEL.digest()
    assert again.blend.weights == made.blend.weights
    assert again.config == made.config


def test_a_run_of_another_foundation_is_refused(tmp_path):
    MODEL.save(tmp_path)
    with pytest.raises(ConfigError, match="another foundation"):
        load(tmp_path, tiny.foundation(seed=1))


def test_the_vector_of_a_new_item_depends_on_no_other():
    made, new = trained()[0], Item("new", "Rain", ("War",))
    alone = made.item_vectors([new])[0]
    np.testing.assert_allclose(made.item_vectors([*ITEMS.values(), new])[-1], alone, atol=1e-6)
    assert "new" not in made.embeddings.residuals


def test_a_user_served_is_the_user_measured():
    vectors_IE = MODEL.item_vectors(list(ITEMS.values()))
    wanted_1E = user_vectors(vectors_IE, [np.array([3, 1, 8])], MODEL.embeddings.decay)
    np.testing.assert_allclose(MODEL.user_vector(vectors_IE[[3, 1, 8]]), wanted_1E[0], rtol=1e-6)


def test_all_of_a_text_is_read():
    longer = replace(ITEMS["i0"], details={"plot": "It rains. And then the sun comes out."})
    assert not np.allclose(MODEL.item_vectors([ITEMS["i0"]]), MODEL.item_vectors([longer]))


def test_what_is_kept_of_a_text_does_not_grow_with_it():
    cache = StateCache(FOUNDATION, states_config(FOUNDATION.model))
    states = cache.fetch([describe(Item("a", "A " * length)) for length in (1, 50)])
    assert len(states.tokens_TD) == 2


def test_an_item_is_told_by_all_but_its_id_and_addresses():
    item = Item(
        "B00", "Lamp\nof  steel", ("Lamps", "Home"), {"price": 19.5, "url": "https://a.example", "brand": "Lux"}
    )
    assert describe(item) == "Home, Lamps: Lamp of steel. price: 19.5. brand: Lux"
    assert describe(Item("B00", "B00")) == "item"
