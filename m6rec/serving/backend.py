"""What a recommender can be asked, in this process (``Recommender``) or in another (``m6rec.client.Client``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from m6rec.tasks.explain import Kind
from m6rec.types import Event, Item, Ranked

NUM_RETRIEVED = 100
"""Candidates that are ranked for a recommendation, and the end of its pages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """Which items may come up.

    Attributes:
        categories: Only items of one of these; empty allows all.
        exclude: Ids that are left out.
        seen: Whether items may come up that the user has met already.
    """

    categories: tuple[str, ...] = ()
    exclude: frozenset[str] = frozenset()
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Recommended items, the best first, and the milliseconds that each stage took."""

    items: list[Ranked]
    timings_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Reason:
    """One sentence of an explanation.

    Attributes:
        text: As it is said to the user.
        kind: What it rests on; see ``tasks.explain.Statement``.
        evidence: The events, counts or sentences, as plain data.
        worded_by: Whether the model's words passed the gate, or ours stand in for them.
        reason: Why the model's words did not pass; "" where they did.
    """

    text: str
    kind: Kind
    evidence: Mapping[str, Any]
    worded_by: Literal["model", "template"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a user would like an item, the most decisive reason first; ``text`` is "" where nothing speaks for it."""

    text: str
    statements: list[Reason]


CreationKind = Literal["design", "query", "headline"]


@dataclass(frozen=True, slots=True)
class Creation:
    """A text made for a user.

    Attributes:
        text: The title of a design, a query, or a headline.
        worded_by: Whether the model wrote it, or none of its texts could be shown and ours stands in.
        category: Of a design; "" of other texts.
        item: Id of the item of the catalogue that it names, if it names one.
        refused: Why texts that the model wrote before it were not shown.
    """

    text: str
    worded_by: Literal["model", "template"]
    category: str = ""
    item: str | None = None
    refused: tuple[str, ...] = ()


NO_FILTERS = Filters()


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What ``Backend.recommend`` is asked, as a value; its attributes are the arguments."""

    user: str
    count: int = 10
    offset: int = 0
    filters: Filters = NO_FILTERS
    diversity: float = 0.0
    calibration: float = 0.0


class Backend(Protocol):
    """Recommends; recommenders inherit from it.

    Every method raises UnknownError for an id that nothing has, DataError for data that can't be read or written down,
    and StoreError where a store fails.
    """

    def recommend(
        self,
        user: str,
        count: int = 10,
        *,
        offset: int = 0,
        filters: Filters = NO_FILTERS,
        diversity: float = 0.0,
        calibration: float = 0.0,
    ) -> Answer:
        """The items that the user would like most, ``offset`` of them left out.

        ``diversity`` spreads them in the space of vectors, ``calibration`` over the categories of what the user liked;
        one of the two at most.
        """
        request = Request(
            user=user, count=count, offset=offset, filters=filters, diversity=diversity, calibration=calibration
        )
        return self.recommend_many([request])[0]

    def recommend_many(self, requests: Sequence[Request]) -> list[Answer]:
        """``recommend`` for several requests at once; the times of a stage are those of all together."""

    def retrieve(self, user: str, count: int = 100, *, filters: Filters = NO_FILTERS) -> list[Ranked]:
        """The nearest items, scored by the product of the user's and the item's vectors (``types.Ranked``)."""

    def rank(self, user: str, items: Sequence[str]) -> list[Ranked]:
        """The items by falling probability that the user likes them."""

    def rank_many(self, requests: Sequence[tuple[str, Sequence[str]]]) -> list[list[Ranked]]:
        """``rank`` of several users at once."""

    def explain(self, user: str, item: str) -> Explanation:
        """Why the user would like the item, by what has happened so far."""

    def create(
        self,
        user: str,
        kind: CreationKind,
        *,
        item: str | None = None,
        category: str | None = None,
        count: int = 1,
        catalogue: bool = False,
    ) -> list[Creation]:
        """Different texts for the user, the best first: at least one, ``count`` at most.

        Kinds are "design", a product that they would like, of the ``category`` if one is given; "query", what they
        would search next; "headline", copy for an ``item``. With ``catalogue``, a design is an item of the catalogue
        that the user has not met.
        """

    def rerank(self, query: str, documents: Sequence[str]) -> tuple[NDArray[np.float64], int]:
        """How well each document fits the query, in 0 … 1, and how many tokens were read."""

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Unit vectors [n, 128] of the texts, and how many tokens were read."""

    def observe(self, events: Sequence[Event]) -> None:
        """Takes events in, all or none; on return they are on disk."""

    def upsert(self, items: Sequence[Item]) -> None:
        """Adds or replaces items, all or none; on return they are on disk, and can be retrieved and ranked."""

    def delete(self, ids: Sequence[str]) -> int:
        """Takes items out; returns how many were there."""
