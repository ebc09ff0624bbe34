import pytest

from m6rec.domains.movielens import DOMAIN
from m6rec.language.lexicon import MAX_NAMES, Lexicon, Vocabulary, tokens
from m6rec.types import Item

ITEMS = [
    Item("heat", "Heat", ("Crime", "Drama"), {"year": 1995}),
    Item("heat72", "Heat", ("Comedy",), {"year": 1972}),
    Item("wars", "Star Wars", ("Sci-Fi",), {"year": 1977}),
    Item("trek", "Star Trek: First Contact (1996)", ("Sci-Fi",)),
    Item("list", "Schindler's List", ("War",)),
    Item("game", "The Game", ("Children's",), {"length": 90}),
    Item("it", "It", ("Horror",), {"runtime": "100", "price": 3.5}),
]


@pytest.fixture
def lexicon():
    return Lexicon(ITEMS, DOMAIN.vocabulary)


def found(lexicon, text):
    return [name.items for name in lexicon.titles(tokens(text))]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("i loved star wars and star trek first contact", [("wars",), ("trek",)]),
        ("STAR TREK: FIRST CONTACT!", [("trek",)]),
        ("schindlers list", [("list",)]),
        ("Schindler’s List (1993)", [("list",)]),
        ('"Heat" (1995)', [("heat",)]),
        ("heat 1972", [("heat72",)]),
        ("like Heat", [("heat", "heat72")]),
        ("I liked heat.", [("heat", "heat72")]),
        ("Star Wars (2010)", []),
        ("I can't stand the heat of summer", []),
        ("It is late. It was fun, and it is on", []),
        ("the best movie is It", [("it",)]),
        ("I like the game of chess", []),
        ("have you seen The Game?", [("game",)]),
        ("", []),
    ],
)
def test_titles_are_found_where_they_are_meant(lexicon, text, items):
    assert found(lexicon, text) == items


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("something funny", ["Comedy"]),
        ("comedies or science fiction", ["Comedy", "Sci-Fi"]),
        ("sci fi, crimes", ["Sci-Fi", "Crime"]),
        ("for kids", ["Children's"]),
        ("a western", []),
    ],
)
def test_categories_are_found_by_their_words_and_by_others(lexicon, text, names):
    assert [name for _, name in lexicon.categories(tokens(text))] == names


def test_numbers_come_from_details_or_the_title(lexicon):
    assert [lexicon.number(item, "year") for item in ("heat", "trek", "list", "gone")] == [1995, 1996, None, None]
    assert [lexicon.number(item, "length") for item in ("game", "it", "heat")] == [90, 100, None]
    assert lexicon.number("it", "price") == 3.5
    assert lexicon.latest_year == 1996


def test_items_come_and_go(lexicon):
    lexicon.remove(["wars", "trek", "nobody"])
    assert found(lexicon, "Star Wars, Star Trek First Contact") == []
    assert lexicon.latest_year == 1995
    assert lexicon.categories(tokens("sci-fi")) == []
    lexicon.put([Item("wars", "Star Battles", ("Western",), {"year": 2001})])
    assert found(lexicon, "Star Wars, star battles") == [("wars",)]
    assert [name for _, name in lexicon.categories(tokens("cowboy"))] == ["Western"]
    assert lexicon.latest_year == 2001
    lexicon.remove([item.id for item in ITEMS])
    assert (lexicon.commonest(3), lexicon.latest_year) == ([], 0)


def test_a_text_full_of_titles_is_read_up_to_a_bound(lexicon):
    assert len(found(lexicon, "Star Wars. " * 1_000)) == MAX_NAMES


def test_a_category_is_meant_before_a_title_of_the_same_word():
    lexicon = Lexicon([*ITEMS, Item("war", "The War", ("War",), {"year": 1994})], DOMAIN.vocabulary)
    assert found(lexicon, "I am tired of war") == []
    assert found(lexicon, "I liked The War") == found(lexicon, "war (1994)") == [("war",)]


def test_titles_without_words_are_no_names():
    lexicon = Lexicon([Item("dots", "…"), Item("none", "")])
    assert found(lexicon, "… and more") == []


def test_a_domain_brings_its_own_words():
    shop = Vocabulary(nouns=("lamp",), synonyms=(("lantern", "light", "glowing"),))
    items = [Item("a", "Firefly", ("Lantern",)), Item("b", "Dune", ("Tent",))]
    asked = tokens("a glowing thing, and a lamp Firefly")
    assert [name for _, name in Lexicon(items, shop).categories(asked)] == ["Lantern"]
    assert Lexicon(items).categories(asked) == []
    small = tokens("not the lamp firefly")
    assert [name.items for name in Lexicon(items, shop).titles(small)] == [("a",)]
    assert Lexicon(items).titles(small) == []
