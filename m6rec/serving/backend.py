"""The interface of a recommender, in process (``Recommender``) or over HTTP (``m6rec.client.Client``)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from m6rec.language.chat import Intent, Message
from m6rec.predicate import Predicate
from m6rec.serving.holdings import Holdings
from m6rec.tasks.explain import Kind
from m6rec.types import Event, Item, Ranked, Segment, User

R = TypeVar("R")
Writing = Generator[str, None, R]
"""A streaming generation. Whenever it needs a ``LocalBackend.step`` it yields the text that is new and final, often "";
it returns its result. Closing it cancels the generation."""

NUM_RETRIEVED = 100
"""Candidates retrieved and ranked for one recommendation by default; pages end there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """Restricts the items that are returned.

    Attributes:
        categories: Items of at least one of these; empty allows all.
        exclude_categories: Items of any of these are left out.
        exclude: Ids of items to leave out.
        seen: Whether to include items that the user has interacted with.
        ranges: Minimum and maximum of a numeric detail, by its name (``predicate.attributes``).
    """

    categories: tuple[str, ...] = ()
    exclude_categories: tuple[str, ...] = ()
    exclude: frozenset[str] = frozenset()
    seen: bool = False
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)

    @property
    def predicate(self) -> Predicate:
        """The conditions that don't depend on the user."""
        return Predicate(any_of=self.categories, none_of=self.exclude_categories, ranges=self.ranges)


@dataclass(frozen=True, slots=True)
class Answer:
    """Recommended or ranked items.

    Attributes:
        items: The best first.
        timings_ms: Milliseconds per stage.
        unknown: Requested ids that are not in the catalogue; they were ignored.
    """

    items: list[Ranked]
    timings_ms: dict[str, float]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The outcome of a write of events.

    Attributes:
        accepted: New events; they are on disk.
        repeated: Events that had been accepted before, by their id.
        unknown: Ids of items that were never in the catalogue; their events were dropped.
    """

    accepted: int
    repeated: int = 0
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """One sentence of an explanation.

    Attributes:
        text: The sentence, addressed to the user.
        kind: What supports it; see ``tasks.explain.Rationale``.
        evidence: The events, counts or review sentences, as plain data.
        source: "model" if the generated sentence passed the faithfulness check, else "template".
        rejection: Why the generated sentence did not pass; "" if it did.
    """

    text: str
    kind: Kind
    evidence: Mapping[str, Any]
    source: Literal["model", "template"]
    rejection: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a user would like an item, most decisive reason first; ``text`` is "" if there is no reason."""

    text: str
    reasons: list[Reason]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """A chat request.

    Attributes:
        messages: The whole conversation, as the service is stateless; the last user message is answered.
        user: Id of the user whose history is used; unknown users have none.
        max_tokens: Limit of the reply; a sentence that doesn't fit is left out.
        temperature: For sampling between wordings; 0 takes the likeliest.
        top_p: Likewise.
        stops: Strings before which the reply ends.
        seed: Of the sampling.
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
        text: The reply.
        intent: The detected intent of the last user message.
        items: Recommended items in the order of the text, which names no others.
        reasons: Those of the first item, or of the item asked about.
        finish_reason: "stop" if the text is complete, "length" if a sentence was left out.
        num_prompt_tokens: Tokens of the messages.
        num_completion_tokens: Tokens of the text.
    """

    text: str
    intent: Intent
    items: list[Ranked]
    reasons: list[Reason]
    finish_reason: Literal["stop", "length"]
    num_prompt_tokens: int
    num_completion_tokens: int


GenerationKind = Literal["design", "query", "headline"]
ExportKind = Literal["events", "items", "users"]


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A text generated for a user.

    Attributes:
        text: The title of a design, a query, or a headline.
        source: "model", or "template" if no generated text passed the checks.
        category: Of a design; "" for other kinds.
        item: Id of the catalogue item that it names, if any.
        rejected: Why earlier candidates were rejected.
    """

    text: str
    source: Literal["model", "template"]
    category: str = ""
    item: str | None = None
    rejected: tuple[str, ...] = ()


NO_FILTERS = Filters()

CandidateSource = Literal["blend", "text", "popular"]
"""What candidates are retrieved by: everything, the items' texts alone, or what is liked most."""
Similarity = Literal["text", "behaviour"]
"""How items are compared: by their vectors, which are read from their texts, or by who liked them."""
MIN_CROWD = 5
"""A count of fewer people is not told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectRequest:
    """The arguments of ``Backend.inspect`` as a value."""

    user: str = ""
    item: str = ""
    filters: Filters = NO_FILTERS
    history: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceScore:
    """What one candidate source says of an item.

    Attributes:
        source: "text", or a name of ``retrieval.sources.SOURCES``.
        score: What it contributes to the retrieval score, its weight included.
        rank: Place of the item by this source alone, from 1; None if it is not among the first ``MAX_CANDIDATES``, or
            scores 0.
    """

    source: str
    score: float
    rank: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where an item stands for a user, and what holds it back.

    Attributes:
        filtered_by: Filters that exclude it, of "seen", "exclude", "categories", "exclude_categories" and "ranges";
            ranks are those that it would have without them.
        retrieved: Whether it is among the candidates.
        retrieval_rank: Place by the retrieval score, from 1; None beyond the first ``MAX_CANDIDATES``.
        sources: What the retrieval score is made of.
        rank: Place among the ranked candidates, from 1; if it is not one of them, the place that it would have.
        num_ranked: Number of ranked candidates, this item included.
        score: Its probability of a like.
        base_score: The same without the contribution of the text; None for a task whose classes have no order.
    """

    filtered_by: tuple[str, ...]
    retrieved: bool
    retrieval_rank: int | None = None
    sources: tuple[SourceScore, ...]
    rank: int
    num_ranked: int
    score: float
    base_score: float | None = None


