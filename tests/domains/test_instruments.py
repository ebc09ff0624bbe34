import json

import pytest

from m6rec.data.schema import Limits
from m6rec.domains.instruments import DOMAIN
from m6rec.errors import DataError
from m6rec.types import Event
from tests.shared import shared


def review(user, item, stars, time, summary, text):
    return {
        "reviewerID": user, "asin": item, "helpful": [0, 0], "reviewText": text, "overall": stars,
        "summary": summary, "unixReviewTime": time, "reviewTime": "a day",
    }  # fmt: skip


def load(tmp_path, *rows):
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DOMAIN.load(path)


def test_reviews_become_events_in_the_order_of_time(tmp_path):
    log = load(
        tmp_path,
        review("U2", "B1", 2.0, 1_393_545_600, "good", "It does.\nReally."),
        review("U1", "B1", 5.0, 1_363_392_000, "Best", ""),
    )
    assert log.events == (
        Event("U1", "B1", 1_363_392_000, 5, "Best"),
        Event("U2", "B1", 1_393_545_600, 2, "good\nIt does.\nReally."),
    )
    assert [DOMAIN.action(event) for event in log.events] == ["loved it", "disliked it"]
    assert [DOMAIN.positive(event) for event in log.events] == [True, False]
    assert "B1" not in DOMAIN.item(log.items["B1"])


def test_a_text_of_any_length_is_kept_to_what_a_log_holds(tmp_path):
    (event,) = load(tmp_path, review("U", "B", 5.0, 1, "s", "x" * 30_000)).events
    assert len(event.text) == Limits.TEXT_CHARS


def test_what_is_no_file_of_reviews_is_named(tmp_path):
    path = tmp_path / "reviews.jsonl"
    path.write_text("no json\n")
    with pytest.raises(DataError, match=r"reviews\.jsonl: line 1 can't be read"):
        DOMAIN.load(path)
    with pytest.raises(DataError, match="can't be read"):
        DOMAIN.load(tmp_path / "absent")


def test_the_published_set():
    log = DOMAIN.load(shared("musical_instruments/reviews_5core.jsonl"))
    assert (len(log.events), len(log.users), len(log.items)) == (10_261, 1_429, 900)
    assert not log.dropped
    assert all(event.text for event in log.events)
