from m6rec.domains.domain import named
from m6rec.tasks import headline
from m6rec.tasks.explain import Statement
from m6rec.types import Item

MATRIX = Item("x", 'The "Matrix"', ("Sci-Fi",))
FANS = Statement('6 of 7 people who liked "Alien", as you did, liked it too.', "history", {}, 0.8)


def test_a_headline_begins_with_the_items_name():
    assert headline.copy(FANS.text, MATRIX) == f"\"The 'Matrix'\": {FANS.text}"
    assert headline.copy(" people liked\n it! ", MATRIX) == "\"The 'Matrix'\": People liked it."
    assert headline.plain(MATRIX).startswith("\"The 'Matrix'\": ")
    assert headline.prompt(FANS, MATRIX, named("movielens")).endswith("\"The 'Matrix'\":")


def test_words_say_no_more_than_the_statement():
    assert headline.unfaithful(' 6 of 7 people who liked "Alien" liked it', FANS, MATRIX) is None
    for words in (" 7 of 7 people liked it", " you will be rich", ' people liked "Heat"', " people never liked it"):
        assert headline.unfaithful(words, FANS, MATRIX)
