"""Candidate sources: item-item models, each fitted on sequences of likes and a page long.

A source scores all items by what each of some users liked, so users need no training and a new like counts at once.
Fitting is linear in the number of items: weights between items are regressions on the few items that occur with each,
never an inverse over the whole catalogue. What is fitted is a few named arrays, which are saved as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from m6rec.config import Count, NonNegative, OpenShare, Positive, Share, validate
from m6rec.retrieval import kernels

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]

MEMORY = "memory"
"""The array of a source, one number, that says what a like weighs of the one after it when the user asks.

A source may have it or not; where it has, validation chooses its value (``blend.weigh``).
"""
BLOCK = 2_000
"""Items whose co-occurrences are counted at once; bounds memory and changes no result."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Likes:
    """What sources are fitted on.

    Attributes:
        sequences: The items that each user liked, by row, oldest first, each once.
        num_items: How many rows there are.
        vectors_IE: Unit vectors of the items, read from their texts; none (E = 0) where there is no such model.
    """

    sequences: Sequence[Ints]
    num_items: int
    vectors_IE: Floats

    @cached_property
    def row_L(self) -> Ints:
        """All likes, one user after the other."""
        return np.concatenate([np.zeros(0, np.int64), *self.sequences])

    @cached_property
    def start_U(self) -> Ints:
        """Where each user's likes begin, and behind the last where they end."""
        return np.concatenate([[0], np.cumsum([len(row) for row in self.sequences])]).astype(np.int64)

    @cached_property
    def liked_UI(self) -> csr_matrix:
        """1 where a user liked an item."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(self.row_L), np.float32)
        return csr_matrix((ones, self.row_L, self.start_U), shape=(len(self.sequences), self.num_items))


class Source(Protocol):
    """An item-item model; stateless, its settings are its own.

    Attributes:
        weight: What it weighs in a blend, where the text weighs 1, before anything is learned.
    """

    @property
    def weight(self) -> float:
        """See above."""
        ...

    def fit(self, likes: Likes) -> Arrays:
        """What is learned, as arrays that say all that ``scores`` needs; see ``MEMORY``."""
        ...

    def scores(self, arrays: Arrays, likes: Sequence[Ints]) -> NDArray[np.floating]:
        """Scores of all items for each user, [U, I], by the rows of what each liked, the latest first; 0 for nothing.

        A user's scores don't depend on the others.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class IALS:
    """Implicit-feedback matrix factorisation (Hu, Koren & Volinsky, ICDM 2008): what is liked by the same users.

    The user's factors are solved for when they ask: the least squares of 1 for the likes and 0 for all other items
    (eq. 4 there), in which a like weighs ``memory`` of the one after it.

    Attributes:
        confidence: What a like weighs in fitting, where everything else weighs 1.
        regularisation: Weight of the factors' squared length.
        memory: See above.
        num_factors: Width of the vectors.
        seed: Of the first factors.
        weight: See ``Source``.
    """

    confidence: Positive = 6.0
    regularisation: Positive = 30.0
    memory: Share = 0.8
    num_factors: Count = 128
    seed: int = 0
    weight: Positive = 0.5

    def __post_init__(self) -> None:
        validate(self)

    def fit(self, likes: Likes) -> Arrays:
        """Factors of each item, and their gram with the regularisation."""
        model = factorise(likes.liked_UI, self.num_factors, self.regularisation, self.confidence, seed=self.seed)
        factor_IF = np.asarray(model.item_factors, np.float32)
        gram_FF = factor_IF.T @ factor_IF + np.float32(self.regularisation) * np.eye(factor_IF.shape[1])
        settings = {"confidence": np.array([self.confidence], np.float32), MEMORY: np.array([self.memory], np.float32)}
        return {"factor_IF": factor_IF, "gram_FF": gram_FF.astype(np.float32), **settings}

    def scores(self, arrays: Arrays, likes: Sequence[Ints]) -> NDArray[np.floating]:
        """See ``Source``."""
        factor_IF, confidence, memory = arrays["factor_IF"], arrays["confidence"][0], arrays[MEMORY][0]
        user_UF = np.zeros((len(likes), factor_IF.shape[1]), np.float32)
        for user_F, rows_N in zip(user_UF, likes, strict=True):
            liked_NF = factor_IF[rows_N]
            weight_N = (confidence * memory ** np.arange(len(rows_N))).astype(np.float32)
            gram_FF = arrays["gram_FF"] + (liked_NF.T * (weight_N - 1)) @ liked_NF  # each has its 1 in the items' gram
            user_F[:] = np.linalg.solve(gram_FF, weight_N @ liked_NF)
        scores_UI: Floats = user_UF @ factor_IF.T
        return scores_UI


