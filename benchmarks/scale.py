"""Beyond one machine: ``make bench-scale`` writes ``benchmarks/results/scale.json``, ``QUICK=1`` less into ``runs``.

One part alone: ``python -m benchmarks.scale --part recommend``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import parts, scale_plan, scale_recommend, scale_services
from benchmarks.setup import Setup

TITLE = "Beyond one machine"
PARTS: dict[str, parts.Measure] = {
    "recommend": scale_recommend.recommend,
    "killed": scale_recommend.killed,
    "plan": scale_plan.plan,
    "services": scale_services.services,
    "balanced": scale_services.balanced,
}


def main(part: Annotated[str, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = "") -> None:
    """Measures and writes the results."""
    nowhere = Path()
    setup = Setup(run=nowhere, retrieve=nowhere, data=nowhere, quick=bool(os.environ.get("QUICK")))
    parts.measure("scale", TITLE, {part: PARTS[part]} if part else PARTS, setup)


if __name__ == "__main__":
    typer.run(main)
