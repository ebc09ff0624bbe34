from dataclasses import replace

import numpy as np
import pytest
import torch

from m6rec.data.log import Log
from m6rec.data.split import TEST, TRAIN, VALID, split_by_time
from m6rec.domains import domain as domains
from m6rec.errors import DataError
from m6rec.evaluation.future import check_future, told_to, told_to_retrieval
from m6rec.evaluation.ranking import ranking_metrics, ranking_table
from m6rec.evaluation.retrieval import Retriever, retrieval_ranks, retrieval_tables
from m6rec.readouts import EmbedModel, GenerateModel, TaskModelConfig
from m6rec.readouts.embed import fit_sources
from m6rec.retrieval.blend import weigh
from m6rec.retrieval.examples import likes_of
from m6rec.tasks.examples import check_leaks, task_drafts, task_examples
from m6rec.tasks.task import named
from m6rec.types import Event, Item, User
from tests import tiny

RNG = np.random.default_rng(0)
BOOKS = domains.named("books")
ITEMS = {f"i{n}": Item(f"i{n}", f"Book {n}") for n in range(30)}
USERS = {f"u{n}": User(f"u{n}") for n in range(25)}
DRAWN = RNG.permutation([(u, i) for u in range(25) for i in range(30)])[:500]
# The parity of user and item says whether it is liked; the last three items come at the end only.
PAIRS = sorted(DRAWN.tolist(), key=lambda pair: pair[1] >= 27)
LOG = Log(
    events=tuple(Event(f"u{u}", f"i{i}", n + 1, 9.0 if (u + i) % 2 else 2.0) for n, (u, i) in enumerate(PAIRS)),
    items=ITEMS,
    users=USERS,
)
SPLIT = split_by_time(LOG)
EXAMPLES = EmbedModel.examples(named("retrieve"), SPLIT, BOOKS)


def test_warm_and_new_items_are_ranked_by_one_score():
    blend = fit_sources(EXAMPLES[TRAIN])
    assert len(set(ITEMS) - set(blend.numbers)) == 3
    users, items = np.zeros((len(EXAMPLES[TEST].targets), 4), np.float32), np.zeros((len(ITEMS), 4), np.float32)
    late = retrieval_ranks(EXAMPLES, Retriever(users, items, blend))
    assert late.min() > 3  # all that is liked is new, and nothing is read of it
    users[:, 0] = items[27:, 0] = 1
    text_first = replace(blend, weights={**dict.fromkeys(blend.weights, 0), "text": 1})
    every, unseen = retrieval_tables(SPLIT, EXAMPLES, BOOKS, {"ours": [Retriever(users, items, text_first)]})
    assert [row.method for row in every.rows] == ["ours", "popularity", "item-kNN", "EASE", "matrix factorisation"]
    assert every.rows[0].mean("HitRate@10") == unseen.rows[0].mean("HitRate@100") == 1  # the three, ahead of all
    assert "30 items" in every.note


def test_ranks_are_those_of_the_score_that_is_served():
    positions, targets = EXAMPLES[TEST].events, EXAMPLES[TEST].targets
    users, items = RNG.standard_normal((len(targets), 4), np.float32), RNG.standard_normal((30, 4), np.float32)
    blend = fit_sources(EXAMPLES[TRAIN])
    found = retrieval_ranks(EXAMPLES, Retriever(users, items, blend))
    for place in (0, 3, len(targets) - 1):
        before = [e for e in LOG.events[: positions[place]] if e.user == LOG.events[positions[place]].user]
        added = blend.strongest([event.item for event in before if BOOKS.positive(event)], 30)
        score = {
            item: blend.text * float(users[place] @ items[number]) + added.get(item, 0)
            for number, item in enumerate(ITEMS)
            if item not in {event.item for event in before}
        }
        assert found[place] == 1 + sum(score[item] > score[list(ITEMS)[targets[place]]] for item in score)


def test_weights_are_learned_from_validation():
    asked, ids = EXAMPLES[VALID], list(ITEMS)
    targets, unit = asked.targets, np.eye(30, dtype=np.float32)
    sources = fit_sources(EXAMPLES[TRAIN], unit)
    known = weigh(sources, asked.held_out(ids, unit[targets], unit))
    # The vectors tell what will be liked; few questions move it little.
    assert known.text > sources.text + 0.03
    unknown = weigh(sources, asked.held_out(ids, unit[targets - 1], unit))
    assert unknown.text < sources.text - 0.03


def test_sources_of_the_training_part_score_what_is_liked():
    blend = fit_sources(EXAMPLES[TRAIN])
    scores = blend.scores(["i3", "i11"])
    liked = np.array([int(item[1:]) % 2 == 1 for item in blend.numbers])  # by those who like any odd one
    assert scores[liked].min() > 10 * scores[~liked].max()


def test_of_many_questions_those_of_drawn_users_are_kept():
    asked = task_examples(named("like"), SPLIT, BOOKS)
    drawn = asked.drawn({TEST: 20})
    assert 20 <= len(drawn.labels(TEST)) < 20 + max(len(row.events) for row in asked.rows[TEST])
    assert all(any(row is other for other in asked.rows[TEST]) for row in drawn.rows[TEST])
    assert drawn.rows[VALID] == asked.rows[VALID]
    assert asked.drawn({TEST: 10_000}).rows == asked.rows