@dataclass(frozen=True, kw_only=True)
class NextItem:
    """What is liked next: a ridge regression from the likes before to the one that follows.

    Attributes:
        regularisation: Weight of the squared weights.
        memory: What a like weighs of the one after it; in fitting always this.
        length: Likes before the next that count.
        num_neighbours: Items that the score of an item may depend on: those that precede it most often.
        weight: See ``Source``.
    """

    regularisation: Positive = 300.0
    memory: OpenShare = 0.6
    length: Count = 16
    num_neighbours: Count = 200
    weight: Positive = 0.5

    def __post_init__(self) -> None:
        validate(self)

    def fit(self, likes: Likes) -> Arrays:
        """Weights from each item to those that follow it.

        The inputs of a like are those before it, each weighing ``memory`` per place. Two likes ``lag`` places apart are
        inputs together of the ``later`` likes after both: Σ memory^(2n + lag) for n = 0 … later − 1.
        """
        from scipy.sparse import csr_matrix

        shape = (likes.num_items, likes.num_items)
        gram_II, wanted_II = csr_matrix(shape, dtype=np.float32), csr_matrix(shape, dtype=np.float32)
        size_U = np.diff(likes.start_U)
        left_L = np.repeat(likes.start_U[1:], size_U) - np.arange(len(likes.row_L)) - 1  # likes of the user after it
        place_L = np.arange(len(likes.row_L)) - np.repeat(likes.start_U[:-1], size_U)
        for lag in range(min(self.length, int(size_U.max(initial=0)) - 1) + 1):
            last = np.flatnonzero(place_L >= lag)
            pair = likes.row_L[last], likes.row_L[last - lag]
            if lag:
                weights = np.full(len(last), self.memory ** (lag - 1), np.float32)
                wanted_II += csr_matrix((weights, pair), shape=shape)
            later_L = np.minimum(left_L[last], self.length - lag)
            weights = self.memory**lag * (1 - self.memory ** (2 * later_L)) / (1 - self.memory**2)
            both_II = csr_matrix((weights.astype(np.float32), pair), shape=shape)
            gram_II += both_II + both_II.T if lag else both_II
        columns = _regressions(_greatest(gram_II, _MAX_GRAM), wanted_II, self.num_neighbours, self.regularisation)
        return _weights(columns, likes.num_items, self.memory)

    def scores(self, arrays: Arrays, likes: Sequence[Ints]) -> NDArray[np.floating]:
        """See ``Source``."""
        return _sums(arrays, likes)


