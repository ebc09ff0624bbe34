"""Any real log: ``make bench-data`` writes ``benchmarks/results/data.json``, ``QUICK=1`` a short form into ``runs``.

One part alone: ``python -m benchmarks.data --part implicit``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import polars as pl
import typer

from benchmarks import durability, logs, parts
from benchmarks.data_scale import scale
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.types import Item
from tests import running
from tests.shop import command

TITLE = "Any real log"
MANY = 20_000_000
QUICK_KINDS = ("small",)


@contextmanager
def empty_folder() -> Iterator[Path]:
    """An empty folder to work in, as a newcomer does; states are kept with it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def m6rec(folder: Path, *words: str) -> dict[str, Any]:
    """What a command that prints JSON says, run as a process of its own; its seconds under ``seconds``."""
    environment = {**os.environ, "M6REC_HOME": str(assets.home()), "PYTHONPATH": str(running.ROOT)}
    start = time.perf_counter()
    done = subprocess.run(command(*words), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"m6rec {' '.join(words)} ended with {done.returncode}: {done.stderr[-800:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return {**told, "seconds": round(time.perf_counter() - start, 1)}


def means(told: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """The mean of each metric, by table and method."""
    return {
        title: {
            method: {metric: float(np.mean(values)) for metric, values in metrics.items() if values}
            for method, metrics in rows.items()
        }
        for title, rows in told["tables"].items()
    }


def impressions(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """B1: labels of impressions that are random by construction, which nothing may tell; in MIND's own format."""
    rng = np.random.default_rng(0)
    num, clicks, shown = (10_000 if setup.quick else 24_000), [], []
    with empty_folder() as folder:
        news = [f"n{n}\tnews\tworld\tStory {n} of the day\tMore of it.\t\t\t" for n in range(300)]
        for number in range(num):
            items, clicked = rng.choice(300, 5, replace=False), rng.integers(5)
            when = time.strftime("%m/%d/%Y %I:%M:%S %p", time.gmtime(1_573_000_000 + 60 * number))
            words = " ".join(f"n{item}-{int(place == clicked)}" for place, item in enumerate(items))
            shown.append(f"{number}\tu{rng.integers(200)}\t{when}\t\t{words}")
            clicks.append(clicked)
        (folder / "mind").mkdir()
        (folder / "mind" / "news.tsv").write_text("\n".join(news) + "\n")
        (folder / "mind" / "behaviors.tsv").write_text("\n".join(shown) + "\n")
        told = m6rec(folder, "init", "mind", "mind", "--project", "made", "--json")
    table = next(rows for title, rows in means(told).items() if "AUC" in next(iter(rows.values())))
    aucs = {method: metrics["AUC"] for method, metrics in table.items()}
    worst = max(abs(auc - 0.5) for auc in aucs.values())
    claims: Claims = [("random impressions: greatest distance of an AUC from .5", worst, "<=", 0.02)]
    return {"impressions": num, "AUC": aucs, "seconds": told["seconds"]}, claims


def implicit(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """MovieLens-100k with its values dropped: every rating is an event that happened."""
    folder = assets.get("movielens-100k")
    from m6rec.domains.grouplens import tables

    events, movies, _ = tables(folder)
    with empty_folder() as where:
        events = events.select("user", "item", "timestamp")
        (events.head(15_000) if setup.quick else events).write_csv(where / "events.csv")
        movies.with_columns(pl.col("genres").cast(pl.String)).write_csv(where / "movies.csv")
        told = m6rec(where, "init", "events.csv", "movies.csv", "--project", "made", "--json")
    found = means(told)
    ranking = next(rows for rows in found.values() if "AUC" in next(iter(rows.values())))
    retrieval = next(rows for title, rows in found.items() if title == "Retrieval, all items")
    ranks, retrieves = (next(name for name in rows if name.startswith("m6rec")) for rows in (ranking, retrieval))
    claims: Claims = [
        (
            "ranking among drawn negatives: AUC above popularity",
            ranking[ranks]["AUC"] - ranking["popularity"]["AUC"],
            ">",
            0,
        ),
        (
            "retrieval: NDCG@10 above popularity",
            retrieval[retrieves]["NDCG@10"] - retrieval["popularity"]["NDCG@10"],
            ">",
            0,
        ),
    ]
    return {"means": found, "seconds": told["seconds"]}, claims


def quickstarts(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The seven kinds of logs, in the short form two, each from an empty folder to a recommendation."""
    results: dict[str, Any] = {}
    for kind, write in logs.KINDS.items():
        if setup.quick and kind not in QUICK_KINDS:
            continue
        parts.tell(kind)
        with empty_folder() as folder:
            tables = write(folder)
            told = m6rec(folder, "init", *tables, "--project", "made", "--json")
            recommended = m6rec(folder, "recommend", "--project", "made", "--user", "nobody", "--json")
            results[kind] = {
                "seconds": told["seconds"],
                "not tuned": told["not tuned"],
                "recommended": len(recommended["items"]),
                "means": means(told),
            }
    passed = sum(not result["not tuned"] and result["recommended"] == 10 for result in results.values())
    claims: Claims = [
        ("quick starts that end with recommendations", passed, ">=", len(results)),
        ("seconds of the one of 200 users and 100 items", results["small"]["seconds"], "<=", 180),
    ]
    return {"results": results}, claims


def large(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """A log of 20 million events is prepared."""
    many = MANY // 20 if setup.quick else MANY
    told = scale(many)
    claims: Claims = [
        (f"prepare, {many / 1e6:g} M events: seconds", told["seconds"], "<=", 300),
        (f"prepare, {many / 1e6:g} M events: peak GiB", told["peak_gib"], "<=", 6),
    ]
    return told, claims


def writes(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """What continuous upserts do to the time of a ranking, in a service of the real foundation."""
    seconds = 15 if setup.quick else 60
    with empty_folder() as folder:
        tables = logs.small(folder)
        m6rec(folder, "init", *tables, "--project", "made", "--json")
        environment = {**os.environ, "M6REC_HOME": str(assets.home()), "PYTHONPATH": str(running.ROOT)}
        line = command("serve", "--port", "0", "--project", "made")
        with (
            running.process(line, folder, environment) as (_, url, _),
            httpx.Client(base_url=url, timeout=30) as client,
        ):
            _ranks(client, 3)
            alone = _ranks(client, seconds)
            stop = threading.Event()
            writer = threading.Thread(target=_upsert, args=(url, stop))
            writer.start()
            beside = _ranks(client, seconds)
            stop.set()
            writer.join()
    quiet, busy = (float(np.percentile(times, 99)) for times in (alone, beside))
    result = {"alone p99 ms": quiet, "beside upserts p99 ms": busy, "rankings": [len(alone), len(beside)]}
    return result, [("rank p99 during continuous upserts, times that without", busy / quiet, "<=", 2)]


def _ranks(client: httpx.Client, seconds: float) -> list[float]:
    """Milliseconds of each ranking of 50 items, one after another."""
    found, end = [], time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        body = {"user": str(len(found) % 200), "items": [str(n) for n in range(50)]}
        client.post("/v1/rank", json=body).raise_for_status()
        found.append(1e3 * (time.perf_counter() - start))
        time.sleep(0.01)
    return found


def _upsert(url: str, stop: threading.Event) -> None:
    number = 0
    with httpx.Client(base_url=url, timeout=60) as client:
        while not stop.is_set():
            items = [Item(f"new-{number}-{n}", f"A new story of number {number} and {n}") for n in range(20)]
            bodies = [{"id": item.id, "title": item.title} for item in items]
            client.post("/v1/items", json={"items": bodies}).raise_for_status()
            number += 1


def faults(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The faults of the first version, each with the tests that failed then."""
    found = json.loads((running.ROOT / "benchmarks" / "faults_of_version_1.json").read_text())
    names = sorted({name for tests in found.values() for name in tests})
    words = ["pytest", "-q", "-p", "no:cacheprovider", "--numprocesses", "2", "--dist", "loadfile", *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=running.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    parts.tell(done.stdout.splitlines()[-1])
    broken = [fault for fault, tests in found.items() if not tests]
    claims: Claims = [
        ("faults with a test", len(found) - len(broken), ">=", len(found)),
        ("their tests that fail", done.stdout.count("\nFAILED") + done.stdout.count("\nERROR"), "<=", 0),
    ]
    return {"tests": found, "pytest": done.stdout.splitlines()[-1]}, claims


PARTS: dict[str, parts.Measure] = {
    "faults": faults,
    "impressions": impressions,
    "implicit": implicit,
    "quickstarts": quickstarts,
    "large": large,
    "durability": durability.measure,
    "writes": writes,
}


def main(part: Annotated[str, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = "") -> None:
    """Measures and writes the results."""
    nowhere = Path()
    setup = Setup(run=nowhere, retrieve=nowhere, data=nowhere, quick=bool(os.environ.get("QUICK")))
    parts.measure("data", TITLE, {part: PARTS[part]} if part else PARTS, setup)


if __name__ == "__main__":
    typer.run(main)
