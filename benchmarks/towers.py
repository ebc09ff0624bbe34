"""Other ways to rank with the same foundation: likes of MovieLens-100k by two towers, and by a cross-encoder.

- two towers (TwinBERT, Lu et al., CIKM 2020): the user's behaviours and the item are read apart, from the same states,
  by the same last layer with adapters of the same size as ours, and meet in a cosine alone, whose scale and bias are
  learned. So both sides can be kept; but what is counted of user and item together, and what the two say to each
  other, has no place.
- cross-encoder: every token of the history and the candidate goes through all layers, which are all tuned by adapters;
  numbers go in as in ours. It takes a hundred times as long, so it learns from the latest questions of ``NUM_USERS``
  users, and answers the latest of ``NUM_TESTED``. Ours stands beside it, tuned on and asked the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.joint import QUESTIONS, windows
from benchmarks.setup import Claims, Setup
from benchmarks.tunings import tunings
from m6rec import assets, tuned
from m6rec.cli import bar
from m6rec.demo import LIKE, OURS
from m6rec.domains import prepared
from m6rec.evaluate import Questions, ask_all
from m6rec.foundation.checkpoint import DEFAULT, Foundation, load
from m6rec.metrics import auc
from m6rec.report import Row, Table
from m6rec.tasks import retrieve
from m6rec.tasks.task import texts
from m6rec.text.batch import Batch, pack, pad, size
from m6rec.text.batch import Row as Asked
from m6rec.text.log import TEST, TRAIN, VALID
from m6rec.train import TRAINING_TOKENS, TrainConfig, fit, tune
from m6rec.tuned import ItemBlocks, TunedConfig

TASK = replace(retrieve.TASK, name="towers", answer=lambda event, domain: 1)
"""Retrieval that asks of every event, liked or not."""
TOWERS, CROSS = "two towers, same foundation and states", "cross-encoder, same foundation"
HERE = Path("runs/bench/evidence")
NUM_USERS, NUM_JUDGED, NUM_TESTED = 24, 4, 24
"""Windows of questions that the cross-encoder learns from, is chosen by, and answers: one a user, and of the test."""


class Towers(nn.Module):
    """A tuning that embeds both sides, and what makes a probability of their cosine."""

    def __init__(self, one: tuned.Tuned) -> None:
        super().__init__()
        self.one, self.tuning = one, one.tuning
        self.scale, self.bias = nn.Parameter(torch.tensor(5.0)), nn.Parameter(torch.tensor(0.0))

    def logits(self, user_QE: Tensor, item_QE: Tensor) -> Tensor:
        """Of each user beside an item."""
        return self.scale * (user_QE * item_QE).sum(-1) + self.bias


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made = prepared.prepare("movielens", "time", HERE / "movielens")
    foundation, items = load(DEFAULT), list(made.split.log.items.values())
    size_of = "quick" if setup.quick else "full"
    training = replace(LIKE, epochs=1) if setup.quick else LIKE
    config = TunedConfig(task="like", domain="movielens", foundation=DEFAULT)
    likes, _, runs = tunings(
        config, made.split, made.domain, training, setup.seeds[:1], HERE / size_of / "movielens_like"
    )
    labels = likes.answers(TEST)
    apart = ask_all(TASK, made.split, made.domain)
    rows = [Row(method=OURS, metrics={"AUC": (auc(labels, runs[0].scores(likes.rows[TEST])),)})]
    value = _towers(foundation, apart, likes, items, training, HERE / size_of / "towers")
    note = f"{len(labels)} test questions, {training.epochs} epochs, one seed."
    rows.append(Row(method=TOWERS, metrics={"AUC": (value,)}))
    tables = [
        Table(
            title="Likes, MovieLens-100k: the same foundation, read otherwise",
            metric="AUC",
            rows=tuple(rows),
            ours=OURS,
            note=note,
        )
    ]
    tables.append(_cross(foundation, likes, items, setup))
    claims: Claims = [
        (f"lead in AUC over the {name}", table.lead or 0.0, ">", 0)
        for name, table in zip((TOWERS, CROSS), tables, strict=True)
    ]
    return {"tables": tuple(tables)}, claims


def _towers(
    foundation: Foundation,
    apart: Questions,
    likes: Questions,
    items: Sequence[Any],
    training: TrainConfig,
    folder: Path,
) -> float:
    """AUC on the test part, after the epoch that is best on validation."""
    config = TunedConfig(task="benchmarks.towers:TASK", domain="movielens", foundation=DEFAULT)
    one = tuned.create(config, foundation, assets.home() / "states")
    catalogue = ItemBlocks.of(one.task, one.domain, items)
    states = one.cache.fetch([*texts(apart.rows[TRAIN]), *catalogue.texts()])
    catalogue.bind(states)
    rows = [_told(row, like) for row, like in zip(apart.rows[TRAIN], likes.rows[TRAIN], strict=True)]
    groups = pack([size(row, states.length) for row in rows], TRAINING_TOKENS)
    batches = [pad([rows[number] for number in group], states.places) for group in groups]
    module = Towers(one)

    def loss(batch: Batch) -> Tensor:
        valid_BC = torch.from_numpy(batch.valid_BC)
        told_Q = torch.from_numpy(batch.answers_BC)[valid_BC]
        user_QE = one.tuning.embed(one.read(batch, states)[valid_BC], "user")
        items_I, column_Q = torch.unique(told_Q // 2, return_inverse=True)
        item_IE = one.tuning.embed(one.read(catalogue.batch(items_I.numpy()), states)[0], "item")
        return F.binary_cross_entropy_with_logits(module.logits(user_QE, item_IE[column_Q]), (told_Q % 2).float())

    def judged(part: int) -> float:
        item_IE = one.item_vectors(items)
        with torch.no_grad():
            found = module.logits(
                torch.from_numpy(one.vectors(apart.rows[part])), torch.from_numpy(item_IE[apart.answers(part)])
            )
        return auc(likes.answers(part), found.numpy())

    with bar("towers") as update:
        fit(module, batches, loss, training, judge=lambda: judged(VALID), folder=folder, progress=update)
    return judged(TEST)


def _told(row: Asked, like: Asked) -> Asked:
    """A row whose answers are twice the number of the item, and one more for a like."""
    assert np.array_equal(row.events, like.events)
    return replace(row, answers=2 * row.answers + like.answers)


def _latest(rows: Sequence[Asked], count: int) -> list[Asked]:
    """The latest full window of questions of so many users."""
    return [windows(row)[len(row.answers) // QUESTIONS - 1] for row in rows if len(row.answers) >= QUESTIONS][-count:]


def _cross(foundation: Foundation, likes: Questions, items: Sequence[Any], setup: Setup) -> Table:
    users, judged, tested = (4, 2, 2) if setup.quick else (NUM_USERS, NUM_JUDGED, NUM_TESTED)
    training, validation, test = (
        _latest(likes.rows[part], count) for part, count in ((TRAIN, users), (VALID, judged), (TEST, tested))
    )
    labels = np.concatenate([row.answers for row in test])
    config = TunedConfig(task="like", domain="movielens", foundation=DEFAULT)
    rows = []
    for method, of in ((OURS, config), (CROSS, replace(config, depth=0, keep=0, all_layers=True))):
        one = tuned.create(of, foundation)
        name = "cross" if of.all_layers else "late"
        folder = HERE / ("quick" if setup.quick else "full") / f"{name}-{users}"
        began = time.process_time()
        with bar(name) as update:
            tune(one, training, validation, items, TrainConfig(epochs=1), folder=folder, progress=update)
        tuning_s = time.process_time() - began
        began = time.process_time()
        value = auc(labels, one.scores(test))
        seconds = {"processor s to tune": (tuning_s,), "to answer": (time.process_time() - began,)}
        rows.append(Row(method=method, metrics={"AUC": (value,), **seconds}))
    asked = sum(len(row.candidates) for row in training)
    note = f"Tuned for one epoch on {asked} questions of {users} users, asked {len(labels)} of the test part, one seed."
    return Table(
        title="Likes, MovieLens-100k: a subset, every token through every layer",
        metric="AUC",
        rows=tuple(rows),
        ours=OURS,
        note=note,
    )
