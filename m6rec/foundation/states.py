"""The one cache: states of text segments after the lower layers, computed once and read by everything.

An entry is keyed by what determines it: model, tuning of the lower layers, depth, kept tokens, type and text. So an
item whose text changes, or a new model, simply asks for other keys. A value carries a checksum; a corrupt or absent
entry is computed anew, and costs only time.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import lmdb
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m6rec.errors import AssetError, ConfigError
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import Delta
from m6rec.text import prefixes
from m6rec.text.prefixes import Tree

MAP_BYTES = 1 << 40  # address space of the embedded store, not disk: LMDB files are as large as their data
BATCH_TOKENS = 2048  # rows of one product in the lower layers, where the CPU reaches its matmul rate
WRITE_EVERY = 1024  # segments computed between two commits, so that an interrupted build goes on there


@dataclass(frozen=True, kw_only=True)
class StatesConfig:
    """Where the model is split and what is kept.

    Attributes:
        depth: Layers that run ahead of time on each segment alone; 0 keeps token embeddings.
        keep: How many of a segment's last tokens are kept; 0 keeps all.
    """

    depth: int
    keep: int = 1

    def __post_init__(self) -> None:
        if self.depth < 0 or self.keep < 0:
            raise ConfigError(f"depth is {self.depth} and keep is {self.keep}; both must be at least 0 (keep 0 = all)")


@dataclass(frozen=True, eq=False)
class States:
    """Kept tokens of some segments, one after another.

    Attributes:
        tokens_TD: All kept tokens.
        start: Where each text's tokens begin, by text.
        count: How many there are.
    """

    tokens_TD: Tensor
    start: dict[str, int]
    count: dict[str, int]

    def span(self, text: str) -> NDArray[np.int64]:
        """Positions in ``tokens_TD`` of a text's tokens."""
        start = self.start[text]
        return np.arange(start, start + self.count[text])


