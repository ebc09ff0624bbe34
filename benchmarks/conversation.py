"""Conversation: whether what people ask for in messages is what they get.

``conversation_tasks.jsonl`` states needs in one to three messages each: categories, years, "not that", changed minds,
refusals, orders to the model, other languages. A check looks at the items of the last reply alone (τ-Rec, in
MovieLens's films). The set was written before anything was run on it and stays as it is. As the rules were then mended
by what failed, ``conversation_tasks_2.jsonl`` is a second set, written after that and before it was run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sets
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import InteractionStore
from m6rec.foundation import checkpoint
from m6rec.predicate import Predicate, attributes
from m6rec.readouts import EmbedModel, GenerateModel, ScoreModel, TaskModelConfig
from m6rec.serving.chatting import NUM_OFFERED
from m6rec.serving.recommender import NO_WRITERS, Recommender
from m6rec.types import Item
from tests import conversations

SETS = [Path(__file__).with_name(f"conversation_tasks{number}.jsonl") for number in ("", "_2")]
SECOND = "second set"


@dataclass(frozen=True, kw_only=True)
class Need:
    """A conversation and its check.

    Attributes:
        kind: What is hard about it.
        turns: The user's messages.
        where: What holds of every item of the last reply.
        without: Titles that it doesn't name.
        count: How many items it has; None for any number but none.
        than_last: "older" or "newer", than all items of the reply before.
        empty: Whether it has no items.
    """

    kind: str
    turns: tuple[str, ...]
    where: Predicate
    without: frozenset[str] = frozenset()
    count: int | None = None
    than_last: str = ""
    empty: bool = False

    def met_by(self, offers: Sequence[Sequence[Item]]) -> bool:
        """Whether it is, by the items of the replies to each turn; what was offered isn't offered again."""
        *before, last = offers
        if self.empty or not last:
            return self.empty and not last
        years = [[attributes(item).numbers.get("year", 0) for item in items] for items in (last, *before[-1:])]
        return (
            not {item.id for item in last}.intersection(item.id for items in before for item in items)
            and not self.without.intersection(item.title for item in last)
            and all(self.where.admits(attributes(item)) for item in last)
            and self.count in (None, len(last))
            and (self.than_last != "older" or max(years[0]) < min(years[1]))
            and (self.than_last != "newer" or min(years[0]) > max(years[1]))
        )


def needs() -> list[Need]:
    """All of them."""
    found = []
    for row in (json.loads(line) for path in SETS for line in path.read_text().splitlines()):
        ranges = {"year": tuple(row["year"])} if "year" in row else {}
        lists = {name: tuple(row.get(name, ())) for name in ("any", "all", "none")}
        where = Predicate(**{f"{name}_of": value for name, value in lists.items()}, ranges=ranges)
        rest = {name: row[name] for name in ("kind", "count", "than_last", "empty") if name in row}
        found.append(Need(turns=tuple(row["turns"]), where=where, without=frozenset(row.get("not", ())), **rest))
    return found


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    asked = needs()[:: 4 if setup.quick else 1]
    recommender, popular = films()
    met: dict[str, list[bool]] = {"m6rec": [], "most liked films": []}
    for need in asked:
        offers, messages = list[list[Item]](), list[str]()
        for turn in need.turns:
            reply = conversations.ask(recommender, [*messages, turn])
            messages += [turn, reply.text]
            offers.append([one.item for one in reply.items])
        met["m6rec"].append(need.met_by(offers))
        met["most liked films"].append(
            need.met_by([popular[n * NUM_OFFERED :][:NUM_OFFERED] for n, _ in enumerate(need.turns)])
        )
    kinds = {"first set": [need.kind != SECOND for need in asked]} | {
        kind: [need.kind == kind for need in asked] for kind in dict.fromkeys(need.kind for need in asked)
    }
    rows = tuple(
        Row(
            method=kind,
            metrics={name: (float(np.mean(np.array(hits)[which])),) for name, hits in met.items()}
            | {"needs": (float(sum(which)),)},
        )
        for kind, which in kinds.items()
    )
    note = "The share of needs that the last reply meets, with a user of whom nothing is known."
    table = Table(title="Needs stated in messages", metric="m6rec", rows=rows, note=note)
    failed = [list(need.turns) for need, hit in zip(asked, met["m6rec"], strict=True) if not hit]
    return {"failed": failed, "tables": (table,)}, [
        ("needs stated in messages: share that is met, first set", rows[0].mean("m6rec"), ">=", 0.9),
        (f"needs stated in messages: share that is met, {SECOND}", rows[-1].mean("m6rec"), ">=", 0.9),
    ]


def films(writers: Mapping[str, GenerateModel] = NO_WRITERS) -> tuple[Recommender, list[Item]]:
    """(a recommender of MovieLens-100k of which nothing else is tuned, as no check looks at taste; its most liked)."""
    log, foundation = sets.movielens_100k().split.log, checkpoint.load()
    config = TaskModelConfig(task="retrieve", domain="movielens", foundation=foundation.source)
    retrieve = EmbedModel.create(config, foundation, assets.home() / "states").whiten(list(log.items.values()))
    config = TaskModelConfig(task="like", domain="movielens", foundation=foundation.source)
    rank = ScoreModel.create(config, foundation, assets.home() / "states")
    interactions = InteractionStore(log.items, rank.domain.feedback).update_all(log.events)
    popular = [log.items[item] for item in islice(interactions.most_liked(), 3 * NUM_OFFERED)]
    return Recommender(retrieve, rank, log, interactions, writers=writers), popular
