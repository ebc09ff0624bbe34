from pathlib import Path

import polars as pl
import pytest

from m6rec.data.log import Log
from m6rec.domains.clothes import DOMAIN

REVIEWS = {
    "Clothing ID": [767, 1080, 767, 5],
    "Age": [33, 60, 41, 20],
    "Title": [None, "Nice", None, None],
    "Review Text": ["Silky", None, "Too tight", "?"],
    "Rating": [4, 5, 2, 3],
    "Recommended IND": [1, 1, 0, 1],
    "Division Name": ["Initmates", "General", "Initmates", None],
    "Department Name": ["Intimate", "Dresses", "Intimate", None],
    "Class Name": ["Sleep", "Dresses", "Sleep", None],
}


@pytest.fixture
def log(tmp_path: Path) -> Log:
    pl.DataFrame(REVIEWS).write_parquet(tmp_path / "reviews.parquet")
    return DOMAIN.load(tmp_path)


def test_each_review_is_the_event_of_a_shopper_of_its_own(log: Log) -> None:
    assert [(event.user, event.item, event.time, event.value, event.text) for event in log.events] == [
        ("shopper-0", "767", 0, 1, "Silky"),
        ("shopper-1", "1080", 0, 1, ""),
        ("shopper-2", "767", 0, 0, "Too tight"),
    ]
    assert log.dropped == {"events: item is not in the table of items": 1}  # a garment without a class
    assert [item.title for item in log.items.values()] == ["Sleep no. 767", "Dresses no. 1080"]


def test_words_hold_no_number_of_a_garment(log: Log) -> None:
    words = [f"The user {DOMAIN.action(event, DOMAIN.item(log.items[event.item]))}." for event in log.events]
    assert words == [
        'The user recommended the garment of class "Sleep" (Intimate).',
        'The user recommended the garment of class "Dresses" (General).',
        'The user did not recommend the garment of class "Sleep" (Intimate).',
    ]
    assert DOMAIN.user(log.users["shopper-1"]) == "The user is a shopper in their early sixties."
    assert [DOMAIN.positive(event) for event in log.events] == [True, True, False]
