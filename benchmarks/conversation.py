"""Conversations: whether feedback is heeded, and how the films are found that people recommend to each other.

- scripted (``tests.conversations``): a request, feedback on what was recommended, and whether all that is recommended
  next goes the asked way; half of the cases for a user with a history, half for one who is not known;
- ReDial, real dialogues: ``benchmarks.dialogues``. Nothing of ours has been tuned on dialogues.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from benchmarks import dialogues
from benchmarks.setup import AbsentError, Claims, Setup, research
from m6rec.cli import tuned_runs
from m6rec.evaluation.metrics.words import catalogue_validity
from m6rec.serving.recommender import Recommender
from m6rec.text.lexicon import Lexicon
from m6rec.types import Item
from tests import conversations


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    recommender, _, made, past = setup.recommender()
    known = next(user for user in made.split.log.users if len(past.history(user)) >= 20)
    items = made.split.log.items
    measured, claims = _scripted(recommender, items, made.domain.noun, known, 30 if setup.quick else 200)
    count = 20 if setup.quick else 300
    try:
        _, retrieve, like = tuned_runs(setup.data, setup.retrieve, setup.run)
        table = dialogues.table(recommender, retrieve, like, items, research("redial"), count)
        measured["tables"] = (table,)
        by_method = {row.method: row for row in table.rows}
        ours, popular = by_method[dialogues.OURS], by_method[dialogues.POPULARITY]
        claims += [
            (f"ReDial: {name} over popularity's", ours.mean(name) - popular.mean(name), ">", 0) for name in ours.metrics
        ]
    except AbsentError as error:
        measured["absent"] = [str(error)]
    return measured, claims


def _scripted(
    recommender: Recommender, items: Mapping[str, Item], noun: str, known: str, count: int
) -> tuple[dict[str, Any], Claims]:
    lexicon, titles = Lexicon(items.values()), [item.title for item in items.values()]
    heeded: dict[str, list[bool]] = defaultdict(list)
    named, missed = list[str](), list[dict[str, Any]]()
    for number, case in enumerate(conversations.cases(list(items.values()), noun, count)):
        replies = conversations.play(recommender, case, known if number % 2 else "")
        named += [one.item.title for reply in replies for one in reply.items]
        heeded[case.sort].append(conversations.holds(case, *replies, lexicon))
        if not heeded[case.sort][-1]:
            missed.append({"sort": case.sort, "feedback": case.feedback, "reply": replies[1].text})
    verdicts = [one for of_sort in heeded.values() for one in of_sort]
    validity = catalogue_validity(named, titles)
    claims: Claims = [
        ("recommended titles that exist, as a share", validity, ">=", 1),
        (f"{count} scripted cases: feedback changes the next items as asked", sum(verdicts) / count, ">=", 0.9),
    ]
    by_sort = {sort: sum(one) / len(one) for sort, one in heeded.items()}
    return {"titles": len(named), "heeded": by_sort, "missed": missed}, claims
