"""Recommendations for all users, as ``m6rec recommend --all`` writes them."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from m6rec.cli.app import bar, say
from m6rec.cli.runs import Served, recommender_of, store_of
from m6rec.errors import ConfigError

if TYPE_CHECKING:
    from m6rec.cli.tree import Config
    from m6rec.scale.recommending import RecommendConfig, RecommendJob

SNAPSHOT = ".store"
"""The service's events and items as of the beginning, so that a job that goes on reads the same."""


def recommend_all(
    chosen: Served,
    folder: Path,
    job_config: RecommendConfig,
    config: Config,
    *,
    engine: str = "here",
    workers: int = 0,
    as_json: bool = False,
) -> None:
    """See ``m6rec recommend``."""
    import torch

    from m6rec.domains import prepared
    from m6rec.scale import partitions, recommending
    from m6rec.serving.memory import keep_freed_memory

    if engine not in ("here", "ray"):
        raise ConfigError(f"engine is {engine!r}; choose one of here, ray")
    keep_freed_memory()
    with partitions.locked(folder):
        start = time.perf_counter()
        with store_of(chosen, folder / SNAPSHOT) as kept:
            job = recommending.RecommendJob(recommender_of(chosen, kept, config).state, job_config)
            runs = (chosen.retrieve, chosen.rank)
            belongs_to = recommending.belongs_to(job, prepared.fingerprint(chosen.data), runs, kept.journal)
        out = partitions.Partitions(folder.resolve(), belongs_to, job.num)
        if engine == "ray":
            from m6rec.scale import on_ray

            made = on_ray.actors(partial(_job, chosen.resolved(), folder.resolve(), job_config, config), out, workers)
        else:
            made = recommending.here(job, out, workers or torch.get_num_threads())
        load_s = time.perf_counter() - start
        with bar("Users") as progress:
            begun = time.perf_counter()

            def told(done: int, total: int) -> None:
                rate = done / max(time.perf_counter() - begun, 1e-9)
                progress(done, total, label=f"Users, {rate:.0f} a second")

            summary = recommending.run(job, out, made, told)
        shutil.rmtree(folder / SNAPSHOT, ignore_errors=True)
    say(
        {"folder": str(folder), **asdict(summary), "load_s": load_s, "belongs_to": belongs_to},
        as_json,
        f"{summary.users} users, {summary.rows} rows written in {summary.seconds:.1f} s "
        f"({summary.users_per_s:.0f} users a second), {summary.partitions} files in {folder}"
        + (f", of which {summary.kept} were there" if summary.kept else ""),
    )


def _job(chosen: Served, folder: Path, job_config: RecommendConfig, config: Config) -> RecommendJob:
    """The same job in another process, which makes partitions of it with one thread."""
    import torch

    from m6rec.scale.recommending import RecommendJob

    torch.set_num_threads(1)
    with store_of(chosen, folder / SNAPSHOT) as kept:
        return RecommendJob(recommender_of(chosen, kept, config).state, job_config)
