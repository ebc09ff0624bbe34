import json

import pytest

from m6rec.domains.domain import load
from m6rec.domains.yelp import DOMAIN
from m6rec.errors import DataError
from m6rec.types import Event

REVIEWS = [
    {"user_id": "U1", "business_id": "P1", "stars": 4.0, "date": "2018-07-07 22:09:11", "text": "Nice\n"},
    {"user_id": "U2", "business_id": "P2", "stars": 1, "date": "2016-03-09", "text": "No."},
]  # fmt: skip
PLACES = [
    {"business_id": "P1", "name": "Zoë's", "city": "Tucson", "stars": 4.5, "categories": "Food, Bagels, Bars, Music"},
    {"business_id": "P2", "name": "Garage", "city": "", "categories": None},
    {"business_id": "P3", "name": "Never reviewed", "city": "Reno", "categories": ["Food"]},
]


def test_reviews_of_places(tmp_path):
    for name, rows in (("review", REVIEWS), ("business", PLACES)):
        (tmp_path / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = load(DOMAIN, tmp_path / "review.json", tmp_path / "business.json")
    assert log.events == (
        Event("U2", "P2", 1_457_481_600, 1, "No."),
        Event("U1", "P1", 1_531_001_351, 4, "Nice"),
    )
    words = [f"The user {DOMAIN.action(event, DOMAIN.item(log.items[event.item]))}." for event in log.events]
    assert words == [
        'The user hated the place "Garage".',
        'The user liked the place "Zoë\'s" in Tucson (Food, Bagels and Bars).',
    ]
    assert set(log.items) == {"P1", "P2"}
    assert {DOMAIN.item(item) for item in load(DOMAIN, tmp_path / "review.json").items.values()} == {"the place"}
    with pytest.raises(DataError, match=r"business\.json: line 1 lacks 'user_id'; give reviews of Yelp"):
        load(DOMAIN, tmp_path / "business.json")
