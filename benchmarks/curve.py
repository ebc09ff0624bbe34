"""What depth and kept tokens buy: AUC beside latency, over how many layers run online and what a segment keeps.

Latency is of 100 candidates for a user with 50 behaviours whose keys and values are at hand, and of that user's first
request; it doesn't depend on what was learned, so every cell is timed with a fresh tuning. AUC takes a tuning for each
cell. Those of ``TUNED`` are what two cores do in half an hour; the others, and full-depth joint attention above all,
would take days, as a life of 700 events is then one row of 10 000 tokens in 30 layers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.latency import NUM_EVENTS, timed
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.evaluation.metrics import auc
from m6rec.readouts import ScoreModel
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.tasks.examples import task_examples
from m6rec.tasks.task import ask
from m6rec.training import TrainConfig
from m6rec.types import User

UPPER = (1, 3, 6, 12, 30)
KEPT = (1, 2, 4, 0)
"""Last tokens of a segment; 0 keeps all."""
TUNED = ((1, 1), (1, 2), (3, 1), (6, 1))
TRAINING = TrainConfig(epochs=2)
"""Half the demo's, so these AUC compare with each other, not with the demo's."""


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    _, like, made, past = setup.recommender()
    model, log = like.foundation.model, made.split.log
    items = list(log.items.values())
    user = next(one for one in log.users if len(past.history(one)) >= NUM_EVENTS)
    row = ask(like.task, past, User(user), items[:100], made.domain, dict(log.items))
    begun = len(row.context) - NUM_EVENTS
    row = replace(
        row, context=row.context[begun:], visible=row.visible - begun, event_features=row.event_features[-NUM_EVENTS:]
    )
    questions = task_examples(like.task, made.split, made.domain)
    cells = []
    for upper in UPPER:
        for keep in KEPT:
            depth = model.config.num_layers - min(upper, model.config.num_layers)
            config = replace(like.config, depth=depth, keep=keep)
            one = ScoreModel.create(config, like.foundation)
            known, times = KVCachePool(one), 20 if upper * (keep or 20) <= 24 else 3
            cell: dict[str, Any] = {"upper_layers": upper, "kept": keep or "all"}
            cell["known"] = timed(lambda known=known: known.predict([("user", row)]), times)
            cell["first"] = timed(lambda one=one: KVCachePool(one).predict([("user", row)]), times)
            if (upper, keep) in (TUNED[:1] if setup.quick else TUNED):
                one = ScoreModel.create(config, like.foundation, assets.home() / "states")
                folder = Path("runs/bench/curve") / f"{upper}-{keep}"
                one.tune(questions.rows[TRAIN], questions.rows[VALID], TRAINING, folder=folder)
                cell["test_auc"] = auc(questions.labels(TEST), one.scores(questions.rows[TEST]))
            cells.append(cell)
    measured = [cell for cell in cells if "test_auc" in cell]
    served = next(cell for cell in measured if (cell["upper_layers"], cell["kept"]) == TUNED[0])
    best = max(measured, key=lambda cell: cell["test_auc"])
    lead = best["test_auc"] - served["test_auc"]
    claims: Claims = [("test AUC that the best tuned cell gains over what is served", lead, "<=", 0.003)]
    return {"epochs": TRAINING.epochs, "cells": cells}, claims
