"""Retrieval: ``make bench-retrieval`` writes ``benchmarks/results/retrieval.json``, ``QUICK=1`` less into ``runs``.

One part alone: ``python -m benchmarks.retrieval --part cold``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import features, item_vectors, parts, ranking, retrieval_blend, retrieval_index, retrieval_sources
from benchmarks.setup import Setup

TITLE = "Retrieval"

PARTS: dict[str, parts.Measure] = {
    "cold": item_vectors.cold,
    "alone": item_vectors.alone,
    "blend": retrieval_blend.blend,
    "refits": retrieval_sources.refits,
    "large": retrieval_sources.large,
    "index": retrieval_index.index,
    "features": features.features,
    "ranking": ranking.ranking,
}


def main(part: Annotated[str, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = "") -> None:
    """Measures and writes the results."""
    nowhere = Path()
    setup = Setup(run=nowhere, retrieve=nowhere, data=nowhere, quick=bool(os.environ.get("QUICK")))
    parts.measure("retrieval", TITLE, {part: PARTS[part]} if part else PARTS, setup)


if __name__ == "__main__":
    typer.run(main)
