"""Candidate sources: how far refits move what is retrieved, and what a large catalogue costs.

- refits: MovieLens-100k in the product's own evaluation, once a seed of vectors and factors, on one thread and on two.
- large: seconds and memory of fitting, and milliseconds a user, for synthetic catalogues.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks import sets
from benchmarks.parts import tell
from benchmarks.setup import Claims, Setup
from m6rec import assets, hooks
from m6rec.data.split import TRAIN, VALID
from m6rec.evaluation.metrics import hit_rate, ndcg
from m6rec.evaluation.retrieval import retrieval_ranks
from m6rec.foundation import checkpoint
from m6rec.readouts import EmbedModel, TaskModelConfig
from m6rec.retrieval.sources import IALS, Likes
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.tasks.task import named

SIZES = (20_000, 50_000, 200_000)
"""Items of synthetic catalogues; the first alone in the short form."""


def refits(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made = sets.movielens_100k()
    examples = EmbedModel.examples(named("retrieve"), made.split, made.domain)
    config = TaskModelConfig(task="retrieve", domain="movielens", foundation=assets.DEFAULT_FOUNDATION)
    foundation = checkpoint.load(assets.DEFAULT_FOUNDATION)
    found = []
    for seed in setup.seeds:
        for threads in (1, 2):
            tell(f"MovieLens-100k, seed {seed}, {threads} threads")
            hooks.SOURCES.registered["ials"] = IALS(seed=seed)
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                one = EmbedModel.create(config, foundation, assets.home() / "states")
                one.tune(examples[TRAIN], examples[VALID], EmbeddingConfig(seed=seed))
                ranks = retrieval_ranks(examples, one.retriever(examples))
            assert one.blend is not None
            figures = {"seed": seed, "threads": threads, "NDCG@10": ndcg(ranks, 10), "HitRate@10": hit_rate(ranks, 10)}
            found.append(figures | dict(one.blend.weights))
    del hooks.SOURCES.registered["ials"]
    values = np.array([one["NDCG@10"] for one in found])
    return {"refits": found}, [
        ("MovieLens-100k: the least NDCG@10 of the refits", float(values.min()), ">=", 0.1225),
        ("… the greatest over the least", float(values.max() / values.min()), "<=", 1.02),
    ]


def large(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    results: dict[str, Any] = {}
    for size in SIZES[: 1 if setup.quick else None]:
        tell(f"{size} items")
        command = [sys.executable, "-m", "benchmarks.retrieval_sources", str(size)]
        results[f"{size} items"] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    most = results[f"{size} items"]
    return {"results": results}, [
        (
            f"{size} items: seconds to fit all sources",
            sum(most[name]["fit_s"] for name in hooks.SOURCES.names()),
            "<=",
            1_800,
        ),
        (f"{size} items: GiB at most", most["peak_gib"], "<=", 8),
        (
            f"{size} items: milliseconds a user, all sources",
            sum(most[name]["user_ms"] for name in hooks.SOURCES.names()),
            "<=",
            50,
        ),
    ]


def _costs(num_items: int) -> dict[str, Any]:
    """Of fitting each source on a synthetic log of 25 likes an item, and of scoring all items for a user."""
    likes = _synthetic(num_items)
    found: dict[str, Any] = {"likes": len(likes.row_L), "users": len(likes.sequences)}
    for name, source in hooks.SOURCES.all().items():
        start = time.perf_counter()
        arrays = source.fit(likes)
        fitted = time.perf_counter()
        users = [row[::-1] for row in likes.sequences[:100]]
        for rows in users:
            source.scores(arrays, [rows])
        found[name] = {
            "fit_s": fitted - start,
            "user_ms": 1_000 * (time.perf_counter() - fitted) / len(users),
            "kept_mib": sum(array.nbytes for array in arrays.values()) / 2**20,
        }
    return found | {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def _synthetic(num_items: int) -> Likes:
    """Users of ten likes on average, seven in ten of one kind of 200 items, the others of any; some far more liked."""
    random = np.random.default_rng(0)
    num_users, kinds = 5 * num_items // 2, num_items // 200
    size_U = np.minimum(random.geometric(0.1, num_users) + 1, 200)
    kind_L = np.repeat(random.integers(kinds, size=num_users), size_U)
    own_L = random.random(len(kind_L)) < 0.7
    within_L = np.minimum(30 * random.pareto(1.2, len(kind_L)), 1e9).astype(np.int64) % 200
    any_L = np.minimum(num_items / 200 * random.pareto(0.8, len(kind_L)), 1e15).astype(np.int64) % num_items
    row_L = np.where(own_L, kind_L + kinds * within_L, any_L)
    sequences = [np.array(list(dict.fromkeys(row.tolist()))) for row in np.split(row_L, size_U.cumsum()[:-1])]
    return Likes(sequences=sequences, num_items=num_items, vectors_IE=np.zeros((num_items, 0), np.float32))


if __name__ == "__main__":
    print(json.dumps(_costs(int(sys.argv[1]))))
