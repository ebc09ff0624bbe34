from dataclasses import replace

import pytest

from m6rec import assets
from m6rec.domains.movielens import DOMAIN
from m6rec.text.log import Log, split_by_time
from m6rec.types import Event, Item, User


@pytest.fixture(scope="session")
def log() -> Log:
    return DOMAIN.load(assets.get("movielens-100k"))


def test_the_whole_log_splits_eighty_ten_ten(log: Log) -> None:
    assert (len(log.events), len(log.items), len(log.users), log.dropped) == (100_000, 1_682, 943, {})
    split = split_by_time(log)
    assert [len(split.indices(part)) for part in range(3)] == [80_000, 10_000, 10_000]
    assert sum(DOMAIN.likes(log.events[at]) for at in split.indices(2)) == 5_629


@pytest.mark.parametrize(
    ("key", "phrase"),
    [
        ("1", 'the movie "Toy Story" (1995, Animation, Children\'s and Comedy)'),
        ("113", 'the movie "The Horseman on the Roof (Le Hussard sur le toit)" (1995, Drama)'),
        ("177", 'the movie "The Good, The Bad and The Ugly" (1966, Action and Western)'),
        ("267", 'the movie "unkonwn"'),
        ("1373", 'the movie "Good Morning" (1971)'),
        ("1412", 'the movie "Land Before Time III: The Time of the Great Giving" (1995, Animation and Children\'s)'),
    ],
)
def test_films_in_words(log: Log, key: str, phrase: str) -> None:
    assert DOMAIN.item(log.items[key]) == phrase


def test_no_title_ends_in_an_article_and_commas_of_titles_stay(log: Log) -> None:
    titles = {item.title for item in log.items.values()}
    assert not [title for title in titles if title.endswith((", The", ", A", ", An", ", La", ", Le", ", Il", ", L'"))]
    assert {"Paris, Texas", "L'Enfer", "Star Maker, The (Uomo delle stelle, L')"} & titles == {
        "Paris, Texas",
        "L'Enfer",
    }
    assert "The Star Maker (L'Uomo delle stelle)" in titles


def test_viewers_in_words(log: Log) -> None:
    assert DOMAIN.user(log.users["1"]) == "The user is a male technician in their mid twenties."
    assert DOMAIN.user(log.users["2"]) == "The user is a female viewer in their early fifties."
    assert DOMAIN.user(User("x")) == ""


@pytest.mark.parametrize(
    ("stars", "action", "likes"),
    [
        (5, "loved", True),
        (4.5, "liked", True),
        (4, "liked", True),
        (3.5, "was lukewarm about", False),
        (2, "disliked", False),
        (1, "hated", False),
        (0.5, "hated", False),
    ],
)
def test_stars_in_words(stars: float, action: str, likes: bool) -> None:
    event = Event("u", "i", 0, stars)
    assert (DOMAIN.action(event), DOMAIN.likes(event)) == (action, likes)
    assert DOMAIN.item(replace(Item("i", "Alien"), details={"year": 1979})) == 'the movie "Alien" (1979)'
