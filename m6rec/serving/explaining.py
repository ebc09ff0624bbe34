"""An explanation: statements from the past, ranked and worded by the model, and checked (``tasks.explain``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from m6rec.features.interactions import InteractionStore
from m6rec.foundation.generate import Generated, Sampling
from m6rec.language import opinions as mining
from m6rec.language.faithfulness import unsupported_claim
from m6rec.readouts import GenerateModel, ScoreModel
from m6rec.serving.backend import Explanation, Reason, Writing
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.text_model_pool import TextModelPool
from m6rec.tasks import explain as reasons
from m6rec.tasks import explanations, writing
from m6rec.tasks import task as tasks
from m6rec.tasks.explain import Rationale
from m6rec.text.constraints import TitleTrie
from m6rec.text.verbalise import quote
from m6rec.types import Draft, Item, Segment, User

NUM_REVIEWS = 50
"""Latest reviews of an item that are mined."""
NUM_SIMILAR, LEAST_SIMILARITY = 50, 0.3
"""Items of the whole catalogue that count as similar to one, and their cosine with it at least."""
TASK = explanations.TASK.name
WORDING = Sampling(beams=4)
"""How the model chooses between wordings: by the likelihood a token, nearly that of each of them whole."""


@dataclass(frozen=True, eq=False)
class ExplanationPlan:
    """What is to be worded: the statements that were chosen, and what is gone on from with each.

    Attributes:
        item: What is explained.
        chosen: The statements.
        drafts: One for each.
    """

    item: Item
    chosen: Sequence[Rationale]
    drafts: Sequence[Draft]


def plan_explanation(
    rank: ScoreModel,
    index: ItemIndex,
    writers: TextModelPool,
    interactions: InteractionStore,
    user: User,
    item: Item,
    items: dict[str, Item],
    count: int = reasons.NUM_STATEMENTS,
) -> ExplanationPlan:
    """Finds why the user would like the item.

    Args:
        rank: The tuned ranking task.
        index: What retrieved the item.
        writers: Who will word it.
        interactions: Everything observed so far.
        user: The user.
        item: The item.
        items: By id, those of the user's history.
        count: Statements at most.

    Raises:
        ExtraError: The item has reviews, but TextBlob, which mines them, is not installed.
    """
    context, chosen = reasons_for(rank, index, interactions, user, item, items, count)
    writer = writers.tuned(TASK)
    if writer is None:
        drafts = [Draft(context, reasons.prompt(item, rank.domain))] * len(chosen)
    else:
        drafts = _drafts(writer, chosen, interactions, user, item, items)
    return ExplanationPlan(item, chosen, drafts)


def word(writers: TextModelPool, made: ExplanationPlan, sampling: Sampling = WORDING) -> Writing[Explanation]:
    """Has the model choose the words of each statement of a plan, and checks them."""
    written = yield from choose_words(writers, TASK, made.drafts, made.chosen, sampling)
    said: list[Reason] = []
    for statement, text in zip(made.chosen, written, strict=True):
        said.append(_check(statement, text, made.item, [one.text for one in said]))
    return Explanation(" ".join(one.text for one in said), said)


def choose_words(
    writers: TextModelPool,
    task: str,
    drafts: Sequence[Draft],
    statements: Sequence[Rationale],
    sampling: Sampling = WORDING,
) -> Writing[list[Generated]]:
    """What the model chooses to say of each statement after its prompt, all together."""
    tokenizer = writers.tokenizer
    tries = [TitleTrie(tokenizer, [f" {text}" for text in (one.text, *one.wordings)]) for one in statements]
    longest = max((one.longest for one in tries), default=0)
    return (yield from writers.write(task, drafts, replace(sampling, max_tokens=longest + 1), tries))


def wording(temperature: float, top_p: float, seed: int) -> Sampling:
    """``WORDING``, or draws in its place."""
    if not temperature:
        return WORDING
    return replace(WORDING, beams=1, temperature=temperature, top_p=top_p, seed=seed)


def reasons_for(
    rank: ScoreModel,
    index: ItemIndex,
    interactions: InteractionStore,
    user: User,
    item: Item,
    items: dict[str, Item],
    count: int = reasons.NUM_STATEMENTS,
) -> tuple[tuple[Segment, ...], list[Rationale]]:
    """(the user's context, the rationales for the item, most decisive first); see ``plan_explanation``."""
    reviews = interactions.reviews(item.id, without=user.id)[-NUM_REVIEWS:]
    mined = [one for review in reviews for one in _mine(review)]
    near = index.near(index.vectors([item.id])[0], NUM_SIMILAR) if item.id in index else []
    similar = {one: cosine for one, cosine in near if cosine >= LEAST_SIMILARITY}
    found = reasons.statements(interactions, user.id, item, rank.domain, items, mined, similar)
    row = tasks.ask(rank.task, interactions, user, [item], rank.domain, items)
    if not found:
        return row.context, []
    likes = interactions.liked(user.id)
    predicted = rank.scores([row, *(reasons.without(row, one) for one in found)])
    kept = [likes, *(reasons.likes_without(likes, one) for one in found)]
    retrieved = np.array([index.score(item.id, liked) for liked in kept])
    return row.context, reasons.choose(found, (_lost(predicted) + _lost(retrieved)).tolist(), count)


def _lost(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the first score that each of the others lacks; 0 where there is nothing to lose."""
    return (scores[0] - scores[1:]) / scores[0] if scores[0] > 0 else np.zeros(len(scores) - 1)


def _drafts(
    writer: GenerateModel,
    chosen: Sequence[Rationale],
    interactions: InteractionStore,
    user: User,
    item: Item,
    items: dict[str, Item],
) -> list[Draft]:
    """What a writer is asked: of reviews about the aspect, as it has learned, else what the foundation is asked."""
    domain, history = writer.domain, interactions.history(user.id)
    action = next((domain.action(event) for event in reversed(history) if domain.positive(event)), "liked it")
    prompts = (
        explanations.prompt(item, domain, action, one.evidence["aspect"])
        if one.kind == "review"
        else reasons.prompt(item, domain)
        for one in chosen
    )
    return [writing.draft(writer.task, history, user, domain, items, prompt) for prompt in prompts]


def _check(statement: Rationale, written: Generated, item: Item, before: Sequence[str]) -> Reason:
    """The model's words where they hold and are not among those before, else ours."""
    text = written.text.strip()
    if written.finish_reason != "stop":
        wrong: str | None = "the sentence has no end"
    elif text in before:
        wrong = "it repeats what is said already"
    else:
        wrong = unfaithful(text, statement, item)
    if wrong is None:
        return Reason(text, statement.kind, statement.evidence, "model")
    return Reason(statement.text, statement.kind, statement.evidence, "template", wrong)


def unfaithful(text: str, statement: Rationale, item: Item) -> str | None:
    """Why words mustn't be said of a statement; None where they may."""
    heard, opinions = (statement.evidence.get(name, ()) for name in ("sentences", "opinions"))
    evidence = " ".join([statement.text, *opinions, *heard])
    return unsupported_claim(text, evidence, (item.title, *item.categories, *(quote(one)[1:-1] for one in heard)))


@lru_cache(maxsize=1 << 12)
def _mine(review: str) -> tuple[mining.Statement, ...]:
    return mining.mine(review)
