"""The service."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from m6rec.cli.app import Data, Device, Dtype, ExitAfter, app
from m6rec.cli.runs import Blocked, Rank, Retrieve, blocklist, text_writers, tuned_runs
from m6rec.errors import ExtraError

SWITCH_S = 5e-4
"""How long the model keeps Python from the event loop, which a request wakes some ten times: the usual 5 ms add up."""


@app.command()
def serve(
    *,
    data: Data = Path("runs/demo/data"),
    retrieve: Retrieve = Path("runs/demo/retrieve-0"),
    rank: Rank = Path("runs/demo/like-0"),
    blocked: Blocked = None,
    store: Annotated[
        Path, typer.Option(help="Folder that keeps the events and items which come in, and vectors.")
    ] = Path("runs/demo/store"),
    journal: Annotated[
        str, typer.Option(help="Where events are kept instead: a folder, or the redis:// URL of a durable server.")
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 8300,
    states: Annotated[
        str, typer.Option(help="Where states are kept: a folder, or the redis:// URL of a shared server.")
    ] = "",
    keys: Annotated[Path | None, typer.Option(help="File of hashed API keys, made by `m6rec key`.")] = None,
    insecure: Annotated[bool, typer.Option(help="Let other machines in without keys.")] = False,
    queue: Annotated[int, typer.Option(help="Requests that may wait for the model.")] = 16,
    batch: Annotated[int, typer.Option(help="Requests that are ranked together.")] = 8,
    threads: Annotated[int, typer.Option(help="Threads of the model; 0: one less than there are cores.", min=0)] = 0,
    deadline: Annotated[float, typer.Option(help="Seconds after which a waiting request is refused.")] = 5.0,
    exit_after: ExitAfter = None,
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
) -> None:
    """Serves recommendations over HTTP until SIGTERM; SIGHUP loads what was tuned meanwhile."""
    try:
        from m6rec.serving.api import server
    except ImportError as error:
        raise ExtraError("m6rec serve", "serving") from error
    import torch

    from m6rec.serving.catalogue import Catalogue
    from m6rec.serving.journal import open_journal
    from m6rec.serving.memory import keep_freed_memory
    from m6rec.serving.recommender import Recommender
    from m6rec.serving.settings import Settings
    from m6rec.text.past import Past
    from m6rec.tuned import load as load_tuned

    settings = Settings(
        host=host,
        port=port,
        keys=keys,
        insecure=insecure,
        max_queue=queue,
        max_batch=batch,
        deadline_s=deadline,
    )
    server.log_to_stderr()
    keep_freed_memory()
    # One core is left to the event loop, so that a busy service still answers and refuses.
    torch.set_num_threads(threads or max(1, torch.get_num_threads() - 1))
    sys.setswitchinterval(SWITCH_S)
    made, retrieval, ranking = tuned_runs(data, retrieve, rank, device, dtype, states, exit_after)
    events = open_journal(journal or store / "histories")
    log = without(made.split.log, events.forgotten(made.split.log.users))
    recommender = Recommender(
        retrieval,
        ranking,
        log,
        Past(log.items, made.domain.feedback).observe_all(log.events),
        journal=events,
        catalogue=Catalogue(store / "catalogue"),
        vectors=store / "vectors",
        writers=text_writers(rank, ranking, states),
        blocked=blocklist(blocked),
    )

    def reload() -> None:
        fresh = load_tuned(rank, ranking.foundation, ranking.cache, exit_after=exit_after)
        recommender.swap(
            load_tuned(retrieve, ranking.foundation, ranking.cache), fresh, text_writers(rank, fresh, states)
        )

    gc.freeze()  # what has been loaded stays: a collection that walks it would hold requests up for half a second
    server.serve(recommender, settings, reload=reload, statistics=ranking.cache.statistics)
    recommender.save()


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="File of hashes for `m6rec serve --keys`; made if need be.")],
    *,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
) -> None:
    """Makes an API key and prints it, once; the file keeps its hash."""
    from m6rec.serving.settings import make_key

    typer.echo(make_key(file, name))
