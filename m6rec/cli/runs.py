"""Runs that several commands load, on one foundation and one cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from m6rec import assets

Retrieve = Annotated[Path, typer.Option("--retrieve", help="Run of the retrieval task.")]
Rank = Annotated[Path, typer.Option("--rank", help="Run of the ranking task.")]
Blocked = Annotated[Path | None, typer.Option("--blocked", help="File of words that no text may hold, one a line.")]


def text_writers(rank: Path, ranking: Any, states: str = "") -> dict[str, Any]:
    """The writers whose runs stand beside that of the ranking task, each in a folder that has its task's name."""
    from m6rec.tasks import writing
    from m6rec.writer import load as load_writer

    runs = {task: rank.parent / task for task in writing.names()}
    return {
        task: load_writer(run, ranking.foundation, ranking.cache, _store(states))
        for task, run in runs.items()
        if run.is_dir()
    }


def blocklist(file: Path | None) -> Any:
    """The words that no text may hold, besides the built-in ones; None for no file."""
    from m6rec.text.safety import Blocklist

    return None if file is None else Blocklist.load(file)


def _store(states: str) -> Any:
    """Where states are kept: a folder, the URL of a server, or "" for this machine's own place."""
    from m6rec.foundation.stores import RedisStore

    return RedisStore(states) if "://" in states else Path(states) if states else assets.home() / "states"


def tuned_runs(
    data: Path,
    retrieve: Path,
    rank: Path,
    device: str = "cpu",
    dtype: str = "bfloat16",
    states: str = "",
    exit_after: int | None = None,
) -> tuple[Any, Any, Any]:
    """(the prepared log, the retrieval task, the ranking task) on one foundation and one cache, that of this machine.

    ``states`` is the folder or the URL of another cache.
    """
    from m6rec.domains import prepared
    from m6rec.foundation.checkpoint import load
    from m6rec.tuned import load as load_tuned
    from m6rec.tuned import read_config

    made = prepared.load(data)
    foundation = load(read_config(rank).foundation, dtype=dtype, device=device)
    ranking = load_tuned(rank, foundation, store=_store(states), exit_after=exit_after)
    return made, load_tuned(retrieve, foundation, ranking.cache), ranking
