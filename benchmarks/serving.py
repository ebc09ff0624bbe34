"""Everything that the service has to show, measured: ``make bench-serving``.

Parts, each of which can be run alone (``--part``) and leaves its results beside those of the others:

- latency: one user, 100 and 1 000 candidates, beside the alternatives on the same weights (``benchmarks.latency``);
- curve: AUC and latency over depth and kept tokens (``benchmarks.curve``);
- exactness: served scores beside evaluated ones, and states of 8 bits (``benchmarks.exactness``);
- catalogue: from ten thousand items to a million (``benchmarks.catalogue``);
- load: open-loop load below and above capacity (``benchmarks.load``);
- faults: kills, a failing Redis, a full disk, malformed requests (``benchmarks.faults``).

``QUICK=1`` takes minutes and writes to ``runs/bench``; the full form writes to ``benchmarks/results``.
"""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.setup import Setup
from m6rec import report

PARTS = ("latency", "curve", "exactness", "catalogue", "load", "faults")
COMMAND = "make bench-serving"


def main(
    run: Annotated[Path, typer.Option(help="A run of the like task.")] = Path("runs/demo/like-0"),
    retrieve: Annotated[Path, typer.Option(help="A run of the retrieval task.")] = Path("runs/demo/retrieve-0"),
    data: Annotated[Path, typer.Option(help="The prepared log.")] = Path("runs/demo/data"),
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = None,
) -> None:
    quick = bool(os.environ.get("QUICK"))
    setup = Setup(run=run, retrieve=retrieve, data=data, quick=quick)
    path = Path("runs/bench" if quick else "benchmarks/results") / "serving.json"
    value = json.loads(path.read_text()) if path.is_file() else {"title": "The service", "claims": [], "parts": {}}
    for name in part or PARTS:
        typer.echo(f"· {name}", err=True)
        measured, claims = importlib.import_module(f"benchmarks.{name}").measure(setup)
        value["parts"][name] = {**report.facts(), "seed": 0, "quick": quick, **measured}
        value["claims"] = [claim for claim in value["claims"] if claim["part"] != name]
        for title, number, relation, target in claims:
            claim = report.Claim(name=title, value=number, relation=relation, target=target, command=COMMAND)
            value["claims"].append({"part": name, **asdict(claim), "holds": claim.holds})
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(value, indent=1) + "\n")
        os.replace(partial, path)
    for claim in value["claims"]:
        mark, bound = "holds" if claim["holds"] else "FAILS", f"{claim['relation']} {claim['target']:g}"
        typer.echo(f"{mark}  {claim['part']:9}  {claim['name']}: {claim['value']:.4g} ({bound})")


if __name__ == "__main__":
    typer.run(main)
