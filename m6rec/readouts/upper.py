"""The upper layers over users and candidates: cached states in, hidden states at the candidates' last tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m6rec.adapters import AdapterRouter, TaskAdapter
from m6rec.foundation.attention import CachedQuery, KVCache
from m6rec.foundation.model import Model
from m6rec.foundation.states import States
from m6rec.text.batch import Batch, Example, pack, pad, size


@dataclass(frozen=True, kw_only=True)
class UpperPass:
    """A forward pass of layers ``depth`` … ``end`` - 1.

    Attributes:
        model: The foundation.
        depth: The layer whose input the cached states are.
        end: The layer before which it is left.
        bidirectional: Whether region 1 sees all of itself.
    """

    model: Model
    depth: int
    end: int
    bidirectional: bool

    def read(self, batch: Batch, states: States, router: AdapterRouter) -> Tensor:
        """normed_BCD at the last token of each candidate's block.

        Args:
            batch: Padded rows.
            states: A table that holds all their texts.
            router: The adapter of each row.
        """
        device = self.model.device
        prompts_BPD = router.prompts_BPD
        states_BND, blocks_BCMD = self._inputs(batch, states, router)
        context_BND = torch.cat([prompts_BPD, states_BND], 1)
        num_prompts = prompts_BPD.shape[1]
        length_B = None
        if self.bidirectional:
            past = batch.visible_BC == batch.length_B[:, None]
            assert past[batch.valid_BC].all(), "a question would see behind its moment; give Example.by_timestamp()"
            length_B = tensor(batch.length_B, device) + num_prompts
        normed_BCMD = self.model.upper(
            context_BND,
            blocks_BCMD,
            tensor(batch.visible_BC, device) + num_prompts,
            self.depth,
            end=self.end,
            length_B=length_B,
            hook=router,
        )
        return _at(normed_BCMD, tensor(batch.last_BC, device))

    @torch.no_grad()
    def read_all(
        self,
        rows: Sequence[Example],
        states: States,
        adapter: TaskAdapter,
        batch_tokens: int,
        progress: Callable[[int, int], None],
    ) -> Tensor:
        """normed_QD of all queries, row after row, read in batches of about ``batch_tokens``."""
        parts: dict[int, Tensor] = {}
        for group in pack([size(row, states.length) for row in rows], batch_tokens):
            batch = pad([rows[number] for number in group], states.places)
            normed_BCD = self.read(batch, states, AdapterRouter.of_one(adapter, len(group)))
            for place, number in enumerate(group):
                parts[number] = normed_BCD[place, : len(rows[number].candidates)]
            progress(len(parts), len(rows))
        return torch.cat([parts[number] for number in range(len(rows))])

    def read_cached(
        self, asked: Sequence[tuple[KVCache, Example]], states: States, adapter: TaskAdapter
    ) -> tuple[Tensor, list[KVCache]]:
        """(normed_QD of the candidates of all examples, new KV caches); see ``Model.forward_cached``.

        Args:
            asked: Of each user the KV cache, () at first, and an example whose context holds what is not cached.
            states: A table that holds all their texts.
            adapter: That of all users.
        """
        router = AdapterRouter.of_one(adapter, 1)
        queries, last = [], []
        for known, row in asked:
            batch = pad([row], states.places)
            states_1ND, blocks_1CMD = self._inputs(batch, states, router)
            new_ND = states_1ND[0] if known else torch.cat([router.prompts_BPD[0], states_1ND[0]])
            queries.append(CachedQuery(known, new_ND, blocks_1CMD[0]))
            last.append(tensor(batch.last_BC[0], self.model.device))
        read, kept = self.model.forward_cached(queries, self.depth, end=self.end, hook=router)
        return torch.cat([_at(normed_CMD, last_C) for normed_CMD, last_C in zip(read, last, strict=True)]), kept

    def _inputs(self, batch: Batch, states: States, router: AdapterRouter) -> tuple[Tensor, Tensor]:
        """(states_BND of contexts, blocks_BCMD of candidates), fp32, with segment embeddings and event features added.

        A sum in bf16 would turn the last bit of a product, which depends on the batch, into one of 256.
        """
        device = self.model.device
        slots_BSD = router.slots_BSD
        row_B = torch.arange(len(batch.length_B), device=device)

        def states_of(tokens: NDArray[np.int64], slots: NDArray[np.int64]) -> Tensor:
            owner = row_B.view(-1, *[1] * (tokens.ndim - 1))
            return states.tokens_TD[tensor(tokens, device)] + slots_BSD[owner, tensor(slots, device)]

        states_BND = states_of(batch.context_BN, batch.context_slot_BN)
        if batch.event_features_BNG.size:
            added_BND = router.encode_events(tensor(batch.event_features_BNG, device))
            states_BND = states_BND + added_BND * tensor(batch.has_event_features_BN, device)[..., None]
        return states_BND, states_of(batch.block_BCM, batch.block_slot_BCM)


def tensor(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """The array on a device."""
    return torch.from_numpy(array).to(device)


def _at(hidden_CMD: Tensor, place_C: Tensor) -> Tensor:
    """The state at one position of each block; C may be several dimensions."""
    if hidden_CMD.shape[-2] == 1:  # most blocks, and a fortieth of a request to gather
        return hidden_CMD.squeeze(-2)
    index_C1D = place_C[..., None, None].expand(*place_C.shape, 1, hidden_CMD.shape[-1])
    return hidden_CMD.gather(-2, index_C1D).squeeze(-2)
