"""The same results as the product's, computed slowly and obviously."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def attend(q_HTK: Tensor, k_GTK: Tensor, v_GTK: Tensor, sees: Callable[[int, int], bool], scale: float) -> Tensor:
    """Attention of one row, a query and a head at a time; ``sees(i, j)`` says whether query i looks at key j."""
    heads, length, _ = q_HTK.shape
    out_HTK = torch.zeros_like(q_HTK)
    for head in range(heads):
        group = head * k_GTK.shape[0] // heads
        for i in range(length):
            keys = [j for j in range(length) if sees(i, j)]
            exponents = [math.exp(float(q_HTK[head, i] @ k_GTK[group, j]) * scale) for j in keys]
            for j, exponent in zip(keys, exponents, strict=True):
                out_HTK[head, i] += exponent / sum(exponents) * v_GTK[group, j]
    return out_HTK


def shared_context(
    num_context: int, block_size: int, visible: list[int], length: int | None, window: int | None
) -> tuple[list[int], Callable[[int, int], bool]]:
    """Positions of a row of a context and its candidate blocks, and who sees whom (see ``SharedContext``).

    Args:
        num_context: Context tokens, padding included.
        block_size: Tokens of a block.
        visible: Of each block, how many context tokens it sees.
        length: Valid tokens of a bidirectional context; None for a causal one.
        window: Tokens nearer than this are seen; None for all.
    """
    positions = list(range(num_context))
    for seen in visible:
        positions += [seen + offset for offset in range(block_size)]

    def block(i: int) -> int | None:
        return None if i < num_context else (i - num_context) // block_size

    def sees(i: int, j: int) -> bool:
        if window is not None and abs(positions[i] - positions[j]) >= window:
            return False
        mine, other = block(i), block(j)
        if mine is None and other is None:
            return j <= i if length is None else j < length or j == i
        if mine is not None and other is None:
            return j < visible[mine]
        return mine == other and j <= i

    return positions, sees


def mask(length: int, sees: Callable[[int, int], bool]) -> Tensor:
    """``sees`` as a matrix, mask_LL."""
    return torch.tensor([[sees(i, j) for j in range(length)] for i in range(length)])
