import numpy as np
import pytest
from scipy.sparse import csr_matrix

from m6rec import hooks
from m6rec.retrieval import sources
from m6rec.retrieval.sources import EASE, IALS, Likes, NextItem

RNG = np.random.default_rng(0)
NUM_ITEMS = 12
SEQUENCES = [RNG.permutation(NUM_ITEMS)[: RNG.integers(1, 8)] for _ in range(400)]
VECTORS_IE = RNG.standard_normal((NUM_ITEMS, 5)).astype(np.float32)
VECTORS_IE /= np.linalg.norm(VECTORS_IE, axis=1, keepdims=True)
LIKES = Likes(sequences=SEQUENCES, num_items=NUM_ITEMS, vectors_IE=VECTORS_IE)
LIKED_UI = np.array([np.isin(np.arange(NUM_ITEMS), row) for row in SEQUENCES], float)


def likes_of(sequences):
    num_items = 1 + max(map(max, sequences))
    return Likes(
        sequences=[np.array(row) for row in sequences],
        num_items=num_items,
        vectors_IE=np.eye(num_items, 2, dtype=np.float32),
    )


def dense(arrays):
    """Weights from each item (rows) to each (columns)."""
    return csr_matrix((arrays["weight_W"], arrays["item_W"], arrays["start_I"])).toarray()


@pytest.mark.parametrize("source", [*hooks.SOURCES.all().values(), EASE(text=0.5)])
def test_any_source_tells_what_is_liked_together(source):
    """Two kinds of items and of users: a like of one kind is for its kind alone."""
    kinds = likes_of([2 * RNG.permutation(8)[:5] + user % 2 for user in range(200)])
    scores_I = source.scores(source.fit(kinds), [np.array([0])])[0]
    assert scores_I[2::2].min() > 3 * scores_I[1::2].max()


@pytest.mark.parametrize("source", [*hooks.SOURCES.all().values(), EASE(text=0.5)])
def test_any_source_is_deterministic_and_scores_nothing_of_nothing(source):
    arrays, again = source.fit(LIKES), source.fit(LIKES)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, again[name])
    assert source.scores(arrays, [np.zeros(0, np.int64)]).tolist() == [[0] * NUM_ITEMS]
    late, early = source.scores(arrays, [np.array([3, 4]), np.array([4, 3])])
    assert np.abs(late - early).max() > 1e-3  # the latest weighs most


def test_ials_solves_for_a_user_by_a_weighted_least_squares():
    source = IALS(confidence=4.0, regularisation=2.0, memory=0.7, num_factors=6)
    arrays = source.fit(LIKES)
    weights, factors = np.ones(NUM_ITEMS), arrays["factor_IF"].astype(float)
    weights[[5, 3]] = 4 * np.array([1, 0.7])
    ridge = np.vstack([factors * weights[:, None] ** 0.5, np.eye(6) * 2**0.5])
    told = np.concatenate([np.isin(np.arange(NUM_ITEMS), [3, 5]) * weights**0.5, np.zeros(6)])
    expected = factors @ np.linalg.lstsq(ridge, told)[0]
    np.testing.assert_allclose(source.scores(arrays, [np.array([5, 3])])[0], expected, atol=1e-4)


def test_next_item_is_a_regression_on_the_likes_before():
    source = NextItem(regularisation=3.0, memory=0.5, length=3)
    inputs, targets = [], []
    for row in SEQUENCES:
        for end in range(1, len(row)):
            known = row[max(0, end - 3) : end]
            inputs.append(0.5 ** np.arange(len(known))[::-1] @ np.eye(NUM_ITEMS)[known])
            targets.append(np.eye(NUM_ITEMS)[row[end]])
    before, after = np.array(inputs), np.array(targets)
    expected = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for item in range(NUM_ITEMS):
        others = np.arange(NUM_ITEMS) != item
        gram = before[:, others].T @ before[:, others] + 3 * np.eye(NUM_ITEMS - 1)
        expected[others, item] = np.linalg.solve(gram, before[:, others].T @ after[:, item])
    arrays = source.fit(LIKES)
    np.testing.assert_allclose(dense(arrays), np.maximum(expected, 0), atol=1e-5)
    both = source.scores(arrays, [np.array([4, 3])])[0]
    np.testing.assert_allclose(both, np.maximum(expected, 0)[4] + 0.5 * np.maximum(expected, 0)[3], atol=1e-5)


def test_ease_is_its_closed_form():
    inverse = np.linalg.inv(LIKED_UI.T @ LIKED_UI + 20 * np.eye(NUM_ITEMS))
    expected = inverse / -np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(dense(EASE(regularisation=20.0).fit(LIKES)), np.maximum(expected, 0), atol=1e-5)


def test_ease_with_text_is_the_minimum_of_its_loss():
    """And so far as the pull is strong, the weights are those of the texts."""

    def weights(text, regularisation=20.0):
        return dense(EASE(regularisation=regularisation, text=text).fit(LIKES))

    texts = weights(1e6)
    for item in range(NUM_ITEMS):
        others = np.arange(NUM_ITEMS) != item
        own = VECTORS_IE[others]
        expected = np.linalg.solve(own @ own.T + sources.TEXT_RIDGE * np.eye(NUM_ITEMS - 1), own @ VECTORS_IE[item])
        np.testing.assert_allclose(texts[others, item], np.maximum(expected, 0), atol=1e-3)
    gram = LIKED_UI[:, 1:].T @ LIKED_UI[:, 1:]
    own = VECTORS_IE[1:]
    told = np.linalg.solve(own @ own.T + sources.TEXT_RIDGE * np.eye(NUM_ITEMS - 1), own @ VECTORS_IE[0])
    least = np.linalg.solve(gram + 30 * np.eye(NUM_ITEMS - 1), LIKED_UI[:, 1:].T @ LIKED_UI[:, 0] + 10 * told)
    np.testing.assert_allclose(weights(0.5)[1:, 0], np.maximum(least, 0), atol=1e-5)


def test_blocks_change_nothing(monkeypatch):
    whole = dense(EASE(text=0.5, num_neighbours=4).fit(LIKES))
    monkeypatch.setattr(sources, "BLOCK", 5)
    np.testing.assert_array_equal(dense(EASE(text=0.5, num_neighbours=4).fit(LIKES)), whole)


def test_a_score_depends_on_the_most_frequent_neighbours():
    few = dense(EASE(num_neighbours=2, regularisation=1e-3).fit(LIKES))
    assert ((few > 0).sum(0) <= 2).all()
    together = LIKED_UI.T @ LIKED_UI
    np.fill_diagonal(together, 0)
    for item in range(NUM_ITEMS):
        assert together[few[:, item] > 0, item].min(initial=np.inf) >= np.sort(together[:, item])[-2]