CachePlace = Literal["context", "memory", "store", "absent"]
"""Where what the lower layers made of a text is kept: with the keys and values of the user's context, which the next
ranking goes on from; in memory; in the store of states; or nowhere, so that it will be computed."""


@dataclass(frozen=True, slots=True)
class InspectedText:
    """A text that the model reads.

    Attributes:
        text: The exact text.
        slot: Its role, one of ``types.SLOTS``.
        cached: Where its state was before it was asked for.
    """

    text: str
    slot: str
    cached: CachePlace


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the ranking model reads of a user and an item, and what comes of it.

    Attributes:
        segments: The texts, in order: profile, events, item.
        placement: Of the item; None if there was none.
    """

    segments: tuple[InspectedText, ...]
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class RankingCandidate:
    """An item to rank: the texts that the model reads of it, and its features; none for a task without."""

    item: Item
    segments: tuple[Segment, ...]
    features: list[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingInputs:
    """All that the ranking model is given for a recommendation; a device that has the model ranks by it.

    Attributes:
        model: Digest of the served foundation.
        tuning: Digest of the served tuning.
        wording: Digest of how it is worded (``tasks.probe``).
        features: Likewise of the features; "" for a task without.
        context: The texts of the user: profile, then events, oldest first.
        event_features: Numbers of each of the last texts of the context, which are the events; none for tasks without.
        candidates: As they were retrieved.
        orders: Orders of ids that weigh as much as the scores each (``retrieval.blend.reciprocal_rank_fusion``); none
            for a user of whom something is known.
        fusion: What is added to a place there.
    """

    model: str
    tuning: str
    wording: str
    features: str
    context: tuple[Segment, ...]
    event_features: list[list[float]]
    candidates: tuple[RankingCandidate, ...]
    orders: tuple[tuple[str, ...], ...]
    fusion: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The arguments of ``Backend.recommend`` as a value."""

    user: str = ""
    count: int = 10
    offset: int = 0
    filters: Filters = NO_FILTERS
    diversity: float = 0.0
    calibration: float = 0.0
    history: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RankRequest:
    """The arguments of ``Backend.rank`` as a value."""

    user: str = ""
    items: tuple[str, ...]
    history: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """The arguments of ``Backend.create`` as a value."""

    user: str
    kind: GenerationKind
    item: str | None = None
    category: str | None = None
    count: int = 1
    catalogue: bool = False


