"""An explanation: statements from the past, ranked and worded by the model, and checked (``tasks.explain``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from m6rec.foundation.generate import Engine, Generated, Prompt, Sampling
from m6rec.serving.backend import Explanation, Reason, Writing
from m6rec.tasks import explain as reasons
from m6rec.tasks import task as tasks
from m6rec.tasks.explain import Statement
from m6rec.tasks.faithfulness import fault
from m6rec.text import opinions
from m6rec.text.past import Past
from m6rec.tuned import Tuned
from m6rec.types import Item, User

NUM_REVIEWS = 50
"""Latest reviews of an item that are mined."""
WORDING = Sampling(max_tokens=40, stops=("\n", ". ", ".\n"))


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be worded: the statements that were chosen, and what the foundation goes on from with each."""

    item: Item
    chosen: Sequence[Statement]
    prompts: Sequence[Prompt]


def plan(
    rank: Tuned,
    engine: Engine,
    past: Past,
    user: User,
    item: Item,
    items: dict[str, Item],
    count: int = reasons.NUM_STATEMENTS,
) -> Plan:
    """Finds why the user would like the item.

    Args:
        rank: The tuned ranking task.
        engine: Writes with its foundation, without the tuning.
        past: Everything observed so far.
        user: The user.
        item: The item.
        items: By id, those of the user's history.
        count: Statements at most.

    Raises:
        ExtraError: The item has reviews, but TextBlob, which mines them, is not installed.
    """
    reviews = past.reviews(item.id, without=user.id)[-NUM_REVIEWS:]
    mined = [one for review in reviews for one in _mine(review)]
    found = reasons.statements(past, user.id, item, rank.domain, items, mined)
    if not found:
        return Plan(item, (), ())
    row = tasks.ask(rank.task, past, user, [item], rank.domain, items)
    score, *scores_without = rank.scores([row, *(reasons.without(row, one) for one in found)])
    chosen = reasons.choose(found, score, scores_without, count)
    if not chosen:
        return Plan(item, (), ())
    states = rank.cache.fetch(segment.text for segment in row.context)
    spans = [states.places[segment.text] for segment in row.context]
    tokens = [place for first, count in spans for place in range(first, first + count)]
    known = engine.read(states.tokens_TD[torch.tensor(tokens)]) if tokens else ()
    texts = rank.foundation.tokenizer.encode([reasons.prompt(one, item, rank.domain) for one in chosen])
    return Plan(item, chosen, [Prompt(ids, known) for ids in texts])


def word(engine: Engine, made: Plan, sampling: Sampling = WORDING) -> Writing[Explanation]:
    """Has the statements of a plan worded, all together, and checks the words."""
    streams = [engine.add(prompt, sampling) for prompt in made.prompts]
    try:
        while any(stream.result is None for stream in streams):
            yield ""
    finally:
        for stream in streams:
            engine.cancel(stream)
    said: list[Reason] = []
    for statement, stream in zip(made.chosen, streams, strict=True):
        assert stream.result is not None
        said.append(_check(statement, stream.result, made.item, [one.text for one in said]))
    return Explanation(" ".join(one.text for one in said), said)


def _check(statement: Statement, written: Generated, item: Item, before: Sequence[str]) -> Reason:
    """The model's words where they hold and are not among those before, else ours."""
    words = written.text.strip().removesuffix(".")
    text = f"You may like it because {words}."
    if written.reason != "stop":
        wrong: str | None = "the sentence has no end"
    elif text in before:
        wrong = "it repeats what is said already"
    else:
        wrong = fault(words, statement.text, (item.title, *item.categories))
    if wrong is None:
        return Reason(text, statement.kind, statement.evidence, "model")
    return Reason(statement.text, statement.kind, statement.evidence, "template", wrong)


@lru_cache(maxsize=1 << 12)
def _mine(review: str) -> tuple[opinions.Statement, ...]:
    return opinions.mine(review)
