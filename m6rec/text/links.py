"""What is liked by the same users, and what is liked next: links between items, the collaborative signal of retrieval.

Two models are fitted to who liked what: factors by alternating least squares, which say what is liked by the same
users, and a linear one that tells the next like from those before it, of whose weights the strongest of each item are
kept. A user's likes then pull what they are linked to, the latest most: users need no training, and a new like counts
at once.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m6rec.errors import AssetError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
FoundT = TypeVar("FoundT")

FILE = "links.safetensors"
# Chosen on validation, of MovieLens-100k and of Amazon Beauty and Toys (design/004).
NUM_FACTORS = 128
CONFIDENCE = 60.0
"""What a like weighs in fitting factors, where everything else weighs 1."""
FACTORS_REGULARISATION = 30.0
NUM_LINKS = 200
"""Links to what is liked next that are kept of an item, the strongest; those that push away are not."""
NEXT_REGULARISATION = 300.0
ALIKE_MEMORY, NEXT_MEMORY = 0.9, 0.6
"""What a like weighs for each later like."""
ALIKE_WEIGHT, NEXT_WEIGHT = 1.5, 1.0
"""What the strongest pull weighs beside the cosine of what is read."""
FAINTEST = 1e-3
"""Pulls are made as strong as those weights say, but where all are fainter than this."""
MAX_LIKES = 256
"""Likes of a user that count; others are as if not liked."""
NEXT_LIKES = 16
"""… for what comes next, where the memory is shorter."""
NEW_EVERY = 10
"""One place in so many of what is retrieved goes to an item without links; else no new item would ever be shown."""
MAX_ITEMS = 15_000
"""The most-liked items, which alone have links: time to fit grows with the cube, memory with the square."""


@dataclass(frozen=True, eq=False)
class Links:
    """Links between the items that have been in the training part.

    Attributes:
        numbers: Row of each item, in order.
        factor_IF: Factors of each item.
        next_IK: What is liked next: rows, the strongest first.
        next_weight_IK: How strongly; 0 where there are no more.
    """

    numbers: dict[str, int]
    factor_IF: Floats
    next_IK: NDArray[np.int32]
    next_weight_IK: Floats

    def pulls(self, liked: Sequence[str]) -> Floats:
        """How strongly each item is pulled, [I], by the ids of what a user liked, oldest first; at least 0."""
        latest = [self.numbers[item] for item in dict.fromkeys(reversed(liked)) if item in self.numbers][:MAX_LIKES]
        rows, age_N = np.array(latest, np.int64), np.arange(len(latest))
        return ALIKE_WEIGHT * self._alike(rows, age_N) + NEXT_WEIGHT * self._next(rows, age_N)

    def _alike(self, rows: NDArray[np.int64], age_N: NDArray[np.int64]) -> Floats:
        """What is liked by the users who like these items [I], from 0 to 1.

        The user's factors are the least squares of 1 for the likes and 0 for all other items (Hu, Koren & Volinsky,
        ICDM 2008, eq. 4), where a like weighs ``ALIKE_MEMORY`` of the one after it.
        """
        liked_NF = self.factor_IF[rows]
        weight_N = (CONFIDENCE * ALIKE_MEMORY**age_N).astype(np.float32)
        gram_FF = self._gram_FF + (liked_NF.T * (weight_N - 1)) @ liked_NF  # each has its 1 in the items' gram
        return _scaled(self.factor_IF @ np.linalg.solve(gram_FF, weight_N @ liked_NF))

    def _next(self, rows: NDArray[np.int64], age_N: NDArray[np.int64]) -> Floats:
        """What is liked after these items [I], from 0 to 1."""
        pulled_NK = self.next_weight_IK[rows] * (NEXT_MEMORY**age_N)[:, None]
        pull_I = np.bincount(self.next_IK[rows].ravel(), pulled_NK.ravel(), len(self.numbers))
        return _scaled(pull_I.astype(np.float32))

    @cached_property
    def _gram_FF(self) -> Floats:
        gram_FF: Floats = self.factor_IF.T @ self.factor_IF
        return gram_FF + FACTORS_REGULARISATION * np.eye(len(gram_FF), dtype=np.float32)

    def strongest(self, liked: Sequence[str], count: int) -> dict[str, float]:
        """The ``count`` items of the strongest ``pulls``, by id."""
        pull_I = self.pulls(liked)
        rows = np.argpartition(-pull_I, count)[:count] if count < len(pull_I) else np.arange(len(pull_I))
        rows = rows[pull_I[rows] > 0]
        return {self._ids[row]: pull for row, pull in zip(rows.tolist(), pull_I[rows].tolist(), strict=True)}

    @cached_property
    def _ids(self) -> list[str]:
        return list(self.numbers)

    def new(self, items: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the items have no links, [len(items)]."""
        return np.array([item not in self.numbers for item in items], np.bool_)

    def save(self, folder: Path) -> None:
        """Writes ``links.safetensors``, whose header holds the ids."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{FILE}.partial"
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        save_file(arrays, str(partial), metadata={"ids": json.dumps(list(self.numbers))})
        os.replace(partial, folder / FILE)


_ARRAYS = ("factor_IF", "next_IK", "next_weight_IK")


def _scaled(pull_I: Floats) -> Floats:
    """Pulls with 1 for the strongest, and none below 0."""
    return (np.maximum(pull_I, 0) / max(float(pull_I.max(initial=0)), FAINTEST)).astype(np.float32)


def mixed(known: Sequence[FoundT], new: Sequence[FoundT]) -> list[FoundT]:
    """Two lists, the best first, as one in which every ``NEW_EVERY``-th is new, as long as there are of both.

    >>> mixed("abcdefghijkl", "xyz")
    ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'x', 'j', 'k', 'l', 'y', 'z']
    """
    result: list[FoundT] = []
    rest = iter(known)
    for item in new:
        result += itertools.islice(rest, NEW_EVERY - 1)
        result.append(item)
    return [*result, *rest]


def load(folder: Path) -> Links:
    """Reads what ``Links.save`` wrote. Raises AssetError where the file is not readable."""
    try:
        with safe_open(folder / FILE, "np") as file:
            ids = json.loads((file.metadata() or {})["ids"])
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        for name, array in arrays.items():
            if array.ndim != 2 or len(array) != len(ids) or (name == "next_IK" and _outside(array)):
                raise ValueError(f"{len(ids)} items, but {name} has shape {array.shape} or names others")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise AssetError(f"{folder / FILE} holds no readable links ({error}); tune the task again") from error
    return Links({item: number for number, item in enumerate(ids)}, **arrays)


def fit(events: Iterable[tuple[str, str, bool]]) -> Links:
    """Links from the training part's events, each user's in order of time.

    Args:
        events: User, item, and whether it was a like. An item without a like is known, as one that nobody likes.
    """
    from scipy.linalg import cho_factor, cho_solve

    counts: dict[str, int] = {}
    by_user: dict[str, dict[str, None]] = {}
    for user, item, liked in events:
        counts.setdefault(item, 0)
        if liked and item not in by_user.setdefault(user, {}):
            by_user[user][item] = None
            counts[item] += 1
    items = sorted(counts, key=lambda item: (-counts[item], item))[:MAX_ITEMS]
    numbers = {item: number for number, item in enumerate(items)}
    likes = [[numbers[item] for item in liked if item in numbers] for liked in by_user.values()]
    if not any(likes):
        nothing_I0 = np.zeros((len(numbers), 0), np.float32)
        return Links(numbers, nothing_I0, nothing_I0.astype(np.int32), nothing_I0)
    liked_UI = _matrix([(row, np.ones(len(row))) for row in likes], len(numbers))
    factors = factorise(liked_UI, NUM_FACTORS, FACTORS_REGULARISATION, CONFIDENCE)
    before, after = [], []
    for row in likes:
        for end in range(1, len(row)):
            known = row[max(0, end - NEXT_LIKES) : end]
            before.append((known, NEXT_MEMORY ** np.arange(len(known) - 1, -1, -1)))
            after.append(([row[end]], np.ones(1)))
    before_PI, after_PI = _matrix(before, len(numbers)), _matrix(after, len(numbers))
    gram_II: Floats = (before_PI.T @ before_PI).toarray()
    gram_II[np.diag_indices_from(gram_II)] += NEXT_REGULARISATION
    next_II = cho_solve(cho_factor(gram_II, overwrite_a=True), (before_PI.T @ after_PI).toarray())
    return Links(numbers, np.asarray(factors.item_factors), *_strongest(next_II))


def factorise(
    liked_UI: csr_matrix,
    num_factors: int,
    regularisation: float,
    confidence: float,
    *,
    iterations: int = 15,
    seed: int = 0,
) -> Any:
    """A model of ``implicit``: factors of users and items by alternating least squares.

    Args:
        liked_UI: Who liked what.
        num_factors: Width of the vectors.
        regularisation: Weight of their squared length.
        confidence: What a like weighs, where everything else weighs 1.
        iterations: Rounds of solving for users, then for items.
        seed: Of the first vectors.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    # implicit runs its own threads and warns when those of BLAS run beside them.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            num_factors, regularization=regularisation, alpha=confidence, iterations=iterations, random_state=seed
        )
        model.fit(liked_UI, show_progress=False)
    return model


