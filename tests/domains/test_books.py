from pathlib import Path

import pytest

from m6rec.data.log import Log
from m6rec.domains.books import DOMAIN
from m6rec.types import Event

IMAGES = ";".join(['"http://images"'] * 3)
FILES = {
    "BX-Book-Ratings.csv": [
        '"User-ID";"ISBN";"Book-Rating"',
        '"7";"0155061224";"5"',
        '"7";"034545104X";"0"',
        '"8";"034545104X";"10"',
        '"9";"unknown";"8"',
        '"8"',
    ],
    "BX-Books.csv": [
        '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S";"Image-URL-M";"Image-URL-L"',
        f'"0155061224";"Rites &amp; \\"Ways\\"; a Reader";"Zoë Ames";"2001";"Heinle";{IMAGES}',
        f'"034545104X";"Flesh Tones";"M. J. Rose";"0";"Ballantine";{IMAGES}',
        f'"0000000000";"Never rated";"Nobody";"1999";"None";{IMAGES}',
    ],
    "BX-Users.csv": [
        '"User-ID";"Location";"Age"',
        '"7";"porto, v.n.gaia, portugal";"17"',
        '"8";"tyler, texas, usa";NULL',
        '"9";"nowhere, n/a, n/a";"244"',
        '"10";"cernusco s',
        ', milan, italy";NULL',
    ],
}


@pytest.fixture
def log(tmp_path: Path) -> Log:
    for name, lines in FILES.items():
        (tmp_path / name).write_bytes("\r\n".join([*lines, ""]).encode("latin-1"))
    return DOMAIN.load(tmp_path)


def test_ratings_of_known_books_remain_and_the_rest_is_counted(log: Log) -> None:
    assert log.events == (
        Event("7", "0155061224", 0, 5),
        Event("7", "034545104X", 0, 0),
        Event("8", "034545104X", 0, 10),
    )
    assert set(log.items) == {"0155061224", "034545104X"}
    assert set(log.users) == {"7", "8"}
    assert log.dropped == {"events: item is empty": 1, "events: item is not in the table of items": 1}


def test_words(log: Log) -> None:
    words = [f"The user {DOMAIN.action(event, DOMAIN.item(log.items[event.item]))}." for event in log.events]
    assert words == [
        "The user was lukewarm about the book \"Rites & 'Ways'; a Reader\" by Zoë Ames (2001).",
        'The user read the book "Flesh Tones" by M. J. Rose.',
        'The user loved the book "Flesh Tones" by M. J. Rose.',
    ]
    assert [DOMAIN.user(user) for user in log.users.values()] == [
        "The user is a reader in their teens from Portugal.",
        "The user is a reader from USA.",
    ]
    assert [DOMAIN.positive(event) for event in log.events] == [False, True, True]


def test_a_book_without_a_rating_is_liked_about_as_much_as_one_that_is_liked() -> None:
    strengths = [DOMAIN.feedback(Event("7", "x", 0, value)).strength for value in (1, 6, 7, 0, 9, 10)]
    assert strengths == sorted(strengths)
