"""The service on a GPU: how exact, how fast, beside full prompts and prefix reuse on the same GPU, weights and words.

- exactness: scores of 100 candidates for each of some users, beside the CPU's, each from states of its own;
- latency of a request, 50 behaviours, 100 and 1 000 candidates, as in ``benchmarks.latency``; what waits for the GPU
  waits in the time measured;
- throughput of many users at once, and of reading segments ahead of time, by how many tokens a pass takes;
- the floor: operations of our upper layers over the rate of a large product here, or the bytes of their weights and
  states over the rate of a large copy here, whichever takes longer. A request is some hundred small kernels, so their
  launches take longer than either: how many, how long the GPU works on them, and what a CUDA graph of the upper layers
  takes, which launches them at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.latency import NUM_EVENTS, Unsplit, flop, lived, served, timed, upper_products
from benchmarks.parts import tell
from benchmarks.setup import Claims, Setup
from m6rec.foundation.attention import CachedQuery
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
AT_ONCE = (2_048, 16_384, 65_536)
"""Tokens of a pass; the first is what cores take."""
NUM_EXACT, NUM_USERS = 20, 400
"""Users whose scores are compared, and who are scored at once."""


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    times = 30 if setup.quick else 200
    recommender, like, made, past = setup.recommender(GPU)
    log = made.split.log
    items = list(log.items.values())
    user = lived(recommender, past, log)

    def row_of(person: User, count: int) -> Example:
        return ask(like.task, past, person, items[:count], made.domain, dict(log.items))

    found: dict[str, Any] = {"rates": _rates()}
    rows = {count: row_of(User(user), count) for count in COUNTS}
    ids = [item.id for item in items]
    found["latency"] = latency = _latency(recommender, like, user, ids, rows, times)
    found["floor"] = {count: _floor(like, rows[count], found["rates"]) for count in COUNTS}
    found["launches"] = {count: _launches(like, user, rows[count], times) for count in COUNTS}
    tell(f"{found}")
    people = [person for person in log.users.values() if past.history(person.id)]
    asked = [row_of(person, 100) for person in people[: 20 if setup.quick else NUM_USERS]]
    found["throughput"] = _throughput(like, asked, 100 / latency["full prompts"]["p50_ms"] * 1_000)
    tell(f"{found['throughput']}")
    found["exactness"] = exactness = _exactness(setup, like, asked[: 2 if setup.quick else NUM_EXACT])
    ours = latency["ours, 100 candidates"]["p50_ms"]
    claims: Claims = [
        ("100 candidates: times faster than full prompts", latency["full prompts"]["p50_ms"] / ours, ">=", 30),
        ("100 candidates: times faster than prefix reuse", latency["prefix reuse"]["p50_ms"] / ours, ">=", 5),
        ("1 000 candidates: p50 in ms", latency["ours, 1000 candidates"]["p50_ms"], "<=", 60),
        ("largest difference of a score from fp32 on the CPU", exactness["cpu, float32"]["max"], "<=", 0.02),
    ]
    return found, claims


def _rates() -> dict[str, float]:
    """FLOP a second of a large product in bf16, and bytes a second, read and written, of a large copy; medians."""
    x, w = (torch.randn(8_192, 8_192, device=GPU, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(1 << 28, device=GPU)
    target = torch.empty_like(source)
    product_s = median(_event_s(lambda: torch.nn.functional.linear(x, w)) for _ in range(20))
    copy_s = median(_event_s(lambda: target.copy_(source)) for _ in range(20))
    return {"flop_a_second": 2 * 8_192**3 / product_s, "bytes_a_second": 2 * source.nbytes / copy_s}


def _event_s(run: Callable[[], Any]) -> float:
    """Seconds that the GPU takes."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1_000


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


def _floor(like: ScoreModel, row: Example, rates: dict[str, float]) -> dict[str, float]:
    """Of a request whose history is known."""
    model, depth = like.foundation.model, like.cache.config.depth
    context, count = NUM_EVENTS + len(like.adapter.prompts_PD), len(row.candidates)
    layers = model.config.num_layers - depth
    operations = flop(upper_products(model.config, layers, context, 0, count))
    weights = sum(p.nbytes for layer in model.layers[depth:] for p in layer.parameters())
    keys = layers * 2 * context * model.config.num_kv_heads * model.config.head_width * model.dtype.itemsize
    kept = like.cache.fetch(texts([row]))
    asked = sum(kept.length(segment.text) for block in row.candidates for segment in block)
    moved = weights + keys + asked * model.config.width * model.dtype.itemsize
    by = {"flop_ms": 1e3 * operations / rates["flop_a_second"], "bytes_ms": 1e3 * moved / rates["bytes_a_second"]}
    return {"flop": operations, "bytes": moved, **by, "floor_ms": max(by.values())}


def _launches(like: ScoreModel, user: str, row: Example, times: int) -> dict[str, float]:
    """Kernels of a request whose history is known, and its upper layers alone, launched one by one or as a graph."""
    turns = KVCachePool(like)
    turns.predict([(user, row)])
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        turns.predict([(user, row)])
        torch.cuda.synchronize()
    on_gpu = [event for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = [event for event in on_gpu if event.name.startswith(("Memcpy", "Memset"))]
    found = {
        "kernels": len(on_gpu) - len(copies),
        "copies": len(copies),
        "gpu_ms": sum(event.time_range.elapsed_us() for event in on_gpu) / 1_000,
    }
    model, depth = like.foundation.model, like.cache.config.depth
    width = model.config.width
    context_ND = torch.randn(NUM_EVENTS, width, device=GPU)
    blocks_CMD = torch.randn(len(row.candidates), 1, width, device=GPU)
    with torch.no_grad():
        _, (known,) = model.forward_cached([CachedQuery((), context_ND, blocks_CMD)], depth, hook=like.adapter)
        turn = CachedQuery(known, context_ND[:0], blocks_CMD)

        def upper() -> None:
            model.forward_cached([turn], depth, hook=like.adapter)

        found["upper layers, p50_ms"] = timed(_waited(upper), times)["p50_ms"]
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                upper()
            found["upper layers as a graph, p50_ms"] = timed(_waited(graph.replay), times)["p50_ms"]
        except RuntimeError as error:
            tell(f"no graph of the upper layers: {error}")
    return found


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
        score_s = median(_seconds(lambda one=one: one.scores(rows)) for _ in range(3))
        read_s = median(_seconds(lambda most=most: _fresh(like, most).fetch(segments)) for _ in range(3))
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
