"""From a log to a recommender, in one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from m6rec.cli.app import Device, Dtype, Foundation, Json, app, bar, err, say
from m6rec.cli.config import Changes, ConfigFile, of_foundation, settings
from m6rec.cli.data import Columns, Files, Implicit, OnError, Positive, Repeats, Source, SplitName, TimeFormat, read_log
from m6rec.cli.runs import state_store


@app.command()
def init(
    source: Source,
    files: Files = None,
    *,
    project: Annotated[
        Path | None, typer.Option(help="Project folder, by default named after the log; give it again to resume.")
    ] = None,
    split: SplitName = None,
    columns: Columns = "",
    positive: Positive = None,
    implicit: Implicit = False,
    repeats: Repeats = "keep",
    on_error: OnError = None,
    time_format: TimeFormat = None,
    seeds: Annotated[int, typer.Option(help="Number of ranking runs, to report a standard deviation.", min=1)] = 1,
    file: ConfigFile = None,
    changes: Changes = None,
    foundation: Foundation = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Prepares a log, tunes and evaluates ranking and retrieval, and prints how to serve them."""
    import time
    from dataclasses import asdict, replace

    from m6rec.data import card
    from m6rec.domains import prepared
    from m6rec.evaluation import report
    from m6rec.foundation.checkpoint import load
    from m6rec.project import Project
    from m6rec.quickstart import first_list, plan, tune_all

    start = time.monotonic()
    home = Project(project or Path(Path(source).name.partition(".")[0] or "project"))
    config = settings(file, changes, of_foundation(foundation, device, dtype), project=home.folder)
    made, facts = read_log(
        source,
        files,
        home.data,
        split=split,
        columns=columns,
        positive=positive,
        implicit=implicit,
        repeats=repeats,
        on_error=on_error,
        time_format=time_format,
    )
    Project.create(home.folder)  # not before the log is known to be one
    dataset = prepared.keep(made, home.data)
    if not as_json:
        err.print(card.words({"folder": str(home.data), **facts}), markup=False, highlight=False, soft_wrap=True)
    model = load(config.foundation.name, dtype=config.foundation.dtype, device=config.foundation.device)
    chosen = replace(
        plan(made),
        ranking_tuning=config.ranking.adapter,
        ranking_training=config.init.ranking,
        retrieval_training=config.retrieval.training,
        ranking_seeds=range(seeds),
        questions=config.init.questions,
        states=config.states.cache,
        store=state_store(config.states.store),
    )

    @contextmanager
    def stage(name: str) -> Iterator[Any]:
        err.print(f"· {name}", highlight=False)
        with bar(name) as update:
            yield update

    with stage("first recommendations, by text alone") as update:
        first = first_list(made, dataset, model, chosen, update)
    if first and not as_json:
        words = f"  {first.describe()} (after {time.monotonic() - start:.0f} s, nothing tuned yet)"
        err.print(words, markup=False, highlight=False, soft_wrap=True)
    outcome = tune_all(home, made, dataset, model, chosen, stage)
    result = report.Report(
        title=f"{home.folder.name}: {made.domain.noun}s ranked and retrieved",
        tables=outcome.tables,
        facts={
            **report.facts(),
            **chosen.describe(),
            **{f"not tuned: {of}": why for of, why in outcome.impossible.items()},
        },
    )
    report.write_report(result, home.report)
    serve = f"m6rec serve --project {home.folder}"
    if as_json:
        tables = {table.title: {row.method: dict(row.metrics) for row in table.rows} for table in outcome.tables}
        found = None if first is None else asdict(first)
        told = {"project": str(home.folder), "data": facts, "first": found, "tables": tables}
        say(told | {"not tuned": dict(outcome.impossible), "serve": serve}, True, "")
        return
    Console().print(report.to_table(result))
    for task, why in outcome.impossible.items():
        err.print(f"{task} was not tuned: {why}", markup=False, highlight=False, soft_wrap=True)
    user = next(iter(made.split.log.users))
    lines = [
        f"Report: {home.report / 'report.html'}",
        f"Try it: m6rec recommend --project {home.folder} --user {user}",
        f"Serve it: {serve}",
    ]
    say({}, False, "\n".join(lines))
