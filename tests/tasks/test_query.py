import doctest

from m6rec.domains.domain import named
from m6rec.tasks import query
from m6rec.types import Event, Item


def test_worked_examples():
    failed, attempted = doctest.testmod(query)
    assert attempted >= 1
    assert failed == 0


def test_a_query_is_worded_from_category_and_title():
    for title, categories, expected in (
        ("Star Wars", ("Sci-Fi", "War"), "sci-fi star wars"),
        ("2001: A Space Odyssey", ("Drama",), "drama space odyssey"),
        ("It", ("Horror",), "horror"),
        ("Schindler's List", (), "schindler's list"),
        ('Say "Heat" \n twice', ("A\nB",), "a b heat twice"),
        ("x" * 200, ("Drama",), f"drama {'x' * 54}"),
    ):
        assert query.wording(Item("1", title, categories)) == expected


def test_only_liked_items_of_which_something_can_be_said_are_searched():
    domain, heat = named("movielens"), Item("1", "Heat", ("Crime",))
    assert query.TASK.texts(Event("u", "1", 1, 5.0), heat, domain) == ((query.prompt(), 'crime heat"'),)
    assert query.TASK.texts(Event("u", "1", 1, 1.0), heat, domain) == ()
    assert query.TASK.texts(Event("u", "1", 1, 5.0), Item("1", "It"), domain) == ()