class StateCache:
    """States of segments under one foundation and one split.

    Args:
        foundation: The model and its tokenizer.
        config: The split.
        folder: Where states are kept between processes; None keeps them in memory only.
        delta: A tuning that reaches below the split, with ``tuning_id`` as its name in the keys.
        tuning_id: "" for states that all tasks share.

    Attributes:
        hits: Texts found since the start.
        misses: Texts computed since the start.
        tokens: Tokens of the texts computed.
        computed_tokens: … of which the lower layers ran over so many: a beginning that texts share is run once.
    """

    def __init__(
        self,
        foundation: Foundation,
        config: StatesConfig,
        folder: Path | None = None,
        *,
        delta: Delta | None = None,
        tuning_id: str = "",
    ) -> None:
        layers = foundation.model.config.num_layers
        if config.depth > layers:
            raise ConfigError(f"depth is {config.depth}, but the foundation has {layers} layers; give 0 to {layers}")
        self.foundation, self.config = foundation, config
        self.hits = self.misses = self.tokens = self.computed_tokens = 0
        self._delta = delta
        self._memory: dict[str, Tensor] = {}
        model = foundation.model
        self._scope = f"{model.id}|{tuning_id}|{config.depth}|{config.keep}|{model.dtype}|".encode()
        scope = hashlib.blake2b(self._scope, digest_size=8).hexdigest()
        self._store = _Store(folder / scope) if folder is not None else None

    def fetch(self, texts: Iterable[str], progress: Callable[[int, int], None] = lambda done, total: None) -> States:
        """States of all the texts, computed where they are not known.

        Args:
            texts: Segments, in any order and number.
            progress: Called with (computed, to compute) as work goes on.
        """
        unique = list(dict.fromkeys(texts))
        missing = [text for text in unique if text not in self._memory]
        if self._store is not None:
            missing = self._read(missing)
        self.hits += len(unique) - len(missing)
        self.misses += len(missing)
        self._compute(missing, progress)
        kept = [self._memory[text] for text in unique]
        counts = [len(tokens) for tokens in kept]
        starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
        model = self.foundation.model
        tokens_TD = torch.cat(kept) if kept else torch.zeros(0, model.config.width, dtype=model.dtype)
        return States(
            tokens_TD.to(model.device),
            dict(zip(unique, starts, strict=False)),
            dict(zip(unique, counts, strict=True)),
        )

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(self._scope + text.encode(), digest_size=16).digest()

    def _read(self, texts: Sequence[str]) -> list[str]:
        """Takes what the store knows into memory; returns the rest."""
        assert self._store is not None
        model = self.foundation.model
        rest = []
        for text, value in zip(texts, self._store.get([self._key(text) for text in texts]), strict=True):
            if value is None or len(value) % (model.config.width * model.dtype.itemsize):
                rest.append(text)
                continue
            raw = torch.frombuffer(bytearray(value), dtype=torch.uint8).view(model.dtype)
            self._memory[text] = raw.view(-1, model.config.width)
        return rest

    def _compute(self, texts: Sequence[str], progress: Callable[[int, int], None]) -> None:
        ids = self.foundation.tokenizer.encode(texts)
        empty = next((text for text, row in zip(texts, ids, strict=True) if not row), None)
        if empty is not None:
            raise ConfigError(f"the text {empty!r} has no token, so it has no state; leave empty segments out")
        # Longest first, so that rows of a batch are alike in length and memory peaks at the start.
        trees = sorted(prefixes.grow(ids), key=lambda tree: -len(tree.ids))
        self.tokens += sum(map(len, ids))
        begun = done = 0
        fresh: dict[bytes, Tensor] = {}
        while begun < len(trees):
            batch = trees[begun : begun + max(1, BATCH_TOKENS // len(trees[begun].ids))]
            begun += len(batch)
            for number, tokens in self._lower(batch):
                self._memory[texts[number]] = fresh[self._key(texts[number])] = tokens
                done += 1
            if self._store is not None and (len(fresh) >= WRITE_EVERY or begun == len(trees)):
                self._store.put({key: t.view(torch.uint8).numpy().tobytes() for key, t in fresh.items()})
                fresh = {}
            progress(done, len(texts))

    @torch.no_grad()
    def _lower(self, trees: Sequence[Tree]) -> Iterator[tuple[int, Tensor]]:
        """(number of a text, its kept tokens), for all of the trees."""
        model, keep = self.foundation.model, self.config.keep
        ids_BL, positions_BL, mask_BLL = (torch.from_numpy(array).to(model.device) for array in prefixes.pad(trees))
        hidden_BLD = model.lower(
            ids_BL, self.config.depth, positions_BL=positions_BL, mask_BLL=mask_BLL, delta=self._delta
        ).cpu()
        self.computed_tokens += sum(len(tree.ids) for tree in trees)
        for hidden_LD, tree in zip(hidden_BLD, trees, strict=True):
            for number, path in tree.paths.items():
                yield number, hidden_LD[path[-keep:] if keep else path]


class _Store:
    """Bytes by key on disk, each with a checksum. Safe for several processes; commits are atomic (LMDB)."""

    _environments: ClassVar[WeakValueDictionary[Path, Any]] = WeakValueDictionary()  # LMDB allows one a process

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve()
        environment: Any = self._environments.get(path)
        if environment is None:
            try:
                environment = lmdb.open(str(path), map_size=MAP_BYTES, writemap=False, metasync=False)
            except lmdb.Error as error:
                raise AssetError(f"the state cache at {folder} can't be opened ({error}); delete the folder") from error
            self._environments[path] = environment
        self._environment = environment

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._environment.begin(buffers=False) as transaction:
            return [_checked(transaction.get(key)) for key in keys]

    def put(self, values: dict[bytes, bytes]) -> None:
        with self._environment.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key, zlib.crc32(value).to_bytes(4, "big") + value)


def _checked(value: bytes | None) -> bytes | None:
    if value is None or zlib.crc32(value[4:]).to_bytes(4, "big") != value[:4]:
        return None
    return value[4:]
