"""Attention patterns: who looks at whom in a row of tokens.

``Dense`` is ordinary attention; ``SharedContext`` a context and many candidates in one row, each of which sees the
context before it and itself; ``CachedAttention`` the same with keys and values of the context at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Attention(Protocol):
    """An attention pattern: mixes values by queries and keys, rotated already.

    Attributes:
        skip: How many tokens, from the first, are only looked at: a block makes no query and no output for them.
    """

    @property
    def skip(self) -> int:
        """See the attributes."""

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int | None, scale: float) -> Tensor:
        """Returns the mixed values, as ``q_BHTK``."""


@dataclass(frozen=True)
class Dense:
    """Attention over rows of tokens: causal where ``mask_BLL`` is None, else True where a query may look.

    ``skip`` needs a mask, of the queries that there are.
    """

    positions_BL: Tensor
    mask_BLL: Tensor | None = None
    skip: int = 0

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int | None, scale: float) -> Tensor:
        """See ``Attention``."""
        grouped = q_BHTK.shape[1] != k_BGTK.shape[1]
        length = q_BHTK.shape[2]
        if self.mask_BLL is None and (window is None or window >= length):
            return F.scaled_dot_product_attention(
                q_BHTK, k_BGTK, v_BGTK, is_causal=True, scale=scale, enable_gqa=grouped
            )
        mask_BLL = self.mask_BLL
        if mask_BLL is None:
            mask_BLL = torch.ones(length, length, dtype=torch.bool, device=q_BHTK.device).tril()[None]
        if window is not None:
            distance_BLL = self.positions_BL[:, self.skip :, None] - self.positions_BL[:, None, :]
            mask_BLL = mask_BLL & (distance_BLL.abs() < window)
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGTK, v_BGTK, attn_mask=mask_BLL[:, None], scale=scale, enable_gqa=grouped
        )


@dataclass(frozen=True)
class SharedContext:
    """Attention of N context tokens followed by C candidate blocks of M tokens, laid in one row.

    The context is causal, or bidirectional within ``length_B``. Candidate block c sees, causally, itself, and the first
    ``visible_BC[b, c]`` context tokens, or all of them where that is None (which leaves no room for windows); never
    another block. No key is copied per candidate: the scores against the context are one matrix product, those within a
    block another, and one softmax spans both. ``skip`` is 0, or N in the last layer, of whose context nobody reads the
    output.
    """

    positions_BT: Tensor
    visible_BC: Tensor | None
    num_context: int
    block_size: int
    length_B: Tensor | None = None
    skip: int = 0

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int | None, scale: float) -> Tensor:
        """See ``Attention``."""
        n, m = self.num_context, self.block_size
        mixed = []
        if n and not self.skip:
            context = Dense(self.positions_BT[:, :n], self._context_mask_BNN())
            mixed.append(context(q_BHTK[:, :, :n], k_BGTK[:, :, :n], v_BGTK[:, :, :n], window, scale))
        batch, heads, _, width = q_BHTK.shape
        groups = k_BGTK.shape[1]
        count = (k_BGTK.shape[2] - n) // m
        # R query heads share a key head.
        q_BGRCMK = (q_BHTK[:, :, n - self.skip :] * scale).reshape(batch, groups, heads // groups, count, m, width)
        k_BG1CMK = k_BGTK[:, :, n:].reshape(batch, groups, 1, count, m, width)
        v_BG1CMK = v_BGTK[:, :, n:].reshape(batch, groups, 1, count, m, width)
        rows = heads // groups * count * m
        past = q_BGRCMK.reshape(batch, groups, rows, width) @ k_BGTK[:, :, :n].transpose(-1, -2)
        past_BGRCMN = past.view(batch, groups, heads // groups, count, m, n)
        if self.visible_BC is not None:
            hidden_BCMN = self._hidden_BCMN(self.visible_BC, window)
            past_BGRCMN = past_BGRCMN.masked_fill(hidden_BCMN[:, None, None], -math.inf)
        if m == 1:  # a product and a sum are faster than many products of one row with one column
            own_BGRCMM = (q_BGRCMK * k_BG1CMK).sum(-1, keepdim=True)
        else:
            own_BGRCMM = q_BGRCMK @ k_BG1CMK.transpose(-1, -2)
            own_BGRCMM = own_BGRCMM.masked_fill(self._hidden_MM(q_BHTK.device, window), -math.inf)
        weights = torch.softmax(torch.cat([past_BGRCMN, own_BGRCMM], -1), -1)
        from_past = weights[..., :n].reshape(batch, groups, rows, n) @ v_BGTK[:, :, :n]
        from_own = weights[..., n:] * v_BG1CMK if m == 1 else weights[..., n:] @ v_BG1CMK
        mixed.append((from_past.view(q_BGRCMK.shape) + from_own).reshape(batch, heads, count * m, width))
        return torch.cat(mixed, 2)

    def _context_mask_BNN(self) -> Tensor | None:
        if self.length_B is None:
            return None
        valid_BN = torch.arange(self.num_context, device=self.length_B.device) < self.length_B[:, None]
        own = torch.eye(self.num_context, dtype=torch.bool, device=valid_BN.device)
        return valid_BN[:, None, :] | own

    def _hidden_BCMN(self, visible_BC: Tensor, window: int | None) -> Tensor:
        """True where a token of a block may not look at a context token; M is 1 where all tokens see alike."""
        index_N = torch.arange(self.num_context, device=visible_BC.device)
        hidden_BCMN = (index_N >= visible_BC[..., None])[:, :, None]
        if window is not None:
            position_BCM = self.positions_BT[:, self.num_context :].view(*visible_BC.shape, self.block_size)
            distance_BCMN = position_BCM[..., None] - self.positions_BT[:, None, None, : self.num_context]
            hidden_BCMN = hidden_BCMN | (distance_BCMN >= window)
        return hidden_BCMN

    def _hidden_MM(self, device: torch.device, window: int | None) -> Tensor:
        """True where a token of a block may not look at another of the same block."""
        hidden_MM = torch.ones(self.block_size, self.block_size, dtype=torch.bool, device=device)
        return hidden_MM.triu(1) if window is None else hidden_MM.triu(1) | hidden_MM.tril(-window)


KVCache = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of a context, (k_GNK, v_GNK) of each upper layer."""


