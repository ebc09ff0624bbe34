import numpy as np

from m6rec.serving.diversity import mmr

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
