import doctest
import json
import os
import subprocess
import sys
from math import log, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from m6rec.errors import ConfigError, DataError
from m6rec.evaluation import metrics

# Few distinct scores, so that most examples have ties.
events = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=60)
both_classes = events.filter(lambda rows: len({label for label, _ in rows}) == 2)


def test_worked_examples():
    failed, attempted = doctest.testmod(metrics.scores)
    assert attempted >= 11
    assert failed == 0


@given(both_classes)
@settings(deadline=None)
def test_auc_equals_scikit_learn(rows):
    labels, scores = np.array(rows).T
    assert metrics.auc(labels, scores / 7) == pytest.approx(roc_auc_score(labels, scores))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.sampled_from("abc")), min_size=6))
@settings(deadline=None)
def test_group_aucs_equal_scikit_learn_per_user(rows):
    labels, scores, users = (np.array(column) for column in zip(*rows, strict=True))
    mixed = [user for user in np.unique(users) if len(set(labels[users == user])) == 2]
    if not mixed:
        with pytest.raises(DataError, match="groups has both labels"):
            metrics.gauc(labels, scores, users)
        return
    aucs = [roc_auc_score(labels[users == user], scores[users == user]) for user in mixed]
    sizes = [(users == user).sum() for user in mixed]
    assert metrics.gauc(labels, scores, users) == pytest.approx(np.average(aucs, weights=sizes))
    assert metrics.uauc(labels, scores, users) == pytest.approx(np.mean(aucs))


@given(both_classes)
@settings(deadline=None)
def test_log_loss_equals_scikit_learn(rows):
    labels, scores = np.array(rows).T
    for dtype in (np.float32, np.float64):  # 0 and 1 are among them, so clipping is met
        probabilities = (scores / 6).astype(dtype)
        expected = sklearn_log_loss(labels, probabilities)
        assert metrics.log_loss(labels, probabilities) == pytest.approx(expected, rel=1e-6)


def test_log_loss_of_a_hand_worked_case():
    assert metrics.log_loss([1, 0, 1], [0.5, 0.75, 1.0]) == pytest.approx((log(2) + log(4)) / 3)


def test_calibration_error_of_hand_worked_cases():
    # Three bins hold (.1; 0), (.4, .5; 1, 0) and (1.0; 1): gaps .1, .05 and 0, weights ¼, 2/4 and ¼.
    gaps = 1 / 4 * 0.1 + 2 / 4 * 0.05
    assert metrics.calibration_error([0, 1, 0, 1], [0.1, 0.4, 0.5, 1.0], num_bins=3) == pytest.approx(gaps)
    assert metrics.calibration_error([0, 1], [0.0, 1.0]) == 0


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_ranks_equal_a_sort(seed):
    generator = np.random.default_rng(seed)
    scores_BI = generator.integers(4, size=(3, 8))
    target_B = generator.integers(8, size=3)
    excluded_BI = generator.random((3, 8)) < 0.3
    excluded_BI[np.arange(3), target_B] = False
    for row, rank in enumerate(metrics.ranks(scores_BI, target_B, excluded_BI)):
        kept = np.flatnonzero(~excluded_BI[row])
        ordered = sorted(-scores_BI[row, kept])
        places = [place + 1 for place, score in enumerate(ordered) if score == -scores_BI[row, target_B[row]]]
        assert rank == np.mean(places)


def test_a_constant_scorer_ranks_in_the_middle():
    np.testing.assert_array_equal(metrics.ranks(np.zeros((2, 9)), [0, 8]), [5, 5])


RANX = """
import json, sys
import ranx
scores, targets, metrics = json.load(sys.stdin)
qrels = ranx.Qrels({str(row): {str(target): 1} for row, target in enumerate(targets)})
run = ranx.Run({str(row): {str(item): float(s) for item, s in enumerate(of)} for row, of in enumerate(scores)})
print(json.dumps({name: float(value) for name, value in ranx.evaluate(qrels, run, metrics).items()}))
"""


def by_ranx(scores_BI, target_B, metrics):
    """What ranx says, in a process that compiles nothing: it would take half a minute, and this one has to compile."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RANX],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        input=json.dumps([scores_BI.tolist(), target_B.tolist(), metrics]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("k", [1, 5, 20])
def test_retrieval_metrics_equal_ranx(k):
    generator = np.random.default_rng(k)
    scores_BI = generator.permuted(np.arange(40 * 30).reshape(40, 30), axis=1)
    target_B = generator.integers(30, size=40)
    expected = by_ranx(scores_BI, target_B, [f"hit_rate@{k}", f"recall@{k}", f"ndcg@{k}", f"mrr@{k}"])
    ranks_B = metrics.ranks(scores_BI, target_B)
    assert metrics.hit_rate(ranks_B, k) == pytest.approx(expected[f"hit_rate@{k}"])
    assert metrics.hit_rate(ranks_B, k) == pytest.approx(expected[f"recall@{k}"])
    assert metrics.ndcg(ranks_B, k) == pytest.approx(expected[f"ndcg@{k}"])
    assert metrics.mrr(ranks_B, k) == pytest.approx(expected[f"mrr@{k}"])


def test_retrieval_metrics_of_a_hand_worked_case():
    assert metrics.ndcg([2, 5.5, 11], k=10) == pytest.approx((1 / log2(3) + 1 / log2(6.5)) / 3)
    assert metrics.mrr([2, 5.5, 11], k=10) == pytest.approx((1 / 2 + 2 / 11) / 3)


def _scorers(seed, *noises, size=300):
    """Labels, and one scorer a noise level, each with its own noise."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=size)
    return labels, *(labels + noise * generator.normal(size=size) for noise in noises)


