"""Re-ranking that trades a little relevance for variety."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mmr(
    scores_C: NDArray[np.float64], vectors_CE: NDArray[np.float32], diversity: float, count: int
) -> NDArray[np.int64]:
    """Maximal marginal relevance (Carbonell and Goldstein, 1998).

    Each next item maximises (1 - diversity)·score - diversity·(greatest cosine to those chosen).

    Args:
        scores_C: Relevances in 0 … 1.
        vectors_CE: Unit vectors.
        diversity: 0 orders by score alone, 1 by variety alone after the first.
        count: How many to choose.

    Returns:
        Positions of the chosen, in their new order.
    """
    order: list[int] = []
    left = np.ones(len(scores_C), np.bool_)
    nearest_C = np.zeros(len(scores_C))
    for _ in range(min(count, len(scores_C))):
        value_C = (1 - diversity) * scores_C - diversity * nearest_C if order else scores_C
        best = int(np.argmax(np.where(left, value_C, -np.inf)))
        cosine_C = vectors_CE @ vectors_CE[best]
        nearest_C = np.maximum(nearest_C, cosine_C) if order else cosine_C.astype(np.float64)
        left[best] = False
        order.append(best)
    return np.array(order, np.int64)


def calibrated(
    scores_C: NDArray[np.float64],
    shares_CG: NDArray[np.float64],
    wanted_G: NDArray[np.float64],
    calibration: float,
    count: int,
) -> NDArray[np.int64]:
    """Calibrated recommendations (Steck, RecSys 2018, eq. 7): a list whose categories are spread as the user's are.

    Each next item maximises (1 - calibration)·mean score - calibration·KL(wanted ‖ list), both of the list with it,
    where the list's distribution is mixed with 1 % of the wanted one so that the divergence is finite.

    Args:
        scores_C: Relevances in 0 … 1.
        shares_CG: Categories of each item, each row summing to 1, or to 0 where an item has none.
        wanted_G: What the user's own categories are, summing to 1, or to 0 where nothing is known.
        calibration: 0 orders by score alone.
        count: How many to choose.

    Returns:
        Positions of the chosen, in their new order.
    """
    order: list[int] = []
    left = np.ones(len(scores_C), np.bool_)
    score, shares_G = 0.0, np.zeros(len(wanted_G))
    known = wanted_G > 0
    for size in range(1, min(count, len(scores_C)) + 1):
        totals_CG = shares_G + shares_CG
        list_CG = totals_CG / np.maximum(totals_CG.sum(1, keepdims=True), 1e-12)
        mixed_CG = 0.99 * list_CG[:, known] + 0.01 * wanted_G[known]
        divergence_C = (wanted_G[known] * np.log(wanted_G[known] / mixed_CG)).sum(1)
        value_C = (1 - calibration) * (score + scores_C) / size - calibration * divergence_C
        best = int(np.argmax(np.where(left, value_C, -np.inf)))
        score, shares_G = score + scores_C[best], totals_CG[best]
        left[best] = False
        order.append(best)
    return np.array(order, np.int64)
