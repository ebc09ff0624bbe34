"""The small parts of the studies that a wrong sign would spoil unseen."""

import numpy as np
import polars as pl
import pytest

from benchmarks.conversation import Need, needs
from m6rec.data.read import read
from m6rec.data.split import TEST, TRAIN, Split
from m6rec.demo import OURS
from m6rec.evaluation.ablation import by_count
from m6rec.evaluation.metrics import hit_rate
from m6rec.predicate import ALL, Predicate
from m6rec.types import Item


def test_questions_are_counted_by_what_was_before_them():
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z"), ("a", "z"), ("c", "x")]
    events = pl.DataFrame(rows, schema=["user", "item"], orient="row").with_columns(time=pl.int_range(1, 7))
    items = pl.DataFrame({"item": ["x", "y", "z"], "title": ["X", "Y", "Z"]})
    split = Split(read(events, items), np.array([TRAIN, TRAIN, TRAIN, TEST, TEST, TEST], np.uint8))
    ranks = {OURS: [np.array([1.0, 20.0, 1.0])]}
    of_user, of_item = by_count(
        "found", split, np.array([3, 4, 5]), (0, 1, 3), ranks, lambda ranks, asked: hit_rate(ranks[asked], 10)
    )
    assert of_user.rows[0].metrics == {"0 (n=1)": (1.0,), "1 (n=1)": (1.0,), "2-3 (n=1)": (0.0,)}
    assert of_item.rows[0].metrics == {"0 (n=1)": (1.0,), "1 (n=1)": (0.0,), "2-3 (n=1)": (1.0,)}


def film(title, year, *categories):
    return Item(title, title, categories, {"year": year})


ALIEN, HEAT, BABE = film("Alien", 1979, "Horror", "Sci-Fi"), film("Heat", 1995, "Crime"), film("Babe", 1995, "Comedy")


@pytest.mark.parametrize(
    ("said", "offers", "met"),
    [
        ({"where": Predicate(all_of=("Horror",))}, [[ALIEN]], True),
        ({"where": Predicate(all_of=("Horror",))}, [[ALIEN, HEAT]], False),
        ({"where": Predicate(ranges={"year": (1970, 1980)})}, [[HEAT]], False),
        ({}, [[]], False),
        ({}, [[HEAT], [HEAT]], False),
        ({"without": frozenset({"Heat"})}, [[ALIEN, HEAT]], False),
        ({"count": 1}, [[ALIEN]], True),
        ({"count": 1}, [[ALIEN, HEAT]], False),
        ({"than_last": "older"}, [[HEAT], [ALIEN]], True),
        ({"than_last": "newer"}, [[HEAT], [ALIEN]], False),
        ({"than_last": "newer"}, [[HEAT], [BABE]], False),
        ({"empty": True}, [[]], True),
        ({"empty": True}, [[HEAT]], False),
    ],
)
def test_a_need_is_met_by_what_its_last_reply_offers(said, offers, met):
    need = Need(**{"kind": "", "turns": ("",) * len(offers), "where": ALL} | said)
    assert need.met_by(offers) is met


def test_the_needs_are_many_and_all_can_be_read():
    found = needs()
    assert len(found) > 100
    assert all(need.turns and (need.where or need.without or need.empty or len(need.turns) > 1) for need in found)
