"""What tuning a second task does to the first one, and to the language model.

With adapters the foundation stays as it is, so both are the same to the last bit. For comparison one set of weights of
the upper layer is fine-tuned for likes, then for ratings, as a model without adapters would be. The language model is
judged by reviews of clothes, which neither task has seen.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import parts, sets
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.domains import domain as domains
from m6rec.evaluation.metrics import auc
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.checkpoint import Foundation, load
from m6rec.foundation.likelihood import log_probabilities
from m6rec.foundation.model import Model
from m6rec.quickstart import RANKING
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.tasks.examples import TaskExamples, task_examples
from m6rec.tasks.task import named

NUM_TEXTS = 200
METHODS = ("option-adapter", "upper")
FIRST, SECOND = "after likes", "after likes, then ratings"


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made = sets.movielens_100k()
    foundation = load(DEFAULT_FOUNDATION)
    asked = {task: task_examples(named(task), made.split, made.domain) for task in ("like", "rating")}
    reviews = [event.text for event in domains.load(domains.named("clothes")).events[:NUM_TEXTS]]
    before = nats(foundation, foundation.model, reviews)
    config = TaskModelConfig(task="like", domain="movielens", foundation=DEFAULT_FOUNDATION)
    cache = ScoreModel.create(config, foundation, assets.home() / "states").cache
    epochs = 1 if setup.quick else 2

    def trained(task: str, method: str, seed: int, start: nn.Module | None = None) -> ScoreModel:
        one = ScoreModel.create(replace(config, task=task, method=method), foundation, cache=cache, seed=seed)
        if start is not None:
            one.adapter.module.load_state_dict(start.state_dict())
        with bar(f"{method} {task}, {seed}") as update:
            training = replace(RANKING, epochs=epochs, seed=seed)
            one.tune(asked[task][TRAIN], asked[task][VALID], training, progress=update)
        return one

    def told(like: ScoreModel, last: ScoreModel) -> dict[str, float]:
        return {"AUC": _auc(like, asked["like"]), "nats a token": _nats(last, foundation, reviews)}

    def run(method: str, seed: int) -> dict[str, dict[str, float]]:
        like = trained("like", method, seed)
        found = {FIRST: told(like, like)}
        shared = method == "upper"
        rating = trained("rating", method, seed, like.adapter.module if shared else None)
        if shared:  # one set of weights: the second task's are the first one's now
            like.adapter.module.load_state_dict(rating.adapter.module.state_dict())
        return {**found, SECOND: told(like, rating)}

    at = Path("runs/bench/evidence") / ("quick" if setup.quick else "full") / "forgetting"
    rows = []
    for method in METHODS:
        by_seed = [parts.kept(at / f"{method}-{seed}.json", partial(run, method, seed)) for seed in setup.seeds]
        for when in (FIRST, SECOND):
            metrics = {name: tuple(found[when][name] for found in by_seed) for name in ("AUC", "nats a token")}
            rows.append(Row(method=f"{method}, {when}", metrics=metrics))
    table = Table(
        title="Forgetting: likes of MovieLens-100k, and reviews of clothes",
        metric="AUC",
        rows=tuple(rows),
        note=f"Untuned: {before:.4f} nats a token. Adapters are off where the language model is judged; 'upper' has "
        f"one set of weights for everything. {epochs} epochs, {len(setup.seeds)} seeds.",
    )
    first, second = (row.metrics for row in rows[:2])
    moved = max(abs(b - a) for a, b in zip(first["AUC"], second["AUC"], strict=True))
    claims: Claims = [
        ("adapters: change of AUC in likes by tuning ratings", moved, "<=", 0),
        (
            "adapters: change of nats a token of other text",
            max(abs(n - before) for n in second["nats a token"]),
            "<=",
            0,
        ),
    ]
    return {"seed": list(setup.seeds), "tables": (table,), "nats_a_token_untuned": before}, claims


def _auc(like: ScoreModel, questions: TaskExamples) -> float:
    return auc(questions.labels(TEST), like.scores(questions.rows[TEST]))


def _nats(one: ScoreModel, foundation: Foundation, texts: list[str]) -> float:
    """Of the language model as this tuning leaves it: changed where its weights are the model's, else as it was."""
    model = one.adapter.merge(foundation.model) if one.method == "upper" else foundation.model
    return nats(foundation, model, texts)


@torch.no_grad()
def nats(foundation: Foundation, model: Model, texts: list[str]) -> float:
    """Mean negative log-likelihood of a token of the texts, each read by itself."""
    found: list[np.ndarray[Any, Any]] = []
    for ids in foundation.tokenizer.encode(texts):
        if len(ids) > 1:
            row = torch.tensor([ids])
            normed_LD = model.finish(model.lower(row, model.config.num_layers))[0]
            found.append(-log_probabilities(model, normed_LD[:-1], row[0, 1:]).cpu().numpy())
    return float(np.concatenate(found).mean())
