import re
from dataclasses import replace

import numpy as np
import pytest

from m6rec.domains import domain as domains
from m6rec.errors import ConfigError
from m6rec.features.interactions import FEATURES, InteractionStore
from m6rec.tasks import task as tasks
from m6rec.tasks.task import Task, ask, build_examples, named, names, texts
from m6rec.types import Event, Item, Question, Segment, User

GENERIC = domains.named("generic")
ITEMS = {name: Item(name, title) for name, title in (("i1", "Boots"), ("i2", "Hat"), ("i3", "Tent"))}
USERS = {name: User(name) for name in ("u1", "u2")}
LOG = [
    Event("u1", "i1", 1, 1),
    Event("u2", "i2", 2, 0),
    Event("u1", "i2", 3, 0),
    Event("u2", "i1", 4, 1),
    Event("u1", "i3", 5, 1),
]
EVERY = np.ones(len(LOG), bool)


def lay(task, wanted=EVERY):
    return build_examples(named(task), LOG, USERS, ITEMS, GENERIC, wanted)


@pytest.mark.parametrize("name", names())
def test_each_task_is_one_short_file(name):
    assert named(name).name == name
    assert name in names(named(name).readout)
    path = tasks.__file__.replace("task.py", f"{'explanations' if name == 'explain' else name}.py")
    with open(path, encoding="utf-8") as file:
        assert len(file.readlines()) < 60


def test_a_life_is_a_row():
    (first, second), interactions = lay("like")
    assert [segment.text for segment in first.context] == [
        'The item named "Boots". The user chose it.',
        'The item named "Hat". The user skipped it.',
    ]
    assert first.visible.tolist() == [0, 1, 2]
    assert first.candidates[2] == (Segment('The item named "Tent". Does the user like it?', "candidate"),)
    assert first.labels.tolist() == [1, 0, 1]
    assert first.events.tolist() == [0, 2, 4]
    assert second.events.tolist() == [1, 3]
    assert first.features.shape == (3, len(FEATURES))
    assert list(interactions.history("u2")) == [LOG[1], LOG[3]]


def test_only_wanted_events_are_asked_and_all_are_remembered():
    wanted = np.array([False, False, False, True, False])
    (row,), interactions = lay("like", wanted)
    assert row.question(0) == Question(
        (Segment('The item named "Hat". The user skipped it.', "history"),),
        (Segment('The item named "Boots". Does the user like it?', "candidate"),),
    )
    assert interactions.like_rate == 3 / 5


def test_click_words_clicks():
    rows, _ = lay("click")
    assert rows[0].candidates[0][0].text == 'The item named "Boots". Does the user click it?'
    assert rows[0].labels.tolist() == [1, 0, 1]


def test_several_candidates_share_their_moment():
    interactions = InteractionStore(ITEMS, GENERIC.feedback).update_all(LOG[:3])
    row = ask(named("like"), interactions, USERS["u1"], [ITEMS["i3"], ITEMS["i2"]], GENERIC, ITEMS)
    assert row.visible.tolist() == [2, 2]
    assert [block[0].text for block in row.candidates] == [
        'The item named "Tent". Does the user like it?',
        'The item named "Hat". Does the user like it?',
    ]
    np.testing.assert_array_equal(row.features, interactions.features("u1", ["i3", "i2"]))
    assert row.labels.tolist() == [-1, -1]
    assert list(texts([row])) == [*(s.text for s in row.context), row.candidates[0][0].text, row.candidates[1][0].text]


def test_facts_come_first():
    movielens = domains.named("movielens")
    user = User("u1", {"age": 24, "gender": "F", "occupation": "artist"})
    interactions = InteractionStore(ITEMS, movielens.feedback).update_all([Event("u1", "i1", 1, 5)])
    row = ask(named("like"), interactions, user, [ITEMS["i2"]], movielens, ITEMS)
    assert [segment.slot for segment in row.context] == ["user", "history"]
    assert row.context[0].text == movielens.user(user)


def test_a_task_can_be_named_by_its_path(monkeypatch, tmp_path):
    (tmp_path / "my_tasks.py").write_text("from m6rec.tasks.like import TASK as MINE\nOTHER = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert named("my_tasks:MINE") is named("like")
    for path, message in (
        ("my_tasks:OTHER", "'my_tasks:OTHER' is a int, not a task (tasks.task.Task)"),
        ("my_tasks:NONE", "give package.module:NAME"),
        ("no_tasks:X", "No module named 'no_tasks'"),
        ("lik", "there is no task 'lik'. Did you mean 'like'? Known are like, rating, click, ctr, retrieve, explain"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            named(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"readout": "rank"}, "has readout 'rank'; choose one of score, embed, generate"),
        ({"readout": "generate"}, "has readout 'generate' and no texts; give Task one"),
        ({"label": Task.label}, "has readout 'score' and no label"),
        ({"num_classes": 0, "options": ()}, "has 0 classes; give num_classes, 2 or more"),
        ({"options": (" no",)}, "has 2 classes and 1 options"),
        ({"grades": (1.0, 0.0)}, "give them in ascending order"),
    ],
)
def test_a_task_that_lacks_what_its_readout_needs_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        replace(named("like"), **given)
