"""A cross-encoder on the same foundation: likes of MovieLens-100k, every token through every layer.

All layers are tuned by adapters, and numbers go in as in ours. Ours stands beside it, tuned on and asked the same. Two
cores take a hundred times as long for it, so there it learns from the latest questions of some users, and answers some.

Where torch sees a GPU, it learns from more, and answers all questions of the test part, three seeds; the first seed
tries two learning rates, of which validation chooses. The whole foundation is fine-tuned too, as far as time allows:
nothing is begun after ``Study.seconds``. What was stopped goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import parts, sets
from benchmarks.joint import QUESTIONS, windows
from benchmarks.setup import SEEDS, Claims, Setup
from m6rec import assets
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.demo import OURS
from m6rec.evaluation.metrics import auc, bootstrap_difference
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.checkpoint import load
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.tasks.examples import task_examples
from m6rec.tasks.task import named, texts
from m6rec.text.batch import Example
from m6rec.training import TrainConfig

CROSS, WHOLE = "cross-encoder, same foundation", "cross-encoder, the whole fine-tuned"
HERE = Path("runs/bench/evidence")
LATE = TaskModelConfig(task="like", domain="movielens", foundation=DEFAULT_FOUNDATION)
JOINT = replace(LATE, depth=0, keep=0, all_layers=True)
CONFIGS = {OURS: LATE, CROSS: JOINT, WHOLE: replace(JOINT, method="full")}
FOLDERS = {OURS: "late", CROSS: "cross", WHOLE: "whole"}
MORE = 8
"""Epochs of ours on cores, of whose windows as many make a batch, so that both take about as many steps."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """How much is learned and asked.

    Attributes:
        device: Where.
        users: That are learned from, that choose the epoch, and that are asked, the latest of each part.
        each: Windows of a user: the latest full ones, or all where it is 0.
        training: How each method is trained.
        rates: Learning rates that the first seed tries; none for the usual one alone.
        seeds: One tuning each.
        seconds: No tuning is begun after so many.
    """

    device: str
    users: tuple[int, int, int]
    each: tuple[int, int, int] = (1, 1, 1)
    training: Mapping[str, TrainConfig]
    rates: tuple[float, ...] = ()
    seeds: Sequence[int] = (0,)
    seconds: float = float("inf")


CORES = Study(device="cpu", users=(24, 4, 24), training={OURS: TrainConfig(epochs=MORE), CROSS: TrainConfig(epochs=1)})
AT_ONCE = TrainConfig(epochs=1, batch_tokens=10_000)
"""Three windows of a cross-encoder, some 9 GiB in bf16, and twice as much where the whole is tuned."""
GPU = Study(
    device="cuda",
    users=(751, 64, 166),
    each=(3, 1, 0),
    training={
        OURS: TrainConfig(epochs=4),
        CROSS: AT_ONCE,
        WHOLE: replace(AT_ONCE, learning_rate=1e-4, checkpoint_steps=10_000),
    },
    rates=(2e-3, 5e-4),
    seeds=SEEDS,
    seconds=290,
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a tuning: AUC of the validation part, scores of the test part, and columns of the table."""

    score: float
    scores: NDArray[np.float64]
    metrics: Mapping[str, float]


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    began = time.perf_counter()
    on_gpu = torch.cuda.is_available()
    study = GPU if on_gpu else CORES
    if setup.quick:
        study = replace(study, users=(3, 2, 2), rates=(), seeds=study.seeds[:1])
    made, foundation = sets.movielens_100k(), load(DEFAULT_FOUNDATION, device=study.device)
    likes = task_examples(named("like"), made.split, made.domain)
    training, validation, test = (
        _latest(likes.rows[part], users, each)
        for part, users, each in zip((TRAIN, VALID, TEST), study.users, study.each, strict=True)
    )
    labels = np.concatenate([row.labels for row in test])
    caches, read_s = {}, {}
    for config, store in ((LATE, assets.home() / "states"), (JOINT, None)):
        start = time.perf_counter()
        caches[config.keep] = ScoreModel.create(config, foundation, store).cache
        caches[config.keep].fetch(texts([*training, *validation, *test]))
        read_s["every token" if config is JOINT else "states"] = time.perf_counter() - start

    def run(method: str, seed: int, steps: TrainConfig) -> Outcome:
        config = CONFIGS[method]
        one = ScoreModel.create(config, foundation, cache=caches[config.keep], seed=seed)
        name = f"{FOLDERS[method]}-{study.users[0]}"
        if on_gpu:
            name = f"gpu-{name}-{steps.learning_rate:g}-{seed}"
        folder = HERE / ("quick" if setup.quick else "full") / name
        with bar(name) as update, _Meter(study.device) as tuning:
            history = one.tune(training, validation, replace(steps, seed=seed), folder=folder, progress=update)
        with _Meter(study.device) as answering:
            scores = one.scores(test)
        unit = "s" if on_gpu else "processor s"
        metrics = {"AUC": auc(labels, scores), f"{unit} to tune": tuning.seconds, "to answer": answering.seconds}
        metrics |= {"GiB to tune": tuning.gib} if on_gpu else {}
        parts.tell(
            f"{name}: {len(history.losses)} steps, {max(history.validation_scores):.4f} in validation, {metrics}"
        )
        return Outcome(max(history.validation_scores), scores, metrics)

    found: dict[str, list[Outcome]] = {}
    training_of = dict(study.training)
    for method in (OURS, CROSS):
        tries = [replace(study.training[method], learning_rate=rate) for rate in study.rates]
        outcomes = [run(method, study.seeds[0], steps) for steps in tries or [study.training[method]]]
        best = max(range(len(outcomes)), key=lambda number: outcomes[number].score)
        found[method] = [outcomes[best]]
        training_of |= {method: tries[best]} if tries else {}
    rest = [(method, seed) for seed in study.seeds[1:] for method in (OURS, CROSS)]
    rest += [(method, seed) for method in training_of if method not in found for seed in study.seeds]
    for method, seed in rest:
        if time.perf_counter() - began > study.seconds:
            parts.tell(f"time is up before {method}, seed {seed}")
            break
        found.setdefault(method, []).append(run(method, seed, training_of[method]))
    events = np.concatenate([row.events for row in test])
    users = np.unique([made.split.log.events[at].user for at in events], return_inverse=True)[1]
    scores = {method: np.mean([outcome.scores for outcome in of], 0) for method, of in found.items()}
    gap = bootstrap_difference(labels, scores[OURS], scores[CROSS], users)
    note = (
        f"Tuned on {sum(len(row.candidates) for row in training)} questions in one epoch "
        f"({study.training[OURS].epochs} of ours), and asked {len(labels)} of the test part. Paired bootstrap over "
        f"users, seeds averaged, against the {CROSS}: {gap.value:+.4f} AUC, "
        f"95 % [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.3f}."
    )
    table = Table(
        title="Likes, MovieLens-100k: a subset, every token through every layer",
        metric="AUC",
        rows=tuple(_row(method, of) for method, of in found.items()),
        ours=OURS,
        note=note,
    )
    rates = {FOLDERS[method]: training_of[method].learning_rate for method in found}
    claims: Claims = [(f"lead in AUC over the {CROSS}", gap.value, ">", 0)]
    if len(study.seeds) > 1:
        claims.append(("p of that lead", gap.p, "<=", 0.05))
    return {"seed": list(study.seeds), "seconds_to_read": read_s, "learning_rates": rates, "tables": (table,)}, claims


def _row(method: str, outcomes: Sequence[Outcome]) -> Row:
    names = outcomes[0].metrics
    return Row(method=method, metrics={name: tuple(one.metrics[name] for one in outcomes) for name in names})


def _latest(rows: Sequence[Example], users: int, each: int) -> list[Example]:
    """Windows of questions of so many users: each one's latest full ones, or all where ``each`` is 0."""
    if not each:
        return [window for row in rows[-users:] for window in windows(row)]
    full = [windows(row)[: len(row.labels) // QUESTIONS][-each:] for row in rows if len(row.labels) >= QUESTIONS]
    return [window for of_user in full[-users:] for window in of_user]


class _Meter:
    """What a block takes: ``seconds``, of the processor on cores, and ``gib`` of a GPU's memory at most."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device != "cpu"

    def __enter__(self) -> _Meter:
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self._began = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = self._now() - self._began
        self.gib = torch.cuda.max_memory_allocated() / 2**30 if self._on_gpu else 0.0

    def _now(self) -> float:
        if not self._on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()
