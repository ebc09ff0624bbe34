"""Erasure of users, and merging of the service's events into the dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m6rec.cli.app import Json, app, say
from m6rec.cli.runs import Data, ProjectFolder, data_of
from m6rec.errors import ConfigError
from m6rec.project import Project

Store = Annotated[Path | None, typer.Option("--store", help="Store of the service; by default the project's.")]
JournalPlace = Annotated[str, typer.Option("--journal", help="The value given to `m6rec serve --journal`, if any.")]


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="Id of the user.")],
    *,
    project: ProjectFolder = None,
    data: Data = None,
    store: Store = None,
    journal: JournalPlace = "",
    as_json: Json = False,
) -> None:
    """Erases a user and their events from the prepared dataset and the service's store.

    A keyed hash of the id is kept, so that `m6rec prepare` and the service ignore the user from now on. For a running
    service use `DELETE /v1/users/ID`.
    """
    from m6rec.domains import prepared
    from m6rec.serving import binding
    from m6rec.serving.catalogue import Catalogue
    from m6rec.serving.journal import open_journal

    log, store = data_of(project, data), store or _store(project)
    places: dict[str, bool] = {}
    kept_at = journal or (store and store / "histories")
    if kept_at:
        events = open_journal(kept_at)
        places["journal"] = events.forget(user)
        events.close()
    if store is not None:
        catalogue = Catalogue(store / "catalogue")
        places["users of the service"] = catalogue.forget(user)
        catalogue.close()
    former = prepared.fingerprint(log)
    places["prepared log"] = prepared.forget(log, user)
    for kept in (store, journal if "://" in journal else Path(journal) if journal else None):
        # Runs were tuned on the former dataset and remain valid.
        if kept is not None and places["prepared log"]:
            binding.bind_store(kept, prepared.fingerprint(log), adopt=True, runs=[former.data])
    found = [place for place, erased in places.items() if erased]
    text = (
        f"{user!r} is erased from: {', '.join(found)}." if found else f"{user!r} was in none of: {', '.join(places)}."
    )
    advice = (
        "Existing runs were trained on the user's events, and device folders hold counts that include them: tune and "
        "export again. Remove the user from the source tables yourself; `m6rec prepare` ignores the user."
    )
    say({"user": user, "erased": places, "advice": advice}, as_json, f"{text}\n{advice}")


@app.command()
def merge(
    *,
    project: ProjectFolder = None,
    data: Data = None,
    store: Store = None,
    journal: JournalPlace = "",
    compact: Annotated[bool, typer.Option("--compact", help="Then drop merged events from the journal.")] = False,
    as_json: Json = False,
) -> None:
    """Merges the service's events and items into the prepared dataset, without duplicates.

    The service may keep running, and needs no `--adopt` afterwards.
    """
    from m6rec.domains import prepared
    from m6rec.serving import binding
    from m6rec.serving.catalogue import Catalogue
    from m6rec.serving.journal import later, open_journal

    folder, store = data_of(project, data), store or _store(project)
    if store is None:
        raise ConfigError("there is no project with a store; give --store FOLDER")
    was = prepared.fingerprint(folder)
    binding.bind_store(store, was)
    events, catalogue = open_journal(journal or store / "histories"), Catalogue(store / "catalogue")
    log = prepared.load(folder).split.log
    fresh = list(later(events, log.events))
    named = {event.item for event in fresh}
    gone = {name: item for name, item in catalogue.deleted().items() if name in named}
    added = prepared.merge(folder, fresh, {**gone, **catalogue.items()}, catalogue.users())
    now = prepared.fingerprint(folder)
    for kept in (store, journal if "://" in journal else Path(journal) if journal else None):
        if kept is not None:
            binding.bind_store(kept, now, adopt=True, runs=[was.data])
    dropped = events.compact(prepared.load(folder).split.log.events) if compact else 0
    events.close()
    catalogue.close()
    facts = {"events added": added, "events in the log": len(log.events) + added, "dropped from the journal": dropped}
    say(facts, as_json, "\n".join(f"{name:24} {value}" for name, value in facts.items()))


def _store(project: Path | None) -> Path | None:
    """The project's store; None without a project or a store."""
    try:
        found = Project.find(project).store
    except ConfigError:
        return None
    return found if found.is_dir() else None
