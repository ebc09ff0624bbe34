"""Assets and the preparation of logs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from m6rec import assets
from m6rec.cli.app import Json, app, assets_app, bar, say
from m6rec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from m6rec.domains.prepared import Prepared

_SAMPLE = 2_000  # events at the beginning of a log that prompts are shown of


@assets_app.command("list")
def assets_list(as_json: Json = False) -> None:
    """Lists assets with their licence and whether they are downloaded."""
    rows = [{**asdict(assets.describe(name)), "here": assets.is_here(name)} for name in assets.names()]
    lines = [
        f"{'✓' if row['here'] else ' '} {row['name']:16} {row['kind']:6} {row['megabytes']:>4} MB  {row['licence']}"
        for row in rows
    ]
    say(rows, as_json, "\n".join(lines))


@assets_app.command("get")
def assets_get(
    name: str,
    accept_licence: Annotated[bool, typer.Option(help="Accept the licence terms of the asset.")] = False,
    as_json: Json = False,
) -> None:
    """Downloads and verifies an asset; prints its folder."""
    folder = assets.get(name, accept_licence=accept_licence)
    say({"name": name, "folder": str(folder)}, as_json, str(folder))


Source = Annotated[
    str,
    typer.Argument(
        metavar="DOMAIN|EVENTS",
        help="A domain (movielens, amazon, mind, … or package.module:NAME), or your own table of events: a file, a "
        "folder, a quoted glob pattern, or a database URL.",
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Argument(help="The files of the domain; or the tables of items and of users."),
]
SplitName = Annotated[
    str | None,
    typer.Option("--split", help="time, leave-one-out, item or user; time by default if the log has timestamps."),
]
Columns = Annotated[str, typer.Option("--columns", help="Column names by role: user=buyer,item=sku,time=when.")]
Positive = Annotated[
    str | None, typer.Option("--positive", help="Which events are positive: 'rating>=4', 'event=purchase'.")
]
Implicit = Annotated[bool, typer.Option("--implicit", help="Implicit feedback: every event is positive.")]
Repeats = Annotated[
    str, typer.Option("--repeats", help="keep or drop repeated events of the same user, item and kind.")
]
OnError = Annotated[
    str | None, typer.Option("--on-error", help="At an invalid row: raise an error, or drop and count it.")
]
TimeFormat = Annotated[
    str | None,
    typer.Option("--time-format", help="Format of timestamps: '%d/%m/%Y %H:%M', s, ms, us, ns or position."),
]


@app.command()
def prepare(
    source: Source,
    files: Files = None,
    *,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("data"),
    split: SplitName = None,
    columns: Columns = "",
    positive: Positive = None,
    implicit: Implicit = False,
    repeats: Repeats = "keep",
    on_error: OnError = None,
    time_format: TimeFormat = None,
    as_json: Json = False,
) -> None:
    """Validates and splits a log, and reports which tasks can be tuned on it."""
    from m6rec.data import card
    from m6rec.domains import prepared

    made, facts = read_log(
        source,
        files,
        out,
        split=split,
        columns=columns,
        positive=positive,
        implicit=implicit,
        repeats=repeats,
        on_error=on_error,
        time_format=time_format,
    )
    prepared.save(made, out)
    facts = {"folder": str(out), **facts}
    say(facts, as_json, card.words(facts))


def read_log(
    source: str,
    files: list[str] | None,
    folder: Path,
    *,
    split: str | None,
    columns: str,
    positive: str | None,
    implicit: bool,
    repeats: str,
    on_error: str | None,
    time_format: str | None,
) -> tuple[Prepared, dict[str, Any]]:
    """Reads and prepares the log without saving it; returns it with its dataset card.

    Raises:
        ConfigError: The options contradict each other.
        DataError: The log is invalid, or no task can be tuned and evaluated on it.
    """
    from m6rec.data import card
    from m6rec.data.schema import Columns as Roles
    from m6rec.domains import prepared
    from m6rec.types import Event

    name, tables = (source, files or []) if _is_domain(source) else ("generic", [source, *(files or [])])
    if positive is not None and implicit:
        raise ConfigError("--positive and --implicit are mutually exclusive; --implicit makes every event positive.")
    options: dict[str, Any] = {
        "columns": Roles.parse(columns) if columns else None,
        "on_error": on_error,
        "time_format": time_format,
    }
    with bar("preparing") as update:
        made = prepared.make(
            name,
            split,
            *tables,
            positive=prepared.IMPLICIT if implicit else positive,
            repeats=repeats,  # type: ignore[arg-type]
            progress=lambda share, label: update(round(80 * share), 100, label=label),
            **{option: value for option, value in options.items() if value is not None},
        )
        made = prepared.admitted(made, folder)
        update(80, 100, label="looking for leaks")

        def positive_of(kind: str, value: float | None) -> bool | None:
            return made.domain.feedback(Event("", "", 0, value, kind=kind)).positive

        facts: dict[str, Any] = {"domain": name, "split": made.protocol, "feedback": made.why}
        facts |= card.card(made.split, positive_of)
        if why := card.impossible(facts):
            raise DataError(f"no task can be tuned and evaluated on this log, so nothing was saved. {why}")
        facts["prompts"] = _prompts(made)
        update(100, 100, label="prepared")
    return made, facts


def _is_domain(source: str) -> bool:
    """Whether the argument is a domain rather than a table."""
    from m6rec.data.tables import is_table
    from m6rec.domains import domain as domains

    return source in domains.names() or not is_table(source)


def _prompts(made: Prepared) -> list[str]:
    """Three ranking prompts as the model reads them, preferably with a history."""
    from m6rec.tasks.task import build_examples, named

    events = made.split.log.events[:_SAMPLE]
    log = made.split.log
    wanted = np.ones(len(events), np.bool_)
    rows, _ = build_examples(named("click"), events, log.users, log.items, made.domain, wanted)
    asked = sorted((int(row.events[n]), row.question(n)) for row in rows for n in range(len(row.events)))
    told = [question for _, question in asked if any(segment.slot == "history" for segment in question.context)]
    first = (told or [question for _, question in asked])[:3]
    return ["".join(segment.text for segment in (*one.context, *one.candidate)) for one in first]