def test_bootstrap_sees_a_real_difference():
    labels, good, poor = _scorers(0, 1, 3)
    found = metrics.bootstrap_difference(labels, good, poor, num_samples=200)
    assert found.value == pytest.approx(metrics.auc(labels, good) - metrics.auc(labels, poor))
    assert 0 < found.low < found.value < found.high
    assert found.p == pytest.approx(2 / 201)


def test_bootstrap_rarely_sees_a_difference_where_there_is_none():
    false_alarms = 0
    for seed in range(40):
        labels, one, other = _scorers(seed, 1, 1)
        difference = metrics.bootstrap_difference(labels, one, other, num_samples=99)
        false_alarms += not difference.low <= 0 <= difference.high
    assert false_alarms <= 6  # 2 are expected; more than 6 have a chance of .3 %


def test_bootstrap_over_users_is_wider_when_events_of_a_user_agree():
    columns = (*_scorers(0, 1, 3, size=60), np.arange(60))
    labels, good, poor, users = (np.repeat(column, 9) for column in columns)
    by_event = metrics.bootstrap_difference(labels, good, poor, num_samples=200)
    by_user = metrics.bootstrap_difference(labels, good, poor, users, num_samples=200)
    assert by_user.high - by_user.low > 2 * (by_event.high - by_event.low)


def test_bootstrap_is_repeatable_and_redraws_where_the_metric_is_undefined():
    labels, good = [1, 0, 0, 0], [4, 3, 2, 1]
    once = metrics.bootstrap_difference(labels, good, [1, 2, 3, 4], num_samples=50, seed=3)
    assert once == metrics.bootstrap_difference(labels, good, [1, 2, 3, 4], num_samples=50, seed=3)
    assert (once.value, once.low, once.high) == (1, 1, 1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: metrics.auc([1, 1], [0, 1]), "needs both classes, but all 2 labels are 1"),
        (lambda: metrics.auc([1, 0], [0, float("nan")]), "score of event 1 is NaN"),
        (lambda: metrics.auc([1, 0, 1], [0, 1]), r"shape \(3,\) and scores \(2,\)"),
        (lambda: metrics.auc([], []), "no events"),
        (lambda: metrics.auc([1, 3], [0, 1]), "label of event 1 is 3; allowed are 0 and 1"),
        (lambda: metrics.gauc([1, 0], [0, 1], ["a"]), r"groups have shape \(1,\)"),
        (lambda: metrics.log_loss([1, 0], [0.5, 2.0]), "event 1 is 2.0; allowed is 0 to 1"),
        (lambda: metrics.ranks([[1.0, 2.0]], [0, 1]), r"targets \(2,\)"),
        (lambda: metrics.ranks([[1.0, 2.0]], [2]), "items are 0 to 1"),
        (lambda: metrics.ranks([[1.0, float("nan")]], [0]), "question 0 contain NaN"),
        (lambda: metrics.ranks([[1.0, 2.0]], [1], [[False, True]]), "item 1, is excluded"),
        (lambda: metrics.ranks([[1.0, 2.0]], [1], [[False]]), r"excluded has shape \(1, 1\)"),
        (lambda: metrics.ndcg([], 10), "at least one number"),
        (lambda: metrics.ndcg([0], 10), "each 1 or more"),
    ],
)
def test_bad_data_is_refused(call, text):
    with pytest.raises(DataError, match=text):
        call()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: metrics.hit_rate([1], 0), "k is 0"),
        (lambda: metrics.calibration_error([1], [1], 0), "num_bins is 0"),
        (lambda: metrics.bootstrap_difference([1, 0], [1, 0], [1, 0], num_samples=0), "num_samples is 0"),
    ],
)
def test_bad_options_are_refused(call, text):
    with pytest.raises(ConfigError, match=text):
        call()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
@settings(deadline=None)
def test_win_rate_equals_scipys_binomial_test(rows):
    first, second = np.array(rows).T
    found = metrics.win_rate(first, second)
    assert found.wins + found.losses + found.ties == len(rows)
    assert found.value == pytest.approx(np.mean((first > second) + (first == second) / 2))
    decided = found.wins + found.losses
    assert found.p == pytest.approx(binomtest(found.wins, decided).pvalue if decided else 1)


def test_win_rate_of_many_questions_is_exact():
    first = np.r_[np.ones(1_300), np.zeros(1_200)]
    found = metrics.win_rate(first, 1 - first)
    assert found.p == pytest.approx(binomtest(1_300, 2_500).pvalue)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [([1, 2], [1], "shapes"), ([], [], "shapes"), ([1, 2], [1, float("nan")], "question 1 is NaN")],
)
def test_win_rate_says_what_is_wrong(first, second, message):
    with pytest.raises(DataError, match=message):
        metrics.win_rate(first, second)
