"""From a request to recommended items: retrieve, filter, rank, diversify, page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from m6rec.errors import ConfigError
from m6rec.language.chat import Session
from m6rec.predicate import Predicate
from m6rec.retrieval.blend import FUSION, reciprocal_rank_fusion
from m6rec.retrieval.examples import NUM_MOST_LIKED
from m6rec.serving import chatting
from m6rec.serving.backend import Answer, CandidateSource, RankingCandidate, RankingInputs, RankRequest, Request
from m6rec.serving.diversity import calibrated, mmr
from m6rec.serving.state import ServingState
from m6rec.types import Event, Item, Ranked

QUERY_WEIGHT = 1.0
"""What the words of a conversation weigh in its retrieval, beside what is read of the user."""
NUM_POPULAR = 50
"""Much-liked items that stand beside what is retrieved where little is known of who asks."""
MAX_POPULAR = 2_000
"""Items that these are sought among."""


def recommend(state: ServingState, requests: Sequence[Request]) -> list[Answer]:
    """See ``Backend.recommend_many``: one search a request, then one batch of the upper layers for ranking.

    Raises:
        ConfigError: A page goes beyond what is ranked; ``diversity`` or ``calibration`` is not in 0 … 1, or both
            are wanted.
        DataError: An event of a history can't be.
    """
    for request in requests:
        _check(request, state.num_retrieved)
    timings: dict[str, float] = {}
    with timed(timings, "retrieve"):
        found = candidates(state, requests)
    with timed(timings, "rank"):
        asked = [(one.user, one.history, items) for one, (items, _) in zip(requests, found, strict=True)]
        ranked = score(state, asked)
    with timed(timings, "diversify"):
        pages = []
        for request, (_, orders), hits in zip(requests, found, ranked, strict=True):
            pages.append(_page(state, request, in_order(hits, orders)))
    unknown = (_unknown_events(state, one.history) for one in requests)
    return [Answer(page, dict(timings), left) for page, left in zip(pages, unknown, strict=True)]


def rank_retrieved(state: ServingState, users: Sequence[str], near: Sequence[Sequence[Ranked]]) -> list[list[Ranked]]:
    """What ``recommend`` makes of what was retrieved for these users, without a page."""
    requests = [Request(user=user) for user in users]
    found = [_with_popular(state, one, hits) for one, hits in zip(requests, near, strict=True)]
    ranked = score(state, [(user, (), items) for user, (items, _) in zip(users, found, strict=True)])
    return [in_order(hits, orders) for hits, (_, orders) in zip(ranked, found, strict=True)]


def candidates(state: ServingState, requests: Sequence[Request]) -> list[tuple[list[Item], list[list[str]]]]:
    """For each request: (what is ranked, the orders that count besides, none for a user of whom something is known)."""
    near = retrieve(state, [(one, state.num_retrieved) for one in requests])
    return [_with_popular(state, one, hits) for one, hits in zip(requests, near, strict=True)]


def in_order(ranked: list[Ranked], orders: Sequence[Sequence[str]]) -> list[Ranked]:
    """Ranked items, in which the orders of ``candidates`` weigh as much as the score each."""
    if not orders:
        return ranked
    by_id = {one.item.id: one for one in ranked}
    return [by_id[item] for item in reciprocal_rank_fusion([*orders, [*by_id]])]


def retrieve(
    state: ServingState, requests: Sequence[tuple[Request, int]], source: CandidateSource = "blend"
) -> list[list[Ranked]]:
    """The nearest items for each of several requests, and how many at most.

    A user who liked nothing yet is one who likes what most do.
    """
    index = state.models.index
    answers = []
    for one, count in requests:
        likes, without = taste(state, one)
        if source == "popular":
            popular = popular_items(state, one.filters.predicate, without, count)
            found = [(item, 1 / place) for place, item in enumerate(popular, 1)]
        elif source == "text":
            found = index.near(index.user_vector(likes), count, one.filters.predicate, without)
        else:
            found = index.search(index.user_vector(likes), count, one.filters.predicate, without, likes)
        answers.append([Ranked(state.live[item], score) for item, score in found])
    return answers


def taste(state: ServingState, request: Request) -> tuple[list[str], frozenset[str]]:
    """(what the user liked, oldest first, or what most do; what is left out)."""
    with state.having_done(request.user, request.history):
        met, likes = state.interactions.seen(request.user), state.interactions.liked(request.user)
    likes = likes or [*islice(state.interactions.most_liked(), NUM_MOST_LIKED)][::-1]
    return likes, request.filters.exclude | (frozenset() if request.filters.seen else met)


def rank(state: ServingState, requests: Sequence[RankRequest]) -> list[Answer]:
    """See ``Backend.rank_many``: one batch of the upper layers, whose rows are the users."""
    timings: dict[str, float] = {}
    for one in requests:
        state.need(one.items, "check the id")
    with timed(timings, "rank"):
        ranked = score(
            state,
            [
                (one.user, one.history, [state.live[item] for item in one.items if item in state.live])
                for one in requests
            ],
        )
    answers = []
    for one, items in zip(requests, ranked, strict=True):
        unknown = dict.fromkeys(item for item in one.items if item not in state.live)
        answers.append(Answer(items, dict(timings), (*unknown, *_unknown_events(state, one.history))))
    return answers


def ranking_inputs(state: ServingState, request: Request) -> RankingInputs:
    """See ``LocalBackend.ranking_inputs``. Raises DataError where an event of the history can't be."""
    [(items, orders)] = candidates(state, [request])
    with state.having_done(request.user, request.history):
        row = state.asked(state.models.rank, request.user, items)
    return RankingInputs(
        **state.models.rank_identity,
        context=row.context,
        event_features=row.event_features.tolist(),
        candidates=tuple(map(RankingCandidate, items, row.candidates, row.features.tolist())),
        orders=tuple(map(tuple, orders)),
        fusion=FUSION,
    )


