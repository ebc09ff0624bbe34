"""What a recommender can be asked, in this process (``Recommender``) or in another (``m6rec.client.Client``)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from m6rec.predicate import Predicate
from m6rec.tasks.chat import Intent, Message
from m6rec.tasks.explain import Kind
from m6rec.types import Event, Item, Ranked, User

R = TypeVar("R")
Writing = Generator[str, None, R]
"""A text in the making. Asked for the next, it goes on to where it needs a ``LocalBackend.step`` and yields what may be
read by then, often nothing; it returns its result. Closed, it is given up."""

NUM_RETRIEVED = 100
"""Candidates that are ranked for a recommendation, and the end of its pages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """Which items may come up.

    Attributes:
        categories: Only items of one of these; empty allows all.
        exclude: Ids that are left out.
        seen: Whether items may come up that the user has met already.
        ranges: The least and the greatest that a number of the item may be, by name (``predicate.attributes``).
    """

    categories: tuple[str, ...] = ()
    exclude: frozenset[str] = frozenset()
    seen: bool = False
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)

    @property
    def predicate(self) -> Predicate:
        """What must hold of an item, whoever asks."""
        return Predicate(any_of=self.categories, ranges=self.ranges)


@dataclass(frozen=True, slots=True)
class Answer:
    """Recommended or ranked items.

    Attributes:
        items: The best first.
        timings_ms: Milliseconds that each stage took.
        unknown: Ids in the request that the catalogue doesn't have; the rest was answered without them.
    """

    items: list[Ranked]
    timings_ms: dict[str, float]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of events that were sent.

    Attributes:
        accepted: Events taken in; they are on disk.
        repeated: Events whose id was taken in before, so that nothing was left to do.
        unknown: Ids of items that the catalogue has never had; their events were left out.
    """

    accepted: int
    repeated: int = 0
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """One sentence of an explanation.

    Attributes:
        text: As it is said to the user.
        kind: What it rests on; see ``tasks.explain.Rationale``.
        evidence: The events, counts or sentences, as plain data.
        source: Whether the model's words passed the gate, or ours stand in for them.
        reason: Why the model's words did not pass; "" where they did.
    """

    text: str
    kind: Kind
    evidence: Mapping[str, Any]
    source: Literal["model", "template"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a user would like an item, the most decisive reason first; ``text`` is "" where nothing speaks for it."""

    text: str
    statements: list[Reason]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """A conversation that is to be gone on with.

    Attributes:
        messages: All of it, as nothing is kept between two replies. What the user said last is answered.
        user: Whose history counts as well; one who is not known has none.
        max_tokens: Of the reply. A sentence that doesn't fit is not said.
        temperature: Of the choice between wordings; 0 takes the likeliest.
        top_p: Likewise.
        stops: Strings that the reply ends before.
        seed: Of the draws.
    """

    messages: Sequence[Message]
    user: str = ""
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stops: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """The next message of a conversation.

    Attributes:
        text: As it is said to the user.
        intent: What the user's last message was taken to want.
        items: What is recommended, in the order of the text; every title in it is one of these.
        statements: Why the first of them is, or what is explained.
        reason: Whether the text is whole, or a sentence found no room in it.
        num_read: Tokens of the messages.
        num_written: Tokens of the text.
    """

    text: str
    intent: Intent
    items: list[Ranked]
    statements: list[Reason]
    reason: Literal["stop", "length"]
    num_read: int
    num_written: int


GenerationKind = Literal["design", "query", "headline"]


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A text made for a user.

    Attributes:
        text: The title of a design, a query, or a headline.
        source: Whether the model wrote it, or none of its texts could be shown and ours stands in.
        category: Of a design; "" of other texts.
        item: Id of the item of the catalogue that it names, if it names one.
        refused: Why texts that the model wrote before it were not shown.
    """

    text: str
    source: Literal["model", "template"]
    category: str = ""
    item: str | None = None
    refused: tuple[str, ...] = ()


NO_FILTERS = Filters()


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What ``Backend.recommend`` is asked, as a value; its attributes are the arguments."""

    user: str = ""
    count: int = 10
    offset: int = 0
    filters: Filters = NO_FILTERS
    diversity: float = 0.0
    calibration: float = 0.0
    history: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RankRequest:
    """What ``Backend.rank`` is asked, as a value; its attributes are the arguments."""

    user: str = ""
    items: tuple[str, ...]
    history: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """What ``Backend.create`` is asked, as a value; its attributes are the arguments."""

    user: str
    kind: GenerationKind
    item: str | None = None
    category: str | None = None
    count: int = 1
    catalogue: bool = False


