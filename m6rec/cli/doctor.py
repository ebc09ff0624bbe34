"""What works on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from m6rec.cli.app import Device, Dtype, Foundation, Json, app, say
from m6rec.cli.config import Changes, ConfigFile, of_foundation, settings
from m6rec.cli.runs import ProjectFolder

URLS = ("redis://", "rediss://", "unix://")
"""Of servers that are looked at; folders and the stores of packages are not."""
_MARKS = {"ok": "✓", "warning": "!", "failure": "✗"}


@app.command()
def doctor(
    *,
    project: ProjectFolder = None,
    foundation: Foundation = None,
    redis: Annotated[str, typer.Option(help="URL of a Redis or Valkey server to look at besides those set.")] = "",
    device: Device = None,
    dtype: Dtype = None,
    file: ConfigFile = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Says what works on this machine, what is missing and how to get it; exit code 1 if a service could not run."""
    from m6rec.doctor import STATES, Patient, examine

    tree = settings(file, changes, of_foundation(foundation, device, dtype), project=project)
    stores = {"redis": redis, STATES: tree.states.store, "serving.journal": tree.serving.journal}
    patient = Patient(
        foundation=tree.foundation.name,
        device=tree.foundation.device,
        dtype=tree.foundation.dtype,
        project=project,
        servers={name: url for name, url in stores.items() if url.startswith(URLS)},
    )
    found = list(examine(patient))
    can_serve = not any(one.status == "failure" for one in found)
    lines = []
    for one in found:
        lines.append(f"{_MARKS[one.status]} {one.name}: {one.told}")
        lines += [f"    {one.remedy}"] * bool(one.remedy)
    lines.append(
        "A service can run here." if can_serve else "A service can't run here; see the lines that begin with ✗."
    )
    say({"can_serve": can_serve, "findings": [asdict(one) for one in found]}, as_json, "\n".join(lines))
    raise typer.Exit(0 if can_serve else 1)
