import pytest

from m6rec.predicate import ALL, Attributes, Predicate, attributes
from m6rec.types import Item

ITEM = Attributes(("Crime", "Drama"), {"year": 1995.0})


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({}, True),
        ({"any_of": ("War", "Drama")}, True),
        ({"any_of": ("War",)}, False),
        ({"all_of": ("Drama", "Crime")}, True),
        ({"all_of": ("Drama", "War")}, False),
        ({"none_of": ("War",)}, True),
        ({"none_of": ("War", "Crime")}, False),
        ({"ranges": {"year": (1995, 1995)}}, True),
        ({"ranges": {"year": (1996, 2000)}}, False),
        ({"ranges": {"price": (0, 1e9)}}, False),
    ],
    ids=str,
)
def test_each_condition_counts(conditions, holds):
    predicate = Predicate(**conditions)
    assert predicate.admits(ITEM) is holds
    assert bool(predicate) is bool(conditions)
    assert not ALL


@pytest.mark.parametrize(
    ("details", "title", "numbers"),
    [
        ({"price": 3, "available": 0, "author": "Ann", "stock": "7"}, "A", {"price": 3.0, "available": 0.0}),
        ({"year": "1995", "price": "cheap"}, "A (2001)", {"year": 1995.0}),
        ({}, "A (2001)", {"year": 2001.0}),
        ({"pages": "300"}, "A", {"length": 300.0}),
        ({"pages": 300}, "A", {"length": 300.0, "pages": 300.0}),
        ({"price": float("nan"), "year": "inf", "big": 10**400}, "A", {}),
    ],
)
def test_numbers_of_an_item(details, title, numbers):
    assert attributes(Item("1", title, ("Drama",), details)) == Attributes(("Drama",), numbers)
