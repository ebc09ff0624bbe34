import doctest

import pytest

from m6rec.errors import ConfigError, DataError
from m6rec.evaluation.metrics import conversation
from m6rec.evaluation.metrics.conversation import naive_repeat, recall

NAMED = [[], ["a"], ["a", "b", "a"]]
TARGETS = [["a"], ["a", "b"], ["b", "c", "d"]]
LISTS = [["x", "a"], ["b", "a"], ["c", "x", "d"]]


def test_worked_examples():
    assert doctest.testmod(conversation) == (0, 4)


@pytest.mark.parametrize(("k", "new", "all_"), [(1, 2 / 4, 2 / 6), (2, 3 / 4, 4 / 6), (3, 4 / 4, 5 / 6)])
def test_recall_of_a_hand_worked_case(k, new, all_):
    assert recall(LISTS, TARGETS, NAMED, k) == new
    assert recall(LISTS, TARGETS, NAMED, k, count_repeats=True) == all_


def test_a_system_that_only_repeats_gains_nothing_unless_repeats_count():
    lists = naive_repeat(NAMED)
    assert lists == [[], ["a"], ["a", "b"]]
    assert recall(lists, TARGETS, NAMED, 50) == 0
    assert recall(lists, TARGETS, NAMED, 50, count_repeats=True) == 2 / 6


def test_errors_say_what_is_wrong():
    with pytest.raises(ConfigError, match="k is 0"):
        recall(LISTS, TARGETS, NAMED, 0)
    with pytest.raises(DataError, match="2 lists, 3 targets and 3 pasts"):
        recall(LISTS[1:], TARGETS, NAMED, 1)
    with pytest.raises(DataError, match="first time in any of the 1 turns"):
        recall([["a"]], [["a"]], [["a"]], 1)
