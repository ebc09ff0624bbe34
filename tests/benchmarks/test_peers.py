"""Every peer on small logs: each can be fitted, none knows the future, and what was kept is read again."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import optuna
import polars as pl
import pytest

from benchmarks.peers import Budget, Peer, rankers, ranking, retrieval, retrievers, search
from benchmarks.sets import LIKES, PURCHASES
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.data.split import TEST, TRAIN, VALID, Split, leave_one_out
from m6rec.errors import DataError
from m6rec.evaluation import baselines
from m6rec.evaluation.baselines import EASEBaseline
from m6rec.evaluation.collaborative import matrix
from m6rec.evaluation.metrics import auc
from m6rec.tasks.examples import task_examples
from m6rec.tasks.task import named
from m6rec.types import Feedback

SMALL = Budget(trials=2, seconds=60, passes=2, seeds=(0, 1))
NUM_USERS, NUM_ITEMS, EACH = 48, 16, 12
WITHOUT_PACKAGE = [peer for peer in retrievers.PEERS if "MiniLM" not in peer.name]


def _log(labels):
    """Users and items of two kinds, in turns; even users like even items."""
    rng = np.random.default_rng(0)
    rows = [(f"u{n}", f"i{item}") for n in range(NUM_USERS) for item in rng.permutation(NUM_ITEMS)[:EACH]]
    order = rng.permutation(len(rows))
    events = pl.DataFrame([rows[n] for n in order], schema=["user", "item"], orient="row")
    kind = [(int(user[1:]) + int(item[1:])) % 2 == 0 for user, item in events.rows()]
    events = events.with_columns(
        time=pl.int_range(1, len(rows) + 1), value=pl.Series(kind).cast(pl.Float64) if labels else pl.lit(1.0)
    )
    items = pl.DataFrame({"item": [f"i{n}" for n in range(NUM_ITEMS)], "title": ["Film even", "Film odd"] * 8})
    return read(events, items, columns=Columns(value="value"))


def last_of(peer, data, passes):
    """The model after so many passes, or after the only one."""
    return [*islice(peer.fit(data, peer.first, 0), passes)][-1]


@pytest.fixture(scope="module")
def likes():
    log = _log(labels=True)
    part = np.repeat([TRAIN, VALID, TEST], [384, 96, 96]).astype(np.uint8)
    split = Split(log, part)
    return split, task_examples(named("like"), split, LIKES)


@pytest.fixture(scope="module")
def purchases():
    return leave_one_out(_log(labels=False))


@pytest.mark.parametrize("peer", rankers.PEERS, ids=lambda peer: peer.name)
def test_a_ranking_peer_learns_and_knows_nothing_of_the_future(peer, likes):
    split, questions = likes
    data = rankers.ask(split, LIKES, questions)
    test = questions.events(TEST)
    now = int(test[20])
    log = split.log
    later = [event if n < now else replace(event, value=1 - event.value) for n, event in enumerate(log.events)]
    changed = Split(replace(log, events=tuple(later)), split.part)
    other = rankers.ask(changed, LIKES, task_examples(named("like"), changed, LIKES))
    scores, others = (last_of(peer, of, 3)(TEST)[test <= now] for of in (data, other))
    np.testing.assert_array_equal(scores, others)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 1


@pytest.mark.parametrize("peer", WITHOUT_PACKAGE, ids=lambda peer: peer.name)
def test_a_retrieval_peer_is_repeatable_and_knows_nothing_of_the_test(peer, purchases):
    known, valid, last, test = retrievers.ask(purchases, PURCHASES, refit=True)
    log = purchases.log
    at = set(purchases.indices(TEST).tolist())
    swapped = tuple(replace(event, item="i0") if n in at else event for n, event in enumerate(log.events))
    last_too = retrievers.ask(Split(replace(log, events=swapped), purchases.part), PURCHASES, refit=True)[2]
    scores, others = (last_of(peer, of, 2)(test) for of in (last, last_too))
    np.testing.assert_array_equal(scores, others)
    assert scores.shape == (NUM_USERS, NUM_ITEMS)
    ranks = retrievers.rank(last_of(peer, known, 2), valid, NUM_ITEMS)
    assert (ranks >= 1).all()
    assert (ranks <= NUM_ITEMS - EACH + 2).all()


def test_leave_one_out_asks_for_the_last_and_fits_on_what_is_before(purchases):
    known, valid, last, test = retrievers.ask(purchases, PURCHASES, refit=True)
    assert {len(items) for items in known.likes} == {EACH - 2}
    assert {len(items) for items in last.likes} == {EACH - 1}
    assert {len(items) for items in valid.likes} == {EACH - 2}
    assert {len(items) for items in test.likes} == {EACH - 1}
    _, _, once, _ = retrievers.ask(purchases, PURCHASES, refit=False)
    assert {len(items) for items in once.likes} == {EACH - 2}


def test_a_user_without_training_likes_is_a_stranger(likes):
    split, _ = likes
    events = tuple(
        replace(e, user="u0") if n == 570 else e for n, e in enumerate(split.log.events) if n > 570 or e.user != "u0"
    )
    short = Split(replace(split.log, events=events), split.part[-len(events) :])
    _, _, known, test = retrievers.ask(
        short, replace(LIKES, rating=lambda value: Feedback(True, 1.0, "liked {}")), refit=False
    )
    assert any(not len(likes) for likes in test.likes)
    for peer in WITHOUT_PACKAGE:
        assert np.isfinite(last_of(peer, known, 1)(test)).all()


def test_ease_in_single_precision_is_ease(purchases):
    known = retrievers.ask(purchases, PURCHASES, refit=True)[0]
    expected = EASEBaseline(8.0).fit(matrix(known.likes, NUM_ITEMS)).weight_II
    np.testing.assert_allclose(retrievers._ease_weights(known, 3), expected, rtol=1e-3, atol=1e-5)


def test_a_memory_of_one_counts_as_the_library_does(purchases):
    known, valid, _, _ = retrievers.ask(purchases, PURCHASES, refit=True)
    histories = retrievers.weighted(valid.likes, NUM_ITEMS, 1)
    ours = retrievers.weighted(valid.likes, NUM_ITEMS, 0.5).toarray()
    for row, items in zip(ours, valid.likes, strict=True):
        np.testing.assert_allclose(row[items], 0.5 ** np.arange(len(items))[::-1])
    model = baselines.ItemKNN(k=100).fit(matrix(known.likes, NUM_ITEMS))
    peer = next(peer for peer in retrievers.PEERS if peer.name == "item-kNN")
    found = next(peer.fit(known, peer.first, 0))(valid)
    np.testing.assert_allclose(found, model.scores(histories), rtol=1e-5)


def test_all_is_kept_and_read_again(tmp_path, likes, purchases):
    split, questions = likes
    few = [peer for peer in rankers.PEERS if peer.name in ("item's share", "MLP, same statistics")]
    told = []
    found = ranking(split, LIKES, questions, SMALL, tmp_path, peers=few, tell=told.append)
    assert [len(by_seed) for by_seed in found.values()] == [1, 2]
    first, second = found["MLP, same statistics"]
    assert not np.array_equal(first, second)
    again = ranking(split, LIKES, questions, SMALL, tmp_path, peers=few, tell=told.append)
    assert told[-1] == "MLP, same statistics: kept"
    for name, by_seed in found.items():
        np.testing.assert_array_equal(by_seed, again[name])
    kept = json.loads((tmp_path / "mlp-same-statistics.json").read_text())
    assert len(kept["trials"]) == 2
    assert kept["trials"][0][0] == few[1].first
    assert kept["value"] == max(value for _, _, value in kept["trials"])
    table = rankers.table("likes", split, questions, found, SMALL, np.ones(len(split.part), np.bool_))
    assert table.columns == ("AUC", "UAUC", "AUC, warm", "UAUC, warm")
    assert table.rows[0].metrics["AUC"] == (auc(questions.labels(TEST), found["item's share"][0]),)
    ranks = retrieval(purchases, PURCHASES, SMALL, tmp_path, refit=True, peers=retrievers.PEERS[:2])
    (made,) = retrievers.tables("next", purchases, PURCHASES, ranks, SMALL, refit=True)
    assert [row.method for row in made.rows] == ["popularity", "item-kNN"]


def test_the_best_pass_of_the_best_trial_is_chosen_and_time_ends_a_search():
    def fit(data, settings, seed):
        yield from (data + settings["x"] - abs(number - 3) for number in range(1, 100))

    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    peer = Peer(name="a", fit=fit, space=space, first={"x": 1.0})
    chosen = search.tune(peer, 0, float, Budget(trials=3, seconds=60, patience=2))
    assert (chosen.settings, chosen.passes, chosen.value) == ({"x": 1.0}, 3, 1.0)
    assert len(chosen.trials) == 3
    assert search.fitted(peer, 0, chosen, 5) == 1.0
    assert len(search.tune(peer, 0, float, Budget(trials=3, seconds=0)).trials) == 1


def test_a_split_that_leaks_is_refused(tmp_path, likes):
    split, questions = likes
    events = (*split.log.events[:-1], split.log.events[0])
    leaking = Split(replace(split.log, events=events), split.part)
    with pytest.raises(DataError, match="repeated events"):
        ranking(leaking, LIKES, questions, SMALL, tmp_path)
    with pytest.raises(DataError, match="repeated events"):
        retrieval(leaking, LIKES, SMALL, tmp_path, refit=False)
