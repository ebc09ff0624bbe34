"""Item vectors and users' vectors as a search meets them, in any number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_CLUSTERS, WITHIN = 20_000, 0.7
"""Clusters, and the standard deviation in them where that of their centres is 1."""
HISTORY, MEMORY, COHERENT = 10, 0.8, 0.7
"""Items of a history, what each weighs of the one after it, and the share that are alike."""
_AT_ONCE = 100_000

Floats = NDArray[np.float32]


def clustered(num: int, width: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Unit vectors of clusters of Zipfian size, whose variance falls with the column; and the cluster of each."""
    rng = np.random.default_rng(seed)
    spread_E = (1 / np.sqrt(np.arange(1, width + 1))).astype(np.float32)
    centre_CE = rng.standard_normal((NUM_CLUSTERS, width), np.float32) * spread_E
    size_C = np.arange(1, NUM_CLUSTERS + 1) ** -0.7
    cluster_I = rng.choice(NUM_CLUSTERS, num, p=size_C / size_C.sum())
    vectors_IE = np.empty((num, width), np.float32)
    for first in range(0, num, _AT_ONCE):
        centres = centre_CE[cluster_I[first : first + _AT_ONCE]]
        noise = rng.standard_normal(centres.shape, np.float32) * spread_E
        vectors_IE[first : first + _AT_ONCE] = unit(centres + np.float32(WITHIN) * noise)
    return vectors_IE, cluster_I


def noise(num: int, width: int, seed: int = 0) -> Floats:
    """Unit vectors that point anywhere: the hardest to tell apart by lists."""
    vectors_IE = np.empty((num, width), np.float32)
    rng = np.random.default_rng(seed)
    for first in range(0, num, _AT_ONCE):
        vectors_IE[first : first + _AT_ONCE] = unit(
            rng.standard_normal((min(_AT_ONCE, num - first), width), np.float32)
        )
    return vectors_IE


def around(texts_TE: Floats, num: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Unit vectors in the likeness of given ones: each is one of them, moved by half the difference of two others.

    Returns:
        The vectors, and which of the given ones each is like.
    """
    rng = np.random.default_rng(seed)
    vectors_IE = np.empty((num, texts_TE.shape[1]), np.float32)
    like_I = rng.integers(0, len(texts_TE), num)
    for first in range(0, num, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        to, fro = rng.integers(0, len(texts_TE), (2, len(like_I[part])))
        vectors_IE[part] = unit(texts_TE[like_I[part]] + (texts_TE[to] - texts_TE[fro]) / 2)
    return vectors_IE, like_I


def users(vectors_IE: Floats, num: int, seed: int = 1) -> Floats:
    """Decayed sums of the vectors of histories, most of whose items are alike."""
    rng = np.random.default_rng(seed)
    pool = vectors_IE[rng.choice(len(vectors_IE), min(len(vectors_IE), 20_000), replace=False)]
    vectors_UE = np.zeros((num, vectors_IE.shape[1]), np.float32)
    for vector_E in vectors_UE:
        near = np.argpartition(-(pool @ pool[rng.integers(len(pool))]), 50)[:50]
        for place in range(HISTORY):
            item = rng.choice(near) if rng.random() < COHERENT else rng.integers(len(pool))
            vector_E += np.float32(MEMORY**place) * pool[item]
    return unit(vectors_UE)


def unit(vectors_NE: Floats) -> Floats:
    """Vectors of length 1."""
    unit_NE: Floats = vectors_NE / np.linalg.norm(vectors_NE, axis=1, keepdims=True)
    return unit_NE
