"""Asking a tuned recommender in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from m6rec.cli.app import Device, Dtype, Json, app, out, say
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


@app.command()
def recommend(
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    count: Annotated[int, typer.Option(help="How many items.")] = 10,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Recommends items to a user, with scores and the history they rest on."""
    recommender, history = _recommender(project, data, retrieve, rank, user, device, dtype)
    ranked = recommender.recommend(user, count).items
    value = {
        "user": user,
        "history": history,
        "items": [{"id": r.item.id, "title": r.item.title, "score": r.score} for r in ranked],
    }
    lines = ["Latest of the history:", *(f"  {line}" for line in history[-10:]), "", "Recommended:"]
    lines += [f"  {r.score:.3f}  {r.item.title}  ({', '.join(r.item.categories)})" for r in ranked]
    say(value, as_json, "\n".join(lines))


@app.command()
def rank(
    items: Annotated[list[str], typer.Argument(help="Ids of the items to order.")],
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Orders given items by the probability that the user likes them."""
    recommender, _ = _recommender(project, data, retrieve, rank, user, device, dtype)
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
    device: Device = "cpu",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Says why a user would like an item, and what each sentence rests on."""
    recommender, _ = _recommender(project, data, retrieve, rank, user, device, dtype)
    explained = recommender.explain(user, item)
    lines = [] if explained.reasons else ["Nothing of what is known speaks for it."]
    for one in explained.reasons:
        lines += [one.text, f"  {one.kind}: {json.dumps(one.evidence, ensure_ascii=False)}"]
        lines += [f"  worded by the {one.source}" + (f", rejected, as {one.rejection}" if one.rejection else "")]
    say({"user": user, "item": item, **asdict(explained)}, as_json, "\n".join(lines))


@app.command()
def chat(
    *,
    user: Annotated[str, typer.Option(help="Id of the user whose history counts; none for a newcomer.")] = "",
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Talks with you about what to choose next: it asks, recommends and explains. An empty line ends it."""
    from m6rec.serving.backend import Chat, Reply
    from m6rec.serving.settings import MAX_MESSAGES
    from m6rec.tasks.chat import Message

    recommender, _ = _recommender(project, data, retrieve, rank, user, device, dtype)
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
    """The next line of the user's; "" at the end. It is asked for at a terminal only."""
    try:
        return (input("> ") if sys.stdin.isatty() else input()).strip()
    except EOFError:
        return ""


@app.command()
def create(
    kind: Annotated[str, typer.Argument(help="design, query or headline")],
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    item: Annotated[str | None, typer.Option(help="Id of the item that a headline is about.")] = None,
    category: Annotated[str | None, typer.Option(help="Category of a design; by default the model's choice.")] = None,
    count: Annotated[int, typer.Option(help="How many texts at most.")] = 1,
    catalogue: Annotated[bool, typer.Option("--catalogue", help="Let a design be an item that exists.")] = False,
    blocked: Blocked = None,
    project: ProjectFolder = None,
    data: Data = None,
    retrieve: Retrieve = None,
    rank: Rank = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Writes for a user: a product that they would like, a query that they would type, or copy for an item."""
    recommender, _ = _recommender(project, data, retrieve, rank, user, device, dtype, blocked=blocked)
    created = recommender.create(user, kind, item=item, category=category, count=count, catalogue=catalogue)
    lines = []
    for one in created:
        lines += [one.text + (f"  ({one.category})" if one.category else "")]
        lines += [f"  worded by the {one.source}" + "".join(f"\n  rejected: {why}" for why in one.rejected)]
    say({"user": user, "kind": kind, "texts": [asdict(one) for one in created]}, as_json, "\n".join(lines))


def say_ranked(ranked: Sequence[Ranked], as_json: bool) -> None:
    """Prints items in order, with their scores."""
    value = [{"id": r.item.id, "title": r.item.title, "score": r.score} for r in ranked]
    say(value, as_json, "\n".join(f"{r.score:.3f}  {r.item.id:>6}  {r.item.title}" for r in ranked))


def _recommender(
    project: Path | None,
    data: Path | None,
    retrieve: Path | None,
    rank: Path | None,
    user: str,
    device: str,
    dtype: str,
    blocked: Path | None = None,
) -> tuple[Any, list[str]]:
    """(the recommender, what the user did so far in words), with what a service has taken in until now."""
    from m6rec.data.erasure import without
    from m6rec.features.interactions import InteractionStore
    from m6rec.serving.recommender import Recommender

    chosen = served(project, data, retrieve, rank)
    with store_of(chosen) as kept:
        made, retrieval, ranking = tuned_runs(
            chosen.data, chosen.retrieve, chosen.rank, device, dtype, former=kept.former
        )
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
            writers=text_writers(chosen.rank, ranking),
            blocked=blocklist(blocked),
        )
        items = dict(log.items)
        if kept.catalogue is not None:
            items |= kept.catalogue.deleted() | kept.catalogue.items()  # a history names what is gone, too
    history = [domain.action(event, items[event.item].title) for event in interactions.history(user)]
    return recommender, history
