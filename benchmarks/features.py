"""What features cost on a large log, and what they are worth: a part of ``make bench-retrieval``.

One log alone: ``python -m benchmarks.features EVENTS USERS ITEMS`` prints its costs as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import typer

from benchmarks import parts, sets
from benchmarks.setup import Claims, Setup
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.evaluation import baselines
from m6rec.evaluation.metrics import auc
from m6rec.features.layout import EventColumns, QueryColumns
from m6rec.features.store import FeatureStore
from m6rec.tasks import task as tasks
from m6rec.tasks.examples import task_examples
from tests import running

LARGE, SMALL = (20_000_000, 1_000_000, 200_000), (1_000_000, 50_000, 10_000)
"""(events, users, items) of the full and of the short form."""
BEFORE = {"MLP": 0.7940, "LightGBM": 0.7921}
"""Test AUC by the scans over viewers that these features replaced (commit 8167fed): three seeds, one seed."""
TRIALS = 6
"""Of LightGBM's settings, chosen on validation."""
BATCH = 1_000_000
CANDIDATES = 100
NUM_ASKED = 1_000


def synthetic(num_events: int, num_users: int, num_items: int, *, seed: int = 0) -> EventColumns:
    """A log whose users and items are of Zipf's popularity (exponents 0.5 and 0.9), ratings at random."""
    rng = np.random.default_rng(seed)

    def zipf(count: int, exponent: float) -> Any:
        share = np.cumsum(1 / np.arange(1, count + 1) ** exponent)
        return np.searchsorted(share / share[-1], rng.random(num_events)).clip(max=count - 1)

    users, items, stars = zipf(num_users, 0.5), zipf(num_items, 0.9), rng.integers(1, 6, num_events)
    return EventColumns(users, items, (stars >= 4).astype(np.int64), (stars - 1) / 4, np.arange(num_events))


def costs(num_events: int, num_users: int, num_items: int) -> dict[str, Any]:
    """Time and memory of examples, questions and updates; a question is asked before each event."""
    rng = np.random.default_rng(1)
    events = synthetic(num_events, num_users, num_items)
    log_bytes = sum(column.nbytes for column in events)
    store = FeatureStore()
    store.add_users(num_users)
    store.add_items(num_items)
    for item in range(num_items):
        store.describe(item, [item % 20, 20 + item % 300], {0: float(item % 50)})
    store.scale()
    nothing = np.zeros(0, np.int64)
    store.update(EventColumns(nothing, nothing, nothing, nothing.astype(np.float64), nothing))  # which compiles
    built = updating = 0.0
    for start in range(0, num_events, BATCH):
        batch = EventColumns(*(column[start : start + BATCH] for column in events))
        # The halves of a batch: examples with their questions, as training has them, and updates alone.
        middle = len(batch.users) // 2
        first, second = (EventColumns(*(column[of] for column in batch)) for of in (slice(middle), slice(middle, None)))
        began = time.perf_counter()
        store.update(first, QueryColumns(np.arange(middle), first.users, first.items))
        built += time.perf_counter() - began
        began = time.perf_counter()
        store.update(second)
        updating += time.perf_counter() - began
    single, asking = [], []
    for _ in range(NUM_ASKED):  # of users as active as events are
        user, items = int(rng.choice(events.users)), rng.choice(events.items, CANDIDATES)
        began = time.perf_counter()
        store.features(user, items)
        asking.append(time.perf_counter() - began)
        event = EventColumns(*(column[-1:] for column in events))._replace(users=np.array([user]))
        began = time.perf_counter()
        store.update(event)
        single.append(time.perf_counter() - began)
    return {
        "events": num_events,
        "users": num_users,
        "items": num_items,
        "examples_per_second": round(num_events / 2 / built),
        "update_us": round(2e6 * updating / num_events, 1),
        "update_alone_us": {"mean": round(1e6 * float(np.mean(single)), 1)},
        "question_ms": {
            "candidates": CANDIDATES,
            "mean": round(1e3 * float(np.mean(asking)), 3),
            **{f"p{p}": round(1e3 * float(np.percentile(asking, p)), 3) for p in (50, 95, 99)},
        },
        "pairs": int(store.total["pairs"]),
        "log_gib": round(log_bytes / 2**30, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def worth(setup: Setup) -> dict[str, Any]:
    """AUC of models on the features alone, MovieLens-100k: valid and test, a number for each seed."""
    made = sets.movielens_100k()
    began = time.perf_counter()
    questions = task_examples(tasks.named("like"), made.split, made.domain)
    seconds = time.perf_counter() - began
    x, y = ({part: of(part) for part in (TRAIN, VALID, TEST)} for of in (questions.features, questions.labels))
    found: dict[str, dict[str, list[float]]] = {name: {"valid": [], "test": []} for name in BEFORE}
    for seed in setup.seeds:
        models = {"MLP": baselines.fit_mlp(x[TRAIN], y[TRAIN], seed=seed)}
        if seed == 0:
            tuned = baselines.fit_lightgbm(x[TRAIN], y[TRAIN], x[VALID], y[VALID], seed=seed, trials=TRIALS)
            models["LightGBM"] = tuned.model
        for name, model in models.items():
            for part, of in ((VALID, "valid"), (TEST, "test")):
                found[name][of].append(round(auc(y[part], model(x[part])), 4))
    return {"auc": found, "before": BEFORE, "ask_all_seconds": round(seconds, 1)}


def features(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Costs on a synthetic log, in a process of its own whose memory is measured, and AUC where both could run."""
    words = [sys.executable, "-m", "benchmarks.features", *map(str, SMALL if setup.quick else LARGE)]
    done = subprocess.run(words, cwd=running.ROOT, capture_output=True, text=True, check=True)
    cost: dict[str, Any] = json.loads(done.stdout)
    parts.tell(f"{cost['examples_per_second']} examples a second")
    value = worth(setup)
    claims = [
        ("features: question of 100 items, p95 ms", cost["question_ms"]["p95"], "<=", 2.0),
        ("features: update, µs", cost["update_us"], "<=", 50.0),
        ("features: update of one event alone, µs", cost["update_alone_us"]["mean"], "<=", 50.0),
        ("features: examples a second on one core", cost["examples_per_second"], ">=", 50_000.0),
        ("features: peak GiB", cost["peak_gib"], "<=", 8.0),
        *(
            (f"features: {name}, test AUC", float(np.mean(value["auc"][name]["test"])), ">=", BEFORE[name])
            for name in BEFORE
        ),
    ]
    return {"seed": list(setup.seeds), "costs": cost, "worth": value}, claims


def main(num_events: int, num_users: int, num_items: int) -> None:
    typer.echo(json.dumps(costs(num_events, num_users, num_items), indent=1))


if __name__ == "__main__":
    typer.run(main)