class Backend(Protocol):
    """Recommends; recommenders inherit from it.

    Every method raises UnknownError for an id that nothing has, DataError for data that can't be read or written down,
    and StoreError where a store fails. A user whom nobody knows, or "", is no error: they are answered with what is
    generally liked. A ``history`` is what the user did after everything that is known of them; it counts for this one
    answer and leaves no trace. Its events may lack a user and a time (0).
    """

    def recommend(
        self,
        user: str = "",
        count: int = 10,
        *,
        offset: int = 0,
        filters: Filters = NO_FILTERS,
        diversity: float = 0.0,
        calibration: float = 0.0,
        history: Sequence[Event] = (),
    ) -> Answer:
        """The items that the user would like most, ``offset`` of them left out.

        ``diversity`` spreads them in the space of vectors, ``calibration`` over the categories of what the user liked;
        one of the two at most.
        """
        request = Request(
            user=user,
            count=count,
            offset=offset,
            filters=filters,
            diversity=diversity,
            calibration=calibration,
            history=tuple(history),
        )
        return self.recommend_many([request])[0]

    def recommend_many(self, requests: Sequence[Request]) -> list[Answer]:
        """``recommend`` for several requests at once; the times of a stage are those of all together."""

    def retrieve(self, user: str, count: int = 100, *, filters: Filters = NO_FILTERS) -> list[Ranked]:
        """The nearest items, scored by the product of the user's and the item's vectors (``types.Ranked``)."""

    def rank(self, user: str, items: Sequence[str], *, history: Sequence[Event] = ()) -> Answer:
        """The items by falling probability that the user likes them; UnknownError where the catalogue has none."""
        return self.rank_many([RankRequest(user=user, items=tuple(items), history=tuple(history))])[0]

    def rank_many(self, requests: Sequence[RankRequest]) -> list[Answer]:
        """``rank`` of several users at once."""

    def explain(self, user: str, item: str) -> Explanation:
        """Why the user would like the item, by what has happened so far."""

    def chat(self, chat: Chat) -> Reply:
        """The next message of a conversation: it asks, recommends or explains."""
        for told in self.stream(chat):
            if isinstance(told, Reply):
                return told
        raise AssertionError("a reply ends with itself")

    def stream(self, chat: Chat) -> Iterator[str | Reply]:
        """``chat`` sentence by sentence as they are found, and at last the whole; closed, it is given up."""

    def create(
        self,
        user: str,
        kind: GenerationKind,
        *,
        item: str | None = None,
        category: str | None = None,
        count: int = 1,
        catalogue: bool = False,
    ) -> list[GenerationResult]:
        """Different texts for the user, the best first: at least one, ``count`` at most.

        Kinds are "design", a product that they would like, of the ``category`` if one is given; "query", what they
        would search next; "headline", copy for an ``item``. With ``catalogue``, a design is an item of the catalogue
        that the user has not met.
        """
        return self.generate(
            GenerationRequest(user=user, kind=kind, item=item, category=category, count=count, catalogue=catalogue)
        )

    def generate(self, brief: GenerationRequest) -> list[GenerationResult]:
        """``create``, asked by a value."""

    def rerank(self, query: str, documents: Sequence[str]) -> tuple[NDArray[np.float64], int]:
        """How well each document fits the query, in 0 … 1, and how many tokens were read."""

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Unit vectors [n, 128] of the texts, and how many tokens were read."""

    def ingest(self, events: Sequence[Event]) -> IngestResult:
        """Takes events in; on return they are on disk and part of their users' histories.

        Those of items that the catalogue has never had are left out and named; UnknownError where no other is left.
        DataError where an event can't have happened in the domain: its value is out of range, its time to come, or
        the domain has no words for it; then none is taken in.
        """
        return self.ingest_many([events])[0]

    def ingest_many(self, writes: Sequence[Sequence[Event]]) -> list[IngestResult]:
        """``observe`` for several writes at once, which go to disk together; all or none."""

    def upsert(self, items: Sequence[Item]) -> None:
        """Adds or replaces items, all or none; on return they are on disk, and can be retrieved and ranked."""

    def delete(self, ids: Sequence[str]) -> int:
        """Takes items out; returns how many were there."""

    def put_user(self, user: User) -> None:
        """Tells of a user, or anew of one; on return that is on disk. One who was forgotten is known again."""

    def get_user(self, user: str) -> tuple[User, list[Event]]:
        """What is known of a user, and what they did, oldest first."""

    def forget(self, user: str) -> bool:
        """Erases a user and what they did; on return no file that is written to holds a byte of it.

        What is sent of them later is not kept, until ``put_user`` tells of them again. Returns whether there was
        anything.
        """


class LocalBackend(Backend, Protocol):
    """A backend in this process, whose long work is done in slices, so that others are answered in between.

    Any thread may call it. ``upsert`` encodes in slices by itself, and lets the requests of other threads go first.
    """

    @property
    def turn(self) -> AbstractContextManager[Any]:
        """Held while the model answers; a request that waits for it has not begun, and can still be given up."""
        return nullcontext()

    def explaining(self, user: str, item: str) -> Writing[Explanation]:
        """``explain`` in slices."""

    def creating(self, brief: GenerationRequest) -> Writing[list[GenerationResult]]:
        """``generate`` in slices."""

    def chatting(self, chat: Chat) -> Writing[Reply]:
        """``chat`` in slices."""

    def reranking(self, query: str, documents: Sequence[str]) -> Writing[tuple[NDArray[np.float64], int]]:
        """``rerank`` in slices."""

    def embedding(self, texts: Sequence[str]) -> Writing[tuple[NDArray[np.float32], int]]:
        """``embed`` in slices."""

    def step(self) -> None:
        """Adds a token to each text in the making."""

    def explain(self, user: str, item: str) -> Explanation:
        """See ``Backend``."""
        return self._finish(self.explaining(user, item))

    def generate(self, brief: GenerationRequest) -> list[GenerationResult]:
        """See ``Backend``."""
        return self._finish(self.creating(brief))

    def rerank(self, query: str, documents: Sequence[str]) -> tuple[NDArray[np.float64], int]:
        """See ``Backend``."""
        return self._finish(self.reranking(query, documents))

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """See ``Backend``."""
        return self._finish(self.embedding(texts))

    def stream(self, chat: Chat) -> Iterator[str | Reply]:
        """See ``Backend``."""
        writing = self.chatting(chat)
        try:
            while True:
                try:
                    piece = next(writing)
                except StopIteration as end:
                    yield end.value
                    return
                if piece:
                    yield piece
                self.step()
        finally:
            writing.close()

    def _finish(self, writing: Writing[R]) -> R:
        while True:
            try:
                next(writing)
            except StopIteration as end:
                result: R = end.value
                return result
            self.step()
