from dataclasses import replace

import numpy as np
import pytest
import torch

from m6rec.data.log import Log
from m6rec.data.split import TEST, VALID, split_by_time
from m6rec.domains import domain as domains
from m6rec.errors import DataError
from m6rec.evaluate import (
    Retriever,
    check_future,
    check_leaks,
    fit_blend,
    fit_sources,
    ranking_metrics,
    ranking_table,
    retrieval_ranks,
    retrieval_tables,
    retriever_of,
    task_drafts,
    task_examples,
    text_tables,
)
from m6rec.features.interactions import InteractionStore
from m6rec.retrieval.blend import TEXT, default_weights
from m6rec.retrieval.model import NUM_MOST_LIKED
from m6rec.tasks import writing
from m6rec.tasks.task import named
from m6rec.text_model import TextModelConfig, create
from m6rec.types import Event, Item, User
from tests import tiny

RNG = np.random.default_rng(0)
BOOKS = domains.named("books")
ITEMS = {f"i{n}": Item(f"i{n}", f"Book {n}") for n in range(30)}
USERS = {f"u{n}": User(f"u{n}") for n in range(25)}
PAIRS = RNG.permutation([(u, i) for u in range(25) for i in range(30)])[:500]
# The parity of user and item says whether it is liked; the last three items come at the end only.
PAIRS = sorted(PAIRS.tolist(), key=lambda pair: pair[1] >= 27)
LOG = Log(
    events=tuple(Event(f"u{u}", f"i{i}", n + 1, 9.0 if (u + i) % 2 else 2.0) for n, (u, i) in enumerate(PAIRS)),
    items=ITEMS,
    users=USERS,
)
SPLIT = split_by_time(LOG)


def test_warm_and_new_items_are_ranked_by_one_score():
    blend = fit_sources(SPLIT, BOOKS)
    assert len(set(ITEMS) - set(blend.numbers)) == 3
    questions = task_examples(named("retrieve"), SPLIT, BOOKS)
    check_leaks(SPLIT, questions)
    users, items = np.zeros((len(questions.labels(TEST)), 4), np.float32), np.zeros((len(ITEMS), 4), np.float32)
    late = retrieval_ranks(SPLIT, questions, BOOKS, Retriever(users, items, blend))
    assert late.min() > 3  # all that is liked is new, and nothing is read of it
    users[:, 0] = items[27:, 0] = 1
    text_first = replace(blend, weights={**dict.fromkeys(blend.weights, 0), "text": 1})
    every, unseen = retrieval_tables(SPLIT, questions, BOOKS, {"ours": [Retriever(users, items, text_first)]})
    assert [row.method for row in every.rows] == ["ours", "popularity", "item-kNN", "EASE", "matrix factorisation"]
    assert every.rows[0].mean("HitRate@10") == unseen.rows[0].mean("HitRate@100") == 1  # the three, ahead of all
    assert "30 items" in every.note


def test_ranks_are_those_of_the_score_that_is_served():
    questions = task_examples(named("retrieve"), SPLIT, BOOKS)
    positions, targets = questions.events(TEST), questions.labels(TEST)
    users, items = RNG.standard_normal((len(targets), 4), np.float32), RNG.standard_normal((30, 4), np.float32)
    blend = fit_sources(SPLIT, BOOKS)
    found = retrieval_ranks(SPLIT, questions, BOOKS, Retriever(users, items, blend))
    for place in (0, 3, len(targets) - 1):
        before = [e for e in LOG.events[: positions[place]] if e.user == LOG.events[positions[place]].user]
        added = blend.strongest([event.item for event in before if BOOKS.positive(event)], 30)
        score = {
            item: blend.text * float(users[place] @ items[number]) + added.get(item, 0)
            for number, item in enumerate(ITEMS)
            if item not in {event.item for event in before}
        }
        assert found[place] == 1 + sum(score[item] > score[list(ITEMS)[targets[place]]] for item in score)


def test_who_liked_nothing_yet_is_taken_for_one_who_likes_what_most_do():
    """By the same rule as the service, so that it is measured as it is served."""
    late = tuple(Event(f"new{n}", "i1", 600 + n, 9.0) for n in range(60))
    split = split_by_time(replace(LOG, events=(*LOG.events, *late), users=USERS | {e.user: User(e.user) for e in late}))
    questions = task_examples(named("retrieve"), split, BOOKS)
    model = tiny.retrieval(tiny.foundation(), list(ITEMS.values()), "books")
    found = retriever_of(model, split, questions, BOOKS)
    place = questions.events(TEST).tolist().index(len(split.log.events) - 1)
    interactions = InteractionStore(ITEMS, BOOKS.feedback).update_all(split.log.events[:-1])
    numbers = [list(ITEMS).index(item) for item in interactions.most_liked()[:NUM_MOST_LIKED]][::-1]
    assert found.users_QE[place] == pytest.approx(model.user_vector(found.items_IE[numbers]), abs=1e-5)


