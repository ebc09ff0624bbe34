"""A recommender in this process: what is asked of it goes to the pipeline, what changes goes through its writers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce, wraps
from operator import add
from pathlib import Path
from types import MappingProxyType
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from m6rec.config import Count, Natural, NonNegative, validate
from m6rec.data.erasure import without
from m6rec.data.log import Log
from m6rec.errors import UnknownError
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.states import CacheStatistics
from m6rec.language.chat import Session
from m6rec.language.lexicon import Lexicon, Vocabulary
from m6rec.language.safety import Blocklist
from m6rec.readouts import EmbedModel, GenerateModel, ScoreModel
from m6rec.retrieval.index import IndexConfig
from m6rec.serving import inspecting, pipeline, text_pipeline
from m6rec.serving.admission import Admission
from m6rec.serving.backend import (
    NO_FILTERS,
    NUM_RETRIEVED,
    Answer,
    CandidateSource,
    Chat,
    Explanation,
    ExportKind,
    Filters,
    GenerationRequest,
    GenerationResult,
    IngestResult,
    Inspection,
    InspectRequest,
    LocalBackend,
    RankingInputs,
    RankRequest,
    Reply,
    Request,
    Similarity,
    Writing,
)
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.creating import Creator
from m6rec.serving.documents import Documents
from m6rec.serving.event_ingestion import EventIngestion
from m6rec.serving.holdings import Holdings
from m6rec.serving.item_encoder import ItemEncoder
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.item_ingestion import ItemIngestion
from m6rec.serving.journal import FileJournal, Journal
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.serving.search import SearchIndex
from m6rec.serving.state import Models, ServingState
from m6rec.serving.text_model_pool import TextModelPool
from m6rec.serving.turn_taking import FairLock, in_turn
from m6rec.serving.user_registry import UserRegistry
from m6rec.types import Event, Item, Ranked, User

NO_WRITERS: Mapping[str, GenerateModel] = MappingProxyType({})

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class ServingLimits:
    """What one answer, one user and one cache may take.

    Attributes:
        latest_events: Behaviours of a user that are read, the latest. Each costs some 25 µs of every request and a
            token of every pass, so that without a limit one user of 9 000 events holds everyone up for a quarter of a
            second; few people have as many as this.
        num_retrieved: Items that are retrieved and ranked, where all pages of a list end.
        num_from_sources: Items that come from the sources of the blend, the best; others are found by their text.
        context_bytes: Memory for the KV caches of users in ranking; 1.5 KB an event with SmolLM2-135M.
        document_bytes: Memory for the states of reranked and embedded texts.
        slice_s: How long others wait for a slice of an encoding; about as long as one ranking.
        index: When the search of vectors is approximate, and how.
    """

    latest_events: Count = 1_000
    num_retrieved: Count = NUM_RETRIEVED
    num_from_sources: Count = 1_000
    context_bytes: Natural = 256 << 20
    document_bytes: Natural = 64 << 20
    slice_s: NonNegative = 0.01
    index: IndexConfig = IndexConfig()

    def __post_init__(self) -> None:
        validate(self)


LIMITS = ServingLimits()


def _alone(method: Callable[Concatenate[Recommender, P], R]) -> Callable[Concatenate[Recommender, P], R]:
    @wraps(method)
    def locked(self: Recommender, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._turn:
            return method(self, *args, **kwargs)

    return locked


class Recommender(LocalBackend):
    """A ``LocalBackend``: two tuned tasks, a catalogue, and what has happened so far.

    Any thread may call it. Whoever answers holds one lock, which goes to whoever asked first, so that an answer sees
    one state. Whoever writes holds it for a slice of an encoding or while memory is changed, and never while a disk is
    waited for. Writes of one kind wait for each other, so that memory changes in the order of the disk.

    Args:
        retrieve: The retrieval model, which finds the candidates.
        rank: The ranking task, which orders them.
        log: The items and users to start with.
        interactions: The log, replayed. It is rebuilt without users whom the journal has forgotten.
        journal: The journal of later events, which is read in here; None keeps them in memory only.
        catalogue: The items on disk, which come before those of the log; an item of the log that it has never had is
            added. None keeps them in memory only.
        vectors: A folder that keeps the items' vectors over a restart; None reads every item anew.
        writers: Text models by task; the untuned foundation generates the others.
        blocked: What no text that is created may hold, besides the built-in words.
        limits: What answers may take.

    Raises:
        ConfigError: A writer is not of the task of its name.
    """

    def __init__(
        self,
        retrieve: EmbedModel,
        rank: ScoreModel,
        log: Log,
        interactions: InteractionStore,
        *,
        journal: Journal | None = None,
        catalogue: Catalogue | None = None,
        vectors: Path | None = None,
        writers: Mapping[str, GenerateModel] = NO_WRITERS,
        blocked: Blocklist | None = None,
        limits: ServingLimits = LIMITS,
    ) -> None:
        journal = journal or FileJournal(None)
        if (left := without(log, journal.forgotten({*log.users, *(one.user for one in log.events)}))) is not log:
            log, interactions = left, InteractionStore(log.items, rank.domain.feedback).update_all(left.events)
        if catalogue is not None:
            for user in journal.refused(catalogue.users()):  # erased elsewhere while this process didn't run
                catalogue.forget(user)
        self._turn = FairLock()
        self._limits, self._vectors, self._blocked = limits, vectors, blocked or Blocklist()
        self._writers: list[TextModelPool] = []  # the last ones write what begins
        self._state = state = _open_state(log, interactions, catalogue, rank.domain.vocabulary, limits)
        self._encoder = ItemEncoder(self._turn, limits.slice_s)
        self._events = EventIngestion(state, self._turn, journal, log.events, lambda *one: self._users.erase(*one))
        self._items = ItemIngestion(state, self._turn, catalogue, self._encoder, self._events)
        self._users = UserRegistry(state, self._turn, journal, catalogue, self._events, limits.context_bytes)
        self._events.replay(Admission(rank.domain, (retrieve.task, rank.task)))
        self.swap(retrieve, rank, writers)
        self.save()

    def swap(self, retrieve: EmbedModel, rank: ScoreModel, writers: Mapping[str, GenerateModel] = NO_WRITERS) -> None:
        """Puts other tunings in place. The old ones answer while the catalogue is read by the new."""
        limits = self._limits
        index = ItemIndex(retrieve, limits.index, limits.num_from_sources)
        with self._items.indexing(index, retrieve, self._vectors), self._turn:
            # What the old writers have begun is finished by them.
            self._writers = [*(one for one in self._writers if one.active), TextModelPool(rank, writers)]
            self._state.models = Models(
                retrieve=retrieve,
                rank=rank,
                index=index,
                ranking=KVCachePool(rank, limits.context_bytes),
                documents=Documents(retrieve, rank, limits.document_bytes, limits.slice_s),
                writers=self._writers[-1],
                creator=Creator(rank, index, self._writers[-1], self._blocked),
                admission=Admission(rank.domain, (retrieve.task, rank.task)),
            )

    @property
    def state(self) -> ServingState:
        """What answers are made from, for a job in this process beside which nobody writes."""
        return self._state

    @property
    def turn(self) -> AbstractContextManager[object]:
        """See ``LocalBackend``."""
        return self._turn

    @_alone
    def save(self) -> None:
        """Writes what the next start would have to read again; what it must not lose is on disk already."""
        if self._vectors is not None:
            self._state.models.index.save(self._vectors, self._state.live)

    @property
    def width(self) -> int:
        """Numbers of an item's vector."""
        return self._state.models.retrieve.width

    def cache_statistics(self) -> CacheStatistics:
        """Of the states of both tasks, which share a cache where they split the model alike; any thread may ask."""
        models = self._state.models
        caches = {models.retrieve.cache, models.rank.cache}
        return reduce(add, (cache.statistics() for cache in caches))

    def holdings(self) -> Holdings:
        """See ``LocalBackend``."""
        state = self._state
        return Holdings(
            num_items=len(state.live),
            num_indexed=len(state.models.index),
            num_users=len(state.users),
            num_events=len(self._events.events),
            num_new_events=self._events.num_new,
            index_changed=self._items.changed,
            events_changed=self._events.changed,
            tasks=self._encoder.running,
        )

    @_alone
    def export(self, kind: ExportKind) -> Sequence[Event] | Sequence[Item] | Sequence[User]:
        """See ``LocalBackend``."""
        if kind == "events":
            return list(self._events.events)
        if kind == "items":
            return list(self._state.live.values())
        return list(self._state.users.values())

    @_alone
    def recommend_many(self, requests: Sequence[Request]) -> list[Answer]:
        """See ``pipeline.recommend``."""
        return pipeline.recommend(self._state, requests)

    @_alone
    def retrieve(
        self,
        user: str,
        count: int = NUM_RETRIEVED,
        *,
        filters: Filters = NO_FILTERS,
        history: Sequence[Event] = (),
        source: CandidateSource = "blend",
    ) -> list[Ranked]:
        """See ``Backend``."""
        request = Request(user=user, filters=filters, history=tuple(history))
        return pipeline.retrieve(self._state, [(request, count)], source)[0]

    @_alone
    def rank_many(self, requests: Sequence[RankRequest]) -> list[Answer]:
        """See ``pipeline.rank``."""
        return pipeline.rank(self._state, requests)

    @_alone
    def ranking_inputs(self, request: Request) -> RankingInputs:
        """See ``LocalBackend``."""
        return pipeline.ranking_inputs(self._state, request)

    @_alone
    def neighbours(self, item: str | Item, count: int = 10, *, by: Similarity = "text") -> list[Ranked]:
        """See ``inspecting.neighbours``."""
        return inspecting.neighbours(self._state, item, count, by)

    @_alone
    def inspect(self, request: InspectRequest) -> Inspection:
        """See ``inspecting.inspect``."""
        return inspecting.inspect(self._state, request)

    @_alone
    def find_items(self, query: str = "", count: int = 10, *, ids: Sequence[str] = ()) -> list[Item]:
        """See ``inspecting.find_items``."""
        return inspecting.find_items(self._state, query, count, ids)

    @_alone
    def find_users(self, prefix: str = "", count: int = 10) -> list[str]:
        """See ``Backend``."""
        return self._state.search.users(prefix, count)

    @_alone
    def get_item(self, item: str) -> tuple[Item, int | None]:
        """See ``inspecting.get_item``."""
        return inspecting.get_item(self._state, item)

    @_alone
    def suggest(self, session: Session, user: str = "") -> list[Ranked]:
        """Items that a conversation may name next, the best first; none that came up in it."""
        with pipeline.as_told(self._state, session, user):
            return pipeline.suggest(self._state, session, user)

    @_alone
    def get_user(self, user: str) -> tuple[User, list[Event]]:
        """See ``Backend``. Raises UnknownError where there is no such user."""
        users = self._state.users
        if user not in users:
            raise UnknownError(f"there is no user {user!r} among the {len(users)} known; check the id")
        return users[user], list(self._state.interactions.timeline(user))

    def explaining(self, user: str, item: str, history: Sequence[Event] = ()) -> Writing[Explanation]:
        """See ``text_pipeline.explain``."""
        return in_turn(self._turn, text_pipeline.explain(self._state, user, item, history))

    def chatting(self, chat: Chat) -> Writing[Reply]:
        """See ``text_pipeline.chat``."""
        return in_turn(self._turn, text_pipeline.chat(self._state, chat))

    def creating(self, request: GenerationRequest) -> Writing[list[GenerationResult]]:
        """See ``text_pipeline.generate``."""
        return in_turn(self._turn, text_pipeline.generate(self._state, request))

    def reranking(self, query: str, documents: Sequence[str]) -> Writing[tuple[NDArray[np.float64], int]]:
        """See ``text_pipeline.rerank``."""
        return in_turn(self._turn, text_pipeline.rerank(self._state, query, documents))

    def embedding(self, texts: Sequence[str]) -> Writing[tuple[NDArray[np.float32], int]]:
        """See ``text_pipeline.embed``."""
        return in_turn(self._turn, text_pipeline.embed(self._state, texts))

    @_alone
    def step(self) -> None:
        """See ``LocalBackend``."""
        for writers in self._writers:
            writers.step()

    def ingest_many(self, writes: Sequence[Sequence[Event]]) -> list[IngestResult]:
        """See ``EventIngestion``."""
        return self._events.ingest_many(writes)

    def follow_events(self) -> int:
        """See ``EventIngestion.follow``."""
        return self._events.follow()

    def upsert(self, items: Sequence[Item]) -> None:
        """See ``ItemIngestion``."""
        self._items.upsert(items)

    def delete(self, ids: Sequence[str]) -> int:
        """See ``ItemIngestion``."""
        return self._items.delete(ids)

    def follow_items(self) -> int:
        """See ``ItemIngestion.follow``."""
        return self._items.follow()

    def put_user(self, user: User) -> None:
        """See ``UserRegistry.put``."""
        self._users.put(user)

    def forget(self, user: str) -> bool:
        """See ``UserRegistry.forget``."""
        return self._users.forget(user)

    def pseudonym(self, user: str) -> str:
        """See ``LocalBackend``."""
        return self._users.pseudonym(user)


def _open_state(
    log: Log,
    interactions: InteractionStore,
    catalogue: Catalogue | None,
    vocabulary: Vocabulary,
    limits: ServingLimits,
) -> ServingState:
    """The state at the start, without models: the log's items and users, and before them those of the catalogue.

    Items of the log that the catalogue has never had are written into it.
    """
    items, live, users = dict(log.items), dict(log.items), dict(log.users)
    if catalogue is not None:
        live, deleted = catalogue.items(), catalogue.deleted()
        new = [item for item in log.items.values() if item.id not in live and item.id not in deleted]
        if new or not catalogue.initialised:
            catalogue.upsert(new)
        live |= {item.id: item for item in new}
        items |= deleted | live
        users |= catalogue.users()
        interactions.upsert_items(items.values())
    return ServingState(
        items=items,
        live=live,
        users=users,
        interactions=interactions,
        lexicon=Lexicon(live.values(), vocabulary),
        search=SearchIndex(live.values(), users),
        latest=limits.latest_events,
        num_retrieved=limits.num_retrieved,
    )
