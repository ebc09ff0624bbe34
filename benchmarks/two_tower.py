"""Two towers on the same foundation: likes of MovieLens-100k (TwinBERT, Lu et al., CIKM 2020).

The user's behaviours and the item are read apart, from the same states, by the same last layer with adapters of the
same size as ours, and meet in a cosine alone, whose scale and bias are learned. So both sides can be kept; but what is
counted of user and item together, and what the two say to each other, has no place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import sets
from benchmarks.setup import Claims, Setup
from benchmarks.tunings import tunings
from m6rec import assets, task_model
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.demo import OURS
from m6rec.evaluate import TaskExamples, task_examples
from m6rec.foundation.checkpoint import DEFAULT, Foundation, load
from m6rec.metrics import auc
from m6rec.quickstart import RANKING
from m6rec.report import Row, Table
from m6rec.task_model import ItemBlocks, TaskModelConfig
from m6rec.tasks import retrieve
from m6rec.tasks.task import texts
from m6rec.text.batch import Batch, Example, pack, pad, size
from m6rec.train import TRAINING_TOKENS, TrainConfig, fit

TASK = replace(retrieve.TASK, name="towers", label=lambda event, domain: 1)
"""Retrieval that asks of every event, liked or not."""
TOWERS = "two towers, same foundation and states"
HERE = Path("runs/bench/evidence")


class Towers(nn.Module):
    """A tuning that embeds both sides, and what makes a probability of their cosine."""

    def __init__(self, one: task_model.TaskModel) -> None:
        super().__init__()
        self.one, self.adapter = one, one.adapter
        self.scale, self.bias = nn.Parameter(torch.tensor(5.0)), nn.Parameter(torch.tensor(0.0))

    def logits(self, user_QE: Tensor, item_QE: Tensor) -> Tensor:
        """Of each user beside an item."""
        return self.scale * (user_QE * item_QE).sum(-1) + self.bias


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made = sets.movielens_100k()
    foundation, items = load(DEFAULT), list(made.split.log.items.values())
    size_of = "quick" if setup.quick else "full"
    training = replace(RANKING, epochs=1) if setup.quick else RANKING
    config = TaskModelConfig(task="like", domain="movielens", foundation=DEFAULT)
    likes, runs = tunings(config, made.split, made.domain, training, setup.seeds, HERE / size_of / "movielens_like")
    labels = likes.labels(TEST)
    apart = task_examples(TASK, made.split, made.domain)
    at = HERE / size_of / "towers"
    found = {
        OURS: tuple(auc(labels, one.scores(likes.rows[TEST])) for one in runs),
        TOWERS: tuple(
            _towers(foundation, apart, likes, items, replace(training, seed=seed), at / f"{seed}")
            for seed in setup.seeds
        ),
    }
    table = Table(
        title="Likes, MovieLens-100k: two towers on the same foundation",
        metric="AUC",
        rows=tuple(Row(method=method, metrics={"AUC": values}) for method, values in found.items()),
        ours=OURS,
        note=f"{len(labels)} test questions, {training.epochs} epochs.",
    )
    claims: Claims = [(f"lead in AUC over {TOWERS}", table.lead or 0.0, ">", 0)]
    return {"seed": list(setup.seeds), "tables": (table,)}, claims


def _towers(
    foundation: Foundation,
    apart: TaskExamples,
    likes: TaskExamples,
    items: Sequence[Any],
    training: TrainConfig,
    folder: Path,
) -> float:
    """AUC on the test part, after the epoch that is best on validation."""
    config = TaskModelConfig(task="benchmarks.two_tower:TASK", domain="movielens", foundation=DEFAULT)
    one = task_model.create(config, foundation, assets.home() / "states", seed=training.seed)
    catalogue = ItemBlocks.of(one.task, one.domain, items)
    states = one.cache.fetch([*texts(apart.rows[TRAIN]), *catalogue.texts()])
    catalogue.bind(states)
    rows = [_told(row, like) for row, like in zip(apart.rows[TRAIN], likes.rows[TRAIN], strict=True)]
    groups = pack([size(row, states.length) for row in rows], TRAINING_TOKENS)
    batches = [pad([rows[number] for number in group], states.places) for group in groups]
    module = Towers(one)

    def loss(batch: Batch) -> Tensor:
        valid_BC = torch.from_numpy(batch.valid_BC)
        told_Q = torch.from_numpy(batch.labels_BC)[valid_BC]
        user_QE = one.adapter.embed(one.read(batch, states)[valid_BC], "user")
        items_I, column_Q = torch.unique(told_Q // 2, return_inverse=True)
        item_IE = one.adapter.embed(one.read(catalogue.batch(items_I.numpy()), states)[0], "item")
        return F.binary_cross_entropy_with_logits(module.logits(user_QE, item_IE[column_Q]), (told_Q % 2).float())

    def judged(part: int) -> float:
        item_IE = one.item_vectors(items)
        with torch.no_grad():
            found = module.logits(
                torch.from_numpy(one.vectors(apart.rows[part])), torch.from_numpy(item_IE[apart.labels(part)])
            )
        return auc(likes.labels(part), found.numpy())

    with bar(f"towers-{training.seed}") as update:
        fit(module, batches, loss, training, validate=lambda: judged(VALID), folder=folder, progress=update)
    return judged(TEST)


def _told(row: Example, like: Example) -> Example:
    """A row whose answers are twice the number of the item, and one more for a like."""
    assert np.array_equal(row.events, like.events)
    return replace(row, labels=2 * row.labels + like.labels)
