"""Texts that begin alike, laid out so that what they share is read once.

A causal model's state of a token depends on the tokens before it alone. "The movie X. The user loved it." and
"The movie X. Does the user like it?" therefore share their states as far as they share their tokens, and a prefix tree
laid in one row, in which each token sees its own ancestors, gives all of them in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LONGEST = 96
"""Tokens of a tree before another is begun, as attention within a row grows with its square."""


@dataclass(frozen=True, eq=False)
class Tree:
    """A prefix tree in one row.

    Attributes:
        ids: Tokens, each after its parent.
        paths: For each text's number the places of its tokens in the row, in order.
    """

    ids: list[int]
    paths: dict[int, list[int]]


def grow(rows: Sequence[list[int]]) -> list[Tree]:
    """Puts token rows into trees; a row joins a tree where at least half of it is there already.

    >>> [tree.ids for tree in grow([[1, 2, 3, 4], [9, 9], [1, 2, 3, 5]])]
    [[1, 2, 3, 4, 5], [9, 9]]

    Args:
        rows: Token ids of each text; none is empty.

    Returns:
        Trees that hold every row once. A text longer than ``LONGEST`` is a tree of its own.
    """
    trees: list[Tree] = []
    path: list[int] = []
    before: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: rows[number]):  # neighbours in order share the most
        row = rows[number]
        shared = 0
        while shared < min(len(before), len(row)) and before[shared] == row[shared]:
            shared += 1
        if not trees or 2 * shared < len(row) or len(trees[-1].ids) + len(row) - shared > LONGEST:
            trees.append(Tree([], {}))
            shared = 0
        ids = trees[-1].ids
        path = path[:shared] + list(range(len(ids), len(ids) + len(row) - shared))
        ids.extend(row[shared:])
        trees[-1].paths[number] = path
        before = row
    return trees


def pad_trees(trees: Sequence[Tree]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """(ids_BL, positions_BL, mask_BLL) of trees, padded at the right; the mask is True where a token may look.

    A token sees its ancestors and itself; its position is the number of its ancestors. Padding sees itself.
    """
    shape = len(trees), max(len(tree.ids) for tree in trees)
    ids_BL, positions_BL = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    mask_BLL = np.zeros((*shape, shape[1]), np.bool_)
    mask_BLL[:, np.arange(shape[1]), np.arange(shape[1])] = True
    for number, tree in enumerate(trees):
        ids_BL[number, : len(tree.ids)] = tree.ids
        for path in tree.paths.values():
            positions_BL[number, path] = np.arange(len(path))
            mask_BLL[number][np.ix_(path, path)] = np.tri(len(path), dtype=np.bool_)
    return ids_BL, positions_BL, mask_BLL
