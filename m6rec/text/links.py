"""What is liked by the same users, and what is liked next: links between items, the collaborative signal of retrieval.

Two models are fitted to who liked what: factors by alternating least squares, which say what is liked by the same
users, and a linear one that tells the next like from those before it, of whose weights the strongest of each item are
kept. A user's likes then pull what they are linked to, the latest most: users need no training, and a new like counts
at once. How fast likes are forgotten, and how much factors count, is chosen on the latest likes of those given.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m6rec.errors import AssetError, DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
FoundT = TypeVar("FoundT", bound=Hashable)

FILE = "links.safetensors"
# Chosen on validation, of MovieLens-100k and of Amazon Beauty and Toys (design/004).
NUM_FACTORS = 128
FITS = ((6.0, 30.0), (60.0, 30.0), (6.0, 3.0))
"""What a like may weigh in fitting factors, where everything else weighs 1; and their regularisation with it."""
MEMORIES = (0.6, 0.8, 0.9)
"""What it may weigh for each later like, when the factors of a user are asked for."""
WEIGHTS = (1.0, 2.0, 4.0)
"""What the strongest pull of factors may weigh, where that of what is liked next, and the cosine, weigh 1."""
NEXT_MEMORY = 0.6
NEXT_REGULARISATION = 300.0
NUM_LINKS = 200
"""Links to what is liked next that are kept of an item, the strongest; those that push away are not."""
FAINTEST = 1e-3
"""Where all pulls are fainter than this, they stay so."""
HELD_OUT = 10
"""One in so many likes of a user, the latest, is held out to choose by."""
MAX_ASKED = 3_000
"""Held-out likes that choices are judged by; so many are drawn."""
MAX_LIKES = 256
"""Likes of a user that count; others are as if not liked."""
NEXT_LIKES = 16
"""… for what comes next, where the memory is shorter."""
NEW_EVERY = 10
"""One place in so many of what is retrieved goes to an item without links; else hardly any new item would be ranked."""
FUSION = 10
"""So many places further down an item weighs half; chosen on dialogues (design/007)."""
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
        confidence: What a like weighed in fitting factors, one of ``FITS``.
        regularisation: The other number of it.
        memory: One of ``MEMORIES``.
        weight: One of ``WEIGHTS``.
    """

    numbers: dict[str, int]
    factor_IF: Floats
    next_IK: NDArray[np.int32]
    next_weight_IK: Floats
    confidence: float = FITS[0][0]
    regularisation: float = FITS[0][1]
    memory: float = MEMORIES[0]
    weight: float = WEIGHTS[0]

    def pulls(self, liked: Sequence[str]) -> Floats:
        """How strongly each item is pulled, [I], by the ids of what a user liked, oldest first; at least 0."""
        known = [self.numbers[item] for item in dict.fromkeys(reversed(liked)) if item in self.numbers]
        rows = np.array(known[:MAX_LIKES], np.int64)
        return self.next(rows) + self.weight * self.alike(rows)

    def alike(self, rows: NDArray[np.int64]) -> Floats:
        """What is liked by the users who like the items of these rows, the latest first: [I], from 0 to 1.

        The user's factors are the least squares of 1 for the likes and 0 for all other items (Hu, Koren & Volinsky,
        ICDM 2008, eq. 4), where a like weighs ``memory`` of the one after it.
        """
        liked_NF = self.factor_IF[rows]
        weight_N = (self.confidence * self.memory ** np.arange(len(rows))).astype(np.float32)
        gram_FF = self._gram_FF + (liked_NF.T * (weight_N - 1)) @ liked_NF  # each has its 1 in the items' gram
        return _scaled(self.factor_IF @ np.linalg.solve(gram_FF, weight_N @ liked_NF))

    def next(self, rows: NDArray[np.int64]) -> Floats:
        """What is liked after the items of these rows, the latest first: [I], from 0 to 1."""
        pulled_NK = self.next_weight_IK[rows] * (NEXT_MEMORY ** np.arange(len(rows)))[:, None]
        return _scaled(np.bincount(self.next_IK[rows].ravel(), pulled_NK.ravel(), len(self.numbers)))

    @cached_property
    def _gram_FF(self) -> Floats:
        gram_FF: Floats = self.factor_IF.T @ self.factor_IF
        return gram_FF + np.float32(self.regularisation) * np.eye(len(gram_FF), dtype=np.float32)

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
        chosen = {name: getattr(self, name) for name in _CHOSEN}
        save_file(arrays, str(partial), metadata={"ids": json.dumps(list(self.numbers)), "chosen": json.dumps(chosen)})
        os.replace(partial, folder / FILE)


