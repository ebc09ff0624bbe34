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
