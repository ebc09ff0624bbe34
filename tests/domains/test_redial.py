import json

import pytest

from m6rec.data.split import TEST, TRAIN, split_by_user
from m6rec.domains.redial import DOMAIN
from m6rec.errors import DataError
from m6rec.tasks.examples import task_drafts
from m6rec.tasks.reply import TASK
from m6rec.types import Event
from tests.shared import shared

ROW = {
    "movieMentions": {"11": "Alien  (1979)", "22": 'The "Heat" (1995)', "33": "Babe", "50": None},
    "initiatorQuestions": {"11": {"liked": 1}, "22": {"liked": 0}},
    "messages": [
        {"text": "Hi, what do you like?", "senderWorkerId": 3},
        {"text": 'Not @22, "not" @50 First Dates, but @33!', "senderWorkerId": 7},
        {"text": " ", "senderWorkerId": 7},
        {"text": "See @11! More than @22.", "senderWorkerId": 3},
    ],
    "conversationId": "391",
    "initiatorWorkerId": 7,
}


def load(tmp_path, *rows):
    path = tmp_path / "train_data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return DOMAIN.load(path)


def test_messages_and_what_the_seeker_thinks_of_films_are_events(tmp_path):
    log = load(tmp_path, ROW)
    assert list(log.events) == [
        Event("391", "", 1, text="Hi, what do you like?", kind="response"),
        Event("391", "22", 2, kind="dislike"),
        Event("391", "33", 2, kind="like"),
        Event("391", "", 2, text="Not \"The 'Heat'\" (1995), 'not' @50 First Dates, but \"Babe\"!", kind="utterance"),
        Event("391", "", 3, text='See "Alien" (1979)! More than "The \'Heat\'" (1995).', kind="response"),
    ]
    assert log.items["11"].title == "Alien"
    assert log.items["11"].details == {"year": 1979}
    assert [DOMAIN.feedback(event).positive for event in log.events] == [None, False, True, None, None]


def test_a_reply_is_asked_for_after_what_was_said_and_liked_and_names_no_film(tmp_path):
    other = ROW | {"conversationId": "392", "movieMentions": [], "initiatorQuestions": []}
    log = load(tmp_path, ROW, other, other | {"conversationId": "393"})
    drafts = task_drafts(TASK, split_by_user(log, valid=1 / 3, test=1 / 3), DOMAIN)
    own = next(of for of in drafts.values() if of[1].context)
    assert [draft.prompt for draft in own] == [
        "SYSTEM:",
        "SYSTEM: Hi, what do you like? USER: Not \"The 'Heat'\" (1995), 'not' @50 First Dates, but \"Babe\"! SYSTEM:",
    ]
    assert [draft.target for draft in own] == [" Hi, what do you like?", " See @! More than @."]
    assert own[0].context == ()
    assert [segment.text for segment in own[1].context] == [
        "The movie \"The 'Heat'\" (1995). The user disliked it.",
        'The movie "Babe". The user liked it.',
    ]


@pytest.mark.parametrize("bad", [{}, [], {**ROW, "messages": [{}]}, {**ROW, "movieMentions": 3}])
def test_a_bad_line_is_named(tmp_path, bad):
    with pytest.raises(DataError, match=r"train_data.jsonl: line 2 .*; give a file of ReDial"):
        load(tmp_path, ROW, bad)


def test_the_published_set_is_split_by_dialogue():
    log = DOMAIN.load(shared("redial/valid_1000_raw_linked.jsonl"))
    kinds = log.table.column("kind").to_list()
    assert (len(log.users), kinds.count("response"), kinds.count("utterance")) == (1_000, 6_253, 6_141)
    split = split_by_user(log)
    users = [{log.events[place].user for place in split.indices(part).tolist()} for part in (TRAIN, TEST)]
    assert [len(some) for some in users] == [800, 100]
    assert not users[0] & users[1]
