import numpy as np

from m6rec.serving.diversity import calibrated, mmr

SCORES = np.array([0.9, 0.8, 0.7, 0.1])
VECTORS = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)


def test_without_diversity_it_is_the_order_of_scores():
    assert mmr(SCORES[::-1], VECTORS, 0, 4).tolist() == [3, 2, 1, 0]


def test_a_twin_falls_behind_something_else():
    # After the first, at diversity .5: twin .4 - .5, other .35 - 0, opposite .05 + .5.
    assert mmr(SCORES, VECTORS, 0.5, 4).tolist() == [0, 3, 2, 1]
    assert mmr(SCORES, VECTORS, 0.3, 2).tolist() == [0, 2]


def test_no_more_than_there_are():
    assert mmr(SCORES[:0], VECTORS[:0], 0.5, 3).tolist() == []
    assert len(mmr(SCORES, VECTORS, 1.0, 9)) == 4


SHARES = np.array([[1, 0], [1, 0], [0, 1], [0, 1.0]])


def test_a_calibrated_list_has_the_shares_of_the_user():
    scores = np.array([0.9, 0.8, 0.2, 0.1])
    assert calibrated(scores, SHARES, np.array([0.5, 0.5]), 0, 4).tolist() == [0, 1, 2, 3]
    assert calibrated(scores, SHARES, np.array([0.5, 0.5]), 0.9, 4).tolist() == [0, 2, 1, 3]
    assert calibrated(scores, SHARES, np.array([0.0, 1.0]), 0.9, 2).tolist() == [2, 3]


def test_without_known_categories_scores_decide():
    scores = np.array([0.1, 0.9])
    assert calibrated(scores, SHARES[1:3], np.zeros(2), 0.9, 9).tolist() == [1, 0]
    assert calibrated(scores, np.zeros((2, 0)), np.zeros(0), 0.9, 2).tolist() == [1, 0]
