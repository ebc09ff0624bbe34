from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m6rec.data.log import Log
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains import domain as domains
from m6rec.errors import ConfigError
from m6rec.evaluation.metrics import ndcg
from m6rec.features.interactions import InteractionStore
from m6rec.readouts import EmbedModel, TaskModelConfig
from m6rec.readouts.embed import fit_sources
from m6rec.retrieval.embeddings import user_vectors
from m6rec.retrieval.examples import NUM_MOST_LIKED, build_examples
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.tasks.retrieve import describe
from m6rec.tasks.task import named
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
    part[-5:] = TEST
    return Split(Log(events=tuple(events), items=ITEMS, users=users), part)


SPLIT = log()


EXAMPLES = build_examples(named("retrieve"), SPLIT, DOMAIN)
CONFIG = TaskModelConfig(task="retrieve", domain="movielens", foundation="tiny")
TRAINING = EmbeddingConfig(hidden=32, users=16, epochs=4)


def trained(folder=None, training=TRAINING):
    model = EmbedModel.create(CONFIG, FOUNDATION, cache=MODEL.cache)
    return model, model.tune(EXAMPLES[TRAIN], EXAMPLES[VALID], training, folder=folder)


def test_training_finds_more_of_what_is_liked_next():
    made, history = trained()
    asked = EXAMPLES[VALID].validation()

    def found(model):
        return ndcg(asked.ranks(model.item_vectors(list(ITEMS.values())), model.embeddings.decay), 10)

    assert history.best_epoch > 0
    assert found(made) > found(MODEL)
    assert made.blend.numbers.keys() <= ITEMS.keys()


def test_what_is_loaded_is_what_was_saved(tmp_path):
    made, _ = trained(tmp_path)
    again, items = EmbedModel.load(tmp_path, FOUNDATION, made.cache), [*ITEMS.values(), Item("new", "Rain", ("War",))]
    np.testing.assert_array_equal(again.item_vectors(items), made.item_vectors(items))
    assert again.digest() == made.digest() != MODEL.digest()
    assert again.blend.weights == made.blend.weights
    assert again.config == made.config


def test_a_finished_run_is_read_and_another_refused(tmp_path):
    made, _ = trained(tmp_path)
    again, history = trained(tmp_path)
    assert again.digest() == made.digest()
    assert not history.losses
    with pytest.raises(ConfigError, match="another training "):
        trained(tmp_path, EmbeddingConfig(hidden=32, users=16, epochs=4, seed=1))


def test_settings_of_an_adapter_do_not_apply():
    with pytest.raises(ConfigError, match="--method, --keep do not apply to a retrieval task"):
        EmbedModel.create(
            TaskModelConfig(task="retrieve", domain="movielens", foundation="tiny", method="lora", keep=0), FOUNDATION
        )
    with pytest.raises(ConfigError, match="--exit-after does not apply to task 'retrieve'"):
        EmbedModel._read(Path(), CONFIG, FOUNDATION, MODEL.cache, 1)
    with pytest.raises(ConfigError, match="no vectors yet"):
        EmbedModel.create(CONFIG, FOUNDATION).item_vectors([Item("a", "A")])


def test_who_liked_nothing_yet_is_taken_for_one_who_likes_what_most_do():
    """By the same rule as the service, so that it is measured as it is served."""
    late = [Event(f"new{n}", "i1", 600 + n, 5.0) for n in range(4)]
    events = (*SPLIT.log.events, *late)
    users = dict(SPLIT.log.users) | {event.user: User(event.user) for event in late}
    part = np.concatenate([SPLIT.part, np.full(4, TEST, np.uint8)])
    split = Split(Log(events=events, items=ITEMS, users=users), part)
    examples = build_examples(named("retrieve"), split, DOMAIN)
    found = MODEL.retriever(examples)
    assert examples[TEST].events[-1] == len(events) - 1
    interactions = InteractionStore(ITEMS, DOMAIN.feedback).update_all(events[:-1])
    rows = [list(ITEMS).index(item) for item in interactions.most_liked()[:NUM_MOST_LIKED]][::-1]
    assert found.users_QE[-1] == pytest.approx(MODEL.user_vector(found.items_IE[rows]), abs=1e-5)


def test_sources_know_no_item_that_nobody_liked():
    assert len(fit_sources(EXAMPLES[TRAIN]).numbers) == len(np.unique(np.concatenate(EXAMPLES[TRAIN].likes)))


def test_a_run_of_another_foundation_is_refused(tmp_path):
    MODEL.save(tmp_path)
    with pytest.raises(ConfigError, match="another foundation"):
        EmbedModel.load(tmp_path, tiny.foundation(seed=1))


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
    states = MODEL.cache.fetch([describe(Item("a", "A " * length)) for length in (1, 50)])
    assert len(states.tokens_TD) == 2


def test_an_item_is_told_by_all_but_its_id_and_addresses():
    item = Item(
        "B00", "Lamp\nof  steel", ("Lamps", "Home"), {"price": 19.5, "url": "https://a.example", "brand": "Lux"}
    )
    assert describe(item) == "Home, Lamps: Lamp of steel. price: 19.5. brand: Lux"
    assert describe(Item("B00", "B00")) == "item"
