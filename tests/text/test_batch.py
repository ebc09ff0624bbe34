import numpy as np
import pytest

from m6rec.text.batch import Example, pack, pad
from m6rec.types import SLOTS, Question, Segment

FACTS, LIKED, HATED = Segment("facts", "user"), Segment("liked", "history"), Segment("hated", "history")
ASKED, CROSS = Segment("asked", "candidate"), Segment("cross", "cross")

# Where a table of states holds each text's tokens, as it would with 1, 2 or all tokens of a segment kept.
LENGTHS = {"facts": 3, "liked": 2, "hated": 4, "asked": 1, "cross": 3}
KEPT = {
    1: {"facts": [10], "liked": [20], "hated": [30], "asked": [40], "cross": [50]},
    2: {"facts": [10, 11], "liked": [20, 21], "hated": [30, 31], "asked": [40], "cross": [50, 51]},
    0: {text: list(range(10 * place, 10 * place + LENGTHS[text])) for place, text in enumerate(LENGTHS, 1)},
}


def places(keep):
    return {text: (tokens[0], len(tokens)) for text, tokens in KEPT[keep].items()}


def row(context, visible, blocks, *, features=0, first=0, event_features=()):
    count = len(blocks)
    numbers = np.arange(first, first + count)
    numbers_F = np.arange(count * features, dtype=np.float32).reshape(count, features) + 1
    event_features_HG = np.array(event_features, np.float32).reshape(-1, 2)
    return Example(tuple(context), np.array(visible), tuple(blocks), numbers_F, numbers % 2, numbers, event_features_HG)


LONG = row([FACTS, LIKED, HATED], [1, 3], [(ASKED,), (ASKED, CROSS)], features=2)
SHORT = row([LIKED], [1], [(CROSS,)], features=2, first=5)


def test_padding_with_one_token_kept():
    batch = pad([LONG, SHORT], places(1))
    assert batch.context_BN.tolist() == [[10, 20, 30], [20, 0, 0]]
    assert batch.context_slot_BN[0].tolist() == [SLOTS.index("user"), *[SLOTS.index("history")] * 2]
    assert batch.length_B.tolist() == [3, 1]
    assert batch.block_BCM.tolist() == [[[40, 0], [40, 50]], [[50, 0], [0, 0]]]
    assert batch.block_slot_BCM[0, 1].tolist() == [SLOTS.index("candidate"), SLOTS.index("cross")]
    assert batch.visible_BC.tolist() == [[1, 3], [1, 0]]
    assert batch.last_BC.tolist() == [[0, 1], [0, 0]]
    assert batch.features_BCF.tolist() == [[[1, 2], [3, 4]], [[1, 2], [0, 0]]]
    assert batch.labels_BC.tolist() == [[0, 1], [1, -1]]
    assert batch.valid_BC.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(("keep", "expected"), [(1, [1, 2]), (2, [3, 5]), (0, [4, 8])])
def test_traces_stand_at_the_last_token_of_their_behaviours(keep, expected):
    traced = row([FACTS, LIKED, HATED], [1, 3], [(ASKED,), (ASKED,)], event_features=[[0, 5], [6, 7]])
    batch = pad([traced, SHORT], places(keep))
    assert np.flatnonzero(batch.has_event_features_BN[0]).tolist() == expected
    assert batch.event_features_BNG[0, expected].tolist() == [[0, 5], [6, 7]]
    assert not batch.has_event_features_BN[1].any()
    assert batch.event_features_BNG.sum() == 18
    first = traced.only(np.array([True, False]))
    assert (len(first.context), first.num_profile, first.event_features.tolist()) == (1, 1, [])


@pytest.mark.parametrize(
    ("keep", "visible", "length", "last"),
    [(1, [1, 3], 3, [0, 1]), (2, [2, 6], 6, [0, 2]), (0, [3, 9], 9, [0, 3])],
)
def test_spans_count_tokens_not_segments(keep, visible, length, last):
    batch = pad([LONG], places(keep))
    assert batch.visible_BC.tolist() == [visible]
    assert batch.length_B.tolist() == [length]
    assert batch.last_BC.tolist() == [last]
    assert batch.context_BN[0].tolist() == [t for text in ("facts", "liked", "hated") for t in KEPT[keep][text]]
    assert batch.block_BCM[0, 1].tolist() == [*KEPT[keep]["asked"], *KEPT[keep]["cross"]]


def test_a_row_without_context():
    batch = pad([row([], [0], [(ASKED,)]), SHORT], places(1))
    assert batch.context_BN.tolist() == [[0], [20]]
    assert batch.length_B.tolist() == [0, 1]
    assert pad([row([], [0], [(ASKED,)])], places(1)).context_BN.shape == (1, 0)


def test_rows_with_and_without_signals_share_a_batch():
    batch = pad([row([LIKED], [1], [(ASKED,)]), LONG], places(1))
    assert batch.features_BCF.tolist() == [[[0, 0], [0, 0]], [[1, 2], [3, 4]]]


def test_questions_of_a_row():
    assert LONG.question(0) == Question((FACTS,), (ASKED,))
    assert LONG.question(1) == Question((FACTS, LIKED, HATED), (ASKED, CROSS))
    first = LONG.only(np.array([True, False]))
    assert first.context == (FACTS,)  # nothing after its last question
    assert first.question(0) == LONG.question(0)
    assert first.features.tolist() == [[1, 2]]


def test_moments_of_a_row():
    both = row([LIKED, HATED], [0, 1, 1], [(ASKED,), (CROSS,), (ASKED, CROSS)])
    first, second = both.by_timestamp()
    assert (first.events.tolist(), second.events.tolist()) == ([0], [1, 2])
    assert (first.context, second.context) == ((), (LIKED,))
    assert second.question(1) == both.question(2)


@pytest.mark.parametrize("most", [1, 40, 300, 10**6])
def test_pack_covers_every_row_once_within_its_limit(most):
    rng = np.random.default_rng(0)
    sizes = [(int(n), int(c)) for n, c in zip(rng.integers(0, 60, 80), rng.integers(1, 60, 80), strict=True)]
    groups = pack(sizes, most)
    assert sorted(number for group in groups for number in group) == list(range(80))
    for group in groups:
        padded = len(group) * (max(sizes[n][0] for n in group) + max(sizes[n][1] for n in group))
        assert padded <= most or len(group) == 1
    assert len(groups) == {1: 80, 10**6: 1}.get(most, len(groups))
    assert pack([], most) == []


def test_pack_groups_like_with_like():
    assert pack([(50, 5), (1, 1), (51, 5), (2, 1)], 112) == [[1, 3], [0, 2]]
