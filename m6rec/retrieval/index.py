"""Item vectors by id: the nearest by inner product, among the items that a predicate holds of."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from types import MappingProxyType
from typing import Annotated

import faiss
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from m6rec.config import Count, Natural, Positive, Range, Share, validate
from m6rec.predicate import ALL, NO_ATTRIBUTES, Attributes, Predicate
from m6rec.retrieval.inverted import InvertedIndex


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """When an index is approximate, and how (measured in design/020).

    Attributes:
        exact: Vectors up to which each search looks at every one.
        recall: Of the best ``neighbours``, the share that a search beyond finds; the size of a round is chosen so.
        neighbours: See ``recall``.
        lists: Lists that vectors are parted into, in square roots of the number of vectors.
        growth: Lists are made anew when there are so many times as many vectors.
        sampled: Vectors that each list is fitted to.
        queries: Queries that ``recall`` is measured with.
        gathered: Share of the items, left by a filter, up to which each is looked at, wherever it is listed.
    """

    exact: Natural = 100_000
    recall: Share = 0.99
    neighbours: Count = 100
    lists: Positive = 4.0
    growth: Annotated[float, Range(1, above=True)] = 2.0
    sampled: Count = 40
    queries: Count = 64
    gathered: Share = 0.003

    def __post_init__(self) -> None:
        validate(self)


DEFAULT = IndexConfig()
_MOVED_AT_ONCE = 50_000
_GROWTH = 0.5
"""Power of the share that a filter leaves by which a round grows; chosen in design/020."""


class Index:
    """Vectors of one width in half precision, each under an id, with attributes to filter by.

    They are kept in inverted lists by the nearest of a number of centroids (faiss ``IndexIVFScalarQuantizer``). Up to
    ``exact`` vectors there is one list, so that every vector is looked at; beyond, a search looks into the lists in
    rounds, the nearest first, until a round brings none of the best. A round is of more lists the fewer vectors a
    filter leaves. An addition counts at once and a deletion leaves no trace.

    Any thread may call it. Searches wait for an addition, but not for lists to be made anew, which is done beside them.
    """

    def __init__(self, width: int, config: IndexConfig = DEFAULT) -> None:
        self._config = config
        self._lists = _lists(np.zeros((1, width), np.float32))
        self._attributes = InvertedIndex()
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []  # by row
        self._free: list[int] = []  # rows of which nothing is left
        self._reading, self._writing = Lock(), Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, item: object) -> bool:
        return item in self._rows

    @property
    def ids(self) -> list[str]:
        """All ids, in no order."""
        with self._reading:
            return [*self._rows]

    @property
    def categories(self) -> list[str]:
        """Those of any item, ``NO_CATEGORY`` among them where an item has none."""
        with self._reading:
            return self._attributes.categories

    def put(
        self, ids: Sequence[str], vectors_IE: NDArray[np.float32], attributes: Sequence[Attributes] | None = None
    ) -> None:
        """Adds vectors; one whose id is known takes the place of the old, and its attributes that of the old ones.

        Args:
            ids: Of the items.
            vectors_IE: Their vectors.
            attributes: What they are filtered by; None for nothing.
        """
        newest = dict(zip(ids, range(len(ids)), strict=True))
        if not newest:
            return
        with self._writing:
            with self._reading:
                self._take_out([item for item in newest if item in self._rows])
                for item, place in newest.items():
                    self._enter(item, attributes[place] if attributes is not None else NO_ATTRIBUTES)
                rows = np.array([self._rows[item] for item in newest], np.int64)
                self._lists.add_with_ids(_floats(vectors_IE[list(newest.values())]), rows)
            num = len(self._rows)
            if num > self._config.exact and num >= self._config.growth * self._made_for():
                lists = self._remade()  # nobody else writes meanwhile
                with self._reading:
                    self._lists = lists

    def remove(self, ids: Sequence[str]) -> int:
        """Takes vectors out; returns how many there were."""
        with self._writing, self._reading:
            known = [item for item in dict.fromkeys(ids) if item in self._rows]
            self._take_out(known)
        return len(known)

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of known ids, [len(ids), E]."""
        with self._reading:
            return self._vectors([self._rows[item] for item in ids])

    def admitted(self, where: Predicate, ids: Iterable[str]) -> list[str]:
        """Those of the ids that are here and that a predicate holds of, in their order."""
        with self._reading:
            matching = self._attributes.matching(where)
            return [item for item in ids if (row := self._rows.get(item)) is not None and row in matching.rows]

    def some(self, where: Predicate, count: int) -> list[str]:
        """As many ids that a predicate holds of, or all if there are fewer; in no order."""
        with self._reading:
            return [self._ids[row] for row in islice(self._attributes.matching(where).rows, count)]

    def search(
        self,
        vector_E: NDArray[np.float32],
        count: int,
        *,
        where: Predicate = ALL,
        without: Collection[str] = (),
        scores: Mapping[str, float] = MappingProxyType({}),
    ) -> list[tuple[str, float]]:
        """The best ids with their scores, the best first.

        Args:
            vector_E: What to be near to.
            count: How many at most; as many are found as the filters leave.
            where: What must hold of them.
            without: Ids to leave out.
            scores: What some ids score besides their inner product; at least 0, so that the best of the others are
                among the nearest.
        """
        query_E = _floats(vector_E)
        with self._reading:
            matching = self._attributes.matching(where)
            left_out = matching.rows & BitMap([self._rows[item] for item in without if item in self._rows])
            num_left = len(matching.rows) - len(left_out)
            count = min(count, num_left)
            if count <= 0:
                return []
            if num_left <= self._config.gathered * len(self._rows):
                found = self._gathered(query_E, count, matching.rows - left_out)
            else:
                selector = faiss.IDSelectorBitmap(matching.bits_without(left_out))  # type: ignore[arg-type, call-arg]
                size = math.ceil(self._lists.nprobe * (len(self._rows) / num_left) ** _GROWTH)
                rows, products = _nearest(self._lists, query_E, count, size, selector)
                found = dict(zip(rows.tolist(), products.tolist(), strict=True))
            scored = [(self._rows[item], score) for item, score in scores.items() if item in self._rows]
            scored = [(row, score) for row, score in scored if row in matching.rows and row not in left_out]
            if scored:
                products = self._vectors([row for row, _ in scored]) @ query_E
                found |= {row: product + score for (row, score), product in zip(scored, products.tolist(), strict=True)}
            best = sorted(found.items(), key=lambda one: -one[1])[:count]
            return [(self._ids[row], score) for row, score in best]

    def arrays(self) -> tuple[list[str], dict[str, NDArray[np.generic]]]:
        """The ids and what is kept of their vectors, of which ``of`` makes the same index again."""
        with self._reading:
            rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
            return [*self._rows], {"rows": rows, "lists": faiss.serialize_index(self._lists)}

    @classmethod
    def of(
        cls,
        width: int,
        ids: Sequence[str],
        arrays: Mapping[str, NDArray[np.generic]],
        attributes: Sequence[Attributes] | None = None,
        config: IndexConfig = DEFAULT,
    ) -> Index:
        """The index that ``arrays`` was taken of, with the attributes of its ids, in their order."""
        made = cls(width, config)
        made._lists = faiss.deserialize_index(arrays["lists"])  # type: ignore[arg-type, assignment]
        rows: list[int] = arrays["rows"].tolist()
        made._ids = [""] * (max(rows, default=-1) + 1)
        for place, (item, row) in enumerate(zip(ids, rows, strict=True)):
            made._rows[item], made._ids[row] = row, item
            made._attributes.put(row, attributes[place] if attributes is not None else NO_ATTRIBUTES)
        made._free = [row for row, item in enumerate(made._ids) if item not in made._rows]
        return made

    def _enter(self, item: str, attributes: Attributes) -> None:
        """Gives an item a row."""
        if self._free:
            row = self._free.pop()
            self._ids[row] = item
        else:
            row = len(self._ids)
            self._ids.append(item)
        self._rows[item] = row
        self._attributes.put(row, attributes)

    def _take_out(self, known: Sequence[str]) -> None:
        if not known:
            return
        rows = [self._rows.pop(item) for item in known]
        for row in rows:
            self._attributes.remove(row)
            self._ids[row] = ""
        self._free += rows
        self._lists.remove_ids(faiss.IDSelectorArray(np.array(rows, np.int64)))

    def _vectors(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        if not len(rows):
            return np.zeros((0, self._lists.d), np.float32)
        vectors_IE: NDArray[np.float32] = self._lists.reconstruct_batch(np.asarray(rows, np.int64))
        return vectors_IE

    def _gathered(self, query_E: NDArray[np.float32], count: int, rows: BitMap) -> dict[int, float]:
        """The best of few rows, with their products."""
        row_N = np.array(rows.to_array(), np.int64)
        product_N = self._vectors(row_N) @ query_E
        best = np.argpartition(-product_N, count - 1)[:count]
        return dict(zip(row_N[best].tolist(), product_N[best].tolist(), strict=True))

    def _made_for(self) -> float:
        """How many vectors the lists are the right ones for; 0 where there is one list."""
        return (self._lists.nlist / self._config.lists) ** 2 if self._lists.nlist > 1 else 0.0

    def _remade(self) -> faiss.IndexIVF:
        """The vectors in new lists, around centroids of now."""
        config, rng = self._config, np.random.default_rng(0)
        rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
        num_lists = min(round(config.lists * math.sqrt(len(rows))), len(rows))
        means = faiss.Kmeans(
            self._lists.d,
            num_lists,
            niter=10,
            spherical=True,
            seed=1,
            min_points_per_centroid=1,
            max_points_per_centroid=config.sampled,
        )
        means.train(self._vectors(rng.choice(rows, min(len(rows), config.sampled * num_lists), replace=False)))
        assert means.centroids is not None
        lists = _lists(means.centroids)
        for first in range(0, len(rows), _MOVED_AT_ONCE):
            some = rows[first : first + _MOVED_AT_ONCE]
            lists.add_with_ids(self._vectors(some), some)
        # Like users' vectors, queries are sums of items', and lie between them.
        queries = sum(weight * self._vectors(rng.choice(rows, config.queries)) for weight in (1.0, 0.5, 0.25))
        lists.nprobe = _round_size(lists, np.asarray(queries, np.float32), config)
        return lists


def _lists(centroids_CE: NDArray[np.float32]) -> faiss.IndexIVF:
    """Empty inverted lists."""
    num, width = centroids_CE.shape
    quantiser = faiss.IndexFlatIP(width)
    quantiser.add(centroids_CE)
    half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    lists = faiss.IndexIVFScalarQuantizer(quantiser, width, num, half, product, False)
    lists.is_trained = True  # there is nothing to fit: centroids are given, and half precision has no ranges
    lists.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]
    return lists


