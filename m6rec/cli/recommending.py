"""Recommendations, explanations, chat and generation in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from m6rec.cli import batch
from m6rec.cli.app import Device, Dtype, Json, app, out, say
from m6rec.cli.config import Changes, ConfigFile, of_foundation, settings
from m6rec.cli.runs import (
    Blocked,
    Data,
    ProjectFolder,
    Rank,
    Retrieve,
    recommender_of,
    served,
    store_of,
)
from m6rec.errors import ConfigError
from m6rec.types import Ranked

if TYPE_CHECKING:
    from m6rec.cli.tree import Config
    from m6rec.scale.recommending import Stage


@app.command()
def recommend(
    *,
    user: Annotated[str | None, typer.Option(help="Id of the user.")] = None,
    all_users: Annotated[bool, typer.Option("--all", help="Recommend to every user; write Parquet to --out.")] = False,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="With --all: folder of the partitions; a stopped job goes on there.")
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(help="retrieve: the best by retrieval (default of --all); rank: ordered by the ranking model."),
    ] = None,
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    count: Annotated[int, typer.Option(help="Number of items.")] = 10,
    partition: Annotated[int, typer.Option(help="With --all: users per file.")] = 4_096,
    engine: Annotated[
        str, typer.Option(help="With --all: here, or ray for one process per core of this machine or a cluster.")
    ] = "here",
    workers: Annotated[
        int, typer.Option(help="With --all: threads, or processes of Ray; 0 for as many as cores.", min=0)
    ] = 0,
    file: ConfigFile = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Recommends items to one user, with scores and the latest history, or to all users into Parquet files."""
    if (user is None) != all_users or all_users != (out_folder is not None):
        raise ConfigError("give --user ID for one user, or --all --out FOLDER for every user")
    if stage not in (None, "retrieve", "rank"):
        raise ConfigError(f"stage is {stage!r}; choose one of retrieve, rank")
    config = settings(file, changes, of_foundation(None, device, dtype), project=project)
    if out_folder is not None:
        from m6rec.scale.recommending import RecommendConfig

        batch.recommend_all(
            served(project, data, retrieve, rank),
            out_folder,
            RecommendConfig(count=count, stage=cast("Stage", stage or "retrieve"), users=partition),
            config,
            engine=engine,
            workers=workers,
            as_json=as_json,
        )
        return
    assert user is not None
    recommender, history = _recommender(project, data, retrieve, rank, user, config)
    ranked = recommender.retrieve(user, count) if stage == "retrieve" else recommender.recommend(user, count).items
    value = {
        "user": user,
        "history": history,
        "items": [{"id": r.item.id, "title": r.item.title, "score": r.score} for r in ranked],
    }
    lines = ["Latest history:", *(f"  {line}" for line in history[-10:]), "", "Recommended:"]
    lines += [f"  {r.score:.3f}  {r.item.title}  ({', '.join(r.item.categories)})" for r in ranked]
    say(value, as_json, "\n".join(lines))


@app.command()
def rank(
    items: Annotated[list[str], typer.Argument(help="Ids of the items to rank.")],
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    file: ConfigFile = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Ranks items by the probability that the user likes them."""
    config = settings(file, changes, of_foundation(None, device, dtype), project=project)
    recommender, _ = _recommender(project, data, retrieve, rank, user, config)
    say_ranked(recommender.rank(user, items).items, as_json)


@app.command()
def explain(
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    item: Annotated[str, typer.Option(help="Id of the item.")],
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    file: ConfigFile = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Explains why a user would like an item, with the evidence of each sentence."""
    config = settings(file, changes, of_foundation(None, device, dtype), project=project)
    recommender, _ = _recommender(project, data, retrieve, rank, user, config)
    explained = recommender.explain(user, item)
    lines = [] if explained.reasons else ["No reason found."]
    for one in explained.reasons:
        lines += [one.text, f"  {one.kind}: {json.dumps(one.evidence, ensure_ascii=False)}"]
        lines += [f"  source: {one.source}" + (f"; generated text rejected: {one.rejection}" if one.rejection else "")]
    say({"user": user, "item": item, **asdict(explained)}, as_json, "\n".join(lines))


@app.command()
def chat(
    *,
    user: Annotated[str, typer.Option(help="Id of the user; empty for a new one.")] = "",
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    file: ConfigFile = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Conversational recommendation. An empty line ends it."""
    from m6rec.language.chat import Message
    from m6rec.serving.backend import Chat, Reply
    from m6rec.serving.settings import MAX_MESSAGES

    config = settings(file, changes, of_foundation(None, device, dtype), project=project)
    recommender, _ = _recommender(project, data, retrieve, rank, user, config)
    messages: list[Message] = []
    while said := _heard():
        messages.append(Message("user", said))
        # The latest ones, as the service takes no more either.
        for told in recommender.stream(Chat(messages=messages[-MAX_MESSAGES + 1 :], user=user)):
            if not isinstance(told, Reply):
                if not as_json:
                    out.print(told, end="", markup=False, highlight=False, soft_wrap=True)
                continue
            messages.append(Message("assistant", told.text))
            if as_json:
                typer.echo(json.dumps(asdict(told), ensure_ascii=False))
            else:
                out.print()


def _heard() -> str:
    """The next input line; "" at the end. The prompt is shown on a terminal only."""
    try:
        return (input("> ") if sys.stdin.isatty() else input()).strip()
    except EOFError:
        return ""


@app.command()
def create(
    kind: Annotated[str, typer.Argument(help="design, query or headline")],
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    item: Annotated[str | None, typer.Option(help="Id of the item of a headline.")] = None,
    category: Annotated[str | None, typer.Option(help="Category of a design; chosen by the model by default.")] = None,
    count: Annotated[int, typer.Option(help="Maximum number of texts.")] = 1,
    catalogue: Annotated[bool, typer.Option("--catalogue", help="Restrict a design to existing items.")] = False,
    blocked: Blocked = None,
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    file: ConfigFile = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Generates a product design, a search query, or a headline for an item."""
    config = settings(file, changes, of_foundation(None, device, dtype), project=project)
    recommender, _ = _recommender(project, data, retrieve, rank, user, config, blocked=blocked)
    created = recommender.create(user, kind, item=item, category=category, count=count, catalogue=catalogue)
    lines = []
    for one in created:
        lines += [one.text + (f"  ({one.category})" if one.category else "")]
        lines += [f"  source: {one.source}" + "".join(f"\n  rejected: {why}" for why in one.rejected)]
    say({"user": user, "kind": kind, "texts": [asdict(one) for one in created]}, as_json, "\n".join(lines))


def say_ranked(ranked: Sequence[Ranked], as_json: bool) -> None:
    """Prints ranked items with scores."""
    value = [{"id": r.item.id, "title": r.item.title, "score": r.score} for r in ranked]
    say(value, as_json, "\n".join(f"{r.score:.3f}  {r.item.id:>6}  {r.item.title}" for r in ranked))


def _recommender(
    project: Path | None,
    data: Path | None,
    retrieve: Path | None,
    rank: Path | None,
    user: str,
    config: Config,
    blocked: Path | None = None,
) -> tuple[Any, list[str]]:
    """(recommender, history of the user in words), including events and items that the service has stored."""
    chosen = served(project, data, retrieve, rank)
    with store_of(chosen) as kept:
        recommender = recommender_of(chosen, kept, config, blocked)
    state = recommender.state
    domain, items = state.models.rank.domain, state.items
    return recommender, [domain.action(event, items[event.item].title) for event in state.interactions.history(user)]
