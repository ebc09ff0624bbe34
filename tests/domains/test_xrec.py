import json

import pytest

from m6rec.domains.xrec import DOMAIN
from m6rec.errors import DataError
from m6rec.types import Event
from tests.shared import shared


def line(user, item, title):
    return {
        "uid": user, "iid": item, "title": title, "user_summary": f"Reader {user} likes the sea.",
        "item_summary": "Fans of the sea would like it.", "explanation": f"They like {title}.",
    }  # fmt: skip


def test_explanations_become_the_texts_of_events(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [line(4, 12, "Ships &amp; Sails"), line(4, 3, "Calm"), line(5, 3, "Calm")]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    log = DOMAIN.load(path)
    assert log.events[0] == Event("4", "12", 0, None, "They like Ships &amp; Sails.")
    assert [(event.user, event.item) for event in log.events] == [("4", "12"), ("4", "3"), ("5", "3")]
    assert DOMAIN.item(log.items["12"]) == 'the book "Ships & Sails"'
    assert log.items["3"].details == {"summary": "Fans of the sea would like it."}
    assert DOMAIN.user(log.users["5"]) == "Reader 5 likes the sea."


def test_what_is_not_the_set_is_named(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"uid": 1, "iid": 2}\n')
    with pytest.raises(DataError, match=r"test.jsonl can't be read"):
        DOMAIN.load(tmp_path / "test.jsonl")


def test_the_published_set():
    log = DOMAIN.load(shared("xrec_amazon/test.jsonl"))
    assert (len(log.events), len(log.users), len(log.items)) == (3_000, 1_830, 2_545)
    assert all(DOMAIN.user(user) for user in log.users.values())