def suggest(state: ServingState, session: Session, user: str) -> list[Ranked]:
    """Items that a conversation may name next, the best first; none that came up in it.

    The user has just done what the conversation tells (``chatting.events``).
    """
    models, interactions = state.models, state.interactions
    where = session.predicate
    without = session.named | interactions.seen(user)
    # All that has come up tells what the conversation is about, the liked last, as they weigh most.
    before = [item for item in interactions.liked(user) if item not in session.named]
    named = (*session.shown, *session.seen, *session.liked)
    pulling = [*before, *(item for item in named if item not in session.disliked)]
    vector_E = models.index.user_vector(pulling)
    if session.query:
        vector_E += QUERY_WEIGHT * models.documents.vectors([session.query])[0]
    near = [item for item, _ in models.index.search(vector_E, state.num_retrieved, where, without, pulling)]
    popular = popular_items(state, where, without)
    found = [state.live[item] for item in dict.fromkeys([*near, *popular])]
    if not found:
        return []
    key = f"{user}\0"  # what was read of the user without the conversation is kept
    scores = models.ranking.predict([(key, state.asked(models.rank, user, found))])[0]
    ranked = {one.item.id: one for one in _by_score(found, scores)}
    return [ranked[item] for item in reciprocal_rank_fusion([near, popular, [*ranked]])]


def as_told(state: ServingState, session: Session, user: str) -> AbstractContextManager[None]:
    """As if the user had just done what the conversation tells."""
    told = chatting.events(session, user, state.interactions.time)
    return state.interactions.overlay(user, [event for event in told if event.item in state.items])


def score(state: ServingState, requests: Sequence[tuple[str, Sequence[Event], Sequence[Item]]]) -> list[list[Ranked]]:
    """Items by descending score, for each (user, further events, items), in one batch of the upper layers."""
    rows = []
    for user, history, items in requests:
        if items:
            with state.having_done(user, history):
                rows.append((cache_key(user, history), state.asked(state.models.rank, user, items)))
    scored = iter(state.models.ranking.predict(rows))
    return [_by_score(items, next(scored)) if items else [] for _, _, items in requests]


def cache_key(user: str, history: Sequence[object]) -> str:
    """Names what is kept of a user: what is asked by the way must not take the place of what stays."""
    return f"{user}\0" if history else user


