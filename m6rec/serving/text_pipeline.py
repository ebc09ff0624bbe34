"""From a request to texts, in slices: explanations, replies, generated texts; what a text is worth, and its vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from m6rec.errors import ConfigError
from m6rec.language.chat import read
from m6rec.predicate import NO_CATEGORY
from m6rec.serving import chatting, explaining, pipeline
from m6rec.serving.backend import (
    NUM_RETRIEVED,
    Chat,
    Explanation,
    Filters,
    GenerationKind,
    GenerationRequest,
    GenerationResult,
    Reply,
    Request,
    Writing,
)
from m6rec.serving.creating import GenerationContext
from m6rec.serving.settings import MAX_CREATED
from m6rec.serving.state import ServingState
from m6rec.tasks.design import OTHER
from m6rec.tasks.explain import NUM_STATEMENTS
from m6rec.types import Event, Item, Ranked


def explain(state: ServingState, user: str, item: str, history: Sequence[Event]) -> Writing[Explanation]:
    """See ``Backend.explain``. Raises UnknownError where there is no such item."""
    state.need([item], "check the id")
    models = state.models
    with state.having_done(user, history):
        plan = explaining.plan_explanation(
            models.rank,
            models.index,
            models.writers,
            state.interactions,
            state.user(user),
            state.live[item],
            state.items,
        )
    return (yield from explaining.word(models.writers, plan))


def chat(state: ServingState, asked: Chat) -> Writing[Reply]:
    """See ``Backend.chat``."""
    models = state.models
    session, rank, writers = read(asked.messages, state.lexicon), models.rank, models.writers
    items: list[Ranked] = []
    about = state.live.get(session.about[0]) if session.intent == "explain" else None
    explained = worded = None
    with pipeline.as_told(state, session, asked.user):
        if session.intent in ("recommend", "feedback"):
            items = pipeline.suggest(state, session, asked.user)[: session.count or chatting.NUM_OFFERED]
        if items and writers.tuned(chatting.TASK) is not None:
            person, now = state.user(asked.user), state.interactions.time
            history = state.interactions.history(asked.user)
            draft = chatting.reply_draft(asked, history, person, rank.domain, state.items, now)
            worded = chatting.worded_offer(
                writers, draft, [one.item for one in items], state.lexicon, session.count, asked.seed
            )
        why = about or (items[0].item if items else None)
        if why is not None:
            count, person = NUM_STATEMENTS if about else 1, state.user(asked.user)
            plan = explaining.plan_explanation(
                rank, models.index, writers, state.interactions, person, why, state.items, count
            )
            explained = explaining.word(writers, plan, explaining.wording(asked.temperature, asked.top_p, asked.seed))
    writer = chatting.ReplyWriter(asked, rank.foundation.tokenizer)
    said = next((one.text for one in reversed(asked.messages) if one.role == "user"), "")
    return (
        yield from chatting.reply(writer, session, items, about, worded, explained, state.lexicon, rank.domain, said)
    )


def generate(state: ServingState, request: GenerationRequest) -> Writing[list[GenerationResult]]:
    """See ``Backend.create``.

    Raises:
        UnknownError: There is no such item or category, or nothing is left to be named.
        ConfigError: A number is out of range, or what is given does not go with the kind.
    """
    _check(request)
    if request.item is not None:
        state.need([request.item], "check the id")
    asked = GenerationContext(
        request=request,
        user=state.user(request.user),
        history=state.interactions.history(request.user),
        items=state.items,
        live=state.live,
        categories=[name or OTHER for name in state.models.index.categories],
    )

    def recommended(name: str) -> list[Item]:
        names = (name, NO_CATEGORY) if name == OTHER else (name,) if name else ()
        one = Request(user=request.user, filters=Filters(categories=names))
        return [found.item for found in pipeline.retrieve(state, [(one, NUM_RETRIEVED)])[0]]

    return (yield from state.models.creator.create(asked, state.interactions, recommended))


def rerank(state: ServingState, query: str, documents: Sequence[str]) -> Writing[tuple[NDArray[np.float64], int]]:
    """See ``Backend.rerank``. A document is read as an item's title, of which the domain words the beginning."""
    scores, num_tokens = [np.zeros(0)], 0
    if documents:
        for some, num in state.models.documents.rerank(query, documents):
            scores.append(some)
            num_tokens += num
            yield ""
    return np.concatenate(scores), num_tokens


def embed(state: ServingState, texts: Sequence[str]) -> Writing[tuple[NDArray[np.float32], int]]:
    """See ``Backend.embed``. A text is read as an item's title."""
    vectors, num_tokens = [np.zeros((0, state.models.retrieve.width), np.float32)], 0
    for some, num in state.models.documents.embed(texts):
        vectors.append(some)
        num_tokens += num
        yield ""
    return np.concatenate(vectors), num_tokens


def _check(request: GenerationRequest) -> None:
    """Raises ConfigError where a request for texts can't be meant."""
    kind = request.kind
    if kind not in get_args(GenerationKind):
        raise ConfigError(f"kind is {kind!r}; choose one of {', '.join(get_args(GenerationKind))}")
    if not 1 <= request.count <= MAX_CREATED:
        raise ConfigError(f"count is {request.count}; it must be 1 to {MAX_CREATED}")
    if (request.item is not None) != (kind == "headline"):
        raise ConfigError(
            f"a {kind} with item {request.item!r}; a headline needs the id of an item, and nothing else takes one"
        )
    if kind != "design" and (request.category is not None or request.catalogue):
        raise ConfigError(
            f"a {kind} takes neither category ({request.category!r}) nor catalogue ({request.catalogue}); a design does"
        )
