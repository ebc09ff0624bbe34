"""Distillation, export, and inference as on a device."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from m6rec import assets
from m6rec.cli.app import Dtype, Json, app, bar, device_app, say
from m6rec.cli.config import Changes, ConfigFile, of_foundation, settings
from m6rec.cli.recommending import say_ranked
from m6rec.cli.runs import Data, ProjectFolder, cache_of, data_of, former_of, require_dataset, run_of
from m6rec.project import Project


@app.command()
def shrink(
    run: Annotated[
        Path | None,
        typer.Argument(help="Ranking run, by folder or name; by default the one that is served."),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Output folder; give it again to resume.")],
    project: ProjectFolder = None,
    data: Data = None,
    file: ConfigFile = None,
    changes: Changes = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Distils a tuned ranking task into a small model, for `m6rec export OUT/run`."""
    from m6rec.domains import prepared
    from m6rec.edge.shrink import shrink as make
    from m6rec.foundation.checkpoint import load
    from m6rec.readouts import ScoreModel, read_config

    config = settings(file, changes, of_foundation(dtype=dtype), project=project)
    run, data = run_of(project, run), data_of(project, data)
    dataset = prepared.fingerprint(data)
    require_dataset(run, dataset, former=former_of(project, dataset))
    made = prepared.load(data)
    config_of_run = read_config(run)
    foundation = load(config_of_run.foundation, dtype=config.foundation.dtype)
    tuned = ScoreModel.load(run, foundation, cache_of(ScoreModel, config_of_run, foundation, config.states))
    questions = tuned.examples(tuned.task, made.split, made.domain)
    lessons = assets.home() / "lessons"
    with bar("shrinking") as update:

        def tell(stage: str, done: int, total: int) -> None:
            update(done, total, label=stage)

        card = make(tuned, made.split.log, questions.rows, config.shrink, out, lessons=lessons, progress=tell)
    lines = [f"{name}: {card[name]}" for name in ("parameters", "tokens", "operations", "quality")]
    say(card, as_json, "\n".join([str(out), *lines]))


@app.command()
def export(
    run: Annotated[
        Path | None,
        typer.Argument(help="Ranking run, by folder or name; by default the one that is served."),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder, which must not exist; by default the project's, which its page ranks by."),
    ] = None,
    project: ProjectFolder = None,
    data: Data = None,
    dtype: Annotated[str, typer.Option(help="float32, float16, int8 or int4.")] = "int8",
    states: Annotated[bool, typer.Option(help="Include the cached states of the items' texts.")] = True,
    layers: Annotated[
        int | None, typer.Option(help="Student layers to keep, for weak devices; all by default.")
    ] = None,
    lower: Annotated[
        bool, typer.Option(help="Include the lower layers, so that the device can encode texts itself.")
    ] = True,
    since: Annotated[
        Path | None, typer.Option(help="Folder that devices have; only changed files are written.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Exports a ranking run and the items for `m6rec.device`, which runs without torch."""
    from m6rec.device import read_manifest
    from m6rec.domains import prepared
    from m6rec.edge.export import export as write
    from m6rec.edge.shrink import at_exit
    from m6rec.features.interactions import InteractionStore
    from m6rec.foundation.checkpoint import load
    from m6rec.readouts import ScoreModel, read_config

    run, data, out = run_of(project, run), data_of(project, data), out or Project.find(project).device
    dataset = prepared.fingerprint(data)
    require_dataset(run, dataset, former=former_of(project, dataset))
    log = prepared.load(data).split.log
    foundation = load(read_config(run).foundation, dtype="float32")
    tuned = ScoreModel.load(run, foundation, store=assets.home() / "states")
    if layers is not None:
        tuned = at_exit(tuned, layers)
    interactions = InteractionStore(log.items, tuned.domain.feedback).update_all(log.events)
    items = list(log.items.values())
    older = read_manifest(since) if since else None
    with bar("exporting") as update:
        card = write(
            tuned,
            out,
            dtype=dtype,
            items=items,
            interactions=interactions,
            states=states,
            lower=lower,
            since=older,
            progress=update,
        )
    lines = [f"{name:20} {facts['bytes'] / 1e6:7.1f} MB" for name, facts in card.files.items() if (out / name).exists()]
    say(asdict(card), as_json, "\n".join([str(out), *lines]))


DeviceFolder = Annotated[Path, typer.Argument(help="Folder of `m6rec export`.")]
Store = Annotated[Path, typer.Option(help="SQLite file of the device; created if missing.")]


@device_app.command("update")
def device_update(
    folder: DeviceFolder,
    newer: Annotated[Path, typer.Argument(help="Folder of `m6rec export`, with or without --since.")],
) -> None:
    """Updates a device folder atomically."""
    from m6rec.device import update_folder

    update_folder(folder, newer)


@device_app.command("ingest")
def device_ingest(
    folder: DeviceFolder,
    item: Annotated[str, typer.Argument(help="Id of the item.")],
    *,
    store: Store,
    value: Annotated[float, typer.Option(help="Value of the event, in the unit of the log.")] = 1.0,
) -> None:
    """Records an event of the device's user, now."""
    from m6rec.device import ME, Device
    from m6rec.types import Event

    Device.load(folder, store).ingest([Event(ME.id, item, int(time.time()), value)])


@device_app.command("rank")
def device_rank(
    folder: DeviceFolder,
    items: Annotated[list[str], typer.Argument(help="Ids of the items to rank.")],
    *,
    store: Store,
    as_json: Json = False,
) -> None:
    """Ranks items for the device's user."""
    from m6rec.device import Device

    say_ranked(Device.load(folder, store).rank(items), as_json)
