"""A cross-encoder on the same foundation: likes of MovieLens-100k, every token through every layer.

All layers are tuned by adapters, and numbers go in as in ours. It takes a hundred times as long, so it learns from the
latest questions of ``NUM_USERS`` users, and answers the latest of ``NUM_TESTED``. Ours stands beside it, tuned on and
asked the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sets
from benchmarks.joint import QUESTIONS, windows
from benchmarks.setup import Claims, Setup
from m6rec import assets, tuned
from m6rec.cli import bar
from m6rec.demo import OURS
from m6rec.evaluate import ask_all
from m6rec.foundation.checkpoint import DEFAULT, load
from m6rec.metrics import auc
from m6rec.report import Row, Table
from m6rec.tasks.task import named
from m6rec.text.batch import Row as Asked
from m6rec.text.log import TEST, TRAIN, VALID
from m6rec.train import TrainConfig, tune
from m6rec.tuned import TunedConfig

CROSS = "cross-encoder, same foundation"
HERE = Path("runs/bench/evidence")
NUM_USERS, NUM_JUDGED, NUM_TESTED = 24, 4, 24
"""Windows of questions that are learned from, that choose the epoch, and that are answered: one a user."""
MORE = 8
"""Epochs of ours, of whose windows as many make a batch, so that both take about as many steps."""


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made, foundation = sets.movielens_100k(), load(DEFAULT)
    likes, items = ask_all(named("like"), made.split, made.domain), list(made.split.log.items.values())
    users, judged, tested = (3, 2, 2) if setup.quick else (NUM_USERS, NUM_JUDGED, NUM_TESTED)
    training, validation, test = (
        _latest(likes.rows[part], count) for part, count in ((TRAIN, users), (VALID, judged), (TEST, tested))
    )
    labels = np.concatenate([row.answers for row in test])
    config = TunedConfig(task="like", domain="movielens", foundation=DEFAULT)
    rows = []
    for method, of in ((OURS, config), (CROSS, replace(config, depth=0, keep=0, all_layers=True))):
        one = tuned.create(of, foundation, None if of.all_layers else assets.home() / "states")
        name = "cross" if of.all_layers else "late"
        folder = HERE / ("quick" if setup.quick else "full") / f"{name}-{users}"
        began = time.process_time()
        with bar(name) as update:
            steps = TrainConfig(epochs=1 if of.all_layers else MORE)
            tune(one, training, validation, items, steps, folder=folder, progress=update)
        tuning_s = time.process_time() - began
        began = time.process_time()
        value = auc(labels, one.scores(test))
        seconds = {"processor s to tune": (tuning_s,), "to answer": (time.process_time() - began,)}
        rows.append(Row(method=method, metrics={"AUC": (value,), **seconds}))
    asked = sum(len(row.candidates) for row in training)
    note = (
        f"Tuned on {asked} questions of {users} users, one epoch ({MORE} of ours, for as many steps), and asked "
        f"{len(labels)} of the test part; one seed."
    )
    table = Table(
        title="Likes, MovieLens-100k: a subset, every token through every layer",
        metric="AUC",
        rows=tuple(rows),
        ours=OURS,
        note=note,
    )
    return {"tables": (table,)}, [(f"lead in AUC over the {CROSS}", table.lead or 0.0, ">", 0)]


def _latest(rows: Sequence[Asked], count: int) -> list[Asked]:
    """The latest full window of questions of so many users."""
    return [windows(row)[len(row.answers) // QUESTIONS - 1] for row in rows if len(row.answers) >= QUESTIONS][-count:]
