"""What the split costs in quality: what is served, beside full-depth joint attention over all tokens.

Both are tuned by the same method on the same questions with the same steps: the served way on the last kept token of
each segment, in the last layer; the joint way on all tokens, through all layers, which it tunes as the paper does. The
joint way takes a hundred times as long, so both learn from the latest lives of ``NUM_USERS`` users alone, and ask in
windows of ``QUESTIONS`` with ``LEAD`` behaviours before them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.setup import Claims, Setup
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.evaluation.metrics import auc, bootstrap_difference
from m6rec.readouts import ScoreModel
from m6rec.tasks.examples import task_examples
from m6rec.text.batch import Example
from m6rec.training import TrainConfig

NUM_USERS, NUM_JUDGED = 128, 24
"""Users whose latest training questions are learned, and whose validation questions pick the epoch."""
LEAD, QUESTIONS = 32, 32
TRAINING = TrainConfig(epochs=2, accumulate=4)
"""A batch of the joint way is one window, so four make a step."""


def windows(row: Example) -> list[Example]:
    """The row's questions, so many at a time, each with what came shortly before; the earliest first."""
    found = []
    for begin in range(0, len(row.candidates), QUESTIONS):
        asked = np.arange(len(row.candidates)) // QUESTIONS == begin // QUESTIONS
        part = row.only(asked)
        cut = max(0, int(part.visible.min()) - LEAD)
        event_features = part.event_features[max(0, cut - part.num_profile) :]
        found.append(
            replace(part, context=part.context[cut:], visible=part.visible - cut, event_features=event_features)
        )
    return found


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    _, like, made, _ = setup.recommender()
    questions = task_examples(like.task, made.split, made.domain)
    users, judged = (8, 4) if setup.quick else (NUM_USERS, NUM_JUDGED)
    training = [windows(row)[-1] for row in questions.rows[TRAIN][-users:]]
    validation = [window for row in questions.rows[VALID][:judged] for window in windows(row)]
    tested = questions.rows[TEST][: 4 if setup.quick else None]
    test = [window for row in tested for window in windows(row)]
    labels, of_user = _labels(test, tested)
    results: dict[str, Any] = {}
    scores = []
    for name, config in (
        ("served", like.config),
        ("joint", replace(like.config, depth=0, keep=0, all_layers=True)),
    ):
        one = ScoreModel.create(config, like.foundation)
        folder = Path("runs/bench/joint") / f"{name}-{setup.quick}"
        start = time.perf_counter()
        with bar(f"tuning, {name}") as update:
            one.tune(training, validation, TRAINING, folder=folder, progress=update)
        spent = time.perf_counter() - start
        with bar(f"scores, {name}") as update:
            scores.append(one.scores(test, update))
        results[name] = {"test_auc": auc(labels, scores[-1]), "seconds_to_tune": spent}
        results[name]["trained_share"] = one.adapter.trainable_share(like.foundation.model)
    gap = bootstrap_difference(labels, scores[1], scores[0], of_user)
    results["joint less served"] = {"auc": gap.value, "low": gap.low, "high": gap.high, "p": gap.p}
    sizes = {"users": len(training), "questions": sum(len(row.candidates) for row in training), "tested": len(labels)}
    claims: Claims = [("test AUC that joint attention gains over what is served", gap.value, "<=", 0.003)]
    return {"sizes": sizes, "epochs": TRAINING.epochs, "results": results}, claims


def _labels(test: Sequence[Example], rows: Sequence[Example]) -> tuple[Any, Any]:
    """(classes, number of the user) of each question."""
    users = np.repeat(np.arange(len(rows)), [len(row.candidates) for row in rows])
    return np.concatenate([row.labels for row in test]), users