class Backend(Protocol):
    """A recommender; implementations inherit from it.

    Every method raises UnknownError for an unknown id, DataError for invalid data, and StoreError if a store fails. An
    unknown user, or "", gets popular items. ``history`` holds further events of the user, newer than all known ones; it
    is used for this request only and not stored. Its events may have no user and no time (0).
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
        """Recommended items, best first, from ``offset`` on.

        ``diversity`` reranks by maximal marginal relevance, ``calibration`` matches the category distribution of the
        user's likes; give at most one of the two.
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
        """``recommend`` for a batch of requests; timings are those of the whole batch."""

    def retrieve(
        self,
        user: str,
        count: int = 100,
        *,
        filters: Filters = NO_FILTERS,
        history: Sequence[Event] = (),
        source: CandidateSource = "blend",
    ) -> list[Ranked]:
        """Candidates by retrieval score (``types.Ranked``); that of ``popular`` is one over the place."""

    def rank(self, user: str, items: Sequence[str], *, history: Sequence[Event] = ()) -> Answer:
        """The items by descending probability of a like. UnknownError if none is in the catalogue."""
        return self.rank_many([RankRequest(user=user, items=tuple(items), history=tuple(history))])[0]

    def rank_many(self, requests: Sequence[RankRequest]) -> list[Answer]:
        """``rank`` for a batch of requests."""

    def neighbours(self, item: str | Item, count: int = 10, *, by: Similarity = "text") -> list[Ranked]:
        """Items that are similar to one of the catalogue, by its id, or to one that is not stored, most similar first.

        The score is a cosine for ``text``; for ``behaviour`` it is what the candidate sources score for a user who
        liked only this item.
        """

    def inspect(self, request: InspectRequest) -> Inspection:
        """What the model reads of a user, and where an item stands for them, if one is given. Nothing is stored."""

    def find_items(self, query: str = "", count: int = 10, *, ids: Sequence[str] = ()) -> list[Item]:
        """Items whose titles have words that begin with those of the query, most liked first; all items match "".

        With ``ids``, those that are in the catalogue, in that order, whatever the query.
        """

    def find_users(self, prefix: str = "", count: int = 10) -> list[str]:
        """Ids of users that begin with the prefix, in any case, in alphabetical order."""

    def get_item(self, item: str) -> tuple[Item, int | None]:
        """The item and the number of users who like it; None if there are fewer than ``MIN_CROWD``."""

    def explain(self, user: str, item: str, *, history: Sequence[Event] = ()) -> Explanation:
        """Why the user would like the item."""

    def chat(self, chat: Chat) -> Reply:
        """The next message of a conversation: a question, a recommendation or an explanation."""
        for piece in self.stream(chat):
            if isinstance(piece, Reply):
                return piece
        raise AssertionError("a stream ends with its reply")

    def stream(self, chat: Chat) -> Iterator[str | Reply]:
        """``chat`` as a stream of sentences, then the whole reply. Closing the stream cancels it."""

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
        """Generates 1 to ``count`` distinct texts for the user, best first.

        Kinds are "design", the title of a product that they would like, optionally of a ``category``; "query", their
        next search; "headline", ad copy for an ``item``. With ``catalogue``, a design is an existing item, new to
        the user.
        """
        return self.generate(
            GenerationRequest(user=user, kind=kind, item=item, category=category, count=count, catalogue=catalogue)
        )

    def generate(self, request: GenerationRequest) -> list[GenerationResult]:
        """``create`` for a request as a value."""

    def rerank(self, query: str, documents: Sequence[str]) -> tuple[NDArray[np.float64], int]:
        """(relevance of each document to the query, 0 to 1; number of tokens read)."""

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """(unit vectors of the texts [n, E]; number of tokens read)."""

    def ingest(self, events: Sequence[Event]) -> IngestResult:
        """Stores events; on return they are on disk and part of their users' histories.

        Events of items that were never in the catalogue are dropped and reported; UnknownError if there are no others.
        DataError if an event is invalid in the domain, by its value, its time or its kind; then none is stored.
        """
        return self.ingest_many([events])[0]

    def ingest_many(self, writes: Sequence[Sequence[Event]]) -> list[IngestResult]:
        """``ingest`` for several writes in one transaction."""

    def upsert(self, items: Sequence[Item]) -> None:
        """Adds or replaces items, all or none; on return they are on disk and can be recommended."""

    def delete(self, ids: Sequence[str]) -> int:
        """Removes items; returns how many there were."""

    def put_user(self, user: User) -> None:
        """Adds or replaces a user, on disk on return. A user who was erased is accepted again."""

    def get_user(self, user: str) -> tuple[User, list[Event]]:
        """The user and their events, oldest first."""

    def forget(self, user: str) -> bool:
        """Erases a user and their events from every file; returns whether there was anything.

        Later events of the user are dropped until ``put_user`` adds them again.
        """


class LocalBackend(Backend, Protocol):
    """A backend in this process, which interleaves long work with other requests, slice by slice.

    Thread-safe. ``upsert`` encodes in slices too and yields to the requests of other threads.
    """

    @property
    def turn(self) -> AbstractContextManager[Any]:
        """The lock held during inference; a request that waits for it has not begun and can be cancelled."""
        return nullcontext()

    def pseudonym(self, user: str) -> str:
        """What audit logs call a user: a keyed hash, the same in all services that share a journal."""

    def ranking_inputs(self, request: Request) -> RankingInputs:
        """What ``recommend`` would rank, before it is ranked; its count, page and spread are left out of account."""

    def explaining(self, user: str, item: str, history: Sequence[Event] = ()) -> Writing[Explanation]:
        """``explain`` in slices."""

    def creating(self, request: GenerationRequest) -> Writing[list[GenerationResult]]:
        """``generate`` in slices."""

    def chatting(self, chat: Chat) -> Writing[Reply]:
        """``chat`` in slices."""

    def reranking(self, query: str, documents: Sequence[str]) -> Writing[tuple[NDArray[np.float64], int]]:
        """``rerank`` in slices."""

    def embedding(self, texts: Sequence[str]) -> Writing[tuple[NDArray[np.float32], int]]:
        """``embed`` in slices."""

    def holdings(self) -> Holdings:
        """What it holds now; it waits for nobody, so that a busy service can be asked."""

    def export(self, kind: ExportKind) -> Sequence[Event] | Sequence[Item] | Sequence[User]:
        """All events, items or users of one moment."""

    def step(self) -> None:
        """Decodes one token of every running generation."""

    def explain(self, user: str, item: str, *, history: Sequence[Event] = ()) -> Explanation:
        """See ``Backend``."""
        return self._finish(self.explaining(user, item, history))

    def generate(self, request: GenerationRequest) -> list[GenerationResult]:
        """See ``Backend``."""
        return self._finish(self.creating(request))

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
