import sys
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from m6rec.errors import ConfigError, DataError, ExtraError
from m6rec.evaluation import baselines
from m6rec.evaluation.baselines import GRIDS, NUM_TRIALS, EASEBaseline, ItemKNN, MatrixFactorisation, Popularity
from m6rec.evaluation.metrics import auc

MODELS = [Popularity(), ItemKNN(k=10), EASEBaseline(regularisation=100), MatrixFactorisation(factors=4)]
NUM_ITEMS = 20


def two_tastes(num_users, seed):
    """Every other user likes most of the items 0 to 9, the others most of 10 to 19."""
    liked = np.random.default_rng(seed).random((num_users, NUM_ITEMS)) < 0.7
    liked[::2, 10:] = False
    liked[1::2, :10] = False
    return csr_matrix(liked, dtype=np.float32)


def without_last(matrix):
    """Histories without their last item, and that item."""
    kept, target_B = matrix.toarray(), np.array([row.indices[-1] for row in matrix])
    kept[np.arange(len(kept)), target_B] = 0
    return csr_matrix(kept), target_B


FIT = two_tastes(120, seed=0)
HISTORIES, TARGETS = without_last(two_tastes(40, seed=1))  # users that fit never saw


@pytest.mark.parametrize("model", MODELS[1:], ids=lambda model: type(model).__name__)
def test_tastes_of_unseen_users_are_recognised(model):
    model.fit(FIT)
    ranks_B = baselines.target_ranks(model, HISTORIES, TARGETS, excluded=HISTORIES)
    left_B = 10 - HISTORIES.getnnz(axis=1)  # items of their own half that aren't in the history
    assert (ranks_B <= left_B).all()
    other_half = (TARGETS + 10) % NUM_ITEMS
    liked = baselines.pair_scores(model, HISTORIES, TARGETS)
    assert (liked > baselines.pair_scores(model, HISTORIES, other_half)).all()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_scores_are_one_row_a_history_whoever_else_is_asked(model):
    scores_BI = model.fit(FIT).scores(HISTORIES)
    assert scores_BI.shape == HISTORIES.shape
    np.testing.assert_allclose(model.scores(HISTORIES[3:4]), scores_BI[3:4], rtol=1e-5, atol=1e-6)
    nobody = csr_matrix((1, NUM_ITEMS), dtype=np.float32)
    assert np.isfinite(model.scores(nobody)).all()


def test_popularity_counts_users():
    np.testing.assert_array_equal(
        Popularity().fit(csr_matrix([[1, 0, 1], [1, 0, 0]])).scores(csr_matrix((2, 3))),
        [[2, 0, 1], [2, 0, 1]],
    )


def test_item_knn_of_a_hand_worked_case():
    # Items 0 and 1 share one of 2 and 1 users: cosine 1 / √2. Item 2 shares none.
    model = ItemKNN(k=3).fit(csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], float)))
    np.testing.assert_allclose(model.scores(csr_matrix([[1.0, 0, 0]])), [[1, 1 / 2**0.5, 0]])


def test_ease_solves_its_constrained_least_squares():
    """Each column of B is the ridge regression of that item on all other items."""
    model = EASEBaseline(regularisation=2).fit(FIT)
    x_UI = FIT.toarray().astype(float)
    for item in (0, 13):
        others = np.arange(NUM_ITEMS) != item
        gram = x_UI[:, others].T @ x_UI[:, others] + 2 * np.eye(NUM_ITEMS - 1)
        ridge = np.linalg.solve(gram, x_UI[:, others].T @ x_UI[:, item])
        np.testing.assert_allclose(model.weight_II[others, item], ridge, atol=1e-8)
        assert model.weight_II[item, item] == 0


def test_matrix_factorisation_is_repeatable_and_serves_known_users_alike():
    one, other = (MatrixFactorisation(factors=4, alpha=3).fit(FIT) for _ in range(2))
    np.testing.assert_array_equal(one.scores(HISTORIES), other.scores(HISTORIES))
    fitted = one.model.user_factors @ one.model.item_factors.T
    np.testing.assert_allclose(one.scores(FIT), fitted, atol=0.05)


def test_ranks_and_pairs_are_the_same_in_chunks(monkeypatch):
    model = EASEBaseline().fit(FIT)
    whole = baselines.target_ranks(model, HISTORIES, TARGETS, HISTORIES)
    pairs = baselines.pair_scores(model, HISTORIES, TARGETS)
    monkeypatch.setattr(baselines, "MAX_SCORES", 3 * NUM_ITEMS)
    np.testing.assert_array_equal(baselines.target_ranks(model, HISTORIES, TARGETS, HISTORIES), whole)
    np.testing.assert_array_equal(baselines.pair_scores(model, HISTORIES, TARGETS), pairs)


def test_tune_keeps_what_the_judge_likes_best():
    judged = []

    def validate(model):
        judged.append(model)
        return -abs(model.regularisation - 100)

    best = baselines.tune(EASEBaseline, {"regularisation": (1, 110, 90, 1000)}, FIT, validate)
    assert best.model is judged[1]
    assert best.chosen == {"regularisation": 110}
    assert [value for _, value in best.trials] == [-99, -10, -10, -900]


@pytest.mark.parametrize("method", GRIDS)
def test_every_method_has_the_same_budget(method):
    grid = GRIDS[method]
    num_trials = np.prod([len(values) for values in grid.values()], dtype=int)
    assert num_trials == (NUM_TRIALS if grid else 1)
    best = baselines.tune(getattr(baselines, method), grid, FIT, lambda model: model.scores(FIT).max())
    assert len(best.trials) == num_trials


def test_lightgbm_finds_an_interaction_that_no_line_can():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(3000, 4))
    labels = (features[:, 0] * features[:, 1] > 0).astype(int)
    fit: dict[str, Any] = {"trials": 2, "seed": 3, "num_threads": 1}
    tuned, again = (
        baselines.fit_lightgbm(features[:2000], labels[:2000], features[2000:2500], labels[2000:2500], **fit)
        for _ in range(2)
    )
    probabilities = tuned.model(features[2500:])
    assert auc(labels[2500:], probabilities) > 0.95
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert len(tuned.trials) == 2
    assert tuned.trials == again.trials
    np.testing.assert_array_equal(probabilities, again.model(features[2500:]))
    alone = baselines.fit_lightgbm(
        features[:2000], labels[:2000], features[2000:2500], labels[2000:2500], **{**fit, "settings": tuned.chosen}
    )
    assert alone.trials == (max(tuned.trials, key=lambda trial: trial[1]),)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ItemKNN(weighting="jaccard").fit(FIT), ConfigError, "'jaccard'; allowed are count and tfidf"),  # type: ignore[arg-type]
        (lambda: baselines.fit_lightgbm([], [], [], [], trials=0), ConfigError, "trials is 0"),
        (lambda: baselines.pair_scores(EASEBaseline(), HISTORIES, [1]), DataError, "for 40 histories"),
        (lambda: baselines.pair_scores(EASEBaseline(), HISTORIES[:1], [20]), DataError, "allowed are 0 to 19"),
        (
            lambda: baselines.target_ranks(EASEBaseline(), HISTORIES, TARGETS, FIT),
            DataError,
            r"excluded has shape \(120, 20\)",
        ),
    ],
)
def test_what_cannot_work_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("sklearn.pipeline", lambda: baselines.fit_mlp([[0]], [0])),
        ("lightgbm", lambda: baselines.fit_lightgbm([[0]], [0], [[0]], [0])),
    ],
)
def test_a_missing_library_names_its_install_line(monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraError, match=r"pip install 'm6rec\[baselines\]'"):
        call()
