"""Recommendations, explanations, chat and generation in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m6rec.cli.app import Device, Dtype, Json, app, out, say
from m6rec.cli.config import Changes, ConfigFile, of_foundation, settings
from m6rec.cli.runs import (
    Blocked,
    Data,
    ProjectFolder,
    Rank,
    Retrieve,
    blocklist,
    served,
    store_of,
    text_writers,
    tuned_runs,
)
from m6rec.types import Ranked

if TYPE_CHECKING:
    from m6rec.cli.tree import Config


@app.command()
def recommend(
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    count: Annotated[int, typer.Option(help="Number of items.")] = 10,
    file: ConfigFile = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Recommends items; prints scores and the user's latest history."""
    config = settings(file, changes, of_foundation(None, device, dtype), project=project)
    recommender, history = _recommender(project, data, retrieve, rank, user, config)
    ranked = recommender.recommend(user, count).items
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
    from m6rec.serving.backend import Chat, Reply
    from m6rec.serving.settings import MAX_MESSAGES
    from m6rec.tasks.chat import Message

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
    from m6rec.data.erasure import without
    from m6rec.features.interactions import InteractionStore
    from m6rec.serving.recommender import Recommender

    chosen = served(project, data, retrieve, rank)
    with store_of(chosen) as kept:
        made, retrieval, ranking = tuned_runs(chosen.data, chosen.retrieve, chosen.rank, config, former=kept.former)
        gone = kept.journal.forgotten(made.split.log.users) if kept.journal else {}
        log, domain = without(made.split.log, gone), made.domain
        interactions = InteractionStore(log.items, domain.feedback).update_all(log.events)
        recommender = Recommender(
            retrieval,
            ranking,
            log,
            interactions,
            journal=kept.journal,
            catalogue=kept.catalogue,
            writers=text_writers(chosen.rank, ranking, config.states),
            blocked=blocklist(blocked),
            limits=config.serving.limits,
        )
        items = dict(log.items)
        if kept.catalogue is not None:
            items |= kept.catalogue.deleted() | kept.catalogue.items()  # a history may hold deleted items
    history = [domain.action(event, items[event.item].title) for event in interactions.history(user)]
    return recommender, history
