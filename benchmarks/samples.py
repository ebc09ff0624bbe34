"""How many examples a method needs: likes of MovieLens by as many training questions as named, drawn at random.

All methods read the same statistics, which count everything that happened before a question; what is scarce is
questions with their answers. Methods start fresh, or from what was learned of another log (``ml1m_collm``), as one
foundation serves many shops. What was moved norms its numbers by those of the new log's questions, which takes no
answers, and is tuned on the examples in one of two ways: all of it in small steps; or it stays as it is but for a
linear correction by the statistics, which ``PRIOR`` pulls to nothing. An MLP on the statistics is moved and
corrected by the same rule. Steps, rates and ``PRIOR`` are fixed beforehand for all sizes, as few examples leave none to
choose by; ``PRIOR`` was taken from 1 to 1 000 by AUC on the validation part, where 30 and 100 are alike.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import sets
from benchmarks.setup import Claims, Setup, research
from m6rec import assets
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.data.split import TEST, TRAIN
from m6rec.demo import OURS
from m6rec.evaluation import baselines
from m6rec.evaluation.metrics import auc
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.checkpoint import load
from m6rec.quickstart import RANKING
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.readouts.scoring import fit_numbers
from m6rec.tasks.examples import TaskExamples, task_examples
from m6rec.tasks.task import named, texts
from m6rec.text.batch import Example, pack, pad, size
from m6rec.training import fit

SIZES = (0, 16, 64, 80, 256, 400, 1_000, 10_000)
DRAWS = 8
"""Of the examples, for methods that take seconds; the others have one for each seed."""
HERE = Path("runs/bench/evidence")
ANOTHER = "ml1m_collm"
MOVED, CORRECTED = f"{OURS}, tuned on {ANOTHER} before", f"{OURS}, tuned on {ANOTHER} before, corrected"
MLP, MOVED_MLP = "MLP, same statistics", f"MLP, same statistics, tuned on {ANOTHER} before, corrected"
FEW = (16, 64, 256)
STEPS = 120
"""Of a tuning on few examples, at least; each epoch sees all of them."""
PRIOR = 100.0
"""Of the correction: the inverse variance of a weight, with statistics of unit spread."""
Floats = NDArray[np.floating[Any]]


class Cells:
    """Values by method, number of examples (or another column) and draw; what is known is not measured again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.values: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text()) if path.is_file() else {}

    def measure(self, method: str, count: int | str, draw: int, run: Callable[[], float]) -> None:
        """Keeps what ``run`` returns, unless it is known."""
        cells = self.values.setdefault(method, {}).setdefault(f"{count}", {})
        if f"{draw}" not in cells:
            cells[f"{draw}"] = run()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(self.values, indent=1))
            os.replace(partial, self._path)

    def means(self, count: int) -> dict[str, float]:
        """By method, over the draws."""
        return {
            method: float(np.mean([*by[f"{count}"].values()])) for method, by in self.values.items() if f"{count}" in by
        }


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    kind = "quick" if setup.quick else "full"
    made = sets.movielens_100k()
    questions = task_examples(named("like"), made.split, made.domain)
    config = TaskModelConfig(task="like", domain="movielens", foundation=DEFAULT_FOUNDATION)
    first = ScoreModel.create(config, load(DEFAULT_FOUNDATION), assets.home() / "states")
    starts = [HERE / kind / ANOTHER / f"{seed}" for seed in setup.seeds]
    starts = [start for start in starts if start.is_dir()]
    cells = Cells(HERE / kind / "samples.json")
    sizes = (0, *FEW[:2]) if setup.quick else SIZES
    known = _known(questions, first, starts) if starts else {}
    for count in sizes:
        for draw in range(len(setup.seeds) if setup.quick else DRAWS):
            chosen = np.random.default_rng(draw).permutation(len(questions.labels(TRAIN)))[:count]
            _cheap(cells, questions, known, np.sort(chosen), draw)
        for seed in setup.seeds:
            _tuned(cells, questions, first, starts[:1], count, seed)
    column = f"{max(sizes)}"
    table = Table(
        title="Likes, MovieLens-100k: test AUC by the number of examples",
        metric=column,
        rows=tuple(
            Row(method=method, metrics={size: tuple(by_size[size].values()) for size in sorted(by_size, key=int)})
            for method, by_size in cells.values.items()
            if column in by_size
        ),
        ours=OURS,
        note=f"{len(questions.labels(TEST))} test questions; {DRAWS} draws of the examples, {len(setup.seeds)} where "
        f"all parameters are tuned. What was moved comes from {len(starts)} tunings in turns, where it is corrected.",
    )
    claims: Claims = []
    for count in FEW:
        if count in sizes:
            means = cells.means(count)
            ours = max(value for method, value in means.items() if method.startswith(OURS))
            fresh = max(value for method, value in means.items() if not method.startswith(OURS) and method != MOVED_MLP)
            claims.append((f"{count} examples: lead in AUC over the best peer", ours - fresh, ">", 0))
            if MOVED_MLP in means:
                claims.append((f"{count} examples: … over the moved MLP", ours - means[MOVED_MLP], ">", 0))
    return {"seed": list(setup.seeds), "tables": (table,)}, claims