def _with_popular(state: ServingState, request: Request, near: Sequence[Ranked]) -> tuple[list[Item], list[list[str]]]:
    """See ``candidates``."""
    items = [one.item for one in near]
    if request.history or state.interactions.timeline(request.user):
        return items, []
    popular = popular_items(state, request.filters.predicate, request.filters.exclude)
    both = dict.fromkeys([*(item.id for item in items), *popular])
    return [state.live[item] for item in both], [[item.id for item in items], popular]


def popular_items(
    state: ServingState, where: Predicate, without: frozenset[str], count: int = NUM_POPULAR
) -> list[str]:
    """What is liked most of what a predicate holds of.

    It is sought among the ``MAX_POPULAR`` most-liked items and, where too few of them will do, among as many others.
    """
    index, interactions = state.models.index, state.interactions
    popular = [
        item for item in index.admitted(where, islice(interactions.most_liked(), MAX_POPULAR)) if item not in without
    ]
    if where and len(popular) < count:
        others = dict.fromkeys([*popular, *(item for item in index.some(where, MAX_POPULAR) if item not in without)])
        met = interactions.popularity(others).items
        popular = sorted((item for item in met if met[item][1]), key=lambda item: -met[item][1])
    return popular[:count]


def _unknown_events(state: ServingState, history: Sequence[Event]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.item for one in history if one.item and one.item not in state.items))


def _page(state: ServingState, request: Request, ranked: list[Ranked]) -> list[Ranked]:
    """The places that the request wants, in the order that it wants."""
    end = request.offset + request.count
    if request.diversity and ranked:
        scores = np.array([one.score for one in ranked])
        vectors = state.models.index.vectors([one.item.id for one in ranked])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ranked = [ranked[place] for place in mmr(scores, vectors, request.diversity, end)]
    elif request.calibration and ranked:
        with state.having_done(request.user, request.history):
            ranked = _calibrated(state, request.user, ranked, request.calibration, end)
    return ranked[request.offset : end]


def _calibrated(
    state: ServingState, user: str, ranked: Sequence[Ranked], calibration: float, count: int
) -> list[Ranked]:
    """The ranked items anew, their categories spread as those of the user's likes."""
    domain = state.models.rank.domain
    liked = [state.items[event.item] for event in state.interactions.history(user) if domain.positive(event)]
    items = [*(one.item for one in ranked), *liked]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(n for item in items for n in item.categories))}
    shares = np.zeros((len(items), len(numbers)))
    for row, item in zip(shares, items, strict=True):
        for name in item.categories:
            row[numbers[name]] += 1 / len(item.categories)
    wanted_G = shares[len(ranked) :].sum(0)
    scores = np.array([one.score for one in ranked])
    order = calibrated(scores, shares[: len(ranked)], wanted_G / max(wanted_G.sum(), 1e-12), calibration, count)
    return [ranked[place] for place in order]


def _by_score(items: Sequence[Item], scores: NDArray[np.floating]) -> list[Ranked]:
    """The items, the best first; those of one score stay in their order."""
    return [Ranked(items[n], float(scores[n])) for n in np.argsort(-scores, kind="stable")]


def _check(request: Request, num_retrieved: int) -> None:
    """Raises ConfigError where a number is out of range."""
    count, offset = request.count, request.offset
    if count < 1 or offset < 0 or offset + count > num_retrieved:
        raise ConfigError(
            f"count is {count} and offset {offset}; count must be at least 1, offset at least 0, and both together "
            f"at most {num_retrieved} (serving.limits.num_retrieved)"
        )
    for name, wish in (("diversity", request.diversity), ("calibration", request.calibration)):
        if not 0 <= wish <= 1:
            raise ConfigError(f"{name} is {wish}; it must be 0 (by score alone) to 1")
    if request.diversity and request.calibration:
        raise ConfigError(f"diversity is {request.diversity} and calibration {request.calibration}; give one of them")


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Notes the milliseconds that a stage takes."""
    start = time.perf_counter()
    yield
    timings[stage] = 1_000 * (time.perf_counter() - start)
