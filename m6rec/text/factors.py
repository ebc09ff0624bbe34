"""Who liked this liked that, as vectors of items: the collaborative signal of retrieval.

The weights of EASE, a linear autoencoder in closed form, are cut to their leading singular vectors. An item then has a
vector as a thing that was liked (source) and one as a thing to like next (target); a user is the sum of the sources of
their likes, the latest weighing most. So users need no training, and a new like counts at once.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m6rec.errors import AssetError

Floats = NDArray[np.float32]
FoundT = TypeVar("FoundT")

FILE = "factors.safetensors"
# All four chosen on validation (design/log.md).
RANK = 64
REGULARISATION = 500.0
MEMORY = 0.9
"""What a like weighs for each later like."""
MAX_LIKES = 64
"""Likes of a user that count; the next would weigh a thousandth."""
NEW_EVERY = 10
"""One place in so many of what is retrieved goes to an item without factors; else no new item would ever be shown."""
MAX_ITEMS = 5_000
"""The most-liked items, which alone have factors: time grows with the cube, memory with the square."""
_USERS_AT_ONCE = 4_096


@dataclass(frozen=True, eq=False)
class Factors:
    """Vectors of items by id.

    Attributes:
        numbers: Row of each item that has factors.
        source_IF: What an item adds to the taste of a user who liked it.
        target_IF: An item's product with a taste tells how much it is liked next.
    """

    numbers: dict[str, int]
    source_IF: Floats
    target_IF: Floats

    def taste(self, liked: Sequence[str]) -> Floats:
        """The taste [F] of a user by the ids of the items liked, oldest first."""
        latest = [self.numbers.get(item, -1) for item in liked[-MAX_LIKES:]]
        weight_N = (MEMORY ** np.arange(len(latest) - 1, -1, -1)).astype(np.float32)
        known_N = np.array(latest, np.int64) >= 0
        taste_F: Floats = weight_N[known_N] @ self.source_IF[np.array(latest, np.int64)[known_N]]
        return taste_F

    def targets(self, items: Sequence[str]) -> Floats:
        """Target factors [len(items), F]; 0 for an item without."""
        rows = np.array([self.numbers.get(item, -1) for item in items], np.int64)
        found_IF = self.target_IF[rows] if len(self.target_IF) else np.zeros((len(rows), RANK), np.float32)
        return np.where(rows[:, None] >= 0, found_IF, np.float32(0))

    def new(self, items: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the items have no factors, [len(items)]."""
        return np.array([item not in self.numbers for item in items], np.bool_)

    def save(self, folder: Path) -> None:
        """Writes ``factors.safetensors``, whose header holds the ids."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{FILE}.partial"
        ids = json.dumps(list(self.numbers))
        save_file({"source": self.source_IF, "target": self.target_IF}, str(partial), metadata={"ids": ids})
        os.replace(partial, folder / FILE)


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


def load(folder: Path) -> Factors:
    """Reads what ``Factors.save`` wrote. Raises AssetError where the file is not readable."""
    try:
        with safe_open(folder / FILE, "np") as file:
            ids = json.loads((file.metadata() or {})["ids"])
            source_IF, target_IF = file.get_tensor("source"), file.get_tensor("target")
        if not source_IF.shape == target_IF.shape == (len(ids), RANK):
            raise ValueError(f"{len(ids)} items but factors of shapes {source_IF.shape} and {target_IF.shape}")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise AssetError(f"{folder / FILE} holds no readable factors ({error}); tune the task again") from error
    return Factors({item: number for number, item in enumerate(ids)}, source_IF, target_IF)


def fit(events: Iterable[tuple[str, str, bool]]) -> Factors:
    """Factors from the training part's events, in any order.

    Args:
        events: User, item, and whether it was a like. An item without a like is known, as one that nobody likes.
    """
    counts: dict[str, int] = {}
    pairs: dict[tuple[str, str], None] = {}
    for user, item, liked in events:
        counts.setdefault(item, 0)
        if liked and (user, item) not in pairs:
            pairs[user, item] = None
            counts[item] += 1
    items = sorted(counts, key=lambda item: (-counts[item], item))[:MAX_ITEMS]
    numbers = {item: number for number, item in enumerate(items)}
    by_user: dict[str, list[int]] = {}
    for user, item in pairs:
        if item in numbers:
            by_user.setdefault(user, []).append(numbers[item])
    gram_II = np.zeros((len(items), len(items)))
    rows = list(by_user.values())
    for first in range(0, len(rows), _USERS_AT_ONCE):
        part = rows[first : first + _USERS_AT_ONCE]
        liked_UI = np.zeros((len(part), len(items)), np.float32)
        for number, row in enumerate(part):
            liked_UI[number, row] = 1
        gram_II += liked_UI.T @ liked_UI
    left_IF, strength_F, right_FI = np.linalg.svd(ease(gram_II, REGULARISATION))
    rank = min(RANK, len(items))
    source_IF, target_IF = np.zeros((2, len(items), RANK), np.float32)
    root_F = np.sqrt(strength_F[:rank])
    source_IF[:, :rank], target_IF[:, :rank] = left_IF[:, :rank] * root_F, right_FI[:rank].T * root_F
    return Factors(numbers, source_IF, target_IF)


def ease(gram_II: NDArray[np.float64], regularisation: float) -> NDArray[np.float64]:
    """Weights of a linear autoencoder with a zero diagonal (EASE: Steck, WWW 2019, eq. 8).

    P = (G + regularisation · 1)⁻¹;  B_ij = −P_ij / P_jj for i ≠ j, B_jj = 0.

    Args:
        gram_II: For each two items, how many users have both.
        regularisation: Greater keeps the weights smaller.
    """
    precision_II = np.linalg.inv(gram_II + regularisation * np.eye(len(gram_II)))
    weight_II: NDArray[np.float64] = precision_II / -np.diag(precision_II)
    np.fill_diagonal(weight_II, 0)
    return weight_II
