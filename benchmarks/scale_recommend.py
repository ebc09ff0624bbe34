"""Recommendations for all users: users a second on a core, memory, and what a killed job leaves.

Vectors, log and sources are synthetic, all else is what ``m6rec recommend --all`` runs. Beside it: the service's
retrieval user by user, ``implicit``'s batch over factors of the same width as ours, and the bare products of matrices.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks import parts
from benchmarks import vectors as made_up
from benchmarks.setup import Claims, Setup, rss_mib
from m6rec.domains.domain import named
from m6rec.features.interactions import InteractionStore
from m6rec.language.lexicon import Lexicon
from m6rec.readouts import EmbedModel, TaskModelConfig
from m6rec.retrieval.blend import Blend
from m6rec.retrieval.embeddings import Embeddings, Head, Whitening
from m6rec.scale.measuring import synthetic_blend
from m6rec.scale.partitions import Partitions, locked
from m6rec.scale.recommending import RecommendConfig, RecommendJob, here, run
from m6rec.serving import pipeline
from m6rec.serving.backend import Request
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.memory import keep_freed_memory
from m6rec.serving.search import SearchIndex
from m6rec.serving.state import ServingState
from m6rec.types import Event, Item, User
from tests import tiny

WIDTH, FACTORS, COUNT = 256, 128, 10
MANY, FEW = 100_000, 10_000
EVENTS, WEIGHTS = 20, 100
"""Events of a user, and other items that a source knows to go with one."""
ALONE, PEER_USERS = 100, 4_096
KILLS = 20


def synthetic(num: int) -> ServingState:
    """As many users as items: clusters of vectors, histories within them, and sources of random numbers."""
    vectors_IE, cluster_I = made_up.clustered(num, WIDTH)
    rng = np.random.default_rng(1)
    order = np.argsort(cluster_I, kind="stable")
    place_I = np.empty(num, np.int64)
    place_I[order] = np.arange(num)
    ids = [f"i{number}" for number in range(num)]
    users = {f"u{number}": User(f"u{number}") for number in range(num)}
    items = {item: Item(item, item) for item in ids}

    def near(rows: NDArray[np.int64], spread: int) -> NDArray[np.int64]:
        """Items at most so many places away in the order of clusters."""
        places = np.clip(place_I[rows] + rng.integers(-spread, spread + 1, rows.shape), 0, num - 1)
        return np.asarray(order[places])

    def events() -> Iterator[Event]:
        for user in users:
            taste = rng.integers(0, num, 2)
            for time_, row in enumerate(near(taste[rng.integers(0, 2, EVENTS)], 40).tolist()):
                yield Event(user, ids[row], time_, 5.0 if rng.random() < 0.7 else 1.0)

    retrieve = _model(synthetic_blend(num, WEIGHTS))
    index = ItemIndex(retrieve)
    index.put([*items.values()], vectors_IE)
    domain = named("movielens")
    state = ServingState(
        items=items,
        live=items,
        users=users,
        interactions=InteractionStore(items, domain.feedback).update_all(events()),
        lexicon=Lexicon([]),
        search=SearchIndex([], {}),
        latest=1_000,
        num_retrieved=100,
    )
    state.models = SimpleNamespace(index=index, retrieve=retrieve)  # type: ignore[assignment]
    return state


def _model(blend: Blend) -> EmbedModel:
    """A retrieval model of the usual width, whose items' vectors are not read from texts."""
    nothing = Whitening(np.zeros(WIDTH, np.float32), np.eye(WIDTH, dtype=np.float32))
    embeddings = Embeddings(nothing, Head.untrained(WIDTH, WIDTH), {}, np.zeros((0, WIDTH), np.float32), 0.8)
    config = TaskModelConfig(task="retrieve", domain="movielens", foundation="tiny")
    made = EmbedModel.create(config, tiny.foundation(num_layers=4))
    return EmbedModel(config, made.foundation, embeddings, made.cache, blend)


