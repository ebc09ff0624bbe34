"""The one cache: states of text segments after the lower layers, computed once and read by everything.

An entry is keyed by what determines it: model, tuning of the lower layers, depth, kept tokens, type and text. So an
item whose text changes, or a new model, simply asks for other keys. An entry that is corrupt or absent, or whose store
fails, is computed anew, and costs only time. Computed states go through bytes as well, so that they equal stored ones.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from m6rec.config import Count, Natural, validate
from m6rec.errors import ConfigError
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import AdapterHook
from m6rec.foundation.stores import FailOpenStore, LmdbStore, LRUCache, Store
from m6rec.text import prefixes
from m6rec.text.prefixes import Tree

ENTRY_BYTES = 320  # what Python adds to a text and its states in memory


@dataclass(frozen=True, kw_only=True)
class StatesConfig:
    """Where the model is split and what is kept.

    Attributes:
        depth: Layers that run ahead of time on each segment alone; 0 keeps token embeddings.
        keep: How many of a segment's last tokens are kept; 0 keeps all.
        mean: Whether one state is kept in their place, the mean over all tokens, which doesn't grow with the text.
        quantised: Whether a state is rounded to 8 bits a number, with one scale a token (its largest magnitude).
    """

    depth: int
    keep: int = 1
    mean: bool = False
    quantised: bool = False

    def __post_init__(self) -> None:
        if self.depth < 0 or self.keep < 0:
            raise ConfigError(f"depth is {self.depth} and keep is {self.keep}; both must be at least 0 (keep 0 = all)")
        if self.mean and self.keep != 1:
            raise ConfigError(f"the mean is one state for a segment, but keep is {self.keep}; leave it 1")


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What a cache takes, and how it is filled.

    Attributes:
        memory_bytes: States of the texts used last that stay in memory.
        training_bytes: States of targets that a training of texts keeps from one epoch to the next.
        batch_tokens: Padded tokens that the layers read at once on a CPU, where nothing is trained; a GPU takes more.
        write_every: Texts computed between two writes to the store, so that an interrupted build goes on there.
    """

    memory_bytes: Natural = 1 << 30
    training_bytes: Natural = 2 << 30
    batch_tokens: Count = 2048
    write_every: Count = 1024

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, eq=False)
class States:
    """Kept tokens of some segments, one after another.

    Attributes:
        tokens_TD: All kept tokens.
        places: Where each text's tokens are, by text: the first, and how many.
    """

    tokens_TD: Tensor
    places: dict[str, tuple[int, int]]

    def length(self, text: str) -> int:
        """How many tokens of a text are kept."""
        return self.places[text][1]


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a cache has done since it was opened, and what it holds in memory.

    Attributes:
        hits: Texts found in memory or in the store.
        misses: Texts computed.
        entries: Texts in memory.
        bytes: What they take.
        oldest_s: Seconds since the last use of the one that goes next; small means that the budget is.
        store_failures: Reads and writes that the store failed at.
    """

    hits: int
    misses: int
    entries: int
    bytes: int
    oldest_s: float
    store_failures: int

    def __add__(self, other: CacheStatistics) -> CacheStatistics:
        """Those of two caches together."""
        ages = [one.oldest_s for one in (self, other) if one.entries]
        return CacheStatistics(
            hits=self.hits + other.hits,
            misses=self.misses + other.misses,
            entries=self.entries + other.entries,
            bytes=self.bytes + other.bytes,
            oldest_s=min(ages, default=0.0),
            store_failures=self.store_failures + other.store_failures,
        )


class StateCache:
    """States of segments under one foundation and one split. Any thread may fetch; what two compute at once is equal.

    Args:
        foundation: The model and its tokenizer.
        config: The split.
        store: Where states are kept between processes: a folder, or a store; None keeps them in memory only.
        hook: A tuning that reaches below the split, with ``tuning_id`` as its name in the keys.
        tuning_id: "" for states that all tasks share.
        limits: What it takes.

    Attributes:
        foundation: The model and its tokenizer.
        config: The split.
        limits: What it takes.
        hits: Texts found since the start.
        misses: Texts computed since the start.
        tokens: Tokens of the texts computed.
        computed_tokens: … of which the lower layers ran over so many: a beginning that texts share is run once.
    """

    def __init__(
        self,
        foundation: Foundation,
        config: StatesConfig,
        store: Path | Store | None = None,
        *,
        hook: AdapterHook | None = None,
        tuning_id: str = "",
        limits: CacheConfig = CacheConfig(),
    ) -> None:
        layers = foundation.model.config.num_layers
        if config.depth > layers:
            raise ConfigError(f"depth is {config.depth}, but the foundation has {layers} layers; give 0 to {layers}")
        self.foundation, self.config, self.limits = foundation, config, limits
        self.hits = self.misses = self.tokens = self.computed_tokens = 0
        self._counting = threading.Lock()
        self._delta, self._tuning_id = hook, tuning_id
        self._memory = LRUCache[str, bytes](limits.memory_bytes)
        model = foundation.model
        self._coder = _Coder(model.config.width, model.dtype, config.quantised)
        number = f"{model.dtype}/int8" if config.quantised else f"{model.dtype}"
        kept = "mean" if config.mean else config.keep
        self._scope = f"{model.id}|{tuning_id}|{config.depth}|{kept}|{number}|".encode()
        if isinstance(store, Path):
            store = LmdbStore(store / hashlib.blake2b(self._scope, digest_size=8).hexdigest())
        self._store = FailOpenStore(store) if store is not None else None

    def apart(self, memory_bytes: int) -> StateCache:
        """A cache of the same states in memory only, which this one and its store see nothing of."""
        limits = replace(self.limits, memory_bytes=memory_bytes)
        return StateCache(self.foundation, self.config, hook=self._delta, tuning_id=self._tuning_id, limits=limits)

    def statistics(self) -> CacheStatistics:
        """Where the cache stands; any thread may ask."""
        return CacheStatistics(
            hits=self.hits,
            misses=self.misses,
            entries=len(self._memory),
            bytes=self._memory.bytes,
            oldest_s=self._memory.oldest_s(),
            store_failures=self._store.failures if self._store is not None else 0,
        )

    def fetch(
        self,
        texts: Iterable[str],
        progress: Callable[[int, int], None] = lambda done, total: None,
        between: Callable[[], None] = lambda: None,
    ) -> States:
        """States of all the texts, computed where they are not known.

        Args:
            texts: Segments, in any order and number.
            progress: Called with (computed, to compute) as work goes on.
            between: Called after each layer, so that a service can do something shorter first.
        """
        unique = list(dict.fromkeys(texts))
        known = self._known(unique)
        missing = [text for text in unique if text not in known]
        with self._counting:
            self.hits += len(known)
            self.misses += len(missing)
        known |= self._compute(missing, progress, between)
        coder = self._coder
        counts = [len(known[text]) // coder.token_bytes for text in unique]
        starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
        tokens_TD = coder.decode(known[text] for text in unique)
        return States(
            tokens_TD.to(self.foundation.model.device),
            dict(zip(unique, zip(starts, counts, strict=False), strict=True)),
        )

    def locate(self, texts: Sequence[str]) -> list[Literal["memory", "store", "absent"]]:
        """Where the states of texts are; asking is no use of them."""
        rest = [text for text in texts if text not in self._memory]
        found = self._store.get([self._key(text) for text in rest]) if self._store is not None else []
        stored = {text for text, value in zip(rest, found, strict=False) if value}
        return ["memory" if text in self._memory else "store" if text in stored else "absent" for text in texts]

    def forget(self, texts: Iterable[str]) -> None:
        """Drops the states of texts, from memory and from the store. Raises StoreError where the store fails."""
        unique = list(dict.fromkeys(texts))
        for text in unique:
            self._memory.drop(text)
        if self._store is not None:
            self._store.delete([self._key(text) for text in unique])

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(self._scope + text.encode(), digest_size=16).digest()

    def _known(self, texts: Sequence[str]) -> dict[str, bytes]:
        """Encoded states by text, of those texts that memory or the store has."""
        found = dict(zip(texts, self._memory.get_all(texts), strict=True))
        rest = [text for text, value in found.items() if value is None]
        if self._store is not None:
            for text, value in zip(rest, self._store.get([self._key(text) for text in rest]), strict=True):
                if value and len(value) % self._coder.token_bytes == 0:
                    self._remember(text, value)
                    found[text] = value
        return {text: value for text, value in found.items() if value is not None}

    def _remember(self, text: str, value: bytes) -> None:
        self._memory.put(text, value, len(text) + len(value) + ENTRY_BYTES)

    def _compute(
        self, texts: Sequence[str], progress: Callable[[int, int], None], between: Callable[[], None]
    ) -> dict[str, bytes]:
        """Encoded states by text, which memory and the store have from now on."""
        ids = self.foundation.tokenizer.encode(texts)
        empty = next((text for text, row in zip(texts, ids, strict=True) if not row), None)
        if empty is not None:
            raise ConfigError(f"the text {empty!r} has no token, so it has no state; leave empty segments out")
        # Longest first, so that rows of a batch are alike in length and memory peaks at the start.
        trees = sorted(prefixes.grow(ids), key=lambda tree: -len(tree.ids))
        with self._counting:
            self.tokens += sum(map(len, ids))
        begun, most = 0, self.limits.batch_tokens * self.foundation.model.at_once
        computed: dict[str, bytes] = {}
        fresh: dict[bytes, bytes] = {}
        while begun < len(trees):
            batch = trees[begun : begun + max(1, most // len(trees[begun].ids))]
            begun += len(batch)
            for number, tokens in self._lower(batch, between):
                text = texts[number]
                computed[text] = fresh[self._key(text)] = self._coder.encode(tokens)
                self._remember(text, computed[text])
            if self._store is not None and (len(fresh) >= self.limits.write_every or begun == len(trees)):
                self._store.put(fresh)
                fresh = {}
            progress(len(computed), len(texts))
        return computed

    @torch.no_grad()
    def _lower(self, trees: Sequence[Tree], between: Callable[[], None]) -> Iterator[tuple[int, Tensor]]:
        """(number of a text, its kept tokens), for all of the trees."""
        model, config = self.foundation.model, self.config
        ids_BL, positions_BL, mask_BLL = (
            torch.from_numpy(array).to(model.device) for array in prefixes.pad_trees(trees)
        )
        hidden_BLD = model.lower(
            ids_BL,
            config.depth,
            positions_BL=positions_BL,
            mask_BLL=mask_BLL,
            hook=self._delta,
            between=between,
        ).cpu()
        with self._counting:
            self.computed_tokens += sum(len(tree.ids) for tree in trees)
        for hidden_LD, tree in zip(hidden_BLD, trees, strict=True):
            for number, path in tree.paths.items():
                if config.mean:
                    yield number, hidden_LD[path].float().mean(0, keepdim=True).to(model.dtype)
                else:
                    yield number, hidden_LD[path[-config.keep :] if config.keep else path]


@dataclass(frozen=True)
class _Coder:
    """States as bytes, token after token: their numbers as they are, or a scale and 8 bits for each."""

    width: int
    dtype: torch.dtype
    quantised: bool

    @property
    def token_bytes(self) -> int:
        return self._record.itemsize if self.quantised else self.width * self.dtype.itemsize

    def encode(self, tokens_TD: Tensor) -> bytes:
        if not self.quantised:
            return tokens_TD.contiguous().view(torch.uint8).numpy().tobytes()
        values_TD = tokens_TD.float().numpy()
        scale_T = np.abs(values_TD).max(1) / 127
        records_T = np.empty(len(values_TD), self._record)
        records_T["scale"] = scale_T
        records_T["numbers"] = np.rint(values_TD / np.where(scale_T, scale_T, 1)[:, None])
        return records_T.tobytes()

    def decode(self, values: Iterable[bytes]) -> Tensor:
        raw = bytearray().join(values)
        if self.quantised:
            records_T = np.frombuffer(raw, self._record)
            return torch.from_numpy(records_T["scale"][:, None] * records_T["numbers"]).to(self.dtype)
        tokens = torch.frombuffer(raw, dtype=self.dtype) if raw else torch.zeros(0, dtype=self.dtype)
        return tokens.view(-1, self.width)

    @property
    def _record(self) -> np.dtype[np.void]:
        return np.dtype([("scale", "<f4"), ("numbers", "i1", (self.width,))])
