"""An explanation: statements from the past, ranked and worded by the model, and checked (``tasks.explain``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from m6rec.foundation.generate import Generated, Sampling
from m6rec.serving.backend import Explanation, Reason, Writing
from m6rec.serving.writers import Writers
from m6rec.tasks import explain as reasons
from m6rec.tasks import explanations, writing
from m6rec.tasks import task as tasks
from m6rec.tasks.explain import Statement
from m6rec.tasks.faithfulness import fault
from m6rec.text import opinions
from m6rec.text.past import Past
from m6rec.text.verbalise import sentence
from m6rec.tuned import Tuned
from m6rec.types import Draft, Item, Segment, User
from m6rec.writer import Writer

NUM_REVIEWS = 50
"""Latest reviews of an item that are mined."""
TASK = explanations.TASK.name
_OF_ONESELF = re.compile(r"\b(?:i|i'\w+|me|my|mine|we|us|our)\b", re.IGNORECASE)
WORDING = Sampling(max_tokens=40, stops=("\n", ". ", ".\n"))


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be worded: the statements that were chosen, and what is gone on from with each.

    Attributes:
        item: What is explained.
        chosen: The statements.
        drafts: One for each.
        tuned: Whether a tuned writer words them, which says of reviews what a reviewer would.
    """

    item: Item
    chosen: Sequence[Statement]
    drafts: Sequence[Draft]
    tuned: bool


def plan(
    rank: Tuned,
    writers: Writers,
    past: Past,
    user: User,
    item: Item,
    items: dict[str, Item],
    count: int = reasons.NUM_STATEMENTS,
) -> Plan:
    """Finds why the user would like the item.

    Args:
        rank: The tuned ranking task.
        writers: Who will word it.
        past: Everything observed so far.
        user: The user.
        item: The item.
        items: By id, those of the user's history.
        count: Statements at most.

    Raises:
        ExtraError: The item has reviews, but TextBlob, which mines them, is not installed.
    """
    context, chosen = reasons_for(rank, past, user, item, items, count)
    writer = writers.tuned(TASK)
    if writer is None:
        drafts = [Draft(context, reasons.prompt(one, item, rank.domain)) for one in chosen]
    else:
        drafts = _drafts(writer, chosen, past, user, item, items)
    return Plan(item, chosen, drafts, writer is not None)


def word(writers: Writers, made: Plan, sampling: Sampling = WORDING) -> Writing[Explanation]:
    """Has the statements of a plan worded, all together, and checks the words."""
    written = yield from writers.write(TASK, made.drafts, sampling)
    said: list[Reason] = []
    for statement, text in zip(made.chosen, written, strict=True):
        is_sentence = made.tuned and statement.kind == "review"
        said.append(_check(statement, text, made.item, [one.text for one in said], is_sentence=is_sentence))
    return Explanation(" ".join(one.text for one in said), said)


def reasons_for(
    rank: Tuned,
    past: Past,
    user: User,
    item: Item,
    items: dict[str, Item],
    count: int = reasons.NUM_STATEMENTS,
) -> tuple[tuple[Segment, ...], list[Statement]]:
    """(the user's context, the statements that speak for the item, the most decisive first); see ``plan``."""
    reviews = past.reviews(item.id, without=user.id)[-NUM_REVIEWS:]
    mined = [one for review in reviews for one in _mine(review)]
    found = reasons.statements(past, user.id, item, rank.domain, items, mined)
    row = tasks.ask(rank.task, past, user, [item], rank.domain, items)
    if not found:
        return row.context, []
    score, *scores_without = rank.scores([row, *(reasons.without(row, one) for one in found)])
    return row.context, reasons.choose(found, score, scores_without, count)


def _drafts(
    writer: Writer, chosen: Sequence[Statement], past: Past, user: User, item: Item, items: dict[str, Item]
) -> list[Draft]:
    """What a writer is asked: of reviews a sentence about the aspect, as it has learned, else to go on as above."""
    domain, history = writer.domain, past.history(user.id)
    action = next((domain.action(event) for event in reversed(history) if domain.likes(event)), "liked")
    prompts = (
        explanations.prompt(item, domain, action, one.evidence["aspect"])
        if one.kind == "review"
        else reasons.prompt(one, item, domain)
        for one in chosen
    )
    return [writing.draft(writer.task, history, user, domain, items, prompt) for prompt in prompts]


def _check(statement: Statement, written: Generated, item: Item, before: Sequence[str], *, is_sentence: bool) -> Reason:
    """The model's words where they hold and are not among those before, else ours."""
    words = written.text.strip().rstrip(".!")
    evidence = statement.text
    if is_sentence:  # a reviewer's, so what reviewers said bears it out too
        text = sentence(words)
        evidence = " ".join([evidence, *statement.evidence["sentences"]])
    else:
        text = f"You may like it because {words}."
    if written.reason != "stop":
        wrong: str | None = "the sentence has no end"
    elif text in before:
        wrong = "it repeats what is said already"
    elif is_sentence and _OF_ONESELF.search(words):
        wrong = "it speaks of the one who wrote it"
    else:
        wrong = fault(words, evidence, (item.title, *item.categories))
    if wrong is None:
        return Reason(text, statement.kind, statement.evidence, "model")
    return Reason(statement.text, statement.kind, statement.evidence, "template", wrong)


@lru_cache(maxsize=1 << 12)
def _mine(review: str) -> tuple[opinions.Statement, ...]:
    return opinions.mine(review)
