"""Tuning methods side by side, each on the same upper layers, questions and epochs: likes, and sentences of reviews.

All but "head" train what a task has besides, such as the networks of the features and the segment embeddings; what
differs is what they do to the layers and to the readout. Adapters and LoRA have nearly the same number of parameters,
prompts are few by nature, and "upper" tunes the whole layers. Texts have no classes, so there an option is a prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks import parts, sets, tunings
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID, split_by_item
from m6rec.domains import domain as domains
from m6rec.evaluation.metrics import auc
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.checkpoint import load
from m6rec.quickstart import RANKING
from m6rec.readouts import GenerateModel, ScoreModel, TaskModelConfig
from m6rec.tasks.task import named
from m6rec.training import TrainConfig, TrainingHistory
from m6rec.types import Draft

METHODS = ("option-adapter", "adapter", "option", "prompt", "lora", "head", "upper")
OF_TEXTS = ("option-adapter", "adapter", "prompt", "lora", "upper")
EPOCHS = 2
"""Half the demo's, so these AUC compare with each other, not with the demo's."""
DRAFTS = {TRAIN: 120, VALID: 60, TEST: 60}
"""Sentences to learn from, for one epoch, and to be judged by."""

Outcome = tuple[ScoreModel | GenerateModel, TrainingHistory, float]
"""What was tuned, how its training went, and what the test says, where more is better."""


def likes(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """By AUC, served with the features."""
    epochs, made, foundation = 1 if setup.quick else EPOCHS, sets.movielens_100k(), load(DEFAULT_FOUNDATION)
    examples = ScoreModel.examples(named("like"), made.split, made.domain)
    config = TaskModelConfig(task="like", domain="movielens", foundation=DEFAULT_FOUNDATION)
    cache = ScoreModel.create(config, foundation, assets.home() / "states").cache

    def run(method: str, seed: int, update: Any) -> Outcome:
        one = ScoreModel.create(replace(config, method=method), foundation, cache=cache, seed=seed)
        sized = replace(RANKING, epochs=epochs, seed=seed)
        history = one.tune(examples[TRAIN], examples[VALID], sized, progress=update)
        return one, history, auc(examples.labels(TEST), one.scores(examples[TEST]))

    return _compared("likes of MovieLens-100k", "AUC", METHODS, f"One upper layer, {epochs} epochs", run, setup)


def texts(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """By the likelihood of review sentences of clothes, no garment of which is in two parts."""
    domain, foundation = domains.named("clothes"), load(DEFAULT_FOUNDATION)
    every = GenerateModel.examples(named("explain"), split_by_item(domains.load(domain)), domain)
    few = 5 if setup.quick else 1
    config = TaskModelConfig(task="explain", domain=domain.name, foundation=DEFAULT_FOUNDATION)
    cache = GenerateModel.create(config, foundation).cache

    def drawn(part: int, seed: int) -> list[Draft]:
        return tunings.drawn(every, part, DRAFTS[part] // few, seed)

    def run(method: str, seed: int, update: Any) -> Outcome:
        one = GenerateModel.create(replace(config, method=method), foundation, cache=cache, seed=seed)
        training = TrainConfig(epochs=1, seed=seed)
        history = one.tune(drawn(TRAIN, seed), drawn(VALID, 0), training, progress=update)
        nats, tokens = one.nats(drawn(TEST, 0))
        return one, history, float(nats.sum() / tokens.sum())

    note = f"Twelve upper layers, one epoch of {DRAFTS[TRAIN] // few} sentences; nats of a token"
    return _compared("sentences of clothes", "log-probability", OF_TEXTS, note, run, setup)


def _measured(metric: str, run: Callable[[str, int, Any], Outcome], method: str, seed: int) -> dict[str, float]:
    """The columns of a run."""
    began = time.process_time()
    with bar(f"{method}-{seed}") as update:
        one, history, value = run(method, seed, update)
    return {
        metric: value,
        f"{metric}, validation": max(history.validation_scores),
        "… after one epoch": history.validation_scores[0],
        "parameters": float(one.adapter.num_trainable()),
        "% of the foundation": 100 * one.adapter.trainable_share(one.foundation.model),
        "processor s": time.process_time() - began,
    }


def _compared(
    what: str, metric: str, methods: Sequence[str], note: str, run: Callable[[str, int, Any], Outcome], setup: Setup
) -> tuple[dict[str, Any], Claims]:
    """A table of the methods, and whether option-adapter leads those of at most 1 %."""
    at = parts.cache("evidence", setup) / "methods" / what
    rows = tuple(
        Row.of(
            method,
            [
                parts.kept(at / f"{method}-{seed}.json", partial(_measured, metric, run, method, seed))
                for seed in setup.seeds
            ],
        )
        for method in (methods[:2] if setup.quick else methods)
    )
    note = f"{note}, {len(setup.seeds)} seeds; seconds are of the processor, the test's included."
    table = Table(title=f"Tuning methods, {what}", metric=metric, rows=rows, ours=METHODS[0], note=note)
    small = [row for row in rows if row.mean("% of the foundation") <= 1 and row.method != table.ours]
    best = max(small, key=lambda row: row.mean(metric))
    lead = rows[0].mean(metric) - best.mean(metric)
    claims: Claims = [(f"{what}, option-adapter: lead over the best at 1 % or less, {best.method}", lead, ">=", 0)]
    return {"seed": list(setup.seeds), "tables": (table,)}, claims