def test_ranking_stands_beside_the_baselines():
    questions = task_examples(named("like"), SPLIT, BOOKS)
    check_leaks(SPLIT, questions)
    labels = questions.labels(TEST)
    table = ranking_table(SPLIT, questions, BOOKS, {"ours": [np.where(labels == 1, 0.9, 0.1)]}, seeds=(0,))
    measured = {row.method: row.mean("AUC") for row in table.rows}
    assert measured["ours"] == 1
    assert {"popularity", "item mean", "EASE", "LightGBM, same statistics", "MLP, same statistics"} <= set(measured)
    assert "Paired bootstrap over users" in table.note


def test_leaks_are_found():
    questions = task_examples(named("like"), SPLIT, BOOKS)
    row = questions.rows[TEST][0]
    later = replace(row, visible=np.minimum(row.visible + 1, len(row.context)), context=(*row.context, row.context[-1]))
    with pytest.raises(DataError, match="sees more or less than its past"):
        check_leaks(SPLIT, replace(questions, rows={TEST: [later]}))
    twice = replace(SPLIT, log=replace(LOG, events=(*LOG.events[:-1], LOG.events[0])))
    with pytest.raises(DataError, match=r"1 events in two parts \(the first: event 499, .*; 1 repeated events"):
        check_leaks(twice, questions)


SOURCES = lambda split, domain: fit_sources(likes_of(split, domain))  # noqa: E731


@pytest.mark.parametrize("told", [told_to(named("like")), told_to_retrieval(SOURCES)])
def test_no_question_changes_with_its_future(told):
    check_future(told, SPLIT, BOOKS, {"u1", "u2"})
    with pytest.raises(DataError, match="none of the 1 users has an event in validation or test"):
        check_future(told, SPLIT, BOOKS, {"nobody"})


def test_sources_of_the_whole_log_are_found():
    whole = lambda split, domain: SOURCES(replace(split, part=np.zeros_like(split.part)), domain)  # noqa: E731
    with pytest.raises(DataError, match="questions that know the future"):
        check_future(told_to_retrieval(whole), SPLIT, BOOKS, set(USERS))


def test_a_task_that_remembers_what_it_has_worded_is_found():
    like = named("like")
    peeking = {}

    def behaviour(event, item, domain):
        peeking[item.id] = event.value
        return like.event_text(event, item, domain)

    def candidate(item, domain):
        (segment,) = like.candidate(item, domain)
        return (replace(segment, text=f"{segment.text} {peeking.get(item.id, 'new')}"),)

    with pytest.raises(DataError, match="questions that know the future"):
        check_future(told_to(replace(like, event_text=behaviour, candidate=candidate)), SPLIT, BOOKS, {"u1"})


def test_within_user_measures_need_a_user_with_both_labels():
    labels, scores = np.array([1, 0, 1]), np.array([0.9, 0.2, 0.4])
    assert list(ranking_metrics(labels, scores, np.array([0, 1, 2]), probabilities=False)) == ["AUC"]
    measured = ranking_metrics(labels, scores, np.array([0, 0, 2]), probabilities=False)
    assert measured == {"AUC": 1.0, "GAUC": 1.0, "UAUC": 1.0}


SAID = replace(LOG, events=tuple(replace(e, text="Great story! Fine." if e.value > 4 else "Dull.") for e in LOG.events))


def test_texts_stand_beside_the_untuned_model():
    foundation = tiny.foundation()
    foundation.model.config = replace(foundation.model.config, end_ids=(0,))
    drafts = task_drafts(named("explain"), split_by_time(SAID), BOOKS)
    few = {part: of_part[:6] for part, of_part in drafts.items()}
    config = TaskModelConfig(task="explain", domain="books", foundation="tiny", method="adapter", depth=2)
    writer = GenerateModel.create(config, foundation)
    valid, test = GenerateModel.tables([writer], SPLIT, few, num_written=3)
    for table, part in ((valid, VALID), (test, TEST)):
        nats, counts = writer.nats(few[part])
        assert [row.method for row in table.rows] == ["m6rec, adapter", "untuned"]
        assert table.rows[0].mean("perplexity") == pytest.approx(np.exp(-nats.sum() / counts.sum()))
        assert table.rows[0].metrics == table.rows[1].metrics  # fresh, it is the untuned model
        assert table.lead == 0
    assert set(test.columns) > {"BLEU-4", "ROUGE-1", "USR"}
    assert "BLEU-4" not in valid.columns
    assert "3 of them were written" in test.note
    with torch.no_grad():
        writer.adapter.slots_SD.add_(1)
    changed = GenerateModel.tables([writer], SPLIT, few, num_written=0)[1]
    assert changed.rows[1].metrics == {name: test.rows[1].metrics[name] for name in changed.columns}
    assert changed.lead != 0


def test_drafts_need_what_was_written_in_every_part():
    with pytest.raises(DataError, match="the training part has no event that 'explain' asks about"):
        task_drafts(named("explain"), SPLIT, BOOKS)
    twice = split_by_time(replace(SAID, events=(*SAID.events[:-1], SAID.events[0])))
    with pytest.raises(DataError, match="1 repeated events"):
        task_drafts(named("explain"), twice, BOOKS)


def test_a_training_part_without_a_like_is_told():
    """Of which a library would say something about the shape of an array."""
    unloved = tuple(replace(event, value=2.0) for event in LOG.events)
    split = replace(SPLIT, log=replace(LOG, events=unloved))
    with pytest.raises(DataError, match=r"has no event that .* say what is positive .*--positive .*--implicit"):
        task_examples(named("like"), split, BOOKS)
