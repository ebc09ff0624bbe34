"""The rates of a plan, measured on this machine with one thread: a few minutes, most of them to read texts.

Each rate is measured at one size, on what a service runs, and alone, so that a plan for another size can be wrong;
``make bench-scale`` says by how much.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from m6rec import hooks
from m6rec.domains.domain import named
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.config import ModelConfig
from m6rec.foundation.states import StateCache, StatesConfig
from m6rec.foundation.stores import LmdbStore
from m6rec.predicate import attributes
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.retrieval.blend import Blend, default_weights
from m6rec.retrieval.embeddings import unit
from m6rec.retrieval.exhaustive import ExhaustiveSearch
from m6rec.retrieval.index import Index
from m6rec.scale.planning import FACTORS, Rates, Shape
from m6rec.serving.journal import FileJournal
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.tasks import task as tasks
from m6rec.types import Event, Item, User

R = TypeVar("R")

TIMES = 7
"""Of a measurement; their median counts."""


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """The size that rates are measured at.

    Attributes:
        items: In the catalogue.
        events: Of all users.
        history: Of a user.
        candidates: Of a request.
        weights: Other items that a source knows to go with one.
        width: Of an item's vector.
        texts: That are read.
    """

    items: int = 25_000
    events: int = 500_000
    history: int = 50
    candidates: int = 100
    weights: int = 100
    width: int = 256
    texts: int = 256


def shape_of(c: ModelConfig) -> Shape:
    """That of a foundation, tuned as by default."""
    upper = min(ScoreModel.UPPER_LAYERS, c.num_layers)
    return Shape(
        width=c.width,
        ffn_width=c.ffn_width,
        num_heads=c.num_heads,
        num_kv_heads=c.num_kv_heads,
        head_width=c.head_width,
        num_layers=c.num_layers,
        upper_layers=upper,
        state_layers=round(2 * c.num_layers / 3),
    )


def measure(foundation: Foundation, config: MeasureConfig = MeasureConfig()) -> Rates:
    """The rates of this machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            found = {**_disk(config), **_retrieval(config), **_model(foundation, config)}
    finally:
        torch.set_num_threads(threads)
    found |= in_fresh_process(_memory, config)
    return Rates(**found)


def items_of(num: int) -> dict[str, Item]:
    """So many items."""
    return {f"i{n}": Item(f"i{n}", f"Film number {n}", ("Drama", "Comedy", "War")[: 1 + n % 3]) for n in range(num)}


def events_of(num_users: int, history: int, num_items: int) -> Iterator[Event]:
    """So many events of each user, with items of a squared popularity, seven in ten of them likes."""
    rng = np.random.default_rng(1)
    for user in range(num_users):
        rows = (num_items * rng.random(history) ** 2).astype(int).tolist()
        for at, (row, liked) in enumerate(zip(rows, (rng.random(history) < 0.7).tolist(), strict=True)):
            yield Event(f"u{user}", f"i{row}", at, 5.0 if liked else 1.0)


def synthetic_blend(num: int, weights: int) -> Blend:
    """The sources of so many items, of random numbers in the form that is learned."""
    rng = np.random.default_rng(2)

    def going_with() -> dict[str, NDArray[Any]]:
        return {
            "start_I": np.arange(num + 1, dtype=np.int64) * weights,
            "item_W": rng.integers(0, num, num * weights, dtype=np.int32),
            "weight_W": rng.random(num * weights, np.float32),
            "memory": np.array([0.8], np.float32),
        }

    factor_IF = unit(rng.standard_normal((num, FACTORS), np.float32))
    gram_FF = factor_IF.T @ factor_IF + 30 * np.eye(FACTORS, dtype=np.float32)
    ials = {
        "factor_IF": factor_IF,
        "gram_FF": gram_FF,
        "confidence": np.array([6.0], np.float32),
        "memory": np.array([0.8], np.float32),
    }
    numbers = {f"i{number}": number for number in range(num)}
    return Blend(
        numbers, {"ials": ials, "next-item": going_with(), "ease": going_with()}, default_weights(hooks.SOURCES.all())
    )


def resident() -> int:
    """Memory of this process, in bytes, without what can be collected."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def in_fresh_process(function: Callable[..., R], *values: object) -> R:
    """What a function returns in a process of its own, whose memory holds nothing of before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *values).result()


def _seconds(run: Callable[[], object]) -> float:
    run()
    found = []
    for _ in range(TIMES):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return median(found)


def _memory(config: MeasureConfig) -> dict[str, float]:
    feedback, num_users = named("movielens").feedback, config.events // config.history
    vectors_IE = _vectors(config)
    InteractionStore(items_of(9), feedback).update_all(events_of(9, 9, 9))  # loads what is compiled
    Index(config.width).put(["first"], vectors_IE[:1])
    at = [resident()]
    items = items_of(config.items)
    store = InteractionStore(items, feedback)
    at.append(resident())
    events = events_of(num_users, config.history, config.items)
    store.update_all(Event(f"u{user}", "i0", 0, 5.0) for user in range(num_users))
    at.append(resident())
    pair_bytes = store.pair_bytes
    store.update_all(events)
    at.append(resident() - store.pair_bytes + pair_bytes)
    index = Index(config.width)
    at.append(resident())
    index.put([*items], vectors_IE, [attributes(item) for item in items.values()])
    at.append(resident())
    grown = np.diff(at).tolist()
    event_bytes = grown[2] / config.events
    return {
        "item_bytes": grown[0] / config.items,
        "user_bytes": max(grown[1] / num_users - event_bytes, 0.0),
        "event_bytes": event_bytes,
        "vector_bytes": grown[4] / config.items,
    }


