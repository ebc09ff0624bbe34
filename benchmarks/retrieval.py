"""Retrieval: ``make bench-retrieval`` writes ``benchmarks/results/retrieval.json``, ``QUICK=1`` less into ``runs``.

One part alone: ``python -m benchmarks.retrieval --part cold``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import (
    data,
    features,
    item_vectors,
    logs,
    parts,
    ranking,
    retrieval_blend,
    retrieval_index,
    retrieval_sources,
    unseen_domains,
)
from benchmarks.setup import Claims, Setup

TITLE = "Retrieval"


def million(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """A log with the events, users and items of MovieLens-1M, from its tables to the end of ``m6rec init``."""
    num_events = 100_000 if setup.quick else 1_000_000
    with data.empty_folder() as folder:
        tables = logs.million(folder, num_events=num_events)
        told = data.m6rec(folder, "init", *tables, "--project", "made", "--json")
    claims: Claims = [(f"m6rec init of {num_events} events: minutes", told["seconds"] / 60, "<=", 30)]
    return {"events": num_events, "seconds": told["seconds"], "means": data.means(told)}, claims


PARTS: dict[str, parts.Measure] = {
    "cold": item_vectors.cold,
    "alone": item_vectors.alone,
    "unseen": unseen_domains.unseen,
    "blend": retrieval_blend.blend,
    "refits": retrieval_sources.refits,
    "large": retrieval_sources.large,
    "index": retrieval_index.index,
    "features": features.features,
    "ranking": ranking.ranking,
    "million": million,
}


def main(part: Annotated[str, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = "") -> None:
    """Measures and writes the results."""
    nowhere = Path()
    setup = Setup(run=nowhere, retrieve=nowhere, data=nowhere, quick=bool(os.environ.get("QUICK")))
    parts.measure("retrieval", TITLE, {part: PARTS[part]} if part else PARTS, setup)


if __name__ == "__main__":
    typer.run(main)
