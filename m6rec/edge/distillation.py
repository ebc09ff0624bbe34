"""A student learns to read as its teacher does: states after each of its layers, and attention relations (MiniLM)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m6rec.edge.activations import BATCH_TOKENS, ActivationRecorder, Progress, TeacherActivations, groups, padded
from m6rec.edge.pruning import pruning
from m6rec.edge.recipe import Recipe
from m6rec.foundation.attention import Attention, Dense
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import Model
from m6rec.readouts import ScoreModel
from m6rec.text.prefixes import Tree
from m6rec.training import TrainConfig, fit


def distil(
    student: Foundation,
    kept: Sequence[int],
    teacher: ScoreModel,
    said: TeacherActivations,
    recipe: Recipe,
    folder: Path,
    progress: Progress,
) -> None:
    """Trains the student on what the teacher said; afterwards its states are in the teacher's units.

    ``kept`` are the ids that the teacher has for the student's tokens.
    """
    model, keep = student.model, teacher.cache.config.keep
    reader = model.config.reader
    assert reader is not None
    new_id = torch.zeros(teacher.foundation.model.config.vocab_size, dtype=torch.long)
    new_id[torch.tensor(kept)] = torch.arange(len(kept))
    kept_T = torch.tensor(
        sorted(
            {start + place for start, tree in zip(said.starts, said.trees, strict=False) for place in _kept(tree, keep)}
        )
    )
    states = said.hidden_TD[kept_T].float()
    mean_D, spread_D = states.mean(0), states.std(0).clamp_min(1e-3)
    order = sorted(range(len(said.trees)), key=lambda number: len(said.trees[number].ids))
    batches = list(groups(order, said.trees, BATCH_TOKENS))

    def loss(batch: list[int]) -> Tensor:
        trees = [said.trees[number] for number in batch]
        ids_BL, positions_BL, mask_BLL = padded(trees, model.device)
        recorder = ActivationRecorder(reader.num_layers - 1)
        hidden_BLD = model.reader.embed(new_id[ids_BL])
        attention = Dense(positions_BL, mask_BLL)
        at_B, at_L, at_T = _places(trees, [said.starts[number] for number in batch], keep)
        target_TD = (said.hidden_TD[at_T].float() - mean_D) / spread_D
        total, weights = torch.zeros(()), 0
        for layer in range(reader.num_layers):
            hidden_BLD = _step(model.reader, layer, hidden_BLD, positions_BL, attention, recorder)
            if recipe.hidden and (recipe.exits or layer == reader.num_layers - 1):
                states_TD = model.widen(model.reader.finish(hidden_BLD)[at_B, at_L])
                total = total + (layer + 1) * _distance(states_TD, target_TD)
                weights += layer + 1
        total = recipe.hidden * total / max(1, weights)
        if recipe.relation:
            lengths = [len(tree.ids) for tree in trees]
            theirs = [
                _rows(of, [said.starts[number] for number in batch], lengths, ids_BL.shape[1]) for of in said.relations
            ]
            ours = [recorder.recorded[name] for name in ("q", "k", "v")]
            total = total + recipe.relation * relations(ours, theirs, mask_BLL, lengths, recipe.num_heads)
        return total

    parts = nn.ModuleList([model.reader, model.widen]).requires_grad_(True)
    config = TrainConfig(epochs=recipe.epochs, learning_rate=recipe.learning_rate, average=0.995, seed=recipe.seed)
    with pruning(parts, recipe.sparsity) as schedule:
        fit(
            parts,
            batches,
            loss,
            config,
            folder=folder,
            schedule=schedule,
            progress=lambda step, total, value: progress(f"distilling, loss {value:.3f}", step, total),
        )
    parts.requires_grad_(False)
    model.widen.weight.mul_(spread_D[:, None])
    model.widen.bias.mul_(spread_D).add_(mean_D)


def _distance(states_TD: Tensor, target_TD: Tensor) -> Tensor:
    """Mean squared error and cosine of normed states."""
    cosine_T = F.cosine_similarity(states_TD, target_TD, dim=-1)
    return F.mse_loss(states_TD, target_TD) + (1 - cosine_T).mean()


def relations(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], mask_BLL: Tensor, lengths: Sequence[int], num_heads: int
) -> Tensor:
    """Mean divergence of the student's attention relations from the teacher's (MiniLMv2, equation 6).

    A relation is the softmax of the products of queries with queries, keys with keys, values with values, in as many
    heads on both sides, over the tokens that a token sees.
    """
    valid_BL = torch.arange(mask_BLL.shape[1], device=mask_BLL.device) < torch.tensor(lengths)[:, None]
    total = torch.zeros(())
    for own, other in zip(ours, theirs, strict=True):
        logs = []
        for side_BLD in (other.float(), own):
            heads_BALK = side_BLD.view(*side_BLD.shape[:2], num_heads, -1).transpose(1, 2)
            product_BALL = heads_BALK @ heads_BALK.transpose(-1, -2) / heads_BALK.shape[-1] ** 0.5
            logs.append(product_BALL.masked_fill(~mask_BLL[:, None], -math.inf).log_softmax(-1))
        both = [log.masked_fill(~mask_BLL[:, None], 0.0) for log in logs]
        divergence_BAL = (both[0].exp().masked_fill(~mask_BLL[:, None], 0.0) * (both[0] - both[1])).sum(-1)
        total = total + divergence_BAL.transpose(1, 2)[valid_BL].mean()
    return total


def _step(
    reader: Model, layer: int, hidden_BLD: Tensor, positions_BL: Tensor, attention: Attention, hook: ActivationRecorder
) -> Tensor:
    return reader.run(hidden_BLD, positions_BL, attention, first=layer, last=layer + 1, hook=hook)


def _kept(tree: Tree, keep: int) -> Iterable[int]:
    """Places of the tokens that texts keep."""
    return {place for path in tree.paths.values() for place in (path[-keep:] if keep else path)}


def _places(trees: Sequence[Tree], starts: Sequence[int], keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of every token that a text keeps: (its row, its place there, its place among the lessons)."""
    found = [
        (row, place, start + place)
        for row, (tree, start) in enumerate(zip(trees, starts, strict=True))
        for place in sorted(_kept(tree, keep))
    ]
    at_B, at_L, at_T = torch.tensor(found).T
    return at_B, at_L, at_T


def _rows(of_TD: Tensor, starts: Sequence[int], lengths: Sequence[int], longest: int) -> Tensor:
    """Tokens of the lessons as rows, padded at the right."""
    rows = [of_TD[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    return torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows])
