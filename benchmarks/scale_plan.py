"""What `m6rec plan` says of a small load, four and sixteen times as much, beside what is measured."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from benchmarks import parts
from benchmarks.scale_recommend import COUNT, EVENTS, WEIGHTS, synthetic
from benchmarks.setup import Claims, Setup
from m6rec.foundation.checkpoint import load
from m6rec.scale import measuring, planning
from m6rec.scale.planning import Assumptions, Load
from m6rec.scale.recommending import RecommendConfig, RecommendJob
from m6rec.serving import pipeline
from m6rec.serving.backend import NUM_RETRIEVED, Request
from m6rec.serving.journal import FileJournal

FACTORS = (1, 4, 16)
NUM, QUICK_NUM, HISTORY = 6_250, 1_250, 12
REQUESTS = 40
WITHIN = 0.2


def plan(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    torch.set_num_threads(1)
    foundation, num = load(), QUICK_NUM if setup.quick else NUM
    shape = measuring.shape_of(foundation.model.config)
    with threadpool_limits(1):
        parts.tell("rates")
        rates = measuring.measure(foundation)
        compared = {}
        for factor in FACTORS:
            parts.tell(f"{factor} x {num} users and items")
            compared[f"{factor} x"] = {
                **_of_size(num * factor, rates),
                **_of_history(foundation, HISTORY * factor, shape, rates),
            }
    results = {"rates": asdict(rates), "compared": compared}
    claims: Claims = [
        (f"{factor}: error of the plan, {name}", abs(one["planned"] / one["measured"] - 1), "<=", WITHIN)
        for factor, of in compared.items()
        for name, one in of.items()
    ]
    return results, claims


def _of_size(num: int, rates: planning.Rates) -> dict[str, dict[str, float]]:
    state, held = synthetic(num), measuring.in_fresh_process(_held, num)
    load_ = Load(users=num, items=num, qps=1, history=EVENTS, assumed=Assumptions(weights=WEIGHTS))
    asked = [(Request(user=user), NUM_RETRIEVED) for user in list(state.users)[:REQUESTS]]
    pipeline.retrieve(state, asked[:1])
    seconds = [_timed(lambda one=one: pipeline.retrieve(state, [one])) for one in asked]
    job = RecommendJob(state, RecommendConfig(count=COUNT, users=2 * state_block(num)))
    job.partition(0)
    batch_s = _timed(lambda: job.partition(1)) / len(job.users_of(1))
    with TemporaryDirectory() as folder:
        journal = FileJournal(Path(folder))
        journal.append([*measuring.events_of(num // 10, EVENTS, num)])
        journal.close()
        stored = sum(file.stat().st_size for file in Path(folder).iterdir())
    memory = planning.memory_bytes(load_, rates)
    besides = sum(number for name, number in memory.items() if not name.startswith("pairs"))
    return {
        "bytes in memory besides pairs": {"planned": besides, "measured": held},
        "bytes of the journal": {"planned": num // 10 * EVENTS * rates.journal_bytes, "measured": stored},
        "retrieval, s": {"planned": planning.retrieval_s(num, rates), "measured": median(seconds)},
        "all users, s a user": {"planned": num * rates.batch_s + rates.batch_user_s, "measured": batch_s},
    }


def _held(num: int) -> int:
    """Memory of what is served, but for the table of pairs."""
    synthetic(100)
    before = measuring.resident()
    state = synthetic(num)
    return measuring.resident() - before - state.interactions.pair_bytes


def state_block(num: int) -> int:
    """Users of a block of a job over so many items, at least 64."""
    return max(64, min(256, (1 << 22) // num))


def _of_history(
    foundation: Any, history: int, shape: planning.Shape, rates: planning.Rates
) -> dict[str, dict[str, float]]:
    request = measuring.rank_request(foundation, history, 100)
    request()
    measured = median(_timed(request) for _ in range(REQUESTS))
    return {"ranking, s": {"planned": planning.rank_s(history, 100, shape, rates), "measured": measured}}


def _timed(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
