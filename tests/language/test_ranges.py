"""What people say of years, lengths, prices and other numbers, and the range that they mean by it."""

import doctest
from math import inf

import pytest

from m6rec.language import ranges as module
from m6rec.language.ranges import STEP, ranges

LATEST = 2020


def of(text, name="year", names=("weight_kg", "stars")):
    found = ranges(text, LATEST, names)
    assert set(found) <= {name}
    return found.get(name)


def test_the_examples_are_true():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("said", "years"),
    [
        ("from the nineties", (1990, 1999)),
        ("from the 90s", (1990, 1999)),
        ("from the '90s", (1990, 1999)),
        ("films from the 1990s", (1990, 1999)),
        ("nineties movies", (1990, 1999)),
        ("something from the early eighties", (1980, 1984)),
        ("late 80s please", (1985, 1989)),
        ("the nineteen-sixties", (1960, 1969)),
        ("from the noughties", (2000, 2009)),
        ("from the twenties", (2020, 2029)),
        ("from the 30s", (1930, 1939)),
        ("from the 70s or the 80s", (1970, 1989)),
        ("80s and 90s comedies", (1980, 1999)),
        ("from 1994", (1994, 1994)),
        ("from the year 1994", (1994, 1994)),
        ("made in 1994", (1994, 1994)),
        ("between 1990 and 1995", (1990, 1995)),
        ("from 1990 to 1995", (1990, 1995)),
        ("1990-1995", (1990, 1995)),
        ("between the 70s and the 80s", (1970, 1989)),
        ("newer than 2010", (2011, inf)),
        ("films newer than 2010", (2011, inf)),
        ("more recent than the nineties", (2000, inf)),
        ("after 1990 but before 2000", (1991, 1999)),
        ("since 2000", (2000, inf)),
        ("from 2000 on", (2000, inf)),
        ("from the 90s onwards", (1990, inf)),
        ("1994 or newer", (1994, inf)),
        ("1994 or later, please", (1994, inf)),
        ("before 1980", (-inf, 1979)),
        ("before the eighties", (-inf, 1979)),
        ("older than 1980", (-inf, 1979)),
        ("until 1980", (-inf, 1980)),
        ("1980 or older", (-inf, 1980)),
        ("no older than ten years", (2010, inf)),
        ("not older than 10 years", (2010, inf)),
        ("nothing older than ten years", (2010, inf)),
        ("I don't want anything older than a decade", (2010, inf)),
        ("at most ten years old", (2010, inf)),
        ("not more than 10 years old", (2010, inf)),
        ("ten years old or less", (2010, inf)),
        ("less than ten years old", (2011, inf)),
        ("newer than 5 years", (2016, inf)),
        ("from the last ten years", (2010, inf)),
        ("of the past two decades", (2000, inf)),
        ("from the last decade", (2010, inf)),
        ("older than twenty years", (-inf, 1999)),
        ("more than 20 years old", (-inf, 1999)),
        ("at least 20 years old", (-inf, 2000)),
        ("nothing before 1980", (1980, inf)),
        ("no films before 1980", (1980, inf)),
        ("nothing newer than 2000", (-inf, 2000)),
        ("not after 2000", (-inf, 2000)),
        ("I don't like horror, but something from the 90s", (1990, 1999)),
        ("not from the nineties", None),
        ("anything except the 80s", None),
        ("before 1950 or after 2000", None),
        ("in the 2050s", None),
        ("I saw it two years ago", None),
        ("in ten years", None),
        ("1984", None),
        ("give me 5 of them", None),
        ("no longer", None),
    ],
)
def test_years(said, years):
    assert of(said) == years


@pytest.mark.parametrize(
    ("said", "name", "bounds"),
    [
        ("under two hours", "length", (-inf, 120 - STEP)),
        ("at most 90 minutes", "length", (-inf, 90)),
        ("no longer than 100 minutes", "length", (-inf, 100)),
        ("shorter than 100", "length", (-inf, 100 - STEP)),
        ("less than an hour and a half", "length", (-inf, 90 - STEP)),
        ("over 500 pages", "length", (500 + STEP, inf)),
        ("between 200 and 300 pages", "length", (200, 300)),
        ("2000 pages or more", "length", (2000, inf)),
        ("cheaper than $20", "price", (-inf, 20 - STEP)),
        ("10 to 20 dollars", "price", (10, 20)),
        ("no more than 1500 euros", "price", (-inf, 1500)),
        ("under 1,500 dollars", "price", (-inf, 1500 - STEP)),
        ("a price of at most 9.50", "price", (-inf, 9.5)),
        ("at least 4 stars", "stars", (4, inf)),
        ("weight kg below 5", "weight_kg", (-inf, 5 - STEP)),
        ("for 90 minutes", "length", None),
        ("under 20", "price", None),
    ],
)
def test_other_numbers(said, name, bounds):
    assert of(said, name) == (None if bounds is None else pytest.approx(bounds))


def test_a_long_text_takes_no_longer_than_its_first_amounts():
    """A number of steps, not of seconds: each amount is looked at with so much before it."""
    assert ranges(f"{'from 1990 ' * 40}from 1995", LATEST) == {"year": (1990, 1990)}
    assert ranges(f"nothing{' of' * 100} before 1990", LATEST) == {"year": (-inf, 1989)}


def test_several_at_once():
    found = ranges("from the 90s, under 2 hours and at least 4 stars", LATEST, ["stars"])
    assert found == {"year": (1990, 1999), "length": (-inf, 120 - STEP), "stars": (4, inf)}