_ARRAYS = ("factor_IF", "next_IK", "next_weight_IK")
_CHOSEN = ("confidence", "regularisation", "memory", "weight")


def _scaled(pull_I: NDArray[Any]) -> Floats:
    """Pulls with 1 for the strongest, and none below 0."""
    scaled_I: Floats = (np.maximum(pull_I, 0) / max(float(pull_I.max(initial=0)), FAINTEST)).astype(np.float32)
    return scaled_I


def mixed(known: Sequence[FoundT], new: Sequence[FoundT], *, early: bool) -> list[FoundT]:
    """Two lists, the best first, as one in which every ``NEW_EVERY``-th is new, as long as there are of both.

    Args:
        known: Items with links.
        new: Items without.
        early: Whether the first of these places has a new item too: where what is read of it is nearer to the user
            than that of all before it. Else it would push out what is wanted more often than be wanted.

    >>> mixed("abcdefghijkl", "xyz", early=True)
    ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'x', 'j', 'k', 'l', 'y', 'z']
    """
    result: list[FoundT] = []
    rest = iter(known)
    for number, item in enumerate(new):
        before = NEW_EVERY - 1 if number or early else 2 * NEW_EVERY - 1
        result += itertools.islice(rest, before)
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
            told = file.metadata() or {}
            ids, chosen = json.loads(told["ids"]), json.loads(told["chosen"])
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        for name, array in arrays.items():
            if array.ndim != 2 or len(array) != len(ids) or (name == "next_IK" and _outside(array)):
                raise ValueError(f"{len(ids)} items, but {name} has shape {array.shape} or names others")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise AssetError(f"{folder / FILE} holds no readable links ({error}); tune the task again") from error
    return Links(
        {item: number for number, item in enumerate(ids)}, **arrays, **{name: chosen[name] for name in _CHOSEN}
    )


def fit(
    events: Iterable[tuple[str, str, bool]], progress: Callable[[int, int], None] = lambda done, total: None
) -> Links:
    """Links from the training part's events, each user's in order of time.

    Args:
        events: User, item, and whether it was a like. An item without a like is known, as one that nobody likes.
        progress: Called with (done, total); a dozen thousand items take two minutes of a core.
    """
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
    total = len(FITS) + 2
    best = _chosen(numbers, likes, lambda done: progress(done, total))
    next_IK, next_weight_IK = _next(likes, len(numbers))
    factor_IF = _alike(likes, len(numbers), best.confidence, best.regularisation)
    progress(total, total)
    return replace(best, factor_IF=factor_IF, next_IK=next_IK, next_weight_IK=next_weight_IK)


