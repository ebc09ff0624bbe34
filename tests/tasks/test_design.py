import pytest

from m6rec.domains.domain import named
from m6rec.tasks import design
from m6rec.types import Event, Item

DOMAIN = named("movielens")
HEAT = Item("1", "Heat", ("Crime", "Drama"))


def texts(item, value=5.0):
    return design.TASK.texts(Event("u", item.id, 1, value), item, DOMAIN)


def test_a_liked_item_is_a_design_of_each_of_its_categories():
    assert [prompt + target for prompt, target in texts(HEAT)] == [
        'The user now likes another movie of category "Crime" named "Heat"',
        'The user now likes another movie of category "Drama" named "Heat"',
    ]
    assert texts(HEAT, value=2.0) == ()
    assert [target for _, target in texts(Item("2", "Heat"))] == ['other" named "Heat"']


@pytest.mark.parametrize("title", ["Heat", 'The "Real" McCoy', 'x" named "y', "a\nb  c"])
@pytest.mark.parametrize("category", ["Crime", 'Film "Noir"'])
def test_what_was_written_is_read_back(title, category):
    """A title can neither close its quotes nor begin another blank."""
    plain = [" ".join(text.replace('"', "'").split()) for text in (category, title)]
    assert list(design.read(design.target(category, title))) == plain
    assert list(design.read(design.closed(title), category)) == plain
    given = design.prompt(DOMAIN, category) + design.closed(title)
    assert given == design.prompt(DOMAIN) + design.target(category, title)


def test_an_unfinished_text_is_read_as_far_as_it_goes():
    assert design.read('Crime" named "He') == ("Crime", "He")
    assert design.read("Cri") == ("Cri", "")