def _vectors(config: MeasureConfig) -> NDArray[np.float32]:
    return unit(np.random.default_rng(0).standard_normal((config.items, config.width), np.float32))


def _disk(config: MeasureConfig) -> dict[str, float]:
    num, width = 5_000, 1_152
    with TemporaryDirectory() as folder:
        journal = FileJournal(Path(folder, "journal"))
        journal.append([*events_of(num // config.history, config.history, config.items)])
        journal.close()
        journal_bytes = sum(file.stat().st_size for file in Path(folder, "journal").iterdir()) / num
        states = LmdbStore(Path(folder, "states"))
        rng = np.random.default_rng(0)
        states.put({rng.bytes(32): rng.bytes(width) for _ in range(num)})
        states.close()
        state_bytes = sum(file.stat().st_blocks * 512 for file in Path(folder, "states").iterdir()) / num - width
    return {"journal_bytes": journal_bytes, "state_bytes": state_bytes}


def _retrieval(config: MeasureConfig) -> dict[str, float]:
    vectors_IE, rng = _vectors(config), np.random.default_rng(3)
    sizes = config.items // 5, config.items
    found = [_search_s(vectors_IE[:size], config) for size in sizes]
    scan_s, source_s, whole_s = (
        max((most - least) / (sizes[1] - sizes[0]), 1e-12) for least, most in zip(*found, strict=True)
    )
    ids, blend = [f"i{number}" for number in range(config.items)], synthetic_blend(config.items, config.weights)
    likes = [[ids[row] for row in rng.integers(0, config.items, config.history).tolist()] for _ in range(256)]
    search = ExhaustiveSearch(ids, vectors_IE, 0.8, blend, 1_000)
    some = likes[: search.block]
    batch_s = _seconds(lambda: search.search(some, [()] * len(some), 10)) / len(some)
    few = ExhaustiveSearch(ids[:500], vectors_IE[:500], 0.8, synthetic_blend(500, config.weights), 1_000)
    near = [[f"i{int(item[1:]) % 500}" for item in liked] for liked in some]
    batch_user_s = _seconds(lambda: few.search(near, [()] * len(near), 10)) / len(near)
    share = whole_s / (scan_s + source_s)  # of what is done together, some is done once
    return {
        "retrieve_s": max(found[1][2] - whole_s * config.items, 0.0),
        "scan_s": scan_s * share,
        "source_s": source_s * share,
        "batch_s": max(batch_s - batch_user_s, 0.0) / config.items,
        "batch_user_s": batch_user_s,
    }


def _search_s(vectors_IE: NDArray[np.float32], config: MeasureConfig) -> tuple[float, float, float]:
    """Seconds of (a scan of vectors, the sources, what the service does with both)."""
    size = len(vectors_IE)
    ids, index = [f"i{number}" for number in range(size)], Index(config.width)
    blend = synthetic_blend(size, config.weights)
    index.put(ids, vectors_IE)
    liked = [ids[row] for row in np.random.default_rng(4).integers(0, size, config.history).tolist()]
    query_E = np.float32(blend.text) * vectors_IE[0]
    return (
        _seconds(lambda: index.search(query_E, 100)),
        _seconds(lambda: blend.strongest(liked, 1_000)),
        _seconds(lambda: index.search(query_E, 100, without=liked, scores=blend.strongest(liked, 1_000))),
    )


def _model(foundation: Foundation, config: MeasureConfig) -> dict[str, Any]:
    shape, model = shape_of(foundation.model.config), foundation.model
    texts = [f'The user is now recommended the film "Number {n} of {n % 7}".' for n in range(config.texts)]
    tokens = [len(ids) for ids in foundation.tokenizer.encode(texts)]
    depth = shape.num_layers - shape.upper_layers
    start = time.perf_counter()
    StateCache(foundation, StatesConfig(depth=depth), None).fetch(texts)
    seconds = time.perf_counter() - start
    read_flop = sum(count * shape.flop(depth, count / 2) for count in tokens)
    ranked = {
        (history, candidates): _rank_s(foundation, history, candidates)
        for history, candidates in ((1, 10), (config.history, 10), (config.history, config.candidates))
    }
    few, some, most = ranked.values()
    rate = (config.candidates - 10) * shape.flop(shape.upper_layers, config.history) / max(most - some, 1e-9)
    event_s = max(some - few, 0) / (config.history - 1)
    request_s = few - 10 * shape.flop(shape.upper_layers, 1) / rate - event_s
    dtype = str(model.dtype).removeprefix("torch.")
    return {
        "read_flop_per_s": read_flop / seconds,
        "rank_flop_per_s": rate,
        "event_s": event_s,
        "request_s": max(request_s, 0.0),
        "measured": f"one thread, {dtype}, {foundation.source}, {config.items} items, {config.events} events",
    }


def rank_request(foundation: Foundation, history: int, candidates: int) -> Callable[[], object]:
    """What ranks so many items for a user of such a history, whose keys and values are kept after the first call."""
    ranking = TaskModelConfig(task="like", domain="movielens", foundation=foundation.source)
    rank = ScoreModel.create(ranking, foundation)
    items = items_of(max(candidates, history))
    store = InteractionStore(items, rank.domain.feedback)
    store.update_all(Event("u", f"i{n}", n, 5.0 if n % 3 else 1.0) for n in range(history))
    asked, pool = [*items.values()][:candidates], KVCachePool(rank)

    def request() -> object:
        row = tasks.ask(rank.task, store, User("u"), asked, rank.domain, items, latest=1_000)
        return pool.predict([("u", row)])

    return request


def _rank_s(foundation: Foundation, history: int, candidates: int) -> float:
    return _seconds(rank_request(foundation, history, candidates))
