"""The service on a GPU: how exact, how fast, beside full prompts and prefix reuse on the same GPU, weights and words.

- exactness: scores of 100 candidates for each of some users, beside the CPU's, each from states of its own;
- latency of a request, 50 behaviours, 100 and 1 000 candidates, as in ``benchmarks.latency``; what waits for the GPU
  waits in the time measured;
- throughput of many users at once, and of reading segments ahead of time;
- kernels of a request, and how long the GPU works on them: launching them takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.latency import Unsplit, lived, served, timed
from benchmarks.setup import AbsentError, Claims, Setup
from m6rec.foundation.checkpoint import load
from m6rec.foundation.states import CacheConfig, StateCache
from m6rec.readouts import ScoreModel
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.serving.recommender import Recommender
from m6rec.tasks.task import ask, texts
from m6rec.text.batch import Example
from m6rec.types import User

GPU = "cuda"
COUNTS = (100, 1_000)
"""Candidates of a request."""
AT_ONCE = (2_048, 16_384)
"""Tokens of a pass; the first is what cores take."""
NUM_EXACT, NUM_USERS = 20, 400
"""Users whose scores are compared, and who are scored at once."""


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    if not torch.cuda.is_available():
        raise AbsentError("torch sees no GPU")
    times = 30 if setup.quick else 200
    recommender, like, made, past = setup.recommender(GPU)
    log = made.split.log
    items = list(log.items.values())
    user = lived(recommender, past, log)

    def row_of(person: User, count: int) -> Example:
        return ask(like.task, past, person, items[:count], made.domain, dict(log.items))

    rows = {count: row_of(User(user), count) for count in COUNTS}
    latency = _latency(recommender, like, user, [item.id for item in items], rows, times)
    found: dict[str, Any] = {"latency": latency, "launches": _launches(like, user, rows[100])}
    people = [person for person in log.users.values() if past.history(person.id)]
    asked = [row_of(person, 100) for person in people[: 20 if setup.quick else NUM_USERS]]
    found["throughput"] = _throughput(like, asked, 100 / latency["full prompts"]["p50_ms"] * 1_000)
    found["exactness"] = exactness = _exactness(setup, like, asked[: 2 if setup.quick else NUM_EXACT])
    ours = latency["ours, 100 candidates"]["p50_ms"]
    claims: Claims = [
        ("100 candidates: times faster than full prompts", latency["full prompts"]["p50_ms"] / ours, ">=", 30),
        ("100 candidates: times faster than prefix reuse", latency["prefix reuse"]["p50_ms"] / ours, ">=", 5),
        ("1 000 candidates: p50 in ms", latency["ours, 1000 candidates"]["p50_ms"], "<=", 60),
        ("largest difference of a score from fp32 on the CPU", exactness["cpu, float32"]["max"], "<=", 0.02),
    ]
    return found, claims


def _waited(run: Callable[[], Any]) -> Callable[[], None]:
    """The same, until the GPU is done."""

    def waiting() -> None:
        run()
        torch.cuda.synchronize()

    return waiting


def _latency(
    recommender: Recommender, like: ScoreModel, user: str, ids: Sequence[str], rows: Mapping[int, Example], times: int
) -> dict[str, dict[str, float]]:
    results = served(recommender, like, user, rows, ids, lambda run: timed(_waited(run), times))
    unsplit = Unsplit(like.foundation, rows[100], count=100, prompts=25, suffixes=100)
    known_prefix = unsplit.prefix()
    few = max(3, times // 20)
    return results | {
        "prefix reuse": timed(_waited(lambda: unsplit.suffixes(unsplit.prefix())), few),
        "prefix reuse, history known": timed(_waited(lambda: unsplit.suffixes(known_prefix)), few),
        "full prompts": timed(_waited(unsplit.full), few) | {"tokens_of_history": len(unsplit.history)},
    }


def _launches(like: ScoreModel, user: str, row: Example) -> dict[str, float]:
    """Kernels of a request whose history is known, and the milliseconds that they and the copies take."""
    turns = KVCachePool(like)
    turns.predict([(user, row)])
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        turns.predict([(user, row)])
        torch.cuda.synchronize()
    on_gpu = [event for event in profiled.events() if "CUDA" in str(event.device_type)]
    kernels = [event for event in on_gpu if not event.name.startswith(("Memcpy", "Memset"))]
    return {"kernels": len(kernels), "gpu_ms": sum(event.time_range.elapsed_us() for event in on_gpu) / 1_000}


def _throughput(like: ScoreModel, rows: Sequence[Example], prompts_a_second: float) -> dict[str, Any]:
    """Candidates a second of many users, states known; and segments a second that are read ahead of time."""
    candidates = sum(len(row.candidates) for row in rows)
    segments = list(dict.fromkeys(texts(rows)))
    tokens = sum(map(len, like.foundation.tokenizer.encode(segments)))
    found: dict[str, Any] = {"users": len(rows), "candidates": candidates, "segments": len(segments), "tokens": tokens}
    found["full prompts a second"] = prompts_a_second
    for most in AT_ONCE:
        one = copy(like)
        one.cache = _fresh(like, most)
        one.scores(rows)  # so that states are known
        score_s = median(_seconds(partial(one.scores, rows)) for _ in range(3))
        read_s = median(_seconds(partial(_fresh(like, most).fetch, segments)) for _ in range(3))
        found[f"{most} tokens at once"] = {
            "candidates a second": candidates / score_s,
            "segments a second": len(segments) / read_s,
            "tokens read a second": tokens / read_s,
        }
    return found


def _fresh(like: ScoreModel, most: int) -> StateCache:
    """An empty cache in memory that reads so many tokens at once."""
    limits = CacheConfig(batch_tokens=most // like.foundation.model.at_once)
    return StateCache(like.foundation, like.cache.config, limits=limits)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    _waited(run)()
    return time.perf_counter() - start


def _exactness(setup: Setup, like: ScoreModel, rows: Sequence[Example]) -> dict[str, dict[str, float]]:
    """Absolute differences of scores on the GPU in bf16 from those on other devices and in other types."""
    ours = ScoreModel.load(setup.run, like.foundation, StateCache(like.foundation, like.cache.config)).scores(rows)
    found = {}
    for device, dtype in (("cpu", "bfloat16"), ("cpu", "float32"), (GPU, "float32")):
        other = ScoreModel.load(setup.run, load(like.config.foundation, device=device, dtype=dtype))
        gap = np.abs(other.scores(rows) - ours)
        found[f"{device}, {dtype}"] = {"max": float(gap.max()), "mean": float(gap.mean()), "scores": len(gap)}
    return found
