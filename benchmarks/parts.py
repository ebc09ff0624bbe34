"""A benchmark made of parts: each is measured alone and leaves its results beside those of the others.

A results file says of each part which commit it is of; ``python -m benchmarks`` brings all to one.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from benchmarks.setup import AbsentError, Claims, Setup
from m6rec import files
from m6rec.errors import ConfigError
from m6rec.evaluation import report

ValueT = TypeVar("ValueT")
Measure = Callable[[Setup], tuple[dict[str, Any], Claims]]
"""Returns what is written as it is, but for ``tables``, which are those of ``report``; and the claims."""
RESULTS, QUICK_RESULTS = Path("benchmarks/results"), Path("runs/bench")
WRITINGS = (RESULTS.as_posix(), "docs", "design", "*.md")
"""Files that change no result."""


def tell(text: str) -> None:
    """Says what is being done."""
    typer.echo(f"  {text}", err=True)


def module(part: str) -> Measure:
    """``measure`` of the module of this package that has the part's name, which is imported when it is needed."""

    def measured(setup: Setup) -> tuple[dict[str, Any], Claims]:
        found: Measure = importlib.import_module(f"benchmarks.{part}").measure
        return found(setup)

    return measured


def cache(name: str, setup: Setup) -> Path:
    """The folder of what a benchmark keeps between runs of the same commit."""
    return Path("runs/bench", name, code_commit() or "no-commit", "quick" if setup.quick else "full")


def kept(path: Path, run: Callable[[], ValueT]) -> ValueT:
    """What a run brought, from its file if it is there; so what was stopped goes on."""
    if not path.is_file():
        _write(path, run())
    value: ValueT = json.loads(path.read_text())
    return value


def code_commit() -> str:
    """The latest commit of what can change a result, with "-dirty" where files differ from it; empty without one."""
    paths = ["--", ".", *(f":(exclude){path}" for path in WRITINGS)]
    try:
        latest, changed = (
            subprocess.run(["git", *words, *paths], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("log", "-1", "--format=%h"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{latest}-dirty" if changed else latest


def measured_at(name: str, part: str, setup: Setup) -> str:
    """The commit that the results of a part are of; empty without results."""
    path = _results(name, setup)
    known = json.loads(path.read_text())["parts"] if path.is_file() else {}
    return str(known.get(part, {}).get("commit", ""))


def _results(name: str, setup: Setup) -> Path:
    return (QUICK_RESULTS if setup.quick else RESULTS) / f"{name}.json"


def run(name: str, title: str, parts: Mapping[str, Measure], *, demo: bool = False) -> None:
    """The command line of a benchmark; with ``demo`` it measures runs of the demo, or others that are named."""

    def of_runs(
        run: Annotated[Path, typer.Option(help="A run of the like task.")] = Setup.run,
        retrieve: Annotated[Path, typer.Option(help="A run of the retrieval task.")] = Setup.retrieve,
        data: Annotated[Path, typer.Option(help="The prepared log.")] = Setup.data,
        part: Annotated[list[str] | None, typer.Option(help="Parts to measure; all by default.")] = None,
    ) -> None:
        if unknown := set(part or ()) - set(parts):
            raise typer.BadParameter(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
        setup = Setup(run=run, retrieve=retrieve, data=data, quick=bool(os.environ.get("QUICK")))
        measure(name, title, {one: parts[one] for one in part or parts}, setup)

    def of_nothing(
        part: Annotated[list[str] | None, typer.Option(help="Parts to measure; all by default.")] = None,
    ) -> None:
        of_runs(run=Path(), part=part)

    typer.run(of_runs if demo else of_nothing)


def measure(name: str, title: str, parts: Mapping[str, Measure], setup: Setup, *, commit: str = "") -> None:
    """Measures the parts, writes ``name.json`` after each, and prints what it holds.

    Raises:
        ConfigError: ``commit`` is given, and a part was not measured at it.
    """
    path = _results(name, setup)
    for part, run in parts.items():
        typer.echo(f"· {part}", err=True)
        began = code_commit()
        try:
            measured, claims = run(setup)
        except AbsentError as absent:
            tell(f"{part} is left out: {absent}")
            continue
        if commit and (began, code_commit()) != (commit, commit):
            raise ConfigError(f"files changed while {part} was measured, which is not kept; begin anew")
        # Read now, as another part may have been measured meanwhile.
        empty: dict[str, Any] = {"title": title, "claims": [], "parts": {}}
        value: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else empty
        tables: tuple[report.Table, ...] = measured.pop("tables", ())
        told = {"tables": [asdict(table) | {"verdict": table.verdict} for table in tables]} if tables else {}
        made_from = {"fingerprint": setup.fingerprint()}
        value["parts"][part] = {
            **report.facts(),
            "commit": began,
            **made_from,
            "seed": 0,
            "quick": setup.quick,
            **measured,
            **told,
        }
        value["claims"] = [claim for claim in value["claims"] if claim["part"] != part]
        for what, number, relation, target in claims:
            command = f"make bench-{name}"
            claim = report.Claim(name=what, value=number, relation=relation, target=target, command=command)
            value["claims"].append({"part": part, **asdict(claim), "holds": claim.holds})
        _write(path, value)
        if tables:
            Console().print(report.to_table(report.Report(title=part, tables=tables)))
    for claim in json.loads(path.read_text())["claims"] if path.is_file() else ():
        mark, bound = "holds" if claim["holds"] else "FAILS", f"{claim['relation']} {claim['target']:g}"
        typer.echo(f"{mark}  {claim['part']:12}  {claim['name']}: {claim['value']:.4g} ({bound})")


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(value, indent=1) + "\n")
