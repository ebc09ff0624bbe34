"""A recommender in this process: what is asked of it, and everything that changes as it goes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import reduce, wraps
from operator import add
from pathlib import Path
from types import MappingProxyType
from typing import Concatenate, ParamSpec, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from m6rec.config import Count, Natural, NonNegative, validate
from m6rec.data.erasure import without
from m6rec.data.log import Log
from m6rec.errors import ConfigError, DataError, StoreError, UnknownError
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.states import CacheStatistics
from m6rec.predicate import NO_CATEGORY
from m6rec.readouts import EmbedModel, GenerateModel, ScoreModel
from m6rec.retrieval.index import IndexConfig
from m6rec.serving import chatting, explaining, inspecting, pipeline
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
    GenerationKind,
    GenerationRequest,
    GenerationResult,
    IngestResult,
    Inspection,
    InspectRequest,
    LocalBackend,
    RankRequest,
    Reply,
    Request,
    Similarity,
    Writing,
)
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.creating import Creator, GenerationContext
from m6rec.serving.documents import Documents
from m6rec.serving.holdings import Holdings, RunningTask
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.journal import FileJournal, Journal, held
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.serving.pipeline import Models, ServingState
from m6rec.serving.search import SearchIndex
from m6rec.serving.settings import MAX_CREATED
from m6rec.serving.text_model_pool import TextModelPool
from m6rec.serving.turn_taking import FairLock, slices
from m6rec.tasks import task as tasks
from m6rec.tasks.chat import Session, read
from m6rec.tasks.design import OTHER
from m6rec.tasks.explain import NUM_STATEMENTS
from m6rec.text.lexicon import Lexicon
from m6rec.text.safety import Blocklist
from m6rec.types import Event, Item, Ranked, User

NO_WRITERS: Mapping[str, GenerateModel] = MappingProxyType({})

MOST_WAITING = 10_000
"""Events that wait for their items; the oldest are given up first, until the next start."""

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_log = logging.getLogger(__name__)


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
        with self._lock:
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
        self._lock = FairLock()
        # Held by whoever writes, taken in this order and before the lock above.
        self._catalogue_lock, self._journal_lock = threading.RLock(), threading.RLock()
        self._blocked = blocked or Blocklist()
        self._limits = limits
        self._vectors = vectors
        self._writers: list[TextModelPool] = []  # the last ones write what begins
        self._journal, self._catalogue = journal or FileJournal(None), catalogue
        if (left := without(log, self._journal.forgotten({*log.users, *(one.user for one in log.events)}))) is not log:
            log, interactions = left, InteractionStore(log.items, rank.domain.feedback).update_all(left.events)
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
        self._state = ServingState(
            items=items,
            live=live,
            users=users,
            interactions=interactions,
            lexicon=Lexicon(live.values()),
            search=SearchIndex(live.values(), users),
            latest=limits.latest_events,
            num_retrieved=limits.num_retrieved,
        )
        self._waiting: list[Event] = []  # of the journal, for items that are not known here
        self._events = list(log.events)  # all that ``interactions`` has observed, in its order
        self._num_prepared = len(self._events)  # the first ones, which the prepared log holds
        self._events_changed: float | None = None
        self._running: list[RunningTask] = []
        self._replay(log, Admission(rank.domain, (retrieve.task, rank.task)))
        self.swap(retrieve, rank, writers)
        self.save()

    def _replay(self, log: Log, admission: Admission) -> None:
        """Takes in what the journal holds and the log doesn't."""
        self._number, events = self._journal.since(0)
        left = [event for event, is_held in zip(events, held(events, log.events), strict=True) if not is_held]
        self._take_in_all(left, admission)

    def _take_in_all(self, events: Sequence[Event], admission: Admission) -> int:
        """Takes in events of the journal, and returns how many. What can't be read any more is left there, and told.

        Events of items that are not known here wait for them, as another process may know them already.
        """
        unread: list[str] = []
        num = 0
        for event in events:
            item = self._state.items.get(event.item)
            try:
                if event.item and item is None:
                    self._waiting = [*self._waiting[1 - MOST_WAITING :], event]
                    raise UnknownError(f"item {event.item!r} is not known here, or was deleted by an earlier version")
                admission.event(event, item)
            except (DataError, UnknownError) as error:
                unread.append(str(error))
            else:
                self._take_in(event)
                num += 1
        if unread:
            _log.warning("%d events of the journal can't be read, so they don't count: %s, …", len(unread), unread[0])
        return num

    def follow_events(self) -> int:
        """Takes in what other processes have put into the journal since it was last read; returns how many events.

        Raises:
            StoreError: It can't be read; a later call goes on where this one began.
        """
        with self._journal_lock:
            number, events = self._journal.since(self._number)
            with self._lock:
                num = self._take_in_all(events, self._state.models.admission) if events else 0
            self._number = number
            if num:
                self._events_changed = time.time()
            return num

    def follow_items(self) -> int:
        """Takes in what other processes have put into the catalogue, or out of it; returns how many items.

        Raises:
            StoreError: It can't be read; a later call goes on where this one began.
        """
        if self._catalogue is None:
            return 0
        with self._catalogue_lock:
            items, gone = self._catalogue.changed()
            models = self._state.models
            for some, vectors in self._encoded(items, models.retrieve, models.rank):
                self._put(some, vectors)
            return len(items) + self._take_out([item for item in gone if item in self._state.live])

    def swap(
        self,
        retrieve: EmbedModel,
        rank: ScoreModel,
        writers: Mapping[str, GenerateModel] = NO_WRITERS,
    ) -> None:
        """Puts other tunings in place. The old ones answer while the catalogue is read by the new."""
        state, limits = self._state, self._limits
        index = ItemIndex(retrieve, limits.index, limits.num_from_sources)
        with self._lock:
            known = dict(state.live)
        if self._vectors is not None:
            index.restore(self._vectors, known)
        self._read_into(index, retrieve, [item for item in known.values() if item.id not in index])
        with self._catalogue_lock:
            self._read_into(index, retrieve, [one for one in state.live.values() if known.get(one.id) is not one])
            index.remove([item for item in known if item not in state.live])
            with self._lock:
                # What the old writers have begun is finished by them.
                self._writers = [*(one for one in self._writers if one.active), TextModelPool(rank, writers)]
                state.models = Models(
                    retrieve=retrieve,
                    rank=rank,
                    index=index,
                    ranking=KVCachePool(rank, limits.context_bytes),
                    documents=Documents(retrieve, rank, limits.document_bytes, limits.slice_s),
                    writers=self._writers[-1],
                    creator=Creator(rank, self._writers[-1], self._blocked),
                    admission=Admission(rank.domain, (retrieve.task, rank.task)),
                )
                self._index_changed = time.time()

    def _read_into(self, index: ItemIndex, retrieve: EmbedModel, items: Sequence[Item]) -> None:
        """Puts items into an index that nobody searches yet; others are answered in between."""
        for some, vectors in self._encoded(items, retrieve):
            index.put(some, vectors)

    def _encoded(
        self, items: Sequence[Item], retrieve: EmbedModel, *others: ScoreModel
    ) -> Iterator[tuple[Sequence[Item], NDArray[np.float32]]]:
        """The items' vectors, a few at a time, whose texts the other tasks know from then on.

        Other work goes between two layers.
        """

        def read(some: Sequence[Item]) -> tuple[Sequence[Item], NDArray[np.float32]]:
            retrieve.cache.fetch(map(retrieve.text, some), between=self._lock.give_way)
            for one in others:
                read_of = (segment.text for item in some for segment in one.task.candidate(item, one.domain))
                one.cache.fetch(read_of, between=self._lock.give_way)
            return some, retrieve.item_vectors(some)

        reading = slices(items, read, self._limits.slice_s)
        task = RunningTask(name="read items", total=len(items))
        self._running.append(task)
        try:
            while True:
                with self._lock:
                    made = next(reading, None)
                if made is None:
                    return
                yield made
                task.done += len(made[0])
        finally:
            self._running.remove(task)

    @property
    def state(self) -> ServingState:
        """What answers are made from, for a job in this process beside which nobody writes."""
        return self._state

    @property
    def turn(self) -> AbstractContextManager[object]:
        """See ``LocalBackend``."""
        return self._lock

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
            num_events=len(self._events),
            num_new_events=len(self._events) - self._num_prepared,
            index_changed=self._index_changed,
            events_changed=self._events_changed,
            tasks=tuple(task for task in self._running if task.total),
        )

    @_alone
    def export(self, kind: ExportKind) -> Sequence[Event] | Sequence[Item] | Sequence[User]:
        """See ``LocalBackend``."""
        match kind:
            case "events":
                return list(self._events)
            case "items":
                return list(self._state.live.values())
            case "users":
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

    def explaining(self, user: str, item: str, history: Sequence[Event] = ()) -> Writing[Explanation]:
        """See ``LocalBackend``. Raises UnknownError where there is no such item."""
        return self._in_slices(self._explaining(user, item, history))

    def _explaining(self, user: str, item: str, history: Sequence[Event]) -> Writing[Explanation]:
        state = self._state
        state.need([item], "check the id")
        models = state.models
        with state.having_done(user, history):
            plan = explaining.plan_explanation(
                models.rank, models.writers, state.interactions, state.user(user), state.live[item], state.items
            )
        return (yield from explaining.word(models.writers, plan))

    def chatting(self, chat: Chat) -> Writing[Reply]:
        """See ``LocalBackend``."""
        return self._in_slices(self._chatting(chat))

    def _chatting(self, chat: Chat) -> Writing[Reply]:
        state, models = self._state, self._state.models
        session, rank, writers = read(chat.messages, state.lexicon), models.rank, models.writers
        items: list[Ranked] = []
        about = state.live.get(session.about[0]) if session.intent == "explain" else None
        explained = None
        with pipeline.as_told(state, session, chat.user):
            if session.intent in ("recommend", "feedback"):
                items = pipeline.suggest(state, session, chat.user)[: chatting.NUM_OFFERED]
            why = about or (items[0].item if items else None)
            if why is not None:
                count, person = NUM_STATEMENTS if about else 1, state.user(chat.user)
                plan = explaining.plan_explanation(rank, writers, state.interactions, person, why, state.items, count)
                explained = explaining.word(writers, plan, explaining.wording(chat.temperature, chat.top_p, chat.seed))
        writer = chatting.ReplyWriter(chat, rank.foundation.tokenizer)
        said = next((one.text for one in reversed(chat.messages) if one.role == "user"), "")
        return (yield from chatting.reply(writer, session, items, about, explained, state.lexicon, rank.domain, said))

    @_alone
    def suggest(self, session: Session, user: str = "") -> list[Ranked]:
        """Items that a conversation may name next, the best first; none that came up in it."""
        with pipeline.as_told(self._state, session, user):
            return pipeline.suggest(self._state, session, user)

    @_alone
    def step(self) -> None:
        """See ``LocalBackend``."""
        for writers in self._writers:
            writers.step()

    def _in_slices(self, writing: Writing[T]) -> Writing[T]:
        """The same work, alone at each slice."""
        try:
            while True:
                with self._lock:
                    try:
                        told = next(writing)
                    except StopIteration as end:
                        result: T = end.value
                        return result
                yield told
        finally:
            with self._lock:
                writing.close()

    def creating(self, request: GenerationRequest) -> Writing[list[GenerationResult]]:
        """See ``LocalBackend``.

        Raises:
            UnknownError: There is no such item or category, or nothing is left to be named.
            ConfigError: A number is out of range, or what is given does not go with the kind.
        """
        return self._in_slices(self._creating(request))

    def _creating(self, request: GenerationRequest) -> Writing[list[GenerationResult]]:
        state = self._state
        _check_request(request)
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
            filters = Filters(categories=names)
            return [one.item for one in self.retrieve(request.user, filters=filters)]

        return (yield from state.models.creator.create(asked, state.interactions, recommended))

    def reranking(self, query: str, documents: Sequence[str]) -> Writing[tuple[NDArray[np.float64], int]]:
        """See ``LocalBackend``. A document is read as an item's title, of which the domain words the beginning."""
        return self._in_slices(self._reranking(query, documents))

    def _reranking(self, query: str, documents: Sequence[str]) -> Writing[tuple[NDArray[np.float64], int]]:
        if not documents:
            return np.zeros(0), 0
        scores, counts = [], []
        for some, num_tokens in self._state.models.documents.rerank(query, documents):
            scores.append(some)
            counts.append(num_tokens)
            yield ""
        return np.concatenate(scores), sum(counts)

    def embedding(self, texts: Sequence[str]) -> Writing[tuple[NDArray[np.float32], int]]:
        """See ``LocalBackend``. A text is read as an item's title."""
        return self._in_slices(self._embedding(texts))

    def _embedding(self, texts: Sequence[str]) -> Writing[tuple[NDArray[np.float32], int]]:
        vectors, counts = [np.zeros((0, self.width), np.float32)], []
        for some, num_tokens in self._state.models.documents.embed(texts):
            vectors.append(some)
            counts.append(num_tokens)
            yield ""
        return np.concatenate(vectors), sum(counts)

    def ingest_many(self, writes: Sequence[Sequence[Event]]) -> list[IngestResult]:
        """See ``Backend``. A user who is new is known from here on."""
        with self._journal_lock:
            with self._lock:
                admitted = [self._admitted(write) for write in writes]
            fresh = iter(self._journal.append([event for events, _ in admitted for event in events]))
            try:
                self.follow_events()  # in the order of the journal, so that all who share it come to know the same
            except StoreError as error:
                _log.warning("events were acknowledged and can't be read yet, so they will count later: %s", error)
        made = []
        for events, unknown in admitted:
            num_new = sum(next(fresh) for _ in events)
            made.append(IngestResult(num_new, len(events) - num_new, unknown))
        return made

    def _admitted(self, events: Sequence[Event]) -> tuple[list[Event], tuple[str, ...]]:
        """(those that may be kept, the unknown items of the others). Raises as ``Backend.observe``."""
        state = self._state
        known = [event for event in events if not event.item or event.item in state.live]
        for event in known:
            state.models.admission.event(event, state.live.get(event.item))
        unknown = tuple(dict.fromkeys(one.item for one in events if one.item and one.item not in state.live))
        if unknown and not known:
            state.need(unknown, "upsert it first")
        return known, unknown

    def upsert(self, items: Sequence[Item]) -> None:
        """See ``Backend``."""
        if not items:
            return
        with self._catalogue_lock:
            models = self._state.models
            for item in items:
                models.admission.item(item)

            # First, as a text that can't be read must change nothing.
            vectors = np.concatenate([some for _, some in self._encoded(items, models.retrieve, models.rank)])
            if self._catalogue is not None:
                self._catalogue.upsert(items)
            self._put(items, vectors)

    def _put(self, items: Sequence[Item], vectors_IE: NDArray[np.float32]) -> None:
        """Adds items to memory, and the events that have waited for them."""
        state, fresh = self._state, {item.id: item for item in items}
        with self._lock:
            state.interactions.upsert_items(items)
            state.live |= fresh
            state.items |= fresh
            state.lexicon.put(items)
            state.search.put_items(items)
        state.models.index.put(items, vectors_IE)  # whose searches go on beside it
        self._index_changed = time.time()
        if any(event.item in fresh for event in self._waiting):
            with self._journal_lock, self._lock:
                waiting, self._waiting = self._waiting, []
                self._take_in_all(waiting, state.models.admission)

    def delete(self, ids: Sequence[str]) -> int:
        """See ``Backend``. Histories go on naming what was deleted."""
        with self._catalogue_lock:
            if self._catalogue is not None:
                self._catalogue.delete(ids)
            return self._take_out(ids)

    def _take_out(self, ids: Sequence[str]) -> int:
        state = self._state
        with self._lock:
            for item in ids:
                state.live.pop(item, None)
            state.lexicon.remove(ids)
            state.search.remove_items(ids)
            self._index_changed = time.time()
            return state.models.index.remove(ids)

    def put_user(self, user: User) -> None:
        """See ``Backend``."""
        with self._catalogue_lock, self._journal_lock:
            self._state.models.admission.user(user)
            if self._catalogue is not None:
                self._catalogue.put_user(user)
            self._journal.readmit(user.id)
            with self._lock:
                self._state.users[user.id] = user
                self._state.search.put_users([user.id])

    @_alone
    def get_user(self, user: str) -> tuple[User, list[Event]]:
        """See ``Backend``. Raises UnknownError where there is no such user."""
        users = self._state.users
        if user not in users:
            raise UnknownError(f"there is no user {user!r} among the {len(users)} known; check the id")
        return users[user], list(self._state.interactions.timeline(user))

    def forget(self, user: str) -> bool:
        """See ``Backend``. Counts and likenesses in which the user had a part are made anew without them."""
        with self._catalogue_lock, self._journal_lock:
            state, models = self._state, self._state.models
            erased = self._journal.forget(user)
            if self._catalogue is not None:
                erased |= self._catalogue.forget(user)
            if user not in state.users:
                return erased
            with self._lock:
                rank = models.rank
                words = tasks.context(rank.task, state.interactions, state.users[user], rank.domain, state.items)
                rank.cache.forget(segment.text for segment in words)
            prepared = self._events[: self._num_prepared]
            self._num_prepared -= sum(event.user == user for event in prepared)
            self._events = [event for event in self._events if event.user != user]
            interactions = InteractionStore(state.items, models.rank.domain.feedback).update_all(self._events)
            with self._lock:
                state.interactions = interactions
                del state.users[user]
                state.search.remove_user(user)
                # What was kept of the others was read beside this user.
                state.models = replace(models, ranking=KVCachePool(models.rank, self._limits.context_bytes))
        return True

    def _take_in(self, event: Event) -> None:
        self._events.append(event)
        if event.user not in self._state.users:
            self._state.users[event.user] = User(event.user)
            self._state.search.put_users([event.user])
        self._state.interactions.update(event)


def _check_request(request: GenerationRequest) -> None:
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
