"""The wording of also_clicks, and that a question holds earlier likes only."""

from dataclasses import replace

import numpy as np

from m6rec.domains.generic import DOMAIN
from m6rec.tasks import also_clicks
from m6rec.text.batch import Example
from m6rec.types import Event, Item

ITEMS = {name: Item(name, f"Film {name}") for name in "abcd"}
EVENTS = [
    Event("u", "a", 1, 1.0), Event("v", "b", 2, 0.0), Event("u", "b", 3, 0.0),
    Event("u", "c", 4, 1.0), Event("v", "a", 5, 1.0), Event("u", "d", 6, 1.0),
]  # fmt: skip


def written(row: Example, number: int) -> str:
    question = row.question(number)
    return "".join(segment.text for segment in question.context + question.candidate)


def test_questions_read_as_in_the_paper():
    u, v = also_clicks.build_examples(EVENTS, ITEMS, DOMAIN, 2, 6)
    assert [written(u, number) for number in range(3)] == [
        "A user likes Film a also likes Film b",
        "A user likes Film a also likes Film c",
        "A user likes Film a, Film c also likes Film d",
    ]
    assert written(v, 0) == "A user also likes Film a"
    assert u.labels.tolist() == [0, 1, 1]
    assert np.concatenate([u.events, v.events]).tolist() == [2, 3, 5, 4]


def test_only_the_title_is_scored():
    u, _ = also_clicks.build_examples(EVENTS, ITEMS, DOMAIN, 2, 6)
    assert [segment.text for segment in u.candidates[0] if segment.slot == "candidate"] == [" Film b"]


def test_the_future_changes_no_question():
    changed = [*EVENTS[:3], *(replace(event, value=1 - event.value) for event in EVENTS[3:])]
    before, after = (also_clicks.build_examples(events, ITEMS, DOMAIN, 2, 6)[0] for events in (EVENTS, changed))
    assert [written(before, n) for n in (0, 1)] == [written(after, n) for n in (0, 1)]


def test_long_histories_are_cut_into_rows_that_cover_every_event_once():
    events = [Event("u", "abcd"[n % 4], n, float(n % 2)) for n in range(130)]
    rows = also_clicks.build_examples(events, ITEMS, DOMAIN, 20, 130)
    assert np.concatenate([row.events for row in rows]).tolist() == list(range(20, 130))
    assert [len(row.candidates) for row in rows] == [48, 48, 14]
    assert all(row.visible[0] == 1 + also_clicks.LEAD for row in rows)
