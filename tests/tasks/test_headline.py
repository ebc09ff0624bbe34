from m6rec.domains.domain import named
from m6rec.tasks import headline
from m6rec.types import Item

MATRIX = Item("x", 'The "Matrix"', ("Sci-Fi",))
FANS = '6 of 7 people who liked "Alien", as you did, liked it too.'


def test_a_headline_begins_with_the_items_name():
    assert headline.copy(FANS, MATRIX) == f"\"The 'Matrix'\": {FANS}"
    assert headline.copy(" people liked\n it! ", MATRIX) == "\"The 'Matrix'\": People liked it."
    assert headline.plain(MATRIX).startswith("\"The 'Matrix'\": ")
    assert headline.prompt(MATRIX, named("movielens")).endswith("\"The 'Matrix'\":")
