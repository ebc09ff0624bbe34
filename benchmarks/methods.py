"""Tuning methods side by side, each on the same upper layer, questions and epochs: likes of MovieLens-100k.

All but "head" train the two small networks of the numbers and the segment embeddings; what differs is what they do to
the layer and to the readout. Adapters and LoRA have nearly the same number of parameters, prompts are few by nature,
and "upper" tunes the whole layer. Methods that reach below the split ("full") would need days on two cores.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import sets
from benchmarks.setup import Claims, Setup
from m6rec import assets, tuned
from m6rec.cli import bar
from m6rec.demo import LIKE
from m6rec.evaluate import ask_all
from m6rec.foundation.checkpoint import DEFAULT, load
from m6rec.metrics import auc
from m6rec.report import Row, Table
from m6rec.tasks.task import named
from m6rec.text.log import TEST, TRAIN, VALID
from m6rec.train import tune
from m6rec.tuned import TunedConfig

METHODS = ("option-adapter", "adapter", "option", "prompt", "lora", "head", "upper")
EPOCHS = 2
"""Half the demo's, so these AUC compare with each other, not with the demo's."""


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made = sets.movielens_100k()
    questions, foundation = ask_all(named("like"), made.split, made.domain), load(DEFAULT)
    config = TunedConfig(task="like", domain="movielens", foundation=DEFAULT)
    cache = tuned.create(config, foundation, assets.home() / "states").cache
    items = list(made.split.log.items.values())
    methods, seeds = METHODS[:2] if setup.quick else METHODS, setup.seeds
    rows = []
    for method in methods:
        metrics: dict[str, list[float]] = {}
        for seed in seeds:
            one = tuned.create(replace(config, method=method), foundation, cache=cache, seed=seed)
            training = replace(LIKE, epochs=1 if setup.quick else EPOCHS, seed=seed)
            began = time.process_time()
            with bar(f"{method}-{seed}") as update:
                history = tune(one, questions.rows[TRAIN], questions.rows[VALID], items, training, progress=update)
            seconds = time.process_time() - began
            values = {
                "AUC": auc(questions.answers(TEST), one.scores(questions.rows[TEST])),
                "AUC, validation": max(history.judgements),
                "… after one epoch": history.judgements[0],
                "parameters": float(one.tuning.num_trainable()),
                "% of the foundation": 100 * one.tuning.trainable_share(foundation.model),
                "processor s": seconds,
            }
            for name, value in values.items():
                metrics.setdefault(name, []).append(value)
        rows.append(Row(method=method, metrics={name: tuple(values) for name, values in metrics.items()}))
    table = Table(
        title="Tuning methods, likes of MovieLens-100k",
        metric="AUC",
        rows=tuple(rows),
        ours="option-adapter",
        note=f"One upper layer, {training.epochs} epochs, {len(seeds)} seeds; seconds are of the processor.",
    )
    small = [row for row in rows if np.mean(row.metrics["% of the foundation"]) <= 1 and row.method != table.ours]
    best = max(row.mean("AUC") for row in small)
    ours = next(row for row in rows if row.method == table.ours).mean("AUC")
    claims: Claims = [("option-adapter: lead in AUC over the best other method at 1 % or less", ours - best, ">=", 0)]
    return {"seed": list(seeds), "tables": (table,)}, claims
