from dataclasses import replace

import pytest

from m6rec import assets
from m6rec.data.log import Log
from m6rec.data.split import split_by_time
from m6rec.domains import domain as domains
from m6rec.domains.movielens import DOMAIN
from m6rec.errors import DataError
from m6rec.types import Event, Item, User


@pytest.fixture(scope="session")
def log() -> Log:
    return DOMAIN.load(assets.get("movielens-100k"))


def test_the_whole_log_splits_eighty_ten_ten(log: Log) -> None:
    assert (len(log.events), len(log.items), len(log.users), log.dropped) == (100_000, 1_682, 943, {})
    split = split_by_time(log)
    assert [len(split.indices(part)) for part in range(3)] == [80_000, 10_000, 10_000]
    assert sum(DOMAIN.positive(log.events[at]) for at in split.indices(2)) == 5_629


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
    assert (DOMAIN.action(event), DOMAIN.positive(event)) == (f"{action} it", likes)
    assert DOMAIN.item(replace(Item("i", "Alien"), details={"year": 1979})) == 'the movie "Alien" (1979)'


def write(folder, files, encoding):
    for name, text in files.items():
        (folder / name).write_bytes(text.encode(encoding))
    return folder


ONE_M = {
    "ratings.dat": "1::1193::5::978300760\r\n2::73::3::978302109\r\n",
    "movies.dat": "73::Misérables, Les (1995)::Drama|Musical\r\n"
    "1193::Star Wars: Episode IV - A New Hope (1977)::Action\r\n",
    "users.dat": "1::F::1::10::48067\r\n2::M::56::16::70072\r\n",
}
TWENTY_M = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,1193,3.5,1112486027\n2,73,0.5,1112484676\n",
    "movies.csv": 'movieId,title,genres\n73,"Misérables, Les (1995)",Drama|Musical\n'
    '1193,"The ""X"" File ",(no genres listed)\n',
}


def test_the_published_folder_of_1m(tmp_path):
    log = domains.load(DOMAIN, write(tmp_path, ONE_M, "latin-1"))
    assert log.events == (Event("1", "1193", 978300760, 5), Event("2", "73", 978302109, 3))
    assert [DOMAIN.item(item) for item in log.items.values()] == [
        'the movie "Les Misérables" (1995, Drama and Musical)',
        'the movie "Star Wars: Episode IV - A New Hope" (1977, Action)',
    ]
    assert [DOMAIN.user(user) for user in log.users.values()] == [
        "The user is a female school student under 18.",
        "The user is a male self-employed person aged 56 or more.",
    ]


def test_the_published_folder_of_20m(tmp_path):
    log = domains.load(DOMAIN, write(tmp_path, TWENTY_M, "utf-8"))
    assert log.events == (Event("2", "73", 1112484676, 0.5), Event("1", "1193", 1112486027, 3.5))
    assert [DOMAIN.item(item) for item in log.items.values()] == [
        'the movie "Les Misérables" (1995, Drama and Musical)',
        "the movie \"The 'X' File\"",
    ]
    assert {DOMAIN.user(user) for user in log.users.values()} == {""}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds no MovieLens; give a folder with ratings\.dat"),
        (ONE_M | {"movies.dat": "73:Les"}, r"movies\.dat: line 1 can't be read \(1 fields\); give MovieLens-1M's"),
        (TWENTY_M | {"movies.csv": "id,title\n"}, r"give MovieLens-20M's ratings\.csv"),
        (TWENTY_M | {"ratings.csv": "userId,movieId,rating,timestamp\n1,2,good,3\n"}, r"give MovieLens-20M's"),
    ],
)  # fmt: skip
def test_what_is_no_movielens_is_named(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        domains.load(DOMAIN, write(tmp_path, files, "latin-1"))