@dataclass(frozen=True, kw_only=True)
class EASE:
    """A linear autoencoder of who liked what (Steck, WWW 2019), pulled towards what the texts say (L3AE, 2025).

    It minimises ‖X − XB‖² + regularisation · ‖B‖² + text · regularisation · ‖B − C‖² with a diagonal of 0, where C
    are the cosines of the texts of an item's nearest by text. At ``text`` 0 it is EASE.

    Attributes:
        regularisation: See above.
        text: See above.
        memory: What a like weighs of the one after it when the user asks.
        num_neighbours: Items that the score of an item may depend on: those most often liked together with it, and as
            many of the nearest by text, where ``text`` is above 0.
        weight: See ``Source``.
    """

    regularisation: Positive = 100.0
    text: NonNegative = 0.0
    memory: Share = 0.8
    num_neighbours: Count = 200
    weight: Positive = 0.5

    def __post_init__(self) -> None:
        validate(self)

    def fit(self, likes: Likes) -> Arrays:
        """Weights from each item to those that are liked with it."""
        pull = self.text * self.regularisation if likes.vectors_IE.shape[1] else 0.0
        gram_II = _together(likes.liked_UI)
        columns = _regressions(gram_II, gram_II, self.num_neighbours, self.regularisation, pull, likes.vectors_IE)
        return _weights(columns, likes.num_items, self.memory)

    def scores(self, arrays: Arrays, likes: Sequence[Ints]) -> NDArray[np.floating]:
        """See ``Source``."""
        return _sums(arrays, likes)


ials, next_item, ease = IALS(), NextItem(), EASE()
"""As ``hooks.SOURCES`` names them; it is where a further one is added."""

TEXT_RIDGE = 1.0
"""Weight of the squared weights in the regression of one item's text vector on those of others."""
_NO_VECTORS: Floats = np.zeros((0, 0), np.float32)


def _regressions(
    gram_II: csr_matrix,
    wanted_II: csr_matrix,
    num_neighbours: int,
    regularisation: float,
    pull: float = 0.0,
    vectors_IE: Floats = _NO_VECTORS,
) -> Iterator[tuple[int, Ints, Floats]]:
    """For each item the regression of it on others, within those that occur most often with it.

    For the neighbours N of item j: (G_NN + (regularisation + pull) · 1)⁻¹ (wanted_jN + pull · c_N), where c is the
    regression of j's text vector on those of N. At least as many neighbours as there are items give the exact weights;
    200 give the same quality for a fraction of the time (design/019).

    Args:
        gram_II: How often two items are inputs together.
        wanted_II: How often each item (rows) is the target of an input.
        num_neighbours: How many inputs the weights are among, and where ``pull`` is above 0 as many nearest by text.
        regularisation: Weight of the squared weights.
        pull: Weight of the squared difference to c.
        vectors_IE: Unit vectors of the items by their texts.

    Yields:
        (item, rows of its neighbours, their weights).
    """
    num_items = gram_II.shape[0]
    place_I = np.full(num_items, -1)
    for item in range(num_items):
        if item % BLOCK == 0 and pull:
            near_BK = _nearest(vectors_IE, slice(item, item + BLOCK), num_neighbours)
        entries = slice(wanted_II.indptr[item], wanted_II.indptr[item + 1])
        row_N, wanted_N = wanted_II.indices[entries], wanted_II.data[entries]
        row_N, wanted_N = row_N[row_N != item], wanted_N[row_N != item]
        if len(row_N) > num_neighbours:
            kept = np.argpartition(-wanted_N, num_neighbours)[:num_neighbours]
            row_N, wanted_N = row_N[kept], wanted_N[kept]
        if pull:
            more = np.setdiff1d(near_BK[item % BLOCK], row_N)
            row_N, wanted_N = np.concatenate([row_N, more]), np.concatenate([wanted_N, np.zeros(len(more))])
        if not len(row_N):
            continue
        gram_NN = kernels.within(gram_II.indptr, gram_II.indices, gram_II.data, row_N, place_I)
        gram_NN[np.diag_indices_from(gram_NN)] += regularisation + pull
        if pull:
            text_NE = vectors_IE[row_N]
            text_NN = text_NE @ text_NE.T
            text_NN[np.diag_indices_from(text_NN)] += TEXT_RIDGE
            wanted_N = wanted_N + pull * np.linalg.solve(text_NN, text_NE @ vectors_IE[item])
        yield item, row_N.astype(np.int64), np.linalg.solve(gram_NN, wanted_N).astype(np.float32)


_MAX_GRAM = 1_000
"""Items of which it is kept how often they occur with one item, the most frequent."""


