"""An explanation: statements from the past, ranked and worded by the model, and checked (``tasks.explain``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import torch

from m6rec.foundation.generate import Engine, Generated, Prompt, Sampling
from m6rec.serving.backend import Explanation, Reason
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
_OF_ONESELF = re.compile(r"\b(?:i|i'\w+|me|my|mine|we|us|our)\b", re.IGNORECASE)
WORDING = Sampling(max_tokens=40, stops=("\n", ". ", ".\n"))


def explain(
    rank: Tuned, past: Past, user: User, item: Item, items: dict[str, Item], writer: Writer | None = None
) -> Explanation:
    """Why the user would like the item.

    Args:
        rank: The tuned ranking task. Its foundation, without the tuning, words what it ranks where nothing else does.
        past: Everything observed so far.
        user: The user.
        item: The item.
        items: By id, those of the user's history.
        writer: Tuned for ``tasks.explanations``, it does the wording.

    Raises:
        ExtraError: The item has reviews, but TextBlob, which mines them, is not installed.
    """
    context, chosen = reasons_for(rank, past, user, item, items)
    if writer is None:
        written = word(rank, context, [reasons.prompt(one, item, rank.domain) for one in chosen])
    else:
        written = writer.write(_drafts(writer, chosen, past, user, item, items), WORDING)
    said: list[Reason] = []
    for statement, text in zip(chosen, written, strict=True):
        is_sentence = writer is not None and statement.kind == "review"
        said.append(_check(statement, text, item, [one.text for one in said], is_sentence=is_sentence))
    return Explanation(" ".join(one.text for one in said), said)


def reasons_for(
    rank: Tuned, past: Past, user: User, item: Item, items: dict[str, Item]
) -> tuple[tuple[Segment, ...], list[Statement]]:
    """(the user's context, the statements that speak for the item, the most decisive first); see ``explain``."""
    reviews = past.reviews(item.id, without=user.id)[-NUM_REVIEWS:]
    mined = [one for review in reviews for one in _mine(review)]
    found = reasons.statements(past, user.id, item, rank.domain, items, mined)
    row = tasks.ask(rank.task, past, user, [item], rank.domain, items)
    if not found:
        return row.context, []
    score, *scores_without = rank.scores([row, *(reasons.without(row, one) for one in found)])
    return row.context, reasons.choose(found, score, scores_without)


def word(rank: Tuned, context: Sequence[Segment], prompts: Sequence[str]) -> list[Generated]:
    """What the foundation goes on with after each prompt, all together, for the user of this context."""
    if not prompts:
        return []
    states = rank.cache.fetch(segment.text for segment in context)
    engine = Engine(rank.foundation, rank.cache.config.depth)
    spans = [states.places[segment.text] for segment in context]
    tokens = [place for first, count in spans for place in range(first, first + count)]
    known = engine.read(states.tokens_TD[torch.tensor(tokens)]) if tokens else ()
    return engine.generate([Prompt(ids, known) for ids in rank.foundation.tokenizer.encode(prompts)], WORDING)


def _drafts(
    writer: Writer, chosen: Sequence[Statement], past: Past, user: User, item: Item, items: dict[str, Item]
) -> list[Draft]:
    """What a writer is asked: of reviews a sentence about the aspect, as it has learned, else to go on as above."""
    domain, history = writer.domain, past.history(user.id)
    context = writing.context(writer.task, history, user, domain, items)
    action = next((domain.action(event) for event in reversed(history) if domain.likes(event)), "liked")
    return [
        Draft(
            context,
            explanations.prompt(item, domain, action, one.evidence["aspect"])
            if one.kind == "review"
            else reasons.prompt(one, item, domain),
        )
        for one in chosen
    ]


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
