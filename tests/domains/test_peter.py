import json

import pytest

from m6rec.domains import peter
from m6rec.domains.peter import DOMAIN
from m6rec.errors import DataError
from m6rec.language.opinions import Statement
from m6rec.types import Event

REVIEWS = [
    {"user": "A9", "item": "7", "rating": 5, "template": ["pool", "great", "the pool is great", 1], "predicted": "x"},
    {"user": "A2", "item": "7", "rating": 2, "template": ["rooms", "small", "rooms are small", -1]},
    {"user": "A9", "item": "3", "rating": 4, "template": ["bar", "nice", "a nice bar", 1]},
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "reviews.json"
    path.write_text(json.dumps(REVIEWS))
    return path


def test_reviews_keep_their_order(path):
    log = DOMAIN.load(path)
    assert log.events == (
        Event("A9", "7", 0, 5, "the pool is great"),
        Event("A2", "7", 0, 2, "rooms are small"),
        Event("A9", "3", 0, 4, "a nice bar"),
    )
    words = [f"The user {DOMAIN.action(event, DOMAIN.item(log.items[event.item]))}." for event in log.events]
    assert words == ["The user loved the item.", "The user disliked the item.", "The user liked the item."]


def test_statements_go_with_the_events(path):
    assert peter.statements(path)[1] == Statement("rooms", "small", -1, "rooms are small")
    assert [one.sentence for one in peter.statements(path)] == [event.text for event in DOMAIN.load(path).events]


def test_a_published_split(path, tmp_path):
    log = DOMAIN.load(path)
    for name, index in (("train", "1"), ("validation", "2"), ("test", "0")):
        (tmp_path / f"{name}.index").write_text(index)
    assert peter.split(log, tmp_path).part.tolist() == [2, 0, 1]
    (tmp_path / "test.index").write_text("0 3")
    with pytest.raises(DataError, match="no split of these 3 reviews"):
        peter.split(log, tmp_path)


@pytest.mark.parametrize(
    "content",
    ["[", '{"reviews": []}', '[{"user": "A"}]', '[{"user": "A", "item": "7", "rating": 5, "template": ["pool"]}]'],
)
def test_what_is_not_their_form_is_named(tmp_path, content):
    (tmp_path / "reviews.json").write_text(content)
    with pytest.raises(DataError, match="not JSON in PETER's form"):
        DOMAIN.load(tmp_path / "reviews.json")


def test_a_pickle_is_never_opened(tmp_path):
    (tmp_path / "reviews.pickle").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(DataError, match=r"see m6rec.domains.peter"):
        DOMAIN.load(tmp_path / "reviews.pickle")