@dataclass(frozen=True, eq=False)
class CachedQuery:
    """A user's part in ``Model.forward_cached``.

    Attributes:
        cache: Keys and values of the context so far; empty at first.
        new_ND: States of the context tokens since.
        blocks_CMD: States of the candidates' tokens, as many of each; every candidate sees the whole context. None are
            needed where only the context is to be read.
    """

    cache: KVCache
    new_ND: Tensor
    blocks_CMD: Tensor

    @property
    def num_cached(self) -> int:
        """Context tokens in the cache."""
        return self.cache[0][0].shape[1] if self.cache else 0

    @property
    def num_context(self) -> int:
        """Context tokens, cached and new."""
        return self.num_cached + len(self.new_ND)


@dataclass(frozen=True)
class CachedAttention:
    """Attention of one layer over the fresh context tokens of all turns, then over the tokens of all candidates.

    Attributes:
        queries: In the order of the rows.
        layer: Counted from the first upper layer.
        kept: Takes each turn's keys and values of the whole context.
        skip: 0, or all fresh tokens in the last layer, where nobody reads their output.
    """

    queries: Sequence[CachedQuery]
    layer: int
    kept: list[tuple[Tensor, Tensor]]
    skip: int

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int | None, scale: float) -> Tensor:
        """See ``Attention``."""
        mixed, asked = [], []
        start, block = 0, sum(len(query.new_ND) for query in self.queries)
        for query in self.queries:
            end = start + len(query.new_ND)
            k, v = k_BGTK[:, :, start:end], v_BGTK[:, :, start:end]
            if query.cache:
                known_k, known_v = (part[None] for part in query.cache[self.layer])
                k, v = (known_k, known_v) if end == start else (torch.cat([known_k, k], 2), torch.cat([known_v, v], 2))
            self.kept.append((k[0].contiguous(), v[0].contiguous()))  # not views of what belongs to the whole pass
            total, device = query.num_context, q_BHTK.device
            if end > start and not self.skip:
                positions_1L = torch.arange(total, device=device)[None]
                mask_1NL = torch.ones(total, total, dtype=torch.bool, device=device).tril()[None, query.num_cached :]
                if window is not None:
                    mask_1NL = mask_1NL & (positions_1L[:, query.num_cached :, None] - positions_1L[:, None] < window)
                grouped = q_BHTK.shape[1] != k_BGTK.shape[1]
                q = q_BHTK[:, :, start:end]
                mixed.append(
                    F.scaled_dot_product_attention(
                        q, k, v, attn_mask=mask_1NL[:, None], scale=scale, enable_gqa=grouped
                    )
                )
            count, size, _ = query.blocks_CMD.shape
            block_end = block + count * size
            q = q_BHTK[:, :, block - self.skip : block_end - self.skip]
            own_k, own_v = (part[:, :, block:block_end] for part in (k_BGTK, v_BGTK))
            attention = self._candidates(query, window)
            asked.append(attention(q, torch.cat([k, own_k], 2), torch.cat([v, own_v], 2), window, scale))
            start, block = end, block_end
        return torch.cat([*mixed, *asked], 2)

    @staticmethod
    def _candidates(query: CachedQuery, window: int | None) -> SharedContext:
        count, size, _ = query.blocks_CMD.shape
        total, device = query.num_context, query.blocks_CMD.device
        own = (total + torch.arange(size, device=device)).repeat(count)
        positions_1T = torch.cat([torch.arange(total, device=device), own])[None]
        visible_1C = None
        if window is not None and window < total + size:
            visible_1C = torch.full((1, count), total, device=device)
        return SharedContext(positions_1T, visible_1C, total, size, skip=total)
