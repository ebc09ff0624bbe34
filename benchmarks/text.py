"""Everything that generated texts have to show, measured: ``make bench-text``.

Parts, each of which can be run alone (``--part``) and leaves its results beside those of the others:

- explanation: tuned, untuned and gated reasons beside simple ones, on reviews (``benchmarks.explanation``);
- content: products and queries made for a user (``benchmarks.content``);
- conversation: scripted feedback, and the films of real dialogues (``benchmarks.conversation``);
- speed: first token, tokens a second, many streams at once (``benchmarks.speed``);
- abuse: strings that try to give orders, and another user's history (``benchmarks.abuse``).

``QUICK=1`` takes minutes and writes to ``runs/bench``; the full form writes to ``benchmarks/results``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import parts
from benchmarks.setup import Setup

PARTS = ("explanation", "content", "conversation", "speed", "abuse")


def main(
    run: Annotated[Path, typer.Option(help="A run of the like task.")] = Path("runs/demo/runs/like-0"),
    retrieve: Annotated[Path, typer.Option(help="A run of the retrieval task.")] = Path("runs/demo/runs/retrieve-0"),
    data: Annotated[Path, typer.Option(help="The prepared log.")] = Path("runs/demo/data"),
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = None,
) -> None:
    setup = Setup(run=run, retrieve=retrieve, data=data, quick=bool(os.environ.get("QUICK")))
    parts.measure("text", "Texts", {name: parts.module(name) for name in part or PARTS}, setup)


if __name__ == "__main__":
    typer.run(main)
