"""Everything that the service has to show, measured: ``make bench-serving``.

Parts, each of which can be run alone (``--part``) and leaves its results beside those of the others:

- latency: one user, 100 and 1 000 candidates, beside the alternatives on the same weights (``benchmarks.latency``);
- curve: AUC and latency over depth and kept tokens (``benchmarks.curve``);
- joint: what the split costs in quality (``benchmarks.joint``);
- exactness: served scores beside evaluated ones, and states of 8 bits (``benchmarks.exactness``);
- catalogue: from ten thousand items to a million (``benchmarks.catalogue``);
- load: open-loop load below and above capacity (``benchmarks.load``);
- faults: a failing Redis, malformed requests (``benchmarks.faults``; ``benchmarks.durability`` has the rest);
- gpu: exactness, latency and throughput on a GPU, where torch sees one (``benchmarks.gpu``).

``QUICK=1`` takes minutes and writes to ``runs/bench``; the full form writes to ``benchmarks/results``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import parts
from benchmarks.setup import Setup

PARTS = ("latency", "curve", "joint", "exactness", "catalogue", "load", "faults", "gpu")


def main(
    run: Annotated[Path, typer.Option(help="A run of the like task.")] = Path("runs/demo/runs/like-0"),
    retrieve: Annotated[Path, typer.Option(help="A run of the retrieval task.")] = Path("runs/demo/runs/retrieve-0"),
    data: Annotated[Path, typer.Option(help="The prepared log.")] = Path("runs/demo/data"),
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = None,
) -> None:
    setup = Setup(run=run, retrieve=retrieve, data=data, quick=bool(os.environ.get("QUICK")))
    wanted = [name for name in part or PARTS if name != "gpu" or torch.cuda.is_available()]
    if len(wanted) < len(part or PARTS):
        parts.tell("gpu is left out: torch sees none")
    if wanted:
        parts.measure("serving", "The service", {name: parts.module(name) for name in wanted}, setup)


if __name__ == "__main__":
    typer.run(main)
