"""The classical collaborative models on a split: fitted on the training part, tuned on validation.

Each is tuned with one number of trials and reads the user's history up to the question as its input, so users who are
new in the test part are served by all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m6rec.data.examples import SAY_WHAT
from m6rec.data.split import TRAIN, Split
from m6rec.domains.domain import Domain
from m6rec.errors import DataError
from m6rec.evaluation import baselines
from m6rec.retrieval.sources import sparse_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Ints = NDArray[np.int64]
MODELS: Mapping[str, Callable[..., baselines.Baseline]] = {
    "popularity": baselines.Popularity,
    "item-kNN": baselines.ItemKNN,
    "EASE": baselines.EASEBaseline,
    "matrix factorisation": baselines.MatrixFactorisation,
}


def tuned(name: str, likes: csr_matrix, validate: Callable[[baselines.Baseline], float]) -> baselines.Baseline:
    """One of ``MODELS``, fitted on ``likes_matrix``, with the settings that are best by ``validate``."""
    factory = MODELS[name]
    return baselines.tune(factory, baselines.GRIDS[factory.__name__], likes, validate).model


def likes_matrix(split: Split, domain: Domain) -> csr_matrix:
    """Who liked what in the training part, [users, items].

    Raises:
        DataError: Nobody liked anything.
    """
    from scipy.sparse import csr_matrix

    numbers = {item: number for number, item in enumerate(split.log.items)}
    liked = [
        (position, event)
        for position, (event, part) in enumerate(zip(split.log.events, split.part.tolist(), strict=True))
        if part == TRAIN and event.item and domain.positive(event)
    ]
    if not liked:
        raise DataError(f"the training part has no positive event, so nothing can be compared on it; {SAY_WHAT}")
    users, items = users_of(split, np.array([p for p, _ in liked])), np.array([numbers[e.item] for _, e in liked])
    shape = (int(users.max()) + 1, len(split.log.items))
    matrix = csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)
    matrix.data[:] = 1.0
    return matrix


def matrix(lists: Sequence[Ints], num_items: int) -> csr_matrix:
    """1 where an item is in a list, [len(lists), num_items]."""
    rows = [np.unique(row) for row in lists]
    return sparse_rows([(row, np.ones(len(row))) for row in rows], num_items)


def users_of(split: Split, positions: Ints) -> Ints:
    """Number of the user of each event, from 0."""
    numbers: Ints = np.unique(split.log.table.codes("user")[positions], return_inverse=True)[1]
    return numbers
