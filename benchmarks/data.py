"""``m6rec`` as a newcomer runs it, in an empty folder; and impressions that nothing may tell apart."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.setup import Claims, Setup
from m6rec import assets
from tests import running
from tests.shop import command


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
    """Labels of impressions that are random by construction, which nothing may tell; in MIND's own format."""
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
