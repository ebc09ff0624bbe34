"""One index of a million item vectors: what it finds, what a search takes with and without filters, what it costs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import parts
from benchmarks import vectors as made_up
from benchmarks.item_vectors import load
from benchmarks.setup import Claims, Setup, rss_mib
from m6rec.predicate import ALL, Attributes, Predicate
from m6rec.retrieval.embeddings import Embeddings
from m6rec.retrieval.index import Index

WIDTH, MANY, FEW = 256, 1_000_000, 120_000
NUM_FOUND, NUM_USERS, NUM_SEEN = 100, 100, 200
SHARES = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}
AVAILABLE = {"available": (1.0, 1.0)}
PREDICATES = {
    "no filter": ALL,
    "available": Predicate(ranges=AVAILABLE),
    **{f"a category of a {name}": Predicate(any_of=(name,)) for name in SHARES},
    "a category of like vectors, available": Predicate(any_of=("like 3",), ranges=AVAILABLE),
    "three such": Predicate(any_of=("like 1", "like 5", "like 9")),
    "all but one such": Predicate(none_of=("like 3",)),
}


def attributes(num: int, like_I: NDArray[np.int64]) -> list[Attributes]:
    """Categories of random items, by share, and one of twenty of like vectors; nine of ten items are available."""
    rng = np.random.default_rng(5)
    drawn_I, available_I = rng.random(num).tolist(), (rng.random(num) < 0.9).tolist()
    return [
        Attributes(
            (*(name for name, share in SHARES.items() if drawn < share), f"like {like % 20}"),
            {"available": float(available)},
        )
        for drawn, available, like in zip(drawn_I, available_I, like_I.tolist(), strict=True)
    ]


def measure(vectors_IE: made_up.Floats, like_I: NDArray[np.int64]) -> dict[str, Any]:
    """What one index of the vectors comes to."""
    num, rng = len(vectors_IE), np.random.default_rng(6)
    ids, found_by = [f"{number}" for number in range(num)], attributes(num, like_I)
    before, start = rss_mib(), time.perf_counter()
    index = Index(WIDTH)
    index.put(ids, vectors_IE, found_by)
    result: dict[str, Any] = {
        "build_s": time.perf_counter() - start,
        "bytes_an_item": 2**20 * (rss_mib() - before) / num,
    }
    queries = made_up.users(vectors_IE, NUM_USERS)
    seen = [[f"{number}" for number in rng.integers(0, num, NUM_SEEN)] for _ in range(NUM_USERS)]
    for name, where in PREDICATES.items():
        parts.tell(f"{num} vectors: {name}")
        row_N = np.array([row for row, one in enumerate(found_by) if where.admits(one)])
        left_NE = vectors_IE if len(row_N) == num else vectors_IE[row_N]
        shares, seconds = [], []
        for query_E, met in zip(queries, seen, strict=True):
            begin = time.perf_counter()
            found = index.search(query_E, NUM_FOUND, where=where, without=met)
            seconds.append(time.perf_counter() - begin)
            many = min(NUM_FOUND + NUM_SEEN, len(row_N))
            nearest = row_N[np.argpartition(-(left_NE @ query_E), many - 1)[:many]]
            product_N = vectors_IE[nearest] @ query_E
            left = [f"{row}" for row in nearest[np.argsort(-product_N)].tolist()]
            best = [item for item in left if item not in set(met)][:NUM_FOUND]
            shares.append(len(dict(found).keys() & set(best)) / len(best))
        result[name] = {
            "share_of_items": len(row_N) / num,
            f"recall@{NUM_FOUND}": float(np.mean(shares)),
            "p50_ms": 1_000 * float(np.median(seconds)),
            "p99_ms": 1_000 * float(np.quantile(seconds, 0.99)),
        }
    start = time.perf_counter()
    index.put(["1", "new"], vectors_IE[:2])
    index.remove(["new"])
    result["replace, add and remove_ms"] = 1_000 * (time.perf_counter() - start)
    start = time.perf_counter()
    kept, arrays = index.arrays()
    Index.of(WIDTH, kept, arrays, found_by)
    result["snapshot and back_s"] = time.perf_counter() - start
    return result


def index(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module. Vectors without any likeness are measured, but nothing is claimed of them."""
    num = FEW if setup.quick else MANY
    results = {"clustered": measure(*made_up.clustered(num, WIDTH))}
    if not setup.quick:
        toys = load("amazon_toys")
        titles_TE = Embeddings.untrained(toys.states_ID, WIDTH, 1.0).item_vectors(toys.ids, toys.states_ID)
        results["around whitened states of titles"] = measure(*made_up.around(titles_TE, num))
        results["noise"] = measure(made_up.noise(num, WIDTH), np.arange(num))
    claims: Claims = []
    for kind, measured in results.items():
        for name in PREDICATES if kind != "noise" else ():
            told = measured[name]
            claims.append((f"{num} {kind}, {name}: recall@{NUM_FOUND}", told[f"recall@{NUM_FOUND}"], ">=", 0.98))
            claims.append((f"{num} {kind}, {name}: p50 in ms", told["p50_ms"], "<=", 10))
    return {"results": results}, claims
