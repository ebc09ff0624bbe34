"""What is liked by the same users, and what is liked next: links between items, the collaborative signal of retrieval.

Two linear models in closed form are fitted to who liked what: EASE, which rebuilds a user's likes from each other, and
one that tells the next like from those before it. Of each item the strongest weights are kept. A user's likes then pull
what they are linked to, the latest most: users need no training, and a new like counts at once.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m6rec.errors import AssetError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
FoundT = TypeVar("FoundT", bound=Hashable)

FILE = "links.safetensors"
# Chosen on validation, of MovieLens-100k and of Amazon Beauty (design/004).
NUM_LINKS = 200
"""Links of each kind that are kept of an item, the strongest; those that push away are not."""
REGULARISATION = 300.0
ALIKE_MEMORY, NEXT_MEMORY = 0.9, 0.6
"""What a like weighs for each later like."""
ALIKE_WEIGHT, NEXT_WEIGHT = 33.0, 100.0
"""What a link weighs beside the cosine of what is read."""
MAX_LIKES = 64
"""Likes of a user that count; the next would weigh a thousandth."""
NEXT_LIKES = 16
"""… for what comes next, where the memory is shorter."""
NEW_EVERY = 10
"""One place in so many of what is retrieved goes to an item without links; else no new item would ever be shown."""
FUSION = 10
"""So many places further down an item weighs half; chosen on dialogues (design/007)."""
MAX_ITEMS = 15_000
"""The most-liked items, which alone have links: time to fit grows with the cube, memory with the square."""


@dataclass(frozen=True, eq=False)
class Links:
    """Links between the items that have been in the training part.

    Attributes:
        numbers: Row of each item, in order.
        alike_IK: What is liked by the users who like an item: rows, the strongest first.
        alike_weight_IK: How strongly; 0 where there are no more.
        next_IK: What is liked next.
        next_weight_IK: How strongly.
    """

    numbers: dict[str, int]
    alike_IK: NDArray[np.int32]
    alike_weight_IK: Floats
    next_IK: NDArray[np.int32]
    next_weight_IK: Floats

    def pulls(self, liked: Sequence[str]) -> Floats:
        """How strongly each item is pulled, [I], by the ids of what a user liked, oldest first; at least 0."""
        latest = np.array([self.numbers.get(item, -1) for item in liked[-MAX_LIKES:]], np.int64)
        age_N = np.arange(len(latest) - 1, -1, -1)
        known_N = latest >= 0
        rows, age_N = latest[known_N], age_N[known_N]
        pull_I = np.zeros(len(self.numbers))
        for to_IK, weight_IK, memory, weight in (
            (self.alike_IK, self.alike_weight_IK, ALIKE_MEMORY, ALIKE_WEIGHT),
            (self.next_IK, self.next_weight_IK, NEXT_MEMORY, NEXT_WEIGHT),
        ):
            pulled_NK = weight_IK[rows] * (weight * memory**age_N)[:, None]
            pull_I += np.bincount(to_IK[rows].ravel(), pulled_NK.ravel(), len(pull_I))
        return pull_I.astype(np.float32)

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


_ARRAYS = ("alike_IK", "alike_weight_IK", "next_IK", "next_weight_IK")


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


def fused(orders: Sequence[Sequence[FoundT]]) -> list[FoundT]:
    """Several orders as one, by the sum of 1 / (``FUSION`` + place) (reciprocal rank fusion, Cormack et al., 2009).

    >>> fused(["abc", "cb", "bca"])
    ['b', 'c', 'a']
    """
    weights: dict[FoundT, float] = {}
    for order in orders:
        for place, item in enumerate(order):
            weights[item] = weights.get(item, 0.0) + 1 / (FUSION + place)
    return sorted(weights, key=lambda item: -weights[item])


def load(folder: Path) -> Links:
    """Reads what ``Links.save`` wrote. Raises AssetError where the file is not readable."""
    try:
        with safe_open(folder / FILE, "np") as file:
            ids = json.loads((file.metadata() or {})["ids"])
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        for name, array in arrays.items():
            if array.ndim != 2 or len(array) != len(ids) or (name in ("alike_IK", "next_IK") and _outside(array)):
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
    alike_II = ease(_gram(_matrix([(row, np.ones(len(row))) for row in likes], len(items))), REGULARISATION)
    before, after = [], []
    for row in likes:
        for end in range(1, len(row)):
            known = row[max(0, end - NEXT_LIKES) : end]
            before.append((known, NEXT_MEMORY ** np.arange(len(known) - 1, -1, -1)))
            after.append(([row[end]], np.ones(1)))
    before_PI, after_PI = _matrix(before, len(items)), _matrix(after, len(items))
    next_II = np.zeros_like(alike_II)
    if items:
        gram_II = _gram(before_PI) + REGULARISATION * np.eye(len(items), dtype=np.float32)
        next_II = cho_solve(cho_factor(gram_II, overwrite_a=True), (before_PI.T @ after_PI).toarray())
    return Links(numbers, *_strongest(alike_II), *_strongest(next_II))


def ease(gram_II: NDArray[np.floating], regularisation: float) -> NDArray[np.floating]:
    """Weights of a linear autoencoder with a zero diagonal (EASE: Steck, WWW 2019, eq. 8).

    P = (G + regularisation · 1)⁻¹;  B_ij = −P_ij / P_jj for i ≠ j, B_jj = 0.

    Args:
        gram_II: For each two items, how many users have both.
        regularisation: Greater keeps the weights smaller.
    """
    precision_II = np.linalg.inv(gram_II + regularisation * np.eye(len(gram_II), dtype=gram_II.dtype))
    weight_II: NDArray[np.floating] = precision_II / -np.diag(precision_II)
    np.fill_diagonal(weight_II, 0)
    return weight_II


def _matrix(rows: Sequence[tuple[Sequence[int], NDArray[np.floating]]], num_items: int) -> csr_matrix:
    """Rows of (columns, values), sparse [len(rows), num_items]."""
    from scipy.sparse import csr_matrix

    ends = np.concatenate([[0], np.cumsum([len(columns) for columns, _ in rows])]).astype(np.int64)
    columns = np.concatenate([np.zeros(0, np.int64), *(np.array(columns, np.int64) for columns, _ in rows)])
    values = np.concatenate([np.zeros(0), *(values for _, values in rows)]).astype(np.float32)
    return csr_matrix((values, columns, ends), shape=(len(rows), num_items))


def _gram(rows_NI: csr_matrix) -> Floats:
    gram_II: Floats = (rows_NI.T @ rows_NI).toarray()
    return gram_II


def _strongest(weight_II: NDArray[np.floating]) -> tuple[NDArray[np.int32], Floats]:
    """(columns, weights) of the ``NUM_LINKS`` greatest weights of each row, both [I, K]; those below 0 are 0."""
    count = min(NUM_LINKS, len(weight_II))
    order_IK = np.argsort(-weight_II, axis=1, kind="stable")[:, :count]
    kept_IK = np.maximum(np.take_along_axis(weight_II, order_IK, 1), 0)
    return order_IK.astype(np.int32), kept_IK.astype(np.float32)


def _outside(rows_IK: NDArray[np.generic]) -> bool:
    """Whether a row is named that is not there."""
    return rows_IK.size > 0 and not 0 <= int(rows_IK.min()) <= int(rows_IK.max()) < len(rows_IK)
