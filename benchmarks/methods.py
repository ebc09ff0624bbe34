"""Tuning methods side by side, each on the same upper layers, questions and epochs: likes, explanations.

All but "head" train what a task has besides, such as the two small networks of the numbers and the segment embeddings;
what differs is what they do to the layers and to the readout. Adapters and LoRA have nearly the same number of
parameters, prompts are few by nature, and "upper" tunes the whole layers. Methods that reach below the split ("full")
would need days on two cores. Texts have no classes, so there an option is a prompt, and a head nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import memory, parts, sets
from benchmarks.explanation import clothes
from benchmarks.setup import Claims, Setup
from benchmarks.watch import POINTS, Watch
from m6rec import assets
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.evaluation.metrics import auc, perplexity
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.checkpoint import load
from m6rec.quickstart import RANKING
from m6rec.readouts import GenerateModel, ScoreModel, TaskModelConfig
from m6rec.tasks.examples import task_examples
from m6rec.tasks.task import named
from m6rec.training import TrainConfig, TrainingHistory

METHODS = ("option-adapter", "adapter", "option", "prompt", "lora", "head", "upper")
OF_TEXTS = ("option-adapter", "adapter", "prompt", "lora", "upper")
EPOCHS = 2
"""Half the demo's, so these AUC compare with each other, not with the demo's."""
DRAFTS, TESTS = 120, 60
"""Reviews that a writer learns from, for one epoch, and those that it is asked for."""

HERE = Path("runs/bench/evidence")

Outcome = tuple[ScoreModel | GenerateModel, TrainingHistory, float, Watch]
"""What was tuned, how its training went, what the test says, where more is better, and what was seen on the way."""
Run = Callable[[str, int, Any], Outcome]
"""Tunes by a method and a seed, and tells how far it is."""


def likes(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """By AUC, served with statistics."""
    epochs, made, foundation = 1 if setup.quick else EPOCHS, sets.movielens_100k(), load(DEFAULT_FOUNDATION)
    questions = task_examples(named("like"), made.split, made.domain)
    config = TaskModelConfig(task="like", domain="movielens", foundation=DEFAULT_FOUNDATION)
    cache = ScoreModel.create(config, foundation, assets.home() / "states").cache

    def quality(one: ScoreModel, part: int) -> float:
        return auc(questions.labels(part), one.scores(questions[part]))

    def run(method: str, seed: int, update: Any) -> Outcome:
        one = ScoreModel.create(replace(config, method=method), foundation, cache=cache, seed=seed)
        sized = replace(RANKING, epochs=epochs, seed=seed)
        with _watch(one, sized, lambda: quality(one, VALID), update) as watch:
            history = one.tune(questions[TRAIN], questions[VALID], sized, progress=watch)
        return one, history, quality(one, TEST), watch

    return _compared("likes of MovieLens-100k", "AUC", METHODS, f"One upper layer, {epochs} epochs", run, setup)


def explanations(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """By the likelihood of review sentences of clothes."""
    reviews, foundation = clothes(TESTS), load(DEFAULT_FOUNDATION)
    config = TaskModelConfig(task="explain", domain=reviews.name, foundation=DEFAULT_FOUNDATION)
    cache = GenerateModel.create(config, foundation).cache
    count = 24 if setup.quick else DRAFTS
    validation = reviews.drafts(VALID, count // 2, 0)

    def run(method: str, seed: int, update: Any) -> Outcome:
        one = GenerateModel.create(replace(config, method=method), foundation, cache=cache, seed=seed)
        training = TrainConfig(epochs=1, seed=seed)
        drafts = reviews.drafts(TRAIN, count, seed)
        with _watch(one, training, lambda: -perplexity(*one.nats(validation)), update) as watch:
            history = one.tune(drafts, validation, training, progress=watch)
        nats, tokens = one.nats(reviews.tests)
        return one, history, float(nats.sum() / tokens.sum()), watch

    note = f"Twelve upper layers, one epoch of {count} sentences, {TESTS} of the test part; nats of a token"
    return _compared("sentences of clothes", "log-probability", OF_TEXTS, note, run, setup)


def _watch(one: ScoreModel | GenerateModel, config: TrainConfig, validate: Callable[[], float], update: Any) -> Watch:
    """Of a tuning; the weights that it finds and those that it trains count as no memory."""
    model = one.foundation.model
    held = memory.Held([*model.parameters(), *model.buffers(), *one.adapter.parameters()])
    return Watch(one.adapter, config, validate, held, update)


def _measured(metric: str, run: Run, method: str, seed: int) -> dict[str, Any]:
    """The columns of a run, and its curve on validation."""
    began = time.process_time()
    with bar(f"{method}-{seed}") as update:
        one, history, value, watch = run(method, seed, update)
    columns = {
        metric: value,
        f"{metric}, validation": max(history.validation_scores),
        "… after one epoch": history.validation_scores[0],
        "parameters": float(one.adapter.num_trainable()),
        "% of the foundation": 100 * one.adapter.trainable_share(one.foundation.model),
        "processor s": time.process_time() - began - watch.seconds,
        "MiB": (watch.held.peak + memory.of_state(one.adapter.parameters())) / memory.MIB,
    }
    return {"columns": columns, "curve": watch.curve}


def steps(curves: Sequence[Sequence[tuple[int, float]]]) -> list[int]:
    """Of each curve the first step at which it is as high as the highest point of the lowest one."""
    reached = min(max(value for _, value in curve) for curve in curves)
    return [next(step for step, value in curve if value >= reached) for curve in curves]


def _compared(
    what: str, metric: str, methods: Sequence[str], note: str, run: Run, setup: Setup
) -> tuple[dict[str, Any], Claims]:
    """A table of the methods, and whether option-adapter leads those of at most 1 %."""
    at = HERE / ("quick" if setup.quick else "full") / "methods" / what
    methods = methods[:2] if setup.quick else methods
    found = {
        method: [
            parts.kept(at / f"{method}-{seed}.json", partial(_measured, metric, run, method, seed))
            for seed in setup.seeds
        ]
        for method in methods
    }
    needed = [steps([of_seeds[number]["curve"] for of_seeds in found.values()]) for number in range(len(setup.seeds))]
    rows = []
    for place, (method, of_seeds) in enumerate(found.items()):
        columns = {name: tuple(of["columns"][name] for of in of_seeds) for name in of_seeds[0]["columns"]}
        columns["steps"] = tuple(float(of_methods[place]) for of_methods in needed)
        rows.append(Row(method=method, metrics=columns))
    most = found[methods[0]][0]["curve"][-1][0]
    note = (
        f"{note}, {len(setup.seeds)} seeds; seconds are of the processor, the test's included. MiB: what autograd "
        "keeps for the backward pass, in the step that keeps most; gradients, moments and means of what is trained. "
        f"Steps, of some {most}: after which validation is what every method reaches, judged up to {POINTS} times."
    )
    table = Table(title=f"Tuning methods, {what}", metric=metric, rows=tuple(rows), ours=METHODS[0], note=note)
    value = {row.method: row.mean(metric) for row in rows}
    small = [row.method for row in rows if row.mean("% of the foundation") <= 1 and row.method != table.ours]
    best = max(small, key=lambda name: value[name])
    claims: Claims = [
        (f"{what}, option-adapter: lead over the best at 1 % or less, {best}", value[METHODS[0]] - value[best], ">=", 0)
    ]
    return {"seed": list(setup.seeds), "tables": (table,)}, claims
