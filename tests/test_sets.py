import json

import numpy as np
import pytest

from benchmarks.sets import amazon_sequences, ml1m_collm, most_active
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.errors import DataError
from tests.shared import shared

ROW = {"his": [], "flag": -1.0, "not_cold": 1}
LIKES = {
    "train": [(1, 7, 1, 30, "Film, The (1999)"), (1, 8, 0, 20, "Heat (1995)"), (2, 8, 0, 25, "Heat (1995)")],
    "valid": [(2, 7, 1, 40, "Film, The (1999)")],
    "test": [(2, 9, 1, 50, "Babe (1995)"), (2, 5, 0, 50, "Alien (1979)")],
}


def test_likes_with_the_published_parts(tmp_path):
    for name, rows in LIKES.items():
        lines = (dict(zip(("uid", "iid", "label", "timestamp", "title"), row, strict=True)) | ROW for row in rows)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made = ml1m_collm(tmp_path)
    events = [(e.user, e.item, e.time, e.value) for e in made.split.log.events]
    assert events[:4] == [("1", "8", 20, 0), ("2", "8", 25, 0), ("1", "7", 30, 1), ("2", "7", 40, 1)]
    assert made.split.part.tolist() == [TRAIN, TRAIN, TRAIN, VALID, TEST, TEST]
    assert made.warm.all()
    assert [made.domain.positive(e) for e in made.split.log.events] == [False, False, True, True, True, False]
    (tmp_path / "valid.jsonl").write_text((tmp_path / "train.jsonl").read_text())
    with pytest.raises(DataError, match="3 events in two parts"):
        ml1m_collm(tmp_path)


SEQUENCES = ["1 0 1 2", "2 3 0 1 2", "3 1 0 3"]


@pytest.fixture
def folder(tmp_path):
    items = ({"item_id": n, "title": f"Soap {n}", "categories": [["Beauty", "Soap"], ["Beauty"]]} for n in range(4))
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    (tmp_path / "sequences.txt").write_text("\n".join(SEQUENCES) + "\n")
    return tmp_path


def test_sequences_are_left_out_by_one_and_each_part_comes_after_the_one_before(folder):
    made = amazon_sequences(folder)
    log = made.split.log
    parts = [
        [(e.user, e.item) for e, p in zip(log.events, made.split.part, strict=True) if p == part] for part in range(3)
    ]
    assert parts == [
        [("1", "0"), ("2", "3"), ("2", "0"), ("3", "1")],
        [("1", "1"), ("2", "1"), ("3", "0")],
        [("1", "2"), ("2", "2"), ("3", "3")],
    ]
    assert (np.diff(made.split.part.astype(int)) >= 0).all()
    assert made.domain.item(log.items["3"]) == 'the product of category "Soap" named "Soap 3"'
    assert {event.time for event in log.events} == {0}


def test_the_most_active_are_the_users_with_most_events_of_the_items_that_are_kept(folder):
    log = most_active(amazon_sequences(folder).split.log, items=2, users=2)
    assert set(log.items) == {"0", "1"}
    assert len(log.users) == 2
    assert {event.item for event in log.events} == {"0", "1"}


PUBLISHED = {
    "ml1m_collm": (51_623, 838, 3_255, 33_891, 10_401, 7_331),
    "amazon_beauty": (198_502, 22_363, 12_101, 153_776, 22_363, 22_363),
    "amazon_toys": (167_597, 19_412, 11_924, 128_773, 19_412, 19_412),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sets(name):
    made = (ml1m_collm if name == "ml1m_collm" else amazon_sequences)(shared(name))
    log, part = made.split.log, made.split.part
    assert (len(log.events), len(log.users), len(log.items), *np.bincount(part)) == PUBLISHED[name]
    assert not log.dropped
    if name == "ml1m_collm":
        assert made.warm[part == TRAIN].all()
        assert made.warm[part == TEST].mean() == pytest.approx(0.5665, abs=1e-4)


def test_the_history_before_each_event_is_the_published_one():
    folder = shared("ml1m_collm")
    rows = [json.loads(line) for name in LIKES for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    published = {(row["uid"], row["iid"]): row["his"] for row in rows}
    likes = {}
    for event in ml1m_collm(folder).split.log.events:
        before = likes.setdefault(event.user, [])
        assert before == published[int(event.user), int(event.item)]
        if event.value:
            before.append(int(event.item))
