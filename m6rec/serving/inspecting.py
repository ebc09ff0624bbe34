"""A look at the catalogue and at a recommendation: what is there, what is alike, what is read, and why not X."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from m6rec.predicate import ALL, Predicate, attributes
from m6rec.readouts import ScoreModel
from m6rec.retrieval.blend import TEXT
from m6rec.serving import pipeline
from m6rec.serving.backend import (
    MIN_CROWD,
    CachePlace,
    Filters,
    InspectedText,
    Inspection,
    InspectRequest,
    Placement,
    Request,
    Similarity,
    SourceScore,
)
from m6rec.serving.settings import MAX_CANDIDATES
from m6rec.serving.state import ServingState
from m6rec.text.batch import Example
from m6rec.types import Item, Ranked

NUM_FOUND = 200
"""Titles that fit a query, the first ones, of which the most liked are given."""


def find_items(state: ServingState, query: str, count: int, ids: Sequence[str]) -> list[Item]:
    """See ``Backend.find_items``. An id that is the query comes first."""
    if ids:
        best = [item for item in dict.fromkeys(ids) if item in state.live]
    elif query.strip():
        found = dict.fromkeys([query] if query in state.live else []) | dict.fromkeys(
            state.search.items(query, NUM_FOUND)
        )
        likes = state.interactions.popularity(found).items
        best = sorted(found, key=lambda item: (item != query, -likes[item][1] if item in likes else 0))
    else:
        liked = (item for item in state.interactions.most_liked() if item in state.live)
        best = [*dict.fromkeys([*islice(liked, count), *islice(state.live, count)])]
    return [state.live[item] for item in best[:count]]


def get_item(state: ServingState, item: str) -> tuple[Item, int | None]:
    """See ``Backend.get_item``. Raises UnknownError where there is no such item."""
    state.need([item], "check the id")
    num_likes, _ = state.interactions.like_counts(item, without="")
    return state.live[item], num_likes if num_likes >= MIN_CROWD else None


def inspect(state: ServingState, request: InspectRequest) -> Inspection:
    """See ``Backend.inspect``. Raises UnknownError where there is no such item."""
    state.need([request.item] if request.item else [], "check the id")
    items = [state.live[request.item]] if request.item else []
    with state.having_done(request.user, request.history):
        row = state.asked(state.models.rank, request.user, items)
    segments = row.context + tuple(segment for block in row.candidates for segment in block)
    # Before anything is ranked, which computes what is absent.
    kept = state.models.ranking.num_kept(pipeline.cache_key(request.user, request.history), row)
    context: list[CachePlace] = ["context"] * kept
    places = [*context, *state.models.rank.cache.locate([segment.text for segment in segments[kept:]])]
    inspected = tuple(
        InspectedText(segment.text, segment.slot, place) for segment, place in zip(segments, places, strict=True)
    )
    return Inspection(inspected, _placement(state, request, items[0], row) if items else None)


def neighbours(state: ServingState, item: str | Item, count: int, by: Similarity) -> list[Ranked]:
    """See ``Backend.neighbours``.

    Raises:
        UnknownError: There is no item of this id.
        DataError: An item that is not stored can't be read.
    """
    models = state.models
    if isinstance(item, str):
        state.need([item], "check the id")
        known = state.live[item]
    else:
        models.admission.item(known := item)
    if by == "behaviour":
        found = models.index.liked_with(known.id, count)
    else:
        vector_E = models.index.vectors([known.id])[0] if isinstance(item, str) else models.documents.vector(known)
        found = models.index.near(vector_E, count, without=[known.id])
    return [Ranked(state.live[one], score) for one, score in found]


def _placement(state: ServingState, request: InspectRequest, item: Item, row: Example) -> Placement:
    asked = Request(user=request.user, filters=request.filters, history=request.history)
    likes, without = pipeline.taste(state, asked)
    index, where = state.models.index, request.filters.predicate
    vector_E = index.user_vector(likes)
    # As if no filter left the item out.
    allowed = where if where.admits(attributes(item)) else ALL
    kept = without - {item.id}
    blended = _place(item, index.search(vector_E, MAX_CANDIDATES, allowed, kept, likes))
    by_text = _place(item, index.near(vector_E, MAX_CANDIDATES, allowed, kept))
    sources = tuple(
        SourceScore(name, score, by_text if name == TEXT else rank)
        for name, score, rank in index.sources(item.id, vector_E, likes)
    )
    [(found, orders)] = pipeline.candidates(state, [asked])
    retrieved = item in found
    [ranked] = pipeline.score(state, [(request.user, request.history, found if retrieved else [*found, item])])
    order = [one.item.id for one in pipeline.in_order(ranked, orders)]
    return Placement(
        filtered_by=tuple(_filtered_by(item, request.filters, without)),
        retrieved=retrieved,
        retrieval_rank=blended,
        sources=sources,
        rank=order.index(item.id) + 1,
        num_ranked=len(order),
        score=next(one.score for one in ranked if one.item.id == item.id),
        base_score=_base_score(state.models.rank, row),
    )


def _filtered_by(item: Item, filters: Filters, without: frozenset[str]) -> Iterator[str]:
    """Names of the filters that leave the item out."""
    if item.id in filters.exclude:
        yield "exclude"
    elif item.id in without:
        yield "seen"
    known = attributes(item)
    if not Predicate(any_of=filters.categories).admits(known):
        yield "categories"
    if not Predicate(none_of=filters.exclude_categories).admits(known):
        yield "exclude_categories"
    if not Predicate(ranges=filters.ranges).admits(known):
        yield "ranges"


def _place(item: Item, found: Sequence[tuple[str, float]]) -> int | None:
    return next((place for place, (one, _) in enumerate(found, 1) if one == item.id), None)


def _base_score(rank: ScoreModel, row: Example) -> float | None:
    """The score of the only candidate by its features alone."""
    if not rank.task.worth:
        return None
    base_C = rank.logits([row])[0][0].double().cpu().numpy()
    share_C = np.exp(base_C - base_C.max())
    return float(share_C @ np.array(rank.task.worth) / share_C.sum())