def test_weights_are_learned_from_validation():
    questions = task_examples(named("retrieve"), SPLIT, BOOKS)
    targets = questions.labels(VALID)
    known = fit_blend(SPLIT, questions, BOOKS, np.eye(30, dtype=np.float32)[targets], np.eye(30, dtype=np.float32))
    assert (
        known.text > default_weights()[TEXT] + 0.03
    )  # the vectors tell what will be liked; few questions move it little
    unknown = fit_blend(
        SPLIT, questions, BOOKS, np.eye(30, dtype=np.float32)[targets - 1], np.eye(30, dtype=np.float32)
    )
    assert unknown.text < default_weights()[TEXT] - 0.03


def test_sources_of_the_training_part_score_what_is_liked():
    blend = fit_sources(SPLIT, BOOKS)
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


@pytest.mark.parametrize("name", ["like", "retrieve"])
def test_no_question_changes_with_its_future(name):
    check_future(named(name), SPLIT, BOOKS, {"u1", "u2"}, fit=fit_sources)
    with pytest.raises(DataError, match="none of the 1 users has an event in validation or test"):
        check_future(named(name), SPLIT, BOOKS, {"nobody"})


def test_sources_of_the_whole_log_are_found():
    whole = lambda split, domain: fit_sources(replace(split, part=np.zeros_like(split.part)), domain)  # noqa: E731
    with pytest.raises(DataError, match="questions that know the future"):
        check_future(named("retrieve"), SPLIT, BOOKS, set(USERS), fit=whole)


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
        check_future(replace(like, event_text=behaviour, candidate=candidate), SPLIT, BOOKS, {"u1"})


def test_within_user_measures_need_a_user_with_both_labels():
    labels, scores = np.array([1, 0, 1]), np.array([0.9, 0.2, 0.4])
    assert list(ranking_metrics(labels, scores, np.array([0, 1, 2]), probabilities=False)) == ["AUC"]
    measured = ranking_metrics(labels, scores, np.array([0, 0, 2]), probabilities=False)
    assert measured == {"AUC": 1.0, "GAUC": 1.0, "UAUC": 1.0}


SAID = replace(LOG, events=tuple(replace(e, text="Great story! Fine." if e.value > 4 else "Dull.") for e in LOG.events))


def test_texts_stand_beside_the_untuned_model():
    foundation = tiny.foundation()
    foundation.model.config = replace(foundation.model.config, end_ids=(0,))
    drafts = task_drafts(writing.named("explain"), split_by_time(SAID), BOOKS)
    few = {part: of_part[:6] for part, of_part in drafts.items()}
    config = TextModelConfig(task="explain", domain="books", foundation="tiny", method="adapter", depth=2)
    writer = create(config, foundation)
    valid, test = text_tables([writer], few, num_written=3)
    for table, part in ((valid, VALID), (test, TEST)):
        nats, counts = writer.nats(few[part])
        assert [row.method for row in table.rows] == ["m6rec adapter", "untuned"]
        assert table.rows[0].mean("perplexity") == pytest.approx(np.exp(-nats.sum() / counts.sum()))
        assert table.rows[0].metrics == table.rows[1].metrics  # fresh, it is the untuned model
        assert table.lead == 0
    assert set(test.columns) > {"BLEU-4", "ROUGE-1", "USR"}
    assert "BLEU-4" not in valid.columns
    assert "3 of them were written" in test.note
    with torch.no_grad():
        writer.adapter.slots_SD.add_(1)
    changed = text_tables([writer], few, num_written=0)[1]
    assert changed.rows[1].metrics == {name: test.rows[1].metrics[name] for name in changed.columns}
    assert changed.lead != 0


def test_drafts_need_what_was_written_in_every_part():
    with pytest.raises(DataError, match="the training part has no event that 'explain' asks about"):
        task_drafts(writing.named("explain"), SPLIT, BOOKS)
    twice = split_by_time(replace(SAID, events=(*SAID.events[:-1], SAID.events[0])))
    with pytest.raises(DataError, match="1 repeated events"):
        task_drafts(writing.named("explain"), twice, BOOKS)


@pytest.mark.parametrize("task", ["like", "retrieve"])
def test_a_training_part_without_a_like_is_told(task):
    """Of which a library would say something about the shape of an array."""
    unloved = tuple(replace(event, value=2.0) for event in LOG.events)
    split = replace(SPLIT, log=replace(LOG, events=unloved))
    with pytest.raises(DataError, match=r"has no event that .* say what is positive .*--positive .*--implicit"):
        task_examples(named(task), split, BOOKS)