def _nearest(
    lists: faiss.IndexIVF,
    query_E: NDArray[np.float32],
    count: int,
    size: int,
    selector: faiss.IDSelector | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(the best rows that are selected, their products), as far as they are in the lists of the rounds.

    The lists are looked into ``size`` at a time, the nearest first; a round that brings none of the best is the last.
    """
    near_1C, order_1C = lists.quantizer.search(query_E[None], lists.nlist)
    row_N, product_N = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for first in range(0, lists.nlist, size):
        part_1C, part_near_1C = (np.ascontiguousarray(of[:, first : first + size]) for of in (order_1C, near_1C))
        found_N, found_product_N = np.empty(count, np.int64), np.empty(count, np.float32)
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=part_1C.shape[1])  # type: ignore[call-arg]
        # The method of Python takes no parameters, this one takes addresses.
        places = (faiss.swig_ptr(of) for of in (part_1C, part_near_1C, found_product_N, found_N))
        lists.search_preassigned_c(1, faiss.swig_ptr(query_E), count, *places, False, parameters)  # type: ignore[attr-defined]
        there_N = found_N >= 0
        enough, known = len(row_N) == count, len(row_N)
        row_N = np.concatenate([row_N, found_N[there_N]])
        product_N = np.concatenate([product_N, found_product_N[there_N]])
        if len(row_N) > count:
            best_N = np.argpartition(-product_N, count - 1)[:count]
            row_N, product_N = row_N[best_N], product_N[best_N]
            if enough and not (best_N >= known).any():
                break
    return row_N, product_N


def _round_size(lists: faiss.IndexIVF, queries_QE: NDArray[np.float32], config: IndexConfig) -> int:
    """The fewest lists of a round, by steps of a fifth, with which the wanted share of the nearest vectors is found."""
    everything = faiss.SearchParametersIVF(nprobe=lists.nlist)  # type: ignore[call-arg]
    exact_QN: NDArray[np.int64] = lists.search(queries_QE, config.neighbours, params=everything)[1]
    size = max(1, lists.nlist // 64)
    while size < lists.nlist:
        found = [_nearest(lists, query_E, config.neighbours, size)[0] for query_E in queries_QE]
        if np.mean([np.isin(one, other).mean() for one, other in zip(exact_QN, found, strict=True)]) >= config.recall:
            return size
        size = math.ceil(1.2 * size)
    return lists.nlist


def _floats(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(numbers, np.float32)
