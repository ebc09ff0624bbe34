"""The catalogue's vectors under one retrieval task: searched, changed, and kept over a restart."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m6rec.errors import StoreError
from m6rec.predicate import ALL, NO_ATTRIBUTES, Predicate, attributes
from m6rec.readouts import EmbedModel
from m6rec.retrieval.blend import TEXT
from m6rec.retrieval.exhaustive import ExhaustiveSearch
from m6rec.retrieval.index import DEFAULT, Index, IndexConfig
from m6rec.types import Item

FILE = "items.safetensors"
_FORMAT = "4"
_DIGEST_BYTES = 16

_log = logging.getLogger(__name__)


class ItemIndex:
    """Item vectors of one retrieval model, searched together with what the sources of its blend add.

    A snapshot is one file, so that it is whole or not there. Its header is a card of its format, of what its vectors
    were made with (``EmbedModel.digest``), and a checksum; a snapshot that doesn't fit costs only the time to read
    items anew.

    Args:
        retrieve: The model.
        config: How the vectors are searched.
        num_from_sources: Items that come from the sources of the blend, the best; others are found by their text alone.
    """

    def __init__(self, retrieve: EmbedModel, config: IndexConfig = DEFAULT, num_from_sources: int = 1_000) -> None:
        self._retrieve, self._config, self._num_from_sources = retrieve, config, num_from_sources
        self._index = Index(retrieve.width, config)
        self._changed = True

    def __contains__(self, item: object) -> bool:
        return item in self._index

    def __len__(self) -> int:
        return len(self._index)

    @property
    def categories(self) -> list[str]:
        """See ``Index``."""
        return self._index.categories

    def put(self, items: Sequence[Item], vectors_IE: NDArray[np.float32]) -> None:
        """Adds items or replaces them."""
        self._index.put([item.id for item in items], vectors_IE, [attributes(item) for item in items])
        self._changed |= bool(items)

    def remove(self, ids: Sequence[str]) -> int:
        """See ``Index``."""
        removed = self._index.remove(ids)
        self._changed |= bool(removed)
        return removed

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """See ``Index``."""
        return self._index.vectors(ids)

    def user_vector(self, liked: Sequence[str]) -> NDArray[np.float32]:
        """The vector of who liked these items, oldest first; what is not in the index says nothing."""
        latest = [item for item in dict.fromkeys(reversed(liked)) if item in self._index]
        return self._retrieve.user_vector(self._index.vectors(latest[::-1]))

    def search(
        self,
        vector_E: NDArray[np.float32],
        count: int,
        where: Predicate,
        without: Collection[str],
        liked: Sequence[str],
    ) -> list[tuple[str, float]]:
        """The best by the blend of the product with ``vector_E`` and what its sources say of ``liked``."""
        blend = self._retrieve.blend
        if blend is None:
            return self._index.search(vector_E, count, where=where, without=without)
        added = blend.strongest(liked, self._num_from_sources)
        query_E = np.float32(blend.text) * vector_E
        return self._index.search(query_E, count, where=where, without=without, scores=added)

    def near(
        self, vector_E: NDArray[np.float32], count: int, where: Predicate = ALL, without: Collection[str] = ()
    ) -> list[tuple[str, float]]:
        """The best by the product with ``vector_E`` alone."""
        return self._index.search(vector_E, count, where=where, without=without)

    def exhaustive(self) -> ExhaustiveSearch:
        """What finds the same as ``search`` for many users at once, without filters; of the index as it is now."""
        ids = sorted(self._index.ids)
        decay = self._retrieve.embeddings.decay
        return ExhaustiveSearch(ids, self._index.vectors(ids), decay, self._retrieve.blend, self._num_from_sources)

    def liked_with(self, item: str, count: int) -> list[tuple[str, float]]:
        """The best by what the sources say of someone who liked ``item`` alone; none if they don't know it."""
        blend = self._retrieve.blend
        found = {} if blend is None else blend.strongest([item], self._num_from_sources)
        there = ((one, score) for one, score in found.items() if one != item and one in self._index)
        return sorted(there, key=lambda one: -one[1])[:count]

    def sources(
        self, item: str, vector_E: NDArray[np.float32], liked: Sequence[str]
    ) -> Iterator[tuple[str, float, int | None]]:
        """(name, weighted score, rank by it alone or None where it scores 0) of what ``search`` blends for an item.

        The product with ``vector_E`` comes first, without a rank, which only a search tells.
        """
        blend = self._retrieve.blend
        product = float(self._index.vectors([item])[0] @ vector_E)
        yield TEXT, product * (1 if blend is None else blend.text), None
        if blend is None or item not in blend.numbers:
            return
        number = blend.numbers[item]
        for name, score_I in zip(blend.arrays, blend.parts(liked), strict=True):
            score = float(score_I[number])
            rank = 1 + int((score_I > score).sum()) if score > 0 else None
            yield name, score * blend.weights[name], rank

    def score(self, item: str, liked: Sequence[str]) -> float:
        """The score of an item by ``search`` for who liked these; 0 for one that is not in the index."""
        if item not in self._index:
            return 0.0
        return sum(score for _, score, _ in self.sources(item, self.user_vector(liked), liked))

    def admitted(self, where: Predicate, ids: Iterable[str]) -> list[str]:
        """See ``Index``."""
        return self._index.admitted(where, ids)

    def some(self, where: Predicate, count: int) -> list[str]:
        """See ``Index``."""
        return self._index.some(where, count)

    def save(self, folder: Path, items: Mapping[str, Item]) -> None:
        """Writes a snapshot unless the last one still holds; where that fails, a warning is logged.

        Args:
            folder: Where; made if need be.
            items: At least those in the index, by id, with the texts that their vectors were read from.
        """
        if not self._changed:
            return
        ids, tensors = self._index.arrays()
        tensors["ids"] = np.frombuffer(json.dumps(ids).encode(), np.uint8)
        tensors["texts"] = self._texts(items[item] for item in ids)
        made_with = self._retrieve.digest()
        card = {"format": _FORMAT, "made_with": made_with, "checksum": _checksum(made_with, tensors)}
        partial = folder / f".{FILE}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, str(partial), metadata=card)
            os.replace(partial, folder / FILE)
        except (SafetensorError, OSError) as error:
            with suppress(OSError):
                partial.unlink()
            _log.warning("item vectors can't be kept, and will be read again after a restart: %s", error)
        else:
            self._changed = False

    def restore(self, folder: Path, items: Mapping[str, Item]) -> None:
        """Puts in the vectors of a snapshot, of all items whose text is still the same, into an empty index.

        Args:
            folder: Where ``save`` wrote; that nothing is there is no error, and what doesn't fit is logged.
            items: The catalogue by id.
        """
        assert not len(self._index), "restore into an empty index"
        file = folder / FILE
        if not file.exists():
            return
        try:
            tensors = _read(file, self._retrieve.digest())
        except StoreError as error:
            _log.warning("item vectors are read anew: %s", error)
            return
        ids: list[str] = json.loads(tensors["ids"].tobytes())
        found_by = [attributes(items[item]) if item in items else NO_ATTRIBUTES for item in ids]
        arrays = {kind: tensors[kind] for kind in ("rows", "lists")}
        self._index = Index.of(self._retrieve.width, ids, arrays, found_by, self._config)
        there_I = np.array([item in items for item in ids], np.bool_)
        texts = self._texts(items[item] for item in ids if item in items)
        there_I[there_I] = (tensors["texts"][there_I] == texts).all(1)
        num_stale = self._index.remove([ids[place] for place in np.flatnonzero(~there_I)])
        self._changed = num_stale > 0
        _log.info("item vectors restored", extra={"facts": {"restored": len(self._index), "stale": num_stale}})

    def _texts(self, items: Iterable[Item]) -> NDArray[np.uint8]:
        """A digest of what is read of each item, [I, 16]."""
        task, domain = self._retrieve.task, self._retrieve.domain
        words = (
            json.dumps([(segment.slot, segment.text) for segment in task.candidate(item, domain)]) for item in items
        )
        digests = b"".join(hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest() for text in words)
        return np.frombuffer(digests, np.uint8).reshape(-1, _DIGEST_BYTES)


def _read(file: Path, made_with: str) -> dict[str, NDArray[np.generic]]:
    """The arrays of a snapshot. Raises StoreError where it is damaged, or doesn't fit."""
    try:
        with safe_open(file, "np") as opened:
            card = opened.metadata() or {}
            if card.get("format") != _FORMAT or card.get("made_with") != made_with:
                raise StoreError(f"{file} was made by another tuning or another version of m6rec")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{file} can't be read ({error})") from error
    if card.get("checksum") != _checksum(made_with, tensors):
        raise StoreError(f"{file} is damaged")
    return tensors


def _checksum(made_with: str, tensors: Mapping[str, NDArray[np.generic]]) -> str:
    digest = hashlib.blake2b(made_with.encode(), digest_size=_DIGEST_BYTES)
    for name, array in sorted(tensors.items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