def _chosen(numbers: dict[str, int], likes: Sequence[Sequence[int]], progress: Callable[[int], None]) -> Links:
    """Links of all but the latest likes, of those that may be chosen the ones that tell these best, by NDCG@10."""
    starts = [max(1, len(row) - -(-len(row) // HELD_OUT)) for row in likes]
    asked = [(row[:end], row[end]) for row, start in zip(likes, starts, strict=True) for end in range(start, len(row))]
    drawn = [asked[number] for number in np.random.default_rng(0).permutation(len(asked))[:MAX_ASKED]]
    earlier = [row[:start] for row, start in zip(likes, starts, strict=True)]
    following = _next(earlier, len(numbers))
    choices: list[Links] = []
    for number, sizes in enumerate(FITS, start=1):
        progress(number)
        factor_IF = _alike(earlier, len(numbers), *sizes)
        choices += [Links(numbers, factor_IF, *following, *sizes, memory) for memory in MEMORIES]
    gain_CW = np.zeros((len(choices), len(WEIGHTS)))
    for before, target in drawn:
        rows = np.array(before[: -MAX_LIKES - 1 : -1], np.int64)
        next_I = choices[0].next(rows)  # the same for all
        for gain_W, links in zip(gain_CW, choices, strict=True):
            pull_WI = next_I + np.array(WEIGHTS)[:, None] * links.alike(rows)
            pull_WI[:, before] = -np.inf
            ahead_W = (pull_WI > pull_WI[:, [target]]).sum(1) + (pull_WI == pull_WI[:, [target]]).sum(1) / 2
            gain_W += np.where(ahead_W < 10, 1 / np.log2(ahead_W + 1.5), 0)
    choice, weight = np.unravel_index(gain_CW.argmax(), gain_CW.shape)
    return replace(choices[choice], weight=WEIGHTS[weight])


def _alike(likes: Sequence[Sequence[int]], num_items: int, confidence: float, regularisation: float) -> Floats:
    """Factors of each item, [I, F]."""
    liked_UI = sparse_rows([(row, np.ones(len(row))) for row in likes], num_items)
    return np.asarray(factorise(liked_UI, NUM_FACTORS, regularisation, confidence).item_factors)


def _next(likes: Sequence[Sequence[int]], num_items: int) -> tuple[NDArray[np.int32], Floats]:
    """``Links.next_IK`` and their weights."""
    before, after = [], []
    for row in likes:
        for end in range(1, len(row)):
            known = row[max(0, end - NEXT_LIKES) : end]
            before.append((known, NEXT_MEMORY ** np.arange(len(known) - 1, -1, -1)))
            after.append(([row[end]], np.ones(1)))
    before_PI, after_PI = sparse_rows(before, num_items), sparse_rows(after, num_items)
    inverse_II = inverse((before_PI.T @ before_PI).toarray(), NEXT_REGULARISATION)
    weight_II = ((before_PI.T @ after_PI).T @ inverse_II).T
    order_IK = np.argsort(-weight_II, axis=1, kind="stable")[:, :NUM_LINKS]
    kept_IK = np.maximum(np.take_along_axis(weight_II, order_IK, 1), 0)
    return order_IK.astype(np.int32), kept_IK.astype(np.float32)


def inverse(gram_II: Floats, regularisation: float) -> Floats:
    """(G + regularisation · 1)⁻¹ by Cholesky, in float32: half the time and the memory of a general inverse.

    Raises:
        DataError: In float32 there is none.
    """
    from scipy.linalg import lapack

    gram_II = np.asfortranarray(gram_II, np.float32)
    gram_II[np.diag_indices_from(gram_II)] += regularisation
    half_II, failed = lapack.spotrf(gram_II, lower=1, overwrite_a=1)
    if not failed:
        half_II, failed = lapack.spotri(half_II, lower=1, overwrite_c=1)
    if failed:
        raise DataError(f"the items' counts have no inverse in float32 with a regularisation of {regularisation:g}")
    inverse_II: Floats = np.tril(half_II)
    inverse_II += np.tril(half_II, -1).T
    return inverse_II


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


def sparse_rows(
    rows: Sequence[tuple[Sequence[int] | NDArray[np.int64], NDArray[np.floating]]], num_items: int
) -> csr_matrix:
    """Rows of (columns, values) as a matrix [len(rows), num_items] in float32; a column may come twice."""
    from scipy.sparse import csr_matrix

    ends = np.concatenate([[0], np.cumsum([len(columns) for columns, _ in rows])]).astype(np.int64)
    columns = np.concatenate([np.zeros(0, np.int64), *(np.array(columns, np.int64) for columns, _ in rows)])
    values = np.concatenate([np.zeros(0), *(values for _, values in rows)]).astype(np.float32)
    return csr_matrix((values, columns, ends), shape=(len(rows), num_items))


def _outside(rows_IK: NDArray[np.generic]) -> bool:
    """Whether a row is named that is not there."""
    return rows_IK.size > 0 and not 0 <= int(rows_IK.min()) <= int(rows_IK.max()) < len(rows_IK)
