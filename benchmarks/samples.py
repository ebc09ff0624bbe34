"""How many examples a method needs: likes of MovieLens by as many training questions as named, drawn at random.

All methods read the same statistics, which count everything that happened before a question; what is scarce is
questions with their answers. Ours starts twice: fresh, and from its tuning on another log (``ml1m_collm``), as one
foundation serves many shops. Steps and rates are fixed beforehand, as few examples leave none to choose by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.setup import Claims, Setup
from m6rec import assets, baselines, tuned
from m6rec.demo import LIKE, OURS
from m6rec.domains import prepared
from m6rec.evaluate import ask_all
from m6rec.foundation.checkpoint import DEFAULT, load
from m6rec.metrics import auc
from m6rec.report import Row, Table
from m6rec.tasks.task import named, texts
from m6rec.text.batch import Row as Asked
from m6rec.text.batch import pack, pad, size
from m6rec.text.log import TEST, TRAIN
from m6rec.train import TRAINING_TOKENS, fit
from m6rec.tuned import Tuned, TunedConfig

SIZES = (0, 16, 64, 256, 1_000, 10_000)
ANOTHER = Path("runs/bench/evidence/full/ml1m_collm/0")
MOVED = f"{OURS}, tuned on ml1m_collm before"
STEPS = 120
"""Of a tuning on few examples, at least; each epoch sees all of them."""


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made = prepared.prepare("movielens", "time", Path("runs/bench/evidence/movielens"))
    questions = ask_all(named("like"), made.split, made.domain)
    foundation, labels = load(DEFAULT), questions.answers(TEST)
    config = TunedConfig(task="like", domain="movielens", foundation=DEFAULT)
    first = tuned.create(config, foundation, assets.home() / "states")
    states = first.cache.fetch([*texts(questions.rows[TRAIN]), *texts(questions.rows[TEST])])
    found: dict[str, dict[str, list[float]]] = {}
    sizes, seeds = SIZES[1:3] if setup.quick else SIZES, setup.seeds

    def note(method: str, count: int, scores: NDArray[np.floating[Any]]) -> None:
        found.setdefault(method, {}).setdefault(f"{count}", []).append(auc(labels, scores))

    signals = questions.signals(TEST)
    for count in sizes:
        for seed in seeds:
            rows = drawn(questions.rows[TRAIN], count, seed)
            starts = [(MOVED, ANOTHER)] if ANOTHER.is_dir() else []
            for method, start in [*([(OURS, None)] if count else []), *starts]:
                one = _started(start, first, seed)
                if count:
                    _tune(one, rows, states, seed, fresh=start is None)
                note(method, count, one.scores(questions.rows[TEST]))
            if not count:
                continue
            x, y = (np.concatenate([getattr(row, of) for row in rows]) for of in ("signals", "answers"))
            if len(set(y.tolist())) < 2:
                continue
            line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)).fit(x, y)
            note("logistic regression, same statistics", count, line.predict_proba(signals)[:, 1])
            note("MLP, same statistics", count, baselines.fit_mlp(x, y, seed=seed)(signals))
            half = len(y) // 2
            if count >= 64:  # half of them choose among its trials
                forest = baselines.fit_lightgbm(x[:half], y[:half], x[half:], y[half:], seed=seed).model
                note("LightGBM, same statistics", count, forest(signals))
    column = f"{max(sizes)}"
    table = Table(
        title="Likes, MovieLens-100k: test AUC by the number of examples",
        metric=column,
        rows=tuple(
            Row(method=method, metrics={size: tuple(values) for size, values in by_size.items()})
            for method, by_size in found.items()
        ),
        ours=OURS,
        note=f"{len(labels)} test questions; {len(seeds)} draws of the examples.",
    )
    claims: Claims = []
    for count in (16, 64, 256):
        if count in sizes:
            means = {method: float(np.mean(by[f"{count}"])) for method, by in found.items() if f"{count}" in by}
            ours = max(value for method, value in means.items() if method in (OURS, MOVED))
            peer = max(value for method, value in means.items() if method not in (OURS, MOVED))
            claims.append((f"{count} examples: lead in AUC over the best peer", ours - peer, ">", 0))
    return {"seed": list(seeds), "tables": (table,)}, claims


def drawn(rows: Sequence[Asked], count: int, seed: int) -> list[Asked]:
    """The rows with ``count`` of their questions, drawn at random."""
    total = sum(len(row.answers) for row in rows)
    keep = np.zeros(total, np.bool_)
    keep[np.random.default_rng(seed).permutation(total)[:count]] = True
    parts = np.split(keep, np.cumsum([len(row.answers) for row in rows])[:-1])
    return [row.only(part) for row, part in zip(rows, parts, strict=True) if part.any()]


def _started(start: Path | None, first: Tuned, seed: int) -> Tuned:
    """Ours, fresh or as it was tuned elsewhere."""
    if start is None:
        return tuned.create(first.config, first.foundation, cache=first.cache, seed=seed)
    return Tuned(first.config, first.foundation, tuned.load(start, first.foundation).tuning, first.cache)


def _tune(one: Tuned, rows: Sequence[Asked], states: Any, seed: int, *, fresh: bool) -> None:
    """Trains on all the rows; what was tuned elsewhere keeps the scale of its numbers and takes smaller steps."""
    assert one.tuning.signals is not None
    assert one.tuning.traces is not None
    if fresh:
        one.tuning.signals.fit(torch.from_numpy(np.concatenate([row.signals for row in rows])))
        one.tuning.traces.fit(torch.from_numpy(np.concatenate([row.traces for row in rows])))
    groups = pack([size(row, states.length) for row in rows], TRAINING_TOKENS)
    batches = [pad([rows[number] for number in group], states.places) for group in groups]
    epochs = max(LIKE.epochs, math.ceil(STEPS / len(batches)))
    rate = LIKE.learning_rate / (1 if fresh else 10)
    config = replace(LIKE, epochs=epochs, learning_rate=rate, seed=seed)
    fit(one.tuning, batches, lambda batch: one.loss(batch, states), config)
