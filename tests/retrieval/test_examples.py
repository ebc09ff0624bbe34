from dataclasses import replace

import numpy as np
import pytest

from m6rec.data.log import Log
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains import domain as domains
from m6rec.errors import DataError
from m6rec.retrieval.examples import build_examples, likes_of, queries
from m6rec.tasks.task import named
from m6rec.types import Event, Item, User

DOMAIN, RETRIEVE = domains.named("movielens"), named("retrieve")
ITEMS = {name: Item(name, name.upper()) for name in "abcdef"}
USERS = {name: User(name) for name in "uvw"}


def split(*events):
    """Events of (user, item, stars, part), one a second unless a time is given."""
    made = [Event(user, item, at[0] if at else n + 1, stars) for n, (user, item, stars, _, *at) in enumerate(events)]
    part = np.array([event[3] for event in events], np.uint8)
    return Split(Log(events=tuple(made), items=ITEMS, users=USERS), part)


SPLIT = split(
    ("u", "a", 5, TRAIN),
    ("v", "b", 1, TRAIN),
    ("u", "c", 4, TRAIN),
    ("u", "a", 5, TRAIN),
    ("v", "c", 5, TRAIN),
    ("u", "d", 5, VALID),
    ("v", "b", 5, VALID),  # which v had met, without liking it
    ("v", "e", 5, VALID),
    ("w", "f", 5, TEST),
    ("w", "a", 5, TEST),
    ("u", "e", 1, TEST),
)


def rows(items):
    return [list(ITEMS).index(item) for item in items]


def test_likes_are_those_of_training_in_their_order_each_once():
    assert [of.tolist() for of in likes_of(SPLIT, DOMAIN).likes] == [rows("ac"), rows("c")]
    assert [of.tolist() for of in likes_of(SPLIT, DOMAIN, TRAIN, VALID).likes] == [rows("acd"), rows("cbe")]


def test_a_query_is_a_like_of_an_item_that_the_user_had_not_met():
    examples = build_examples(RETRIEVE, SPLIT, DOMAIN)
    valid, test = examples[VALID], examples[TEST]
    assert valid.events.tolist() == [5, 7]
    assert valid.targets.tolist() == rows("de")
    assert [of.tolist() for of in valid.likes] == [rows("aca"), rows("cb")]
    assert [of.tolist() for of in valid.seen] == [rows("aca"), rows("bcb")]
    assert test.targets.tolist() == rows("fa")
    assert [of.tolist() for of in test.likes] == [[], rows("f")]
    assert [len(of) for of in test.most_liked] == [5, 0]  # f is not met yet
    assert test.most_liked[0][-2:].tolist() == rows("ca")  # most liked last; of as many likes the first one met
    assert examples.drawn({TEST: 1})[TEST].targets.tolist() in (rows("f"), rows("a"))
    assert examples.drawn({TEST: 9})[TEST] is test


def test_epochs_are_chosen_by_users_who_had_liked_something():
    valid = build_examples(RETRIEVE, SPLIT, DOMAIN)[VALID].validation()
    assert sorted(valid.targets.tolist()) == rows("de")
    new = split(("u", "a", 5, TRAIN), ("w", "b", 5, VALID), ("u", "c", 5, VALID), ("v", "a", 5, TEST))
    assert build_examples(RETRIEVE, new, DOMAIN)[VALID].validation().targets.tolist() == rows("c")


def test_what_happens_at_a_query_s_own_second_is_unknown_to_it():
    together = split(("u", "a", 5, TRAIN, 1), ("u", "b", 5, VALID, 2), ("u", "c", 5, VALID, 2), ("v", "b", 5, TEST, 2))
    found = queries(together, DOMAIN, np.arange(4))
    assert [of.tolist() for of in found.likes] == [[], rows("a"), rows("a"), []]
    assert found.most_liked[3].tolist()[-1] == rows("a")[0]
    assert [of.tolist() for of in found.only([2, 0]).likes] == [rows("a"), []]


@pytest.mark.parametrize(("part", "name"), [(TRAIN, "training"), (VALID, "validation"), (TEST, "test")])
def test_a_part_without_a_target_is_told(part, name):
    unloved = tuple(
        replace(event, value=1.0) if of == part else event
        for event, of in zip(SPLIT.log.events, SPLIT.part.tolist(), strict=True)
    )
    with pytest.raises(DataError, match=rf"the {name} part has no event that 'retrieve' .*--positive .*--implicit"):
        build_examples(RETRIEVE, replace(SPLIT, log=replace(SPLIT.log, events=unloved)), DOMAIN)
