"""Every benchmark at one commit: ``make evidence``, with ``QUICK=1`` in the short forms.

A part that was measured at this commit is not measured again, so what was stopped goes on. Files that differ from the
commit are refused, also where they change while something is measured; results and documents may differ. At the end
what is still of another commit is told, as the parts of research sets that are not at hand.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from benchmarks import parts
from benchmarks.setup import Setup
from m6rec.errors import ConfigError

SUITES = {name: name for name in ("retrieval", "evidence", "serving", "edge", "scale", "durability", "tasks")} | {
    "page": "web_page"
}
"""By the name of their results, the modules."""
OF_DEMO = ("serving", "edge")
"""Those that measure the runs of ``make demo``."""


def main(
    suite: Annotated[list[str] | None, typer.Argument(help=f"Some of {', '.join(SUITES)}; all by default.")] = None,
) -> None:
    """Measures what is not measured yet at this commit."""
    suites = {name: importlib.import_module(f"benchmarks.{SUITES[name]}") for name in suite or SUITES}
    if left := measure_all(suites, quick=bool(os.environ.get("QUICK"))):
        typer.echo("of another commit, or not measured: " + ", ".join(left), err=True)
        raise typer.Exit(1)


def measure_all(suites: Mapping[str, ModuleType], *, quick: bool) -> list[str]:
    """Measures the parts of suites that are not of this commit; returns those that still are not.

    Args:
        suites: Modules with a ``TITLE`` and ``PARTS``, by the name of their results.
        quick: Whether the short forms are wanted.

    Raises:
        ConfigError: This is no repository, or files differ from their commit.
    """
    commit = parts.code_commit()
    if not commit or commit.endswith("-dirty"):
        raise ConfigError(
            "files differ from their commit, or there is none; commit or remove them, as results are of one"
        )
    left = []
    for name, module in suites.items():
        nothing = Path()
        setup = (
            Setup(quick=quick) if name in OF_DEMO else Setup(run=nothing, retrieve=nothing, data=nothing, quick=quick)
        )
        for part, run in module.PARTS.items():
            if parts.measured_at(name, part, setup) != commit:
                parts.measure(name, module.TITLE, {part: run}, setup, commit=commit)
            if (at := parts.measured_at(name, part, setup)) != commit:
                left.append(f"{name}, {part} ({at or 'never'})")
    return left


if __name__ == "__main__":
    typer.run(main)
