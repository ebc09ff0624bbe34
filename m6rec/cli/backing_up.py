"""Backup and restore of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m6rec.cli.app import Json, app, say
from m6rec.cli.erasing import JournalPlace
from m6rec.project import Project


@app.command()
def backup(
    project: Annotated[Path, typer.Argument(help="Project folder.")],
    folder: Annotated[Path, typer.Argument(help="New folder of the backup.")],
    *,
    journal: JournalPlace = "",
    as_json: Json = False,
) -> None:
    """Copies all state of a project into one folder, while services may go on writing.

    Dataset, runs, reports, events and items. Foundation models and API keys are elsewhere, and not part of it.
    """
    from m6rec.serving.backup import back_up

    made = back_up(Project.open(project), folder, journal)
    facts = {"folder": str(folder), "files": len(made.files), "record": made.record}
    say(facts, as_json, f"{len(made.files)} files are in {folder}, up to record {made.record} of the journal.")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="Folder of `m6rec backup`.")],
    project: Annotated[Path, typer.Argument(help="New project folder.")],
    *,
    journal: Annotated[
        str, typer.Option("--journal", help="Restore events elsewhere: a new folder, or the URL of an empty server.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Checks a backup and makes a project of it; nothing that exists is overwritten."""
    from m6rec.serving.backup import restore as restore_backup

    made = restore_backup(folder, project, journal)
    facts = {"project": str(project), "files": len(made.files), "record": made.record}
    say(facts, as_json, f"{project} is as it was at record {made.record} of the journal.")
