"""Tuned classical peers on sets with published figures and on MovieLens-100k: ``python -m benchmarks.peers``.

Parts, each of which can be run alone (``--part``): ml1m_collm, amazon_beauty, amazon_toys, movielens_like,
movielens_retrieve. A peer that was measured with the same budget is not measured again, so a run that was stopped goes
on where it was. ``QUICK=1`` has two trials of three passes and one seed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import parts, sets
from benchmarks.peers import FULL, QUICK, Budget, Peer, folder, rankers, retrievers
from benchmarks.peers.search import RESULTS, told
from benchmarks.setup import Claims, Setup, research
from m6rec.data.split import Split
from m6rec.domains.domain import Domain
from m6rec.tasks.examples import task_examples
from m6rec.tasks.task import named


def _budget(setup: Setup) -> Budget:
    return QUICK if setup.quick else FULL


def _rank(name: str, split: Split, domain: Domain, setup: Setup, made: sets.Set | None) -> dict[str, Any]:
    budget = _budget(setup)
    at = folder(name, budget)
    questions = task_examples(named("like"), split, domain)
    found = rankers.ranking(split, domain, questions, budget, at, tell=parts.tell)
    warm = None if made is None else made.warm
    table = rankers.table(f"Tuned peers, likes, {name}", split, questions, found, budget, warm)
    return {"tables": (table,), **_facts(name, rankers.PEERS, at)}


def _retrieve(name: str, split: Split, domain: Domain, setup: Setup, *, refit: bool) -> dict[str, Any]:
    budget = _budget(setup)
    at = folder(name, budget)
    found = retrievers.retrieval(split, domain, budget, at, refit=refit, tell=parts.tell)
    tables = retrievers.tables(f"Tuned peers, retrieval, {name}", split, domain, found, budget, refit=refit)
    return {"tables": tables, **_facts(name, retrievers.PEERS, at)}


def _facts(name: str, peers: Sequence[Peer[Any, Any]], at: Path) -> dict[str, Any]:
    searched = told(peers, at)
    seed = max((one["seeds"] for one in searched), key=len)
    return {"seed": seed, "optuna": version("optuna"), "searched": searched, "published": sets.PUBLISHED.get(name, {})}


def ml1m_collm(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Likes of MovieLens-1M on CoLLM's split."""
    made = sets.ml1m_collm(research("ml1m_collm"))
    return _rank("ml1m_collm", made.split, made.domain, setup, made), []


def amazon_beauty(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The last item that each buyer of beauty products bought."""
    made = sets.amazon_sequences(research("amazon_beauty"))
    return _retrieve("amazon_beauty", made.split, made.domain, setup, refit=True), []


def amazon_toys(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The same of toys."""
    made = sets.amazon_sequences(research("amazon_toys"))
    return _retrieve("amazon_toys", made.split, made.domain, setup, refit=True), []


def movielens_like(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The demo's like-ranking."""
    made = sets.movielens_100k()
    return _rank("movielens_like", made.split, made.domain, setup, None), []


def movielens_retrieve(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The demo's retrieval."""
    made = sets.movielens_100k()
    return _retrieve("movielens_retrieve", made.split, made.domain, setup, refit=False), []


PARTS: dict[str, parts.Measure] = {
    "ml1m_collm": ml1m_collm,
    "amazon_beauty": amazon_beauty,
    "amazon_toys": amazon_toys,
    "movielens_like": movielens_like,
    "movielens_retrieve": movielens_retrieve,
}


def main(
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = None,
) -> None:
    setup = Setup(run=RESULTS, retrieve=RESULTS, data=RESULTS, quick=bool(os.environ.get("QUICK")))
    parts.measure("peers", "Tuned peers", {name: PARTS[name] for name in part or PARTS}, setup)


if __name__ == "__main__":
    typer.run(main)
