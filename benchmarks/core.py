"""What ``make demo`` has no time for: ``make bench-core``.

Parts, each of which can be run alone (``--part``):

- retrieval: the demo's retrieval with three seeds;
- shots: zero-shot and few-shot, three seeds by the diary, one by the paper's score;
- books, clothes: like-ranking in other domains, three seeds;
- gemma3: like-ranking on another foundation, one seed.

``QUICK=1`` has one seed, one epoch and leaves gemma3 out; it writes to ``runs/bench``, the full form to
``benchmarks/results``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import parts, sets
from benchmarks.setup import Claims, Setup
from benchmarks.tunings import retrievals, tunings
from m6rec import zero_shot
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.data.log import Log
from m6rec.data.split import TEST, Split, leave_one_out, split_by_item
from m6rec.demo import OURS
from m6rec.domains import domain as domains
from m6rec.evaluation.ranking import ranking_table
from m6rec.evaluation.report import Table
from m6rec.evaluation.retrieval import retrieval_tables
from m6rec.foundation.checkpoint import load
from m6rec.quickstart import RANKING
from m6rec.readouts import TaskModelConfig
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.training import TrainConfig

NUM_BOOKS, NUM_READERS = 2_000, 3_000
"""The most read books, and their most frequent readers: Book-Crossing in a size that two cores tune in minutes."""


def _mean(table: Table, metric: str) -> float:
    return next(row for row in table.rows if row.method == table.ours).mean(metric)


def _sized(training: TrainConfig, setup: Setup) -> TrainConfig:
    return replace(training, epochs=1) if setup.quick else training


def _folder(config: TaskModelConfig | TaskModelConfig, setup: Setup) -> Path:
    name = f"{config.domain}-{config.foundation}-{config.task}-{'quick' if setup.quick else 'full'}"
    return Path("runs/bench/core") / name


def _ranking(
    name: str, split: Split, setup: Setup, seeds: Sequence[int], foundation: str = DEFAULT_FOUNDATION
) -> Table:
    domain = domains.named(name)
    config = TaskModelConfig(task="like", domain=name, foundation=foundation)
    questions, runs = tunings(config, split, domain, _sized(RANKING, setup), seeds, _folder(config, setup))
    scores = [one.scores(questions.rows[TEST]) for one in runs]
    made = ranking_table(split, questions, domain, {OURS: scores}, seeds=seeds, progress=parts.tell)
    return replace(made, title=f"Like-ranking, {name}, {foundation}")


def retrieval(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The demo's retrieval."""
    made = sets.movielens_100k()
    config = TaskModelConfig(task="retrieve", domain="movielens", foundation=DEFAULT_FOUNDATION)
    training = EmbeddingConfig(epochs=1) if setup.quick else EmbeddingConfig()
    questions, by_seed = retrievals(config, made, training, setup.seeds, _folder(config, setup))
    tables = retrieval_tables(made.split, questions, made.domain, {OURS: by_seed}, progress=parts.tell)
    claims = []
    for metric in ("NDCG@10", "HitRate@10"):
        for table in tables:
            best = max(row.mean(metric) for row in table.rows if row.method != OURS)
            claims.append((f"{table.title}: lead in {metric}", _mean(table, metric) - best, ">", 0.0))
    return _told(tables, setup), claims


def shots(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Likes of MovieLens by likelihood alone, and after few examples."""
    made, foundation = sets.movielens_100k(), load(DEFAULT_FOUNDATION)
    tables = [
        zero_shot.zero_shot_table(foundation, made.split, made.domain, way=way, seeds=seeds, progress=parts.tell)
        for way, seeds in (("diary", setup.seeds), ("also-clicks", (0,)))
        if not setup.quick or way == "diary"
    ]
    title, rows = tables[0].title, {row.method: row.mean("AUC") for row in tables[0].rows}
    return _told(tables, setup), [(f"{name}, {title}: test AUC", value, ">", 0.60) for name, value in rows.items()]


def books(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Likes of Book-Crossing, whose ratings have no time but that of the file: a reader's last one is asked for."""
    log = most_read(domains.load(domains.named("books")), setup)
    table = _ranking("books", leave_one_out(log), setup, setup.seeds)
    return _told([table], setup), [("books: lead over the best baseline in AUC", table.lead or 0.0, ">", 0.0)]


def clothes(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Which garments, new to the model, a shopper of whom the age is known recommends."""
    log = domains.load(domains.named("clothes"))
    table = _ranking("clothes", split_by_item(log), setup, setup.seeds)
    return _told([table], setup), [("clothes: lead over the best baseline in AUC", table.lead or 0.0, ">", 0.0)]


def gemma3(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The demo's like-ranking on Gemma 3 with 270 million parameters."""
    table = _ranking("movielens", sets.movielens_100k().split, setup, (0,), "gemma3-270m")
    return _told([table], setup), [("gemma3-270m: test AUC", _mean(table, "AUC"), ">=", 0.770)]


def most_read(log: Log, setup: Setup) -> Log:
    """The log of the most read books and their most frequent readers."""
    size = 10 if setup.quick else 1
    read = Counter(event.item for event in log.events)
    books = {item for item, _ in read.most_common(NUM_BOOKS // size)}
    readers = Counter(event.user for event in log.events if event.item in books)
    users = {user for user, _ in readers.most_common(NUM_READERS // size)}
    events = tuple(event for event in log.events if event.item in books and event.user in users)
    return replace(
        log,
        events=events,
        users={user: log.users[user] for user in dict.fromkeys(event.user for event in events)},
        items={item: log.items[item] for item in dict.fromkeys(event.item for event in events)},
    )


def _told(tables: Sequence[Table], setup: Setup) -> dict[str, Any]:
    return {"seed": list(setup.seeds), "tables": tuple(tables)}


PARTS: dict[str, parts.Measure] = {
    "retrieval": retrieval,
    "shots": shots,
    "books": books,
    "clothes": clothes,
    "gemma3": gemma3,
}


def main(
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = None,
) -> None:
    nowhere = Path("runs/bench/core")
    setup = Setup(run=nowhere, retrieve=nowhere, data=nowhere, quick=bool(os.environ.get("QUICK")))
    names = part or [name for name in PARTS if name != "gemma3" or not setup.quick]
    parts.measure("core", "The core", {name: PARTS[name] for name in names}, setup)


if __name__ == "__main__":
    typer.run(main)
