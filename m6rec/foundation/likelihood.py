"""How likely the model finds a candidate's words after a user's context, and the loss that makes it find them so.

The context of a user runs once for all candidates: every candidate's block sees the part of it before its moment
(``Model.upper`` from layer 0), and vocabulary logits are computed at the candidates' own tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import AdapterHook, Model
from m6rec.text.batch import Example, pack, pad, size
from m6rec.types import SLOTS

BATCH_TOKENS = 4096
LOGIT_ROWS = 1024
"""Tokens whose vocabulary logits are in memory at once: 200 MB with 49 152 words."""
CANDIDATE = SLOTS.index("candidate")


class Prompted(AdapterHook, Protocol):
    """A tuning: what it does to the layers, and its prompts."""

    @property
    def prompts_PD(self) -> Tensor:
        """Vectors before the context; P may be 0."""


def scores(foundation: Foundation, rows: Sequence[Example], *, adapter: Prompted | None = None) -> NDArray[np.float64]:
    """Mean log-probability, in nats, of each candidate's tokens (M6-Rec, section 3.1, "zero-shot").

    Args:
        foundation: The model and its tokenizer.
        rows: Users with their candidates; what is scored of a block is its segment of slot "candidate", which mustn't
            come first, since something has to predict its first token.
        adapter: What was fitted with ``loss``, if anything.

    Returns:
        float64 [Q], question after question, row after row.
    """
    encoded = _encoded(foundation, rows)
    sizes = [size(row, lambda text: len(encoded[text])) for row in rows]
    found: dict[int, NDArray[np.float64]] = {}
    with torch.no_grad():
        for group in pack(sizes, BATCH_TOKENS):
            means = _means([rows[number] for number in group], encoded, foundation, adapter).double().cpu().numpy()
            ends = np.cumsum([len(rows[number].candidates) for number in group])
            found |= dict(zip(group, np.split(means, ends[:-1]), strict=True))
    return np.concatenate([found[number] for number in range(len(rows))])


def loss(foundation: Foundation, rows: Sequence[Example], *, adapter: Prompted) -> Tensor:
    """The language-modelling loss of the liked candidates (answer 1), mean over candidates; differentiable.

    It is 0, without effect on the tuning, where nothing in ``rows`` was liked.
    """
    means_Q = _means(rows, _encoded(foundation, rows), foundation, adapter)
    liked_Q = torch.from_numpy(np.concatenate([row.labels for row in rows]) == 1).to(means_Q.device)
    return -(means_Q * liked_Q).sum() / liked_Q.sum().clamp_min(1)


def log_probabilities(model: Model, normed_TD: Tensor, targets_T: Tensor) -> Tensor:
    """Of each token, given the state that predicts it: nats_T in fp32, few vocabulary logits in memory at once."""
    pieces = zip(torch.split(normed_TD, LOGIT_ROWS), torch.split(targets_T, LOGIT_ROWS), strict=True)
    return -torch.cat([F.cross_entropy(model.logits(n).float(), t, reduction="none") for n, t in pieces])


def _means(
    rows: Sequence[Example], encoded: dict[str, list[int]], foundation: Foundation, adapter: Prompted | None
) -> Tensor:
    """Mean log-probability of each candidate's tokens, means_Q in fp32."""
    model = foundation.model
    lengths = [len(ids) for ids in encoded.values()]
    first = np.cumsum([0, *lengths]).tolist()
    table = torch.tensor([token for ids in encoded.values() for token in ids], device=model.device)
    batch = pad(rows, dict(zip(encoded, zip(first, lengths, strict=False), strict=True)))
    ids_BCM = table[torch.from_numpy(batch.block_BCM).to(model.device)]
    context_BND = model.embed(table[torch.from_numpy(batch.context_BN).to(model.device)])
    visible_BC = torch.from_numpy(batch.visible_BC).to(model.device)
    if adapter is not None:
        prompts_PD = adapter.prompts_PD.to(model.dtype)
        context_BND = torch.cat([prompts_PD.expand(len(rows), -1, -1), context_BND], 1)
        visible_BC = visible_BC + len(prompts_PD)
    normed_BCMD = model.upper(context_BND, model.embed(ids_BCM), visible_BC, 0, hook=adapter)
    scored_BCM = torch.from_numpy(batch.block_slot_BCM == CANDIDATE).to(model.device)
    assert not scored_BCM[..., 0].any(), "a block begins with what is scored"
    # The state of a token predicts the next one.
    normed_TD, targets_T = normed_BCMD[:, :, :-1][scored_BCM[:, :, 1:]], ids_BCM[scored_BCM]
    nats_T = log_probabilities(model, normed_TD, targets_T)
    nats_BCM = torch.zeros(scored_BCM.shape, device=model.device).masked_scatter(scored_BCM, nats_T)
    means_BC = nats_BCM.sum(-1) / scored_BCM.sum(-1).clamp_min(1)
    return means_BC[torch.from_numpy(batch.valid_BC).to(model.device)]


def _encoded(foundation: Foundation, rows: Sequence[Example]) -> dict[str, list[int]]:
    """Token ids of every text."""
    segments = (segment for row in rows for part in (row.context, *row.candidates) for segment in part)
    texts = list(dict.fromkeys(segment.text for segment in segments))
    return dict(zip(texts, foundation.tokenizer.encode(texts), strict=True))
