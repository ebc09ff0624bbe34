"""Item vectors by id: search by inner product over all of them, with additions, deletions and filters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

EXACT = 50_000
"""Vectors kept as they are; where there are more, each number is kept in 8 bits."""
_TRAINED_ON = 100_000
_MOVED_AT_ONCE = 100_000


class Index:
    """Vectors of one width, each under an id.

    A search looks at every vector, so an addition counts at once, a deletion leaves no trace, and a filter costs
    nothing in recall. Up to ``EXACT`` vectors it is exact; beyond, the numbers of a vector are rounded to 256 steps
    between the least and the greatest of their column, a quarter of the bytes and of the time.
    """

    def __init__(self, width: int) -> None:
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(width))
        self._rounded = False
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, item: object) -> bool:
        return item in self._numbers

    def put(self, ids: Sequence[str], vectors_IE: NDArray[np.float32]) -> None:
        """Adds vectors; one whose id is known takes the place of the old."""
        newest = dict(zip(ids, range(len(ids)), strict=True))
        self.remove(list(newest))
        numbers = np.arange(self._next, self._next + len(newest))
        self._next += len(newest)
        self._numbers |= dict(zip(newest, numbers.tolist(), strict=True))
        self._ids |= dict(zip(numbers.tolist(), newest, strict=True))
        if newest:
            self._index.add_with_ids(np.ascontiguousarray(vectors_IE[list(newest.values())], np.float32), numbers)
        if len(self._numbers) > EXACT and not self._rounded:
            self._round()

    def _round(self) -> None:
        """Moves the vectors to an index of 8 bits a number."""
        exact, width = self._index, self._index.d
        quantiser = _quantiser(width)
        numbers = faiss.vector_to_array(exact.id_map)
        vectors_IE = faiss.rev_swig_ptr(faiss.downcast_index(exact.index).get_xb(), len(numbers) * width)  # type: ignore[attr-defined]
        vectors_IE = vectors_IE.reshape(len(numbers), width)
        sample = np.random.default_rng(0).permutation(len(numbers))[:_TRAINED_ON]
        quantiser.train(np.ascontiguousarray(vectors_IE[sample]))
        self._index = faiss.IndexIDMap2(quantiser)
        for first in range(0, len(numbers), _MOVED_AT_ONCE):
            part = slice(first, first + _MOVED_AT_ONCE)
            self._index.add_with_ids(vectors_IE[part], numbers[part])
        self._rounded = True

    @classmethod
    def of(cls, width: int, ids: Sequence[str], arrays: Mapping[str, NDArray[np.generic]]) -> Index:
        """The same index again, from what ``arrays`` returned."""
        made = cls(width)
        if len(arrays["trained"]):
            quantiser = _quantiser(width)
            faiss.copy_array_to_vector(arrays["trained"], quantiser.sq.trained)
            quantiser.is_trained = made._rounded = True
            made._index = faiss.IndexIDMap2(quantiser)
        made._index.add_sa_codes(np.ascontiguousarray(arrays["codes"]), np.arange(len(ids)))
        made._ids = dict(enumerate(ids))
        made._numbers = {item: number for number, item in made._ids.items()}
        made._next = len(ids)
        return made

    def arrays(self) -> tuple[list[str], dict[str, NDArray[np.generic]]]:
        """The ids, and what is kept of their vectors: codes uint8 [I, …], and the range of each column if rounded."""
        kept: Any = faiss.downcast_index(self._index.index)
        codes = faiss.vector_to_array(kept.codes).reshape(-1, kept.code_size)
        trained = faiss.vector_to_array(kept.sq.trained) if self._rounded else np.zeros(0, np.float32)
        ids = [self._ids[number] for number in faiss.vector_to_array(self._index.id_map).tolist()]
        return ids, {"codes": codes, "trained": trained}

    def remove(self, ids: Sequence[str]) -> int:
        """Takes vectors out; returns how many there were."""
        numbers = [self._numbers.pop(item) for item in dict.fromkeys(ids) if item in self._numbers]
        for number in numbers:
            del self._ids[number]
        if numbers:
            self._index.remove_ids(_batch(numbers))
        return len(numbers)

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of known ids, [len(ids), E]."""
        if not ids:
            return np.zeros((0, self._index.d), np.float32)
        vectors_IE: NDArray[np.float32] = self._index.reconstruct_batch(
            np.array([self._numbers[item] for item in ids], np.int64)
        )
        return vectors_IE

    def search(
        self,
        vector_E: NDArray[np.float32],
        count: int,
        *,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        pulls: Mapping[str, float] = MappingProxyType({}),
    ) -> list[tuple[str, float]]:
        """The best ids with their scores, inner products and pulls, the best first.

        Args:
            vector_E: What to be near to.
            count: How many at most; as many are found as the filters leave.
            only: Ids to choose from; None for all.
            without: Ids to leave out.
            pulls: What some ids score besides their inner product; at least 0, so that the best of the others are
                among the nearest.
        """
        chosen = self._numbers.keys() if only is None else set(only) & self._numbers.keys()
        left_out = set(without) & self._numbers.keys()
        count = min(count, len(chosen) - len(left_out & chosen))
        if count <= 0:
            return []
        if only is None:
            left = _batch([self._numbers[item] for item in left_out])
            selector: faiss.IDSelector = faiss.IDSelectorNot(left)
        else:
            selector = _batch([self._numbers[item] for item in chosen - left_out])
        parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        query = np.ascontiguousarray(vector_E[None], np.float32)
        scores, numbers = self._index.search(query, count, params=parameters)
        found = {self._ids[int(n)]: float(s) for n, s in zip(numbers[0], scores[0], strict=True)}
        pulled = [item for item in pulls if item in chosen and item not in left_out]
        if not pulled:
            return [*found.items()]
        for item, product in zip(pulled, (self.vectors(pulled) @ query[0]).tolist(), strict=True):
            found[item] = product + pulls[item]
        return sorted(found.items(), key=lambda one: -one[1])[:count]


def _quantiser(width: int) -> faiss.IndexScalarQuantizer:
    return faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)


def _batch(numbers: Sequence[int]) -> faiss.IDSelectorBatch:
    return faiss.IDSelectorBatch(np.array(numbers, np.int64))