def _together(liked_UI: csr_matrix) -> csr_matrix:
    """How many users like both of two items; of each row the ``_MAX_GRAM`` greatest."""
    from scipy.sparse import vstack

    liked_IU = liked_UI.T.tocsr()
    blocks = range(0, liked_IU.shape[0], BLOCK)
    return vstack([_greatest(liked_IU[first : first + BLOCK] @ liked_UI, _MAX_GRAM) for first in blocks], "csr")


def _greatest(matrix: csr_matrix, count: int) -> csr_matrix:
    """The matrix with the ``count`` greatest of each row; at a draw, those of lower columns."""
    from scipy.sparse import csr_matrix

    matrix = matrix.tocsr()
    size_I = np.diff(matrix.indptr)
    if size_I.max(initial=0) <= count:
        return matrix
    row_G = np.repeat(np.arange(len(size_I)), size_I)
    order_G = np.lexsort((matrix.indices, -matrix.data, row_G))
    kept_G = order_G[np.arange(len(order_G)) - matrix.indptr[row_G] < count]
    ends = np.concatenate([[0], np.minimum(size_I, count).cumsum()])
    return csr_matrix((matrix.data[kept_G], matrix.indices[kept_G], ends), shape=matrix.shape)


def _nearest(vectors_IE: Floats, block: slice, count: int) -> Ints:
    """The rows nearest to each of a block by inner product, itself left out."""
    product_BI = vectors_IE[block] @ vectors_IE.T
    product_BI[np.arange(len(product_BI)), block.start + np.arange(len(product_BI))] = -np.inf
    count = min(count, len(vectors_IE) - 1)
    return np.argpartition(-product_BI, count - 1, 1)[:, :count]


def _weights(columns: Iterator[tuple[int, Ints, Floats]], num_items: int, memory: float) -> Arrays:
    """The weights from each item, by row: those above 0, as the candidates that a like brings."""
    from scipy.sparse import csr_matrix

    found = [
        (rows[weights > 0], np.full((weights > 0).sum(), item), weights[weights > 0]) for item, rows, weights in columns
    ]
    source, target, weight = (
        (np.concatenate(parts) for parts in zip(*found, strict=True))
        if found
        else (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    )
    weight_II = csr_matrix((weight, (source, target)), shape=(num_items, num_items))
    return {
        "start_I": weight_II.indptr.astype(np.int64),
        "item_W": weight_II.indices.astype(np.int32),
        "weight_W": weight_II.data.astype(np.float32),
        MEMORY: np.array([memory], np.float32),
    }


def _sums(arrays: Arrays, likes: Sequence[Ints]) -> Floats:
    """For each user the weights from the rows, of which each counts ``memory`` of the one before it; [U, I]."""
    start_I = arrays["start_I"]
    scores_UI = np.zeros((len(likes), len(start_I) - 1), np.float32)
    row_L, end_U = np.concatenate([np.zeros(0, np.int64), *likes]), np.cumsum([len(rows) for rows in likes])
    memory = float(arrays[MEMORY][0])
    kernels.add_weights(start_I, arrays["item_W"], arrays["weight_W"], memory, row_L, end_U, scores_UI)
    return scores_UI


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


def sparse_rows(rows: Sequence[tuple[Sequence[int] | Ints, NDArray[np.floating]]], num_items: int) -> csr_matrix:
    """Rows of (columns, values) as a matrix [len(rows), num_items] in float32; a column may come twice."""
    from scipy.sparse import csr_matrix

    ends = np.concatenate([[0], np.cumsum([len(columns) for columns, _ in rows])]).astype(np.int64)
    columns = np.concatenate([np.zeros(0, np.int64), *(np.array(columns, np.int64) for columns, _ in rows)])
    values = np.concatenate([np.zeros(0), *(values for _, values in rows)]).astype(np.float32)
    return csr_matrix((values, columns, ends), shape=(len(rows), num_items))
