import json

import pytest

from m6rec.errors import DataError
from m6rec.text.dialogues import Turn, Verdict, read
from tests.shared import shared

ROW = {
    "movieMentions": {"11": "Alien  (1979)", "22": "Heat (1995)", "50": None},
    "respondentQuestions": {"11": {"suggested": 1, "seen": 2, "liked": 2}},
    "initiatorQuestions": {
        "11": {"suggested": 1, "seen": 0, "liked": 1},
        "22": {"suggested": 0, "seen": 1, "liked": 0},
        "50": {"suggested": 0, "seen": 1, "liked": 1},
    },
    "messages": [
        {"timeOffset": 0, "text": "Like @22, not @50 First Dates?", "senderWorkerId": 7, "messageId": 1},
        {"timeOffset": 9, "text": "@11! More than @22.", "senderWorkerId": 3, "messageId": 2},
    ],
    "conversationId": "391",
    "respondentWorkerId": 3,
    "initiatorWorkerId": 7,
}


def load(tmp_path, *rows):
    path = tmp_path / "train_data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return read(path)


def test_a_dialogue(tmp_path):
    (dialogue,) = load(tmp_path, ROW)
    assert dialogue.id == "391"
    assert dialogue.turns == (
        Turn(True, "Like Heat (1995), not @50 First Dates?", ("22",)),
        Turn(False, "Alien (1979)! More than Heat (1995).", ("11", "22")),
    )
    assert dialogue.titles == {"11": "Alien (1979)", "22": "Heat (1995)"}
    assert dialogue.said == {"11": Verdict(True, False, True), "22": Verdict(False, True, False)}
    assert dialogue.understood == {"11": Verdict(True, None, None)}


def test_forms_that_nobody_filled_in_are_empty(tmp_path):
    (dialogue,) = load(tmp_path, ROW | {"movieMentions": [], "respondentQuestions": [], "initiatorQuestions": []})
    assert dialogue.titles == dialogue.said == dialogue.understood == {}
    assert dialogue.turns[1] == Turn(False, "@11! More than @22.", ())


@pytest.mark.parametrize(
    "bad",
    [{}, [], {**ROW, "messages": [{}]}, {**ROW, "initiatorQuestions": {"11": {"suggested": 1, "seen": 9, "liked": 1}}}],
)
def test_a_bad_line_is_named(tmp_path, bad):
    with pytest.raises(DataError, match=r"train_data.jsonl, line 2 is not a dialogue of ReDial"):
        load(tmp_path, ROW, bad)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent can't be read"):
        read(tmp_path / "absent")


def test_the_published_set():
    dialogues = read(shared("redial/valid_1000_raw_linked.jsonl"))
    assert len(dialogues) == 1_000
    assert sum(len(dialogue.turns) for dialogue in dialogues) == 12_395
    assert len({film for dialogue in dialogues for turn in dialogue.turns for film in turn.items}) > 2_000
