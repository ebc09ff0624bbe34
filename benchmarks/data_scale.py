"""How long it takes to prepare a large log, and how much memory: ``python -m benchmarks.data_scale 20000000``.

A synthetic log as CSV (user, item, time, value, kind) is prepared by the command line in a process of its own, whose
seconds and peak memory are measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

_CHUNK = 2_000_000
_KINDS = ("view", "cart", "purchase")


def write_log(path: Path, num_events: int, *, seed: int = 0) -> None:
    """A log of a shop: users and items of Zipf's popularity, times in seconds that grow with some disorder."""
    rng = np.random.default_rng(seed)
    users, items = max(10, num_events // 20), max(10, min(200_000, num_events // 100))
    with path.open("wb") as file:
        for start in range(0, num_events, _CHUNK):
            size = min(_CHUNK, num_events - start)
            at = 1_600_000_000 + (start + np.arange(size)) * 100_000_000 // num_events + rng.integers(0, 3_600, size)
            frame = pl.DataFrame(
                {
                    "user_id": rng.integers(0, users, size),
                    "item_id": (items * rng.random(size) ** 2).astype(np.int64),
                    "timestamp": at,
                    "rating": rng.integers(1, 6, size),
                    "event_type": pl.Series(rng.integers(0, len(_KINDS), size)).replace_strict(
                        dict(enumerate(_KINDS)), return_dtype=pl.String
                    ),
                }
            ).with_columns(pl.format("u{}", "user_id").alias("user_id"), pl.format("i{}", "item_id").alias("item_id"))
            frame.write_csv(file, include_header=start == 0)


def scale(num_events: int, *, seed: int = 0, cores: int = 2) -> dict[str, Any]:
    """Prepares a synthetic log.

    Args:
        num_events: Rows of the log.
        seed: Of the log.
        cores: Threads that Polars and Arrow may use.

    Returns:
        ``events``, ``kept`` after duplicates, ``megabytes`` of the file, ``seconds`` and ``peak_gib`` of the process.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.csv"
        write_log(log, num_events, seed=seed)
        words = ["prepare", str(log), "--out", str(Path(folder) / "data"), "--json"]
        limits = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS"), str(cores))
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", "from m6rec.cli import main; main()", *words],
            stdout=(Path(folder) / "card.json").open("wb"), stderr=subprocess.DEVNULL, env={**os.environ, **limits},
        )  # fmt: skip
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            raise RuntimeError(f"prepare ended with status {os.waitstatus_to_exitcode(status)}")
        card = json.loads((Path(folder) / "card.json").read_text())
        return {
            "events": num_events,
            "kept": card["events"],
            "megabytes": round(log.stat().st_size / 1e6),
            "seconds": round(seconds, 1),
            "peak_gib": round(used.ru_maxrss / 2**20, 2),
        }


if __name__ == "__main__":
    print(json.dumps(scale(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000_000), indent=1))
