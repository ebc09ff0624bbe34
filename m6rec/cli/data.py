"""Data: named assets, and logs that are prepared."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from m6rec import assets
from m6rec.cli.app import Json, app, assets_app, say


@assets_app.command("list")
def assets_list(as_json: Json = False) -> None:
    """What can be fetched by name, its licence, and what is here already."""
    rows = [{**asdict(assets.describe(name)), "here": assets.is_here(name)} for name in assets.names()]
    lines = [
        f"{'✓' if row['here'] else ' '} {row['name']:16} {row['kind']:6} {row['megabytes']:>4} MB  {row['licence']}"
        for row in rows
    ]
    say(rows, as_json, "\n".join(lines))


@assets_app.command("get")
def assets_get(
    name: str,
    accept_licence: Annotated[bool, typer.Option(help="Accept the terms of an asset that has some.")] = False,
    as_json: Json = False,
) -> None:
    """Fetches an asset, verifies it and tells where it is."""
    folder = assets.get(name, accept_licence=accept_licence)
    say({"name": name, "folder": str(folder)}, as_json, str(folder))


@app.command()
def prepare(
    domain: Annotated[str, typer.Argument(help="movielens, amazon, mind, generic, … or package.module:NAME")],
    files: Annotated[list[Path] | None, typer.Argument(help="Your own files, where the domain has no data.")] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the checked and split log.")],
    split: Annotated[str, typer.Option(help="time, leave-one-out or item.")] = "time",
    as_json: Json = False,
) -> None:
    """Reads, checks and splits a log."""
    from m6rec.data import leakage
    from m6rec.data.split import TEST, TRAIN, VALID
    from m6rec.domains import prepared

    made = prepared.prepare(domain, split, out, *(files or []))
    log = made.split.log
    facts = {
        "events": len(log.events),
        "items": len(log.items),
        "users": len(log.users),
        "training": len(made.split.indices(TRAIN)),
        "validation": len(made.split.indices(VALID)),
        "test": len(made.split.indices(TEST)),
        "dropped": dict(log.dropped),
        "leaks": {leak.name: leak.count for leak in leakage.find(made.split)},
    }
    say(facts, as_json, "\n".join(f"{name:10} {value}" for name, value in facts.items()))
