"""Retrieve and rank from ten thousand items to a million.

Vectors and users are those of ``benchmarks.vectors``, in clusters. A request searches them for 100 items, and then
ranks 100 real items of the log with the model.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks import vectors as made_up
from benchmarks.setup import Claims, Setup, rss_mib
from m6rec.retrieval.index import Index

SIZES = (10_000, 100_000, 1_000_000)
NUM_RANKED, NUM_USERS = 100, 50


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    recommender, _, made, _ = setup.recommender()
    log = made.split.log
    ids = list(log.items)
    rng = np.random.default_rng(0)
    users = list(log.users)
    for user in users[:NUM_USERS]:  # their histories are read before anything is timed, as those of a busy service are
        recommender.rank(user, ids)
    width = recommender.width
    results: dict[str, Any] = {}
    for size in SIZES:
        vectors, _ = made_up.clustered(size, width)
        queries = made_up.users(vectors, NUM_USERS)
        before, start = rss_mib(), time.perf_counter()
        index = Index(width)
        index.put([f"{number}" for number in range(size)], vectors)
        built, grown = time.perf_counter() - start, rss_mib() - before
        searches, whole = [], []
        for number in range(50 if setup.quick else 200):
            seen = [f"{n}" for n in rng.integers(0, size, 200)]
            begin = time.perf_counter()
            index.search(queries[number % NUM_USERS], NUM_RANKED, without=seen)
            found = time.perf_counter()
            recommender.rank(users[number % NUM_USERS], [ids[n] for n in rng.integers(0, len(ids), NUM_RANKED)])
            searches.append(1_000 * (found - begin))
            whole.append(1_000 * (time.perf_counter() - begin))
        start = time.perf_counter()
        index.put(["new"], vectors[:1])
        index.remove(["new"])
        results[f"{size} items"] = {
            "build_s": built,
            "bytes_an_item": grown * 2**20 / size,
            "search_p50_ms": float(np.median(searches)),
            "retrieve_and_rank_p50_ms": float(np.median(whole)),
            "retrieve_and_rank_p99_ms": float(np.quantile(whole, 0.99)),
            "add_and_remove_ms": 1_000 * (time.perf_counter() - start),
        }
        del index, vectors
    million = results[f"{SIZES[-1]} items"]["retrieve_and_rank_p50_ms"]
    growth = million / results[f"{SIZES[0]} items"]["retrieve_and_rank_p50_ms"]
    results["times the cost, from 10 k to 1 M items"] = growth
    return {"results": results}, [("1 000 000 items: retrieve and rank, p50 in ms", million, "<=", 50)]