def _known(
    questions: TaskExamples, first: ScoreModel, starts: Sequence[Path]
) -> dict[str, list[tuple[Floats, Floats]]]:
    """Of what was moved, by method and start: logits of the training and of the test questions, without an example."""
    there = sets.ml1m_collm(research(ANOTHER))
    asked = task_examples(named("like"), there.split, there.domain)
    before = asked.features(TRAIN)
    here = questions.features(TRAIN)
    found: dict[str, list[tuple[Floats, Floats]]] = {CORRECTED: [], MOVED_MLP: []}
    for seed, start in enumerate(starts):
        one = _started(start, first, seed)
        assert one.adapter.base is not None
        one.adapter.base.network.fit(torch.from_numpy(here))
        found[CORRECTED].append((_logits(one.scores(questions.rows[TRAIN])), _logits(one.scores(questions.rows[TEST]))))
        network = baselines.fit_mlp(normed(before, before), asked.labels(TRAIN), seed=seed)
        found[MOVED_MLP].append(
            (_logits(network(normed(here, here))), _logits(network(normed(questions.features(TEST), here))))
        )
    return found


def _cheap(
    cells: Cells,
    questions: TaskExamples,
    known: dict[str, list[tuple[Floats, Floats]]],
    chosen: NDArray[np.int64],
    draw: int,
) -> None:
    """What takes seconds, on the training questions of these numbers."""
    labels, test, every = questions.labels(TEST), questions.features(TEST), questions.features(TRAIN)
    x, y, count = every[chosen], questions.labels(TRAIN)[chosen], len(chosen)
    for method, by_start in known.items():
        train, answers = by_start[draw % len(by_start)]
        weights = correction(normed(x, every), y, train[chosen])
        cells.measure(
            method, count, draw, lambda a=answers, w=weights: auc(labels, a + corrected(normed(test, every), w))
        )
    if len(set(y.tolist())) < 2:
        return
    line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    name = "logistic regression, same statistics"
    cells.measure(name, count, draw, lambda: auc(labels, line.fit(x, y).predict_proba(test)[:, 1]))
    cells.measure(MLP, count, draw, lambda: auc(labels, baselines.fit_mlp(x, y, seed=draw)(test)))
    half = count // 2
    if count >= FEW[1]:  # half of them choose among its trials
        order = np.random.default_rng(draw).permutation(count)
        a, b = order[:half], order[half:]
        cells.measure(
            "LightGBM, same statistics",
            count,
            draw,
            lambda: auc(labels, baselines.fit_lightgbm(x[a], y[a], x[b], y[b], seed=draw).model(test)),
        )


def _tuned(
    cells: Cells, questions: TaskExamples, first: ScoreModel, starts: Sequence[Path], count: int, seed: int
) -> None:
    """Ours with all its parameters tuned, fresh and moved."""

    def run(start: Path | None) -> float:
        one = _started(start, first, seed)
        if count:
            rows = drawn(questions.rows[TRAIN], count, seed)
            _tune(one, rows, first.cache.fetch(texts(rows)), seed, fresh=start is None)
        return auc(questions.labels(TEST), one.scores(questions.rows[TEST]))

    for method, start in [*([(OURS, None)] if count else []), *((MOVED, start) for start in starts)]:
        cells.measure(method, count, seed, lambda start=start: run(start))


def correction(x_NF: Floats, liked_N: NDArray[np.int64], logits_N: Floats) -> Floats:
    """The weights, the last of them a bias, of what is added to the logits: the likeliest under ``PRIOR`` (Newton)."""
    x_NF = np.c_[x_NF, np.ones(len(x_NF))]
    weights_F = np.zeros(x_NF.shape[1])
    for _ in range(20):
        p_N = 1 / (1 + np.exp(-(logits_N + x_NF @ weights_F)))
        gradient_F = x_NF.T @ (p_N - liked_N) + PRIOR * weights_F
        curvature_FF = (x_NF * (p_N * (1 - p_N))[:, None]).T @ x_NF + PRIOR * np.eye(len(weights_F))
        weights_F = weights_F - np.linalg.solve(curvature_FF, gradient_F)
    return weights_F


def corrected(x_NF: Floats, weights_F: Floats) -> Floats:
    """What the weights of ``correction`` add."""
    return x_NF @ weights_F[:-1] + weights_F[-1]


def normed(x_NF: Floats, like_NF: Floats) -> Floats:
    """By the mean and spread of ``like_NF``."""
    return (x_NF - like_NF.mean(0)) / (like_NF.std(0) + 1e-6)


def _logits(p_N: Floats) -> Floats:
    return np.log(p_N / (1 - p_N))


def drawn(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    """The rows with ``count`` of their questions, drawn at random."""
    total = sum(len(row.labels) for row in rows)
    keep = np.zeros(total, np.bool_)
    keep[np.random.default_rng(seed).permutation(total)[:count]] = True
    parts = np.split(keep, np.cumsum([len(row.labels) for row in rows])[:-1])
    return [row.only(part) for row, part in zip(rows, parts, strict=True) if part.any()]


def _started(start: Path | None, first: ScoreModel, seed: int) -> ScoreModel:
    """Ours, fresh or as it was tuned elsewhere."""
    if start is None:
        return ScoreModel.create(first.config, first.foundation, cache=first.cache, seed=seed)
    return ScoreModel(first.config, first.foundation, ScoreModel.load(start, first.foundation).adapter, first.cache)


def _tune(one: ScoreModel, rows: Sequence[Example], states: Any, seed: int, *, fresh: bool) -> None:
    """Trains on all the rows; what was tuned elsewhere keeps its base and takes smaller steps."""
    if fresh:
        fit_numbers(one.adapter, rows, rows)
    groups = pack([size(row, states.length) for row in rows], RANKING.batch_tokens)
    batches = [pad([rows[number] for number in group], states.places) for group in groups]
    epochs = max(RANKING.epochs, math.ceil(STEPS / len(batches)))
    rate = RANKING.learning_rate / (1 if fresh else 10)
    config = replace(RANKING, epochs=epochs, learning_rate=rate, seed=seed)
    fit(one.adapter, batches, lambda batch: one.loss(batch, states), config)
