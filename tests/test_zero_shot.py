from dataclasses import replace

import numpy as np
import pytest
import torch

from m6rec import zero_shot
from m6rec.data.log import Log
from m6rec.data.split import leave_one_out, split_by_item, split_by_time
from m6rec.domains.domain import named
from m6rec.errors import ConfigError
from m6rec.foundation import likelihood
from m6rec.tasks import also_clicks
from m6rec.tasks.diary import Diary, write
from m6rec.types import Event, Item, User
from m6rec.zero_shot import ZeroShotConfig
from tests import tiny

ANSWERS = ("n", "y")  # the tiny tokenizer starts " no" and " yes" alike
CONFIG = ZeroShotConfig(answers=ANSWERS)


@pytest.fixture
def foundation():
    return tiny.foundation(num_layers=4)


def make_log(num_events: int = 120) -> Log:
    items = {f"i{n}": Item(f"i{n}", f"Film {n}") for n in range(7)}
    users = {f"u{n}": User(f"u{n}") for n in range(3)}
    draw = np.random.default_rng(0).integers(1, 6, num_events)
    events = tuple(Event(f"u{n % 3}", f"i{n % 7}", n, float(value)) for n, value in enumerate(draw))
    return Log(events=events, items=items, users=users)


def test_a_score_is_the_likelihood_of_the_answer_after_the_text_so_far(foundation):
    lines = (("\nHeat, liked by 50%:", 1), ("\nAlien, liked by 75%:", 0))
    batches = zero_shot.read(foundation, [Diary(lines, (4, 9), 1)], CONFIG)
    found = zero_shot.log_odds(foundation, batches)
    text = lines[0][0] + ANSWERS[1] + lines[1][0]
    pieces = [lines[0][0], ANSWERS[1], lines[1][0]]
    ids = torch.tensor([[token for piece in foundation.tokenizer.encode(pieces) for token in piece]])
    assert foundation.tokenizer.decode(ids[0].tolist()) == text
    logits = foundation.model(ids)[0, -1]
    no, yes = (ids[0] for ids in foundation.tokenizer.encode(ANSWERS))
    assert set(found) == {9}
    assert found[9] == pytest.approx(float(logits[yes] - logits[no]), abs=1e-5)


def test_answers_that_look_alike_are_refused(foundation):
    with pytest.raises(ConfigError, match=r"\(' no', ' yes'\) with one token; give other answers"):
        zero_shot.read(foundation, [Diary((("\nHeat?", 1),), (0,), 0)])


def test_every_wanted_event_is_asked_once_and_sees_only_the_past(foundation):
    log = make_log()
    domain, items = named("movielens"), dict(log.items)
    diaries = write(log.events, items, domain, 60, 120)
    asked = sorted(position for diary in diaries for position in diary.events[diary.num_lead :])
    assert asked == list(range(60, 120))
    before = {e: line for diary in diaries for e, line in zip(diary.events, diary.lines, strict=True)}
    changed = (*log.events[:90], *(Event(e.user, e.item, e.time, 6 - e.value) for e in log.events[90:]))
    for diary in write(changed, items, domain, 60, 120):
        for position, line in zip(diary.events, diary.lines, strict=True):
            if position <= 90:
                assert line[0] == before[position][0]


@pytest.mark.parametrize("way", zero_shot.WAYS)
def test_a_table_measures_zero_and_few_shot(foundation, way):
    config, split = replace(CONFIG, training=replace(CONFIG.training, learning_rate=0.1)), split_by_time(make_log(200))
    table = zero_shot.zero_shot_table(foundation, split, named("movielens"), way=way, seeds=(0,), config=config)
    assert [row.method for row in table.rows] == ["zero-shot", "80 examples", "400 examples"]
    assert all(0 <= row.mean("AUC") <= 1 for row in table.rows)
    assert table.rows[0].mean("AUC") != table.rows[1].mean("AUC")
    assert way in table.title


@pytest.mark.parametrize("way", zero_shot.WAYS)
def test_of_many_questions_as_many_are_asked_as_wanted(foundation, way):
    split, domain = split_by_time(make_log(200)), named("movielens")
    few, every = (zero_shot.WAYS[way](foundation, split, domain, most, CONFIG).measure(None) for most in (7, 200))
    assert len(few) == 7
    assert few == pytest.approx({position: every[position] for position in few}, rel=1e-4)


def test_an_unknown_way_is_named(foundation):
    with pytest.raises(ConfigError, match="no prompting strategy 'asking'; choose one of diary, also-clicks"):
        zero_shot.zero_shot_table(foundation, split_by_time(make_log(200)), named("movielens"), way="asking")


@pytest.mark.parametrize("way", zero_shot.WAYS)
@pytest.mark.parametrize("split", [leave_one_out, split_by_item, lambda log: split_by_time(log, test=0.0)])
def test_a_split_that_mixes_the_parts_is_refused(foundation, split, way):
    """Else events of the training part are measured as test events."""
    log = make_log(200)
    log = replace(log, events=tuple(event for event in log.events if event.user != "u0" or event.time < 100))
    with pytest.raises(ConfigError, match=r"in this split \(\d+ training, .* prepare the log with --split time"):
        zero_shot.zero_shot_table(foundation, split(log), named("movielens"), way=way)


def test_the_papers_way_scores_each_event_by_its_title(foundation):
    split, domain = split_by_time(make_log(100)), named("movielens")
    found = zero_shot.WAYS["also-clicks"](foundation, split, domain, 100, CONFIG).measure(None)
    rows = also_clicks.build_examples(split.log.events, split.log.items, domain, 90, 100)
    for row in rows:
        for number, event in enumerate(row.events):
            alone = likelihood.scores(foundation, [row.only(np.arange(len(row.events)) == number)])
            assert found[event] == pytest.approx(alone[0], rel=1e-4)