def _matrix(rows: Sequence[tuple[Sequence[int], NDArray[np.floating]]], num_items: int) -> csr_matrix:
    """Rows of (columns, values), sparse [len(rows), num_items]."""
    from scipy.sparse import csr_matrix

    ends = np.concatenate([[0], np.cumsum([len(columns) for columns, _ in rows])]).astype(np.int64)
    columns = np.concatenate([np.zeros(0, np.int64), *(np.array(columns, np.int64) for columns, _ in rows)])
    values = np.concatenate([np.zeros(0), *(values for _, values in rows)]).astype(np.float32)
    return csr_matrix((values, columns, ends), shape=(len(rows), num_items))


def _strongest(weight_II: NDArray[np.floating]) -> tuple[NDArray[np.int32], Floats]:
    """(columns, weights) of the ``NUM_LINKS`` greatest weights of each row, both [I, K]; those below 0 are 0."""
    count = min(NUM_LINKS, len(weight_II))
    order_IK = np.argsort(-weight_II, axis=1, kind="stable")[:, :count]
    kept_IK = np.maximum(np.take_along_axis(weight_II, order_IK, 1), 0)
    return order_IK.astype(np.int32), kept_IK.astype(np.float32)


def _outside(rows_IK: NDArray[np.generic]) -> bool:
    """Whether a row is named that is not there."""
    return rows_IK.size > 0 and not 0 <= int(rows_IK.min()) <= int(rows_IK.max()) < len(rows_IK)
