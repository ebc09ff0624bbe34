"""The HTTP service."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from m6rec.cli.app import Device, Dtype, ExitAfter, app
from m6rec.cli.config import Changes, ConfigFile, of_foundation, settings
from m6rec.cli.runs import (
    Blocked,
    Data,
    ProjectFolder,
    Rank,
    Retrieve,
    blocklist,
    cache_of,
    require_dataset,
    served,
    text_writers,
    tuned_runs,
)
from m6rec.errors import ConfigError, ExtraError
from m6rec.fingerprint import Fingerprint

SWITCH_S = 5e-4
"""Interval of Python's thread switch. The event loop wakes about ten times per request, so the default 5 ms adds up."""


@app.command()
def serve(
    *,
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    blocked: Blocked = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Folder for events, items and item vectors; by default the project's."),
    ] = None,
    adopt: Annotated[
        bool,
        typer.Option("--adopt", help="Accept a store and runs of an earlier preparation of the same log."),
    ] = False,
    journal: Annotated[
        str | None, typer.Option(help="Store events elsewhere: a folder, or the redis:// URL of a durable server.")
    ] = None,
    file: ConfigFile = None,
    changes: Changes = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 for a free one; default 8300.")] = None,
    states: Annotated[
        str | None, typer.Option(help="State cache: a folder, or the redis:// URL of a shared server.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="File of hashed API keys (see `m6rec key`).")] = None,
    insecure: Annotated[bool | None, typer.Option(help="Allow access from other machines without keys.")] = None,
    queue: Annotated[int | None, typer.Option(help="Maximum number of queued requests; default 16.")] = None,
    batch: Annotated[int | None, typer.Option(help="Maximum batch size of ranking requests; default 8.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the model; 0, the default, for the number of cores minus one.")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which a queued request is rejected; default 5.")
    ] = None,
    exit_after: ExitAfter = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Serves recommendations over HTTP until SIGTERM; SIGHUP reloads the runs."""
    try:
        from m6rec.serving.api import server
    except ImportError as error:
        raise ExtraError("m6rec serve", "serve") from error
    import torch

    from m6rec.data.erasure import without
    from m6rec.domains import prepared
    from m6rec.features.interactions import InteractionStore
    from m6rec.hooks import REDIS
    from m6rec.readouts import EmbedModel, ScoreModel, read_config
    from m6rec.serving.binding import bind_store
    from m6rec.serving.catalogue import Catalogue
    from m6rec.serving.deployment import Deployment, read_deployment, served_runs
    from m6rec.serving.following import following
    from m6rec.serving.journal import open_journal
    from m6rec.serving.memory import keep_freed_memory
    from m6rec.serving.project_files import ProjectFiles
    from m6rec.serving.recommender import Recommender

    options = {
        "serving.http.host": ("--host", host),
        "serving.http.port": ("--port", port),
        "serving.http.keys": ("--keys", keys),
        "serving.http.insecure": ("--insecure", insecure),
        "serving.http.max_queue": ("--queue", queue),
        "serving.http.max_batch": ("--batch", batch),
        "serving.http.deadline_s": ("--deadline", deadline),
        "serving.threads": ("--threads", threads),
        "serving.journal": ("--journal", journal),
        "states.store": ("--states", states),
    }
    config = settings(file, changes, of_foundation(None, device, dtype) | options, project=project)
    journal = config.serving.journal
    server.log_to_stderr()
    keep_freed_memory()
    # One core is left to the event loop, so that a busy service stays responsive.
    torch.set_num_threads(config.serving.threads or max(1, torch.get_num_threads() - 1))
    sys.setswitchinterval(SWITCH_S)
    chosen = served(project, data, retrieve, rank)
    store = store or chosen.store
    if store is None:
        raise ConfigError("there is no project to store events and items in; give --store FOLDER")
    dataset = prepared.fingerprint(chosen.data)
    tuned_on = [made.data for run in (chosen.rank, chosen.retrieve) if (made := Fingerprint.load(run))]
    former = bind_store(store, dataset, adopt=adopt, runs=tuned_on).former
    scheme, is_url, _ = journal.partition("://")
    if journal and (not is_url or scheme in REDIS):  # a journal of another package says by itself whose it is
        bind_store(journal if is_url else Path(journal), dataset, adopt=adopt)
    made, retrieval, ranking = tuned_runs(
        chosen.data, chosen.retrieve, chosen.rank, config, exit_after=exit_after, former=former
    )
    events = open_journal(journal or store / "histories")
    log = without(made.split.log, events.forgotten(made.split.log.users))
    recommender = Recommender(
        retrieval,
        ranking,
        log,
        InteractionStore(log.items, made.domain.feedback).update_all(log.events),
        journal=events,
        catalogue=Catalogue(store / "catalogue"),
        vectors=store / "vectors",
        writers=text_writers(chosen.rank, ranking, config.states),
        blocked=blocklist(blocked),
        limits=config.serving.limits,
    )

    def reload() -> None:
        nonlocal chosen
        now = served(project, data, retrieve, rank)  # the newest runs of a project
        for run in (now.rank, now.retrieve):
            require_dataset(run, dataset, former=former)
        foundation = ranking.foundation
        cache = cache_of(ScoreModel, read_config(now.rank), foundation, config.states, ranking.cache)
        fresh = ScoreModel.load(now.rank, foundation, cache, exit_after=exit_after)
        cache = cache_of(EmbedModel, read_config(now.retrieve), foundation, config.states, retrieval.cache)
        embeds = EmbedModel.load(now.retrieve, foundation, cache)
        recommender.swap(embeds, fresh, text_writers(now.rank, fresh, config.states))
        chosen = now

    def deployment() -> Deployment:
        return read_deployment(chosen.data, chosen.retrieve, chosen.rank, files())

    def files() -> ProjectFiles:
        runs = served_runs(chosen.retrieve, chosen.rank)
        return ProjectFiles(device=chosen.device, reports=chosen.report, runs=runs)

    http, statistics = config.serving.http, recommender.cache_statistics
    gc.freeze()  # a full collection over what is loaded would block requests for half a second
    with following(recommender):
        server.serve(recommender, http, reload=reload, statistics=statistics, deployment=deployment, files=files)
    recommender.save()


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="File of key hashes for `m6rec serve --keys`; created if missing.")],
    *,
    name: Annotated[str, typer.Option(help="Comment stored with the key.")] = "",
    role: Annotated[str, typer.Option(help="What it allows: read, write or admin.")] = "admin",
) -> None:
    """Creates an API key and prints it once; the file stores its hash."""
    from m6rec.serving.settings import make_key

    typer.echo(make_key(file, name, role))
