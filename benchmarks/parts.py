"""A benchmark made of parts: each is measured alone and leaves its results beside those of the others."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console

from benchmarks.setup import Claims, Setup
from m6rec.evaluation import report

ValueT = TypeVar("ValueT")
Measure = Callable[[Setup], tuple[dict[str, Any], Claims]]
"""Returns what is written as it is, but for ``tables``, those of ``m6rec.evaluation.report``; and the claims."""


def tell(text: str) -> None:
    """Says what is being done."""
    typer.echo(f"  {text}", err=True)


def module(part: str) -> Measure:
    """``measure`` of the module of this package that has the part's name, which is imported when it is needed."""

    def measured(setup: Setup) -> tuple[dict[str, Any], Claims]:
        found: Measure = importlib.import_module(f"benchmarks.{part}").measure
        return found(setup)

    return measured


def kept(path: Path, run: Callable[[], ValueT]) -> ValueT:
    """What a run brought, from its file if it is there; so what was stopped goes on."""
    if not path.is_file():
        _write(path, run())
    value: ValueT = json.loads(path.read_text())
    return value


def measure(name: str, title: str, parts: Mapping[str, Measure], setup: Setup) -> None:
    """Measures the parts, writes ``name.json`` after each, and prints what it holds."""
    path = Path("runs/bench" if setup.quick else "benchmarks/results") / f"{name}.json"
    for part, run in parts.items():
        typer.echo(f"· {part}", err=True)
        measured, claims = run(setup)
        # Read now, as another part may have been measured meanwhile.
        value = json.loads(path.read_text()) if path.is_file() else {"title": title, "claims": [], "parts": {}}
        tables: tuple[report.Table, ...] = measured.pop("tables", ())
        told = {"tables": [asdict(table) | {"verdict": table.verdict} for table in tables]} if tables else {}
        made_from = {"fingerprint": setup.fingerprint()}
        value["parts"][part] = {**report.facts(), **made_from, "seed": 0, "quick": setup.quick, **measured, **told}
        value["claims"] = [claim for claim in value["claims"] if claim["part"] != part]
        for what, number, relation, target in claims:
            command = f"make bench-{name}"
            claim = report.Claim(name=what, value=number, relation=relation, target=target, command=command)
            value["claims"].append({"part": part, **asdict(claim), "holds": claim.holds})
        _write(path, value)
        if tables:
            Console().print(report.to_table(report.Report(title=part, tables=tables)))
    for claim in value["claims"]:
        mark, bound = "holds" if claim["holds"] else "FAILS", f"{claim['relation']} {claim['target']:g}"
        typer.echo(f"{mark}  {claim['part']:12}  {claim['name']}: {claim['value']:.4g} ({bound})")


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(partial, path)