def recommend(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    keep_freed_memory()
    num = FEW if setup.quick else MANY
    parts.tell(f"{num} users and items")
    state = synthetic(num)
    with threadpool_limits(1):
        job = RecommendJob(state, RecommendConfig(count=COUNT, users=1_024))
        job.partition(0)  # compiles
        loaded, rss = rss_mib(), []
        with TemporaryDirectory() as folder:
            out = Partitions(Path(folder), {}, job.num)
            summary = run(job, out, here(job, out, 1), lambda done, total: rss.append(rss_mib()))
            written = pl.read_parquet(Path(folder, "*.parquet"))
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
        alone, differ = _alone(state, written)
        peer, bare = _implicit(state), _products(state, job)
    half = len(rss) // 2
    results = {
        "users": num,
        "items": num,
        "rows": len(written),
        "mib written": size / 2**20,
        "seconds": summary.seconds,
        "users a second on a core": {
            "m6rec recommend --all": summary.users_per_s,
            "request by request": alone,
            "implicit, factors alone": peer,
            "the products of matrices alone": bare,
        },
        "rss_mib": {"loaded": loaded, "first half": max(rss[:half]), "second half": max(rss[half:])},
        "largest difference of a score from the request's": differ,
    }
    claims: Claims = [
        (f"{num} users x {num} items: users a second on a core", summary.users_per_s, ">=", 100),
        ("times the requests one by one", summary.users_per_s / alone, ">=", 5),
        ("share of implicit's batch, which has one of four signals", summary.users_per_s / peer, ">=", 0.25),
        ("time as a multiple of the products alone", bare / summary.users_per_s, "<=", 4),
        ("peak memory of the second half to the first", max(rss[half:]) / max(rss[:half]), "<=", 1.02),
        ("users whose items differ from the request's by more than rounding", differ, "<=", 1e-5),
    ]
    return results, claims


def _alone(state: ServingState, written: pl.DataFrame) -> tuple[float, float]:
    """(users a second of requests one by one, the largest difference of a written score at the same position)."""
    users = random.Random(0).sample(sorted(state.users), ALONE)
    pipeline.retrieve(state, [(Request(user=users[0]), COUNT)])
    start = time.perf_counter()
    found = [pipeline.retrieve(state, [(Request(user=user), COUNT)])[0] for user in users]
    seconds = time.perf_counter() - start
    scores = dict(written.filter(pl.col("user").is_in(users)).group_by("user", maintain_order=True).agg("score").rows())
    gaps = [
        np.abs(np.array([one.score for one in hits]) - scores[user]).max()
        for user, hits in zip(users, found, strict=True)
    ]
    return len(users) / seconds, float(max(gaps))


def _implicit(state: ServingState) -> float:
    """Users a second of implicit's own batch, with the factors of our source and known ones of users."""
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    factor_IF = state.models.index._retrieve.blend.arrays["ials"]["factor_IF"]  # type: ignore[union-attr]
    num, rng = len(factor_IF), np.random.default_rng(2)
    users = min(PEER_USERS, num)
    model = AlternatingLeastSquares(FACTORS, num_threads=1)
    model.item_factors, model.user_factors = factor_IF, factor_IF[rng.integers(0, num, users)]
    met = csr_matrix(
        (np.ones(EVENTS * users, np.float32), rng.integers(0, num, EVENTS * users), np.arange(users + 1) * EVENTS),
        shape=(users, num),
    )
    model.recommend(np.arange(64), met[:64], N=COUNT)
    start = time.perf_counter()
    for first in range(0, users, 1_024):
        batch = np.arange(first, min(first + 1_024, users))
        model.recommend(batch, met[batch], N=COUNT, filter_already_liked_items=True)
    return users / (time.perf_counter() - start)


def _products(state: ServingState, job: RecommendJob) -> float:
    """Users a second of the two products alone, in blocks of the same size."""
    rng, num = np.random.default_rng(3), len(state.items)
    size = job.search.block
    blocks = [
        (rng.standard_normal((size, width), np.float32), rng.standard_normal((num, width), np.float32))
        for width in (WIDTH, FACTORS)
    ]
    scores_UI = np.empty((size, num), np.float32)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        for users_UE, items_IE in blocks:
            np.matmul(users_UE, items_IE.T, out=scores_UI)
        best = max(best, size / (time.perf_counter() - start))
    return best


def killed(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """A job killed by SIGKILL again and again ends with the files of one that was not."""
    num, random_ = 2_000 if setup.quick else 5_000, random.Random(0)
    job = RecommendJob(synthetic(num), RecommendConfig(count=COUNT, users=num // 50))
    kills, rows, differ = 0, 0, 0
    with threadpool_limits(1), TemporaryDirectory() as folder:
        whole, again = Path(folder, "whole"), Path(folder, "again")
        whole.mkdir()
        seconds = _run(job, whole)
        expected = _files(whole)
        while kills < KILLS:
            again.mkdir(exist_ok=True)
            child = multiprocessing.get_context("fork").Process(target=_run, args=(job, again))
            child.start()
            child.join(seconds * random_.random() / 3)
            child.kill()
            child.join()
            kills += child.exitcode != 0
            found = _files(again)
            differ += any(found[name] != expected[name] for name in found)
            if len(found) == job.num:
                differ += found != expected
                rows += _twice(again)
                for file in again.iterdir():
                    file.unlink()
        _run(job, again)
        differ += _files(again) != expected
        rows += _twice(again)
    results = {"users": num, "kills": kills, "differing": differ, "rows twice": rows, "partitions": job.num}
    claims: Claims = [
        ("kills of the job", kills, ">=", KILLS),
        ("times that a file differed from that of a job that was not killed", differ, "<=", 0),
        ("rows that came twice", rows, "<=", 0),
    ]
    return results, claims


def _run(job: RecommendJob, folder: Path) -> float:
    """Makes what is missing; returns the seconds."""
    with locked(folder):
        out = Partitions(folder, {}, job.num)
        return run(job, out, here(job, out, 1)).seconds


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("part-*")}


def _twice(folder: Path) -> int:
    rows = pl.read_parquet(folder / "*.parquet")
    return len(rows) - len(rows.unique(["user", "item"]))
