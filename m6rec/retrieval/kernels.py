"""Compiled loops of retrieval: sums of sparse weights, and the best of many scores.

Each writes only into arrays that it is given, so that several threads may run them at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m6rec.compiled import compiled_nogil

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled_nogil
def within(start_I: Ints, column_G: Ints, value_G: Floats, rows_N: Ints, place_I: Ints) -> NDArray[np.float64]:
    """From a sparse gram (row starts, columns, values) that of a few rows, [N, N].

    ``place_I`` is room for a number an item, all -1, and is left so.
    """
    found_NN = np.zeros((len(rows_N), len(rows_N)))
    for place in range(len(rows_N)):
        place_I[rows_N[place]] = place
    for place in range(len(rows_N)):
        for entry in range(start_I[rows_N[place]], start_I[rows_N[place] + 1]):
            other = place_I[column_G[entry]]
            if other >= 0:
                found_NN[place, other] = max(value_G[entry], found_NN[place, other])
                found_NN[other, place] = found_NN[place, other]
    for row in rows_N:
        place_I[row] = -1
    return found_NN


@compiled_nogil
def add_weights(
    start_I: Ints,
    item_W: NDArray[np.int32],
    weight_W: Floats,
    memory: float,
    row_L: Ints,
    end_U: Ints,
    scores_UI: Floats,
) -> None:
    """Adds the sparse weights from each user's rows, of which each counts ``memory`` of the one before it.

    Args:
        start_I: Where each row's weights begin, and behind the last where they end.
        item_W: Column of each weight.
        weight_W: The weights.
        memory: See above.
        row_L: All users' rows.
        end_U: Where each user's rows end.
        scores_UI: What is added to.
    """
    first = 0
    for user in range(len(end_U)):
        factor = 1.0
        for place in range(first, end_U[user]):
            row = row_L[place]
            for entry in range(start_I[row], start_I[row + 1]):
                scores_UI[user, item_W[entry]] += np.float32(factor * weight_W[entry])
            factor *= memory
        first = end_U[user]


@compiled_nogil
def add_scaled(part_UI: Floats, scale_U: Floats, scores_UI: Floats) -> None:
    """Adds what is above 0 of each row of a part, times its scale."""
    for user in range(len(part_UI)):
        scale = scale_U[user]
        for item in range(part_UI.shape[1]):
            score = part_UI[user, item]
            scores_UI[user, item] += scale * (score if score > 0 else np.float32(0))


@compiled_nogil
def least_of_greatest(scores_UI: Floats, count: int) -> Floats:
    """The ``count``-th greatest score of each row, [U]; where fewer are above 0, the least of these; inf for none.

    Only scores above a bound are partitioned: one that a sample says some more than ``count`` exceed, or else 0.
    """
    num_items = scores_UI.shape[1]
    stride = max(1, num_items // 1024)
    place = int(1.3 * count / stride) + 8
    least_U, kept_I = np.empty(len(scores_UI), np.float32), np.empty(num_items, np.float32)
    for user in range(len(scores_UI)):
        score_I, bound, num = scores_UI[user], np.float32(0), 0
        sample_S = score_I[::stride].copy()
        if place < len(sample_S):
            bound = max(bound, np.partition(sample_S, len(sample_S) - place)[len(sample_S) - place])
        for score in score_I:
            if score > bound:
                kept_I[num] = score
                num += 1
        if num < count and bound > 0:
            num = 0
            for score in score_I:
                if score > 0:
                    kept_I[num] = score
                    num += 1
        last = num - min(num, count)
        least_U[user] = np.partition(kept_I[:num], last)[last] if num and count else np.inf
    return least_U


@compiled_nogil
def keep_best(
    product_UB: Floats,
    first: int,
    added_UI: Floats,
    least_U: Floats,
    is_dead_I: NDArray[np.bool_],
    left_out_L: Ints,
    end_U: Ints,
    row_UK: Ints,
    score_UK: Floats,
) -> None:
    """Puts the best of a block of items among each user's best so far.

    Args:
        product_UB: Products of the users' vectors with those of the items from row ``first`` on; changed.
        first: See above.
        added_UI: What the first rows score besides.
        least_U: Of each user, the least of ``added_UI`` that counts.
        is_dead_I: Rows that nobody gets.
        left_out_L: Rows that a user doesn't get, ascending, one user after the other.
        end_U: Where each user's end.
        row_UK: The best rows so far, -1 where there are fewer; of equal scores the lower row comes first.
        score_UK: Their scores, descending, -inf where there are fewer.
    """
    num_best, begin = row_UK.shape[1], 0
    num_added = min(max(added_UI.shape[1] - first, 0), product_UB.shape[1])
    for user in range(len(product_UB)):
        left_out = left_out_L[begin : end_U[user]]
        begin, least, score_B = end_U[user], least_U[user], product_UB[user]
        added_B = added_UI[user, first : first + num_added]
        for place in range(num_added):
            score_B[place] += added_B[place] if added_B[place] >= least else np.float32(0)
        for start in range(0, len(score_B), 64):  # most hold none, which is told without a branch for each score
            bound, num = score_UK[user, num_best - 1], 0
            chunk = score_B[start : start + 64]
            for score in chunk:
                num += score > bound
            if not num:
                continue
            for place in range(len(chunk)):
                row, score = first + start + place, chunk[place]
                if score <= score_UK[user, num_best - 1] or is_dead_I[row]:
                    continue
                at = np.searchsorted(left_out, row)
                if at < len(left_out) and left_out[at] == row:
                    continue
                at = num_best - 1
                while at > 0 and score_UK[user, at - 1] < score:
                    score_UK[user, at], row_UK[user, at] = score_UK[user, at - 1], row_UK[user, at - 1]
                    at -= 1
                score_UK[user, at], row_UK[user, at] = score, row
