"""From a user to recommended items: retrieve, filter, rank, diversify, page; and everything that changes as it goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Concatenate, ParamSpec, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from m6rec.data.log import Log
from m6rec.errors import ConfigError, UnknownError
from m6rec.foundation.states import StateCache
from m6rec.serving import chatting, explaining
from m6rec.serving.backend import (
    NO_FILTERS,
    NUM_RETRIEVED,
    Answer,
    Brief,
    Chat,
    Creation,
    CreationKind,
    Explanation,
    Filters,
    LocalBackend,
    Observed,
    RankRequest,
    Reply,
    Request,
    Writing,
)
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.creating import Asked, Creator
from m6rec.serving.diversity import calibrated, mmr
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.journal import FileJournal, Journal, later
from m6rec.serving.settings import MAX_CREATED
from m6rec.serving.turns import Turns
from m6rec.serving.writers import Writers
from m6rec.tasks import task as tasks
from m6rec.tasks.chat import Session, read
from m6rec.tasks.explain import NUM_STATEMENTS
from m6rec.text.batch import Row
from m6rec.text.lexicon import Lexicon
from m6rec.text.links import fused
from m6rec.text.past import Past
from m6rec.text.safety import Blocklist
from m6rec.text.verbalise import quote
from m6rec.tuned import Tuned
from m6rec.types import Event, Item, Ranked, Segment, User
from m6rec.writer import Writer

NO_WRITERS: Mapping[str, Writer] = MappingProxyType({})

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

QUERY_WEIGHT = 1.0
"""What the words of a conversation weigh in its retrieval, beside what is read of the user."""
NUM_POPULAR = 50
"""Much-liked items that may be named beside what is retrieved, as a conversation tells little of who speaks."""


def _alone(method: Callable[Concatenate[Recommender, P], R]) -> Callable[Concatenate[Recommender, P], R]:
    @wraps(method)
    def locked(self: Recommender, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return locked


class Recommender(LocalBackend):
    """A ``LocalBackend``: two tuned tasks, a catalogue, and what has happened so far.

    Any thread may call it; one lock makes calls wait for each other, as they share the processor anyway.

    Args:
        retrieve: The retrieval task, which fetches ``NUM_RETRIEVED`` candidates.
        rank: The ranking task, which orders them.
        log: The items and users to start with.
        past: Everything observed in the log.
        journal: The journal of later events, which is read in here; None keeps them in memory only.
        catalogue: The items on disk, which replace those of the log if there are any; None keeps them in memory only.
        vectors: A folder that keeps the items' vectors over a restart; None reads every item anew.
        writers: Tuned tasks of texts by their names; the foundation writes what none of them does.
        blocked: What no text that is created may hold, besides the built-in words.

    Raises:
        ConfigError: A writer is not of the task of its name.
    """

    def __init__(
        self,
        retrieve: Tuned,
        rank: Tuned,
        log: Log,
        past: Past,
        *,
        journal: Journal | None = None,
        catalogue: Catalogue | None = None,
        vectors: Path | None = None,
        writers: Mapping[str, Writer] = NO_WRITERS,
        blocked: Blocklist | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._blocked = blocked or Blocklist()
        self._vectors = vectors
        self._writers: list[Writers] = []  # the last ones write what begins
        self._past, self._journal, self._catalogue = past, journal or FileJournal(None), catalogue
        self._users = dict(log.users)
        self._items = dict(log.items)  # deleted ones too: histories still name them
        self._live = dict(log.items)  # those that may be recommended
        if catalogue is not None:
            if catalogue.initialised:
                self._live = catalogue.items()
                known = catalogue.deleted() | self._live
                self._items |= known
                past.know(known.values())
            else:
                catalogue.upsert(list(log.items.values()))
            self._users |= catalogue.users()
        self._events = list(log.events)  # all that ``past`` has observed, in its order
        for event in later(self._journal, log.events):
            if event.item in self._items:
                self._take_in(event)
        self._lexicon = Lexicon(self._live.values())
        self.swap(retrieve, rank, writers)
        self.save()

    def swap(
        self,
        retrieve: Tuned,
        rank: Tuned,
        writers: Mapping[str, Writer] = NO_WRITERS,
    ) -> None:
        """Puts other tunings in place. The old ones answer while the catalogue is read by the new."""
        with self._lock:
            known = dict(self._live)
        index = ItemIndex(retrieve)
        if self._vectors is not None:
            index.restore(self._vectors, known)
        missing = [item for item in known.values() if item.id not in index]
        index.put(missing, retrieve.item_vectors(missing))
        with self._lock:
            fresh = [item for item in self._live.values() if known.get(item.id) is not item]
            index.remove([item for item in known if item not in self._live])
            index.put(fresh, retrieve.item_vectors(fresh))
            self._retrieve, self._rank, self._index = retrieve, rank, index
            self._retrieval, self._ranking = Turns(retrieve), Turns(rank)
            # What the old writers have begun is finished by them.
            self._writers = [*(one for one in self._writers if one.active), Writers(rank, writers)]
            self._creator = Creator(rank, self._writers[-1], self._blocked)
            # Texts of strangers must not fill the cache on disk.
            self._passing_retrieve, self._passing_rank = (
                Tuned(one.config, one.foundation, one.tuning, StateCache(one.foundation, one.cache.config))
                for one in (retrieve, rank)
            )

    @property
    def turn(self) -> AbstractContextManager[object]:
        """See ``LocalBackend``."""
        return self._lock

    @_alone
    def save(self) -> None:
        """Writes what the next start would have to read again; what it must not lose is on disk already."""
        if self._vectors is not None:
            self._index.save(self._vectors, self._live)

    @property
    def width(self) -> int:
        """Numbers of an item's vector."""
        return self._retrieve.width

    @_alone
    def recommend_many(self, requests: Sequence[Request]) -> list[Answer]:
        """See ``Backend``: two batches of the upper layers, one of retrieval and one of ranking.

        Raises:
            UnknownError: There is no such user.
            ConfigError: A page goes beyond ``NUM_RETRIEVED``; ``diversity`` or ``calibration`` is not in 0 … 1, or
                both are wanted.
        """
        for request in requests:
            _check(request)
        timings: dict[str, float] = {}
        with _timed(timings, "retrieve"):
            found = self._retrieve_many([(one.user, NUM_RETRIEVED, one.filters) for one in requests])
        with _timed(timings, "rank"):
            asked = zip(requests, found, strict=True)
            ranked = self._rank_items([(one.user, [hit.item for hit in hits]) for one, hits in asked])
        with _timed(timings, "diversify"):
            pages = [self._page(one, hits) for one, hits in zip(requests, ranked, strict=True)]
        return [Answer(page, dict(timings)) for page in pages]

    def _page(self, request: Request, ranked: list[Ranked]) -> list[Ranked]:
        """The places that the request wants, in the order that it wants."""
        end = request.offset + request.count
        if request.diversity and ranked:
            scores = np.array([one.score for one in ranked])
            vectors = self._index.vectors([one.item.id for one in ranked])
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            ranked = [ranked[place] for place in mmr(scores, vectors, request.diversity, end)]
        elif request.calibration and ranked:
            ranked = self._calibrated(request.user, ranked, request.calibration, end)
        return ranked[request.offset : end]

    def retrieve(self, user: str, count: int = NUM_RETRIEVED, *, filters: Filters = NO_FILTERS) -> list[Ranked]:
        """See ``Backend``."""
        return self._retrieve_many([(user, count, filters)])[0]

    @_alone
    def _retrieve_many(self, requests: Sequence[tuple[str, int, Filters]]) -> list[list[Ranked]]:
        """``retrieve`` of several users, whose vectors are one batch."""
        task = self._retrieve
        rows = [
            (user, tasks.ask(task.task, self._past, self._user(user), [], task.domain, self._items))
            for user, _, _ in requests
        ]
        answers = []
        for (user, count, filters), vectors_1E in zip(requests, self._retrieval.answers(rows), strict=True):
            without = set(filters.exclude)
            if not filters.seen:
                without |= self._past.seen(user)
            only = None
            if filters.categories:
                wanted = set(filters.categories)
                only = {item.id for item in self._live.values() if wanted & set(item.categories)}
            liked = self._past.liked(user)
            found = self._index.search(vectors_1E[0].astype(np.float32), count, only, without, liked)
            answers.append([Ranked(self._live[item], score) for item, score in found])
        return answers

    @_alone
    def rank_many(self, requests: Sequence[RankRequest]) -> list[Answer]:
        """See ``Backend``: one batch of the upper layers, whose rows are the users."""
        timings: dict[str, float] = {}
        for one in requests:
            if one.items and not self._live.keys() & one.items:
                self._need(one.items, "check the id")
        with _timed(timings, "rank"):
            ranked = self._rank_items(
                [(one.user, [self._live[item] for item in one.items if item in self._live]) for one in requests]
            )
        unknown = (tuple(item for item in one.items if item not in self._live) for one in requests)
        return [Answer(items, dict(timings), left) for items, left in zip(ranked, unknown, strict=True)]

    def _rank_items(self, requests: Sequence[tuple[str, Sequence[Item]]]) -> list[list[Ranked]]:
        rows: list[tuple[str, Row]] = []
        for user, items in requests:
            person = self._user(user)
            if items:
                row = tasks.ask(self._rank.task, self._past, person, items, self._rank.domain, self._items)
                rows.append((user, row))
        scored = iter(self._ranking.answers(rows))
        return [_by_score(items, next(scored)) if items else [] for _, items in requests]

    def explaining(self, user: str, item: str) -> Writing[Explanation]:
        """See ``LocalBackend``. Raises UnknownError where there is no such user or item."""
        return self._in_slices(self._explaining(user, item))

    def _explaining(self, user: str, item: str) -> Writing[Explanation]:
        self._need([item], "check the id")
        writers = self._writers[-1]
        plan = explaining.plan(self._rank, writers, self._past, self._user(user), self._live[item], self._items)
        return (yield from explaining.word(writers, plan))

    def chatting(self, chat: Chat) -> Writing[Reply]:
        """See ``LocalBackend``."""
        return self._in_slices(self._chatting(chat))

    def _chatting(self, chat: Chat) -> Writing[Reply]:
        session, rank, writers = read(chat.messages, self._lexicon), self._rank, self._writers[-1]
        person = self._users.get(chat.user, User(chat.user))
        items: list[Ranked] = []
        about = self._live.get(session.about[0]) if session.intent == "explain" else None
        explained = None
        with self._as_told(session, person):
            if session.intent in ("recommend", "feedback"):
                items = self._suggest(session, person)[: chatting.NUM_OFFERED]
            why = about or (items[0].item if items else None)
            if why is not None:
                count = NUM_STATEMENTS if about else 1
                plan = explaining.plan(rank, writers, self._past, person, why, self._items, count)
                explained = explaining.word(writers, plan, explaining.wording(chat.temperature, chat.top_p, chat.seed))
        writer = chatting.Writer(chat, rank.foundation.tokenizer)
        said = next((one.text for one in reversed(chat.messages) if one.role == "user"), "")
        return (yield from chatting.reply(writer, session, items, about, explained, self._lexicon, rank.domain, said))

    @_alone
    def suggest(self, session: Session, user: str = "") -> list[Ranked]:
        """Items that a conversation may name next, the best first; none that came up in it."""
        person = self._users.get(user, User(user))
        with self._as_told(session, person):
            return self._suggest(session, person)

    def _as_told(self, session: Session, person: User) -> AbstractContextManager[None]:
        """As if the person had just done what the conversation tells."""
        return self._past.passing(person.id, chatting.events(session, person.id, self._past.time))

    def _suggest(self, session: Session, person: User) -> list[Ranked]:
        task, key = self._retrieve, f"{person.id}\0"  # what was read of the user without the conversation is kept
        row = tasks.ask(task.task, self._past, person, [], task.domain, self._items)
        vector_E = self._retrieval.answers([(key, row)])[0][0].astype(np.float32)
        if session.query:
            vector_E += QUERY_WEIGHT * self._passing_retrieve.item_vectors([Item("query", session.query)])[0]
        only = None
        if session.constrained:
            only = {item.id for item in self._live.values() if session.allows(item, self._lexicon)}
        without = session.named | self._past.seen(person.id)
        # All that has come up tells what the conversation is about, the liked last, as they weigh most.
        before = [item for item in self._past.liked(person.id) if item not in session.named]
        named = (*session.shown, *session.seen, *session.liked)
        pulling = [*before, *(item for item in named if item not in session.disliked)]
        near = [item for item, _ in self._index.search(vector_E, NUM_RETRIEVED, only, without, pulling)]
        allowed = self._live.keys() - without if only is None else only - without
        popular = list(islice((item for item in self._past.most_liked() if item in allowed), NUM_POPULAR))
        found = [self._live[item] for item in dict.fromkeys([*near, *popular])]
        if not found:
            return []
        rank = self._rank
        scores = self._ranking.answers(
            [(key, tasks.ask(rank.task, self._past, person, found, rank.domain, self._items))]
        )[0]
        ranked = {one.item.id: one for one in _by_score(found, scores)}
        return [ranked[item] for item in fused([near, popular, [*ranked]])]

    @_alone
    def step(self) -> None:
        """See ``LocalBackend``."""
        for writers in self._writers:
            writers.step()

    def _in_slices(self, writing: Writing[T]) -> Writing[T]:
        """The same text, alone at each slice."""
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

    def creating(self, brief: Brief) -> Writing[list[Creation]]:
        """See ``LocalBackend``.

        Raises:
            UnknownError: There is no such user, item or category.
            ConfigError: A number is out of range, or what is given does not go with the kind.
        """
        return self._in_slices(self._creating(brief))

    def _creating(self, brief: Brief) -> Writing[list[Creation]]:
        _check_brief(brief)
        if brief.item is not None:
            self._need([brief.item], "check the id")
        asked = Asked(
            brief=brief,
            user=self._user(brief.user),
            history=self._past.history(brief.user),
            items=self._items,
            live=self._live,
        )

        def recommended(name: str) -> list[Item]:
            filters = Filters(categories=(name,) if name else ())
            return [one.item for one in self.retrieve(brief.user, filters=filters)]

        return (yield from self._creator.create(asked, self._past, recommended))

    def reranking(self, query: str, documents: Sequence[str]) -> Writing[tuple[NDArray[np.float64], int]]:
        """See ``LocalBackend``."""
        yield ""
        return self._rerank(query, documents)

    @_alone
    def _rerank(self, query: str, documents: Sequence[str]) -> tuple[NDArray[np.float64], int]:
        """See ``Backend``: the ranking task's probabilities for a user of whom one search is known, and no statistics.

        A document is read as an item's title, of which the domain words the beginning.
        """
        if not documents:
            return np.zeros(0), 0
        passing = self._passing_rank
        task, domain = passing.task, passing.domain
        items = [Item(f"document {number}", document) for number, document in enumerate(documents)]
        nobody = Past({}, domain.feedback)
        row = tasks.ask(task, nobody, User("nobody"), items, domain, {})
        searched = Segment(f"The user searched {quote(query)}.", "history")
        row = Row((searched,), row.visible + 1, row.candidates, row.signals, row.answers, row.events)
        return passing.scores([row]), _num_tokens(passing, tasks.texts([row]))

    def embedding(self, texts: Sequence[str]) -> Writing[tuple[NDArray[np.float32], int]]:
        """See ``LocalBackend``."""
        yield ""
        return self._embed(texts)

    @_alone
    def _embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """See ``Backend``: the item side of the retrieval task, a text read as an item's title."""
        passing = self._passing_retrieve
        items = [Item(f"text {number}", text) for number, text in enumerate(texts)]
        words = [segment.text for item in items for segment in passing.task.candidate(item, passing.domain)]
        return passing.item_vectors(items), _num_tokens(passing, words)

    @_alone
    def observe_many(self, writes: Sequence[Sequence[Event]]) -> list[Observed]:
        """See ``Backend``. A user who is new is known from here on."""
        events = [event for write in writes for event in write]
        self._need([event.item for event in events], "upsert it first")
        new = self._journal.append(events)
        for event, is_new in zip(events, new, strict=True):
            if is_new:
                self._take_in(event)
        left = iter(new)
        accepted = [sum(next(left) for _ in write) for write in writes]
        return [Observed(count, len(write) - count) for count, write in zip(accepted, writes, strict=True)]

    @_alone
    def upsert(self, items: Sequence[Item]) -> None:
        """See ``Backend``."""
        if not items:
            return
        vectors = self._retrieve.item_vectors(items)  # first, as a text that can't be read must change nothing
        self._rank.cache.fetch(
            segment.text for item in items for segment in self._rank.task.candidate(item, self._rank.domain)
        )
        if self._catalogue is not None:
            self._catalogue.upsert(items)
        self._past.know(items)
        fresh = {item.id: item for item in items}
        self._live |= fresh
        self._creator.forget_catalogue()
        self._items |= fresh
        self._lexicon.put(items)
        self._index.put(items, vectors)

    @_alone
    def delete(self, ids: Sequence[str]) -> int:
        """See ``Backend``. Histories go on naming what was deleted."""
        if self._catalogue is not None:
            self._catalogue.delete(ids)
        for item in ids:
            self._live.pop(item, None)
        self._lexicon.remove(ids)
        self._creator.forget_catalogue()
        return self._index.remove(ids)

    @_alone
    def put_user(self, user: User) -> None:
        """See ``Backend``."""
        if self._catalogue is not None:
            self._catalogue.put_user(user)
        self._journal.readmit(user.id)
        self._users[user.id] = user

    @_alone
    def get_user(self, user: str) -> tuple[User, list[Event]]:
        """See ``Backend``. Raises UnknownError where there is no such user."""
        return self._user(user), list(self._past.history(user))

    @_alone
    def forget(self, user: str) -> bool:
        """See ``Backend``. Counts and likenesses in which the user had a part are made anew without them."""
        erased = self._journal.forget(user)
        if self._catalogue is not None:
            erased |= self._catalogue.forget(user)
        if user not in self._users:
            return erased
        for tuned in (self._retrieve, self._rank):
            row = tasks.ask(tuned.task, self._past, self._users[user], [], tuned.domain, self._items)
            tuned.cache.forget(segment.text for segment in row.context)
        self._retrieval, self._ranking = Turns(self._retrieve), Turns(self._rank)  # others were read beside this user
        del self._users[user]
        self._events = [event for event in self._events if event.user != user]
        self._past = Past(self._items, self._rank.domain.feedback).observe_all(self._events)
        return True

    def _calibrated(self, user: str, ranked: Sequence[Ranked], calibration: float, count: int) -> list[Ranked]:
        """The ranked items anew, their categories spread as those of the user's likes."""
        domain = self._rank.domain
        liked = [self._items[event.item] for event in self._past.history(user) if domain.positive(event)]
        items = [*(one.item for one in ranked), *liked]
        numbers = {
            name: number for number, name in enumerate(dict.fromkeys(n for item in items for n in item.categories))
        }
        shares = np.zeros((len(items), len(numbers)))
        for row, item in zip(shares, items, strict=True):
            for name in item.categories:
                row[numbers[name]] += 1 / len(item.categories)
        wanted_G = shares[len(ranked) :].sum(0)
        scores = np.array([one.score for one in ranked])
        order = calibrated(scores, shares[: len(ranked)], wanted_G / max(wanted_G.sum(), 1e-12), calibration, count)
        return [ranked[place] for place in order]

    def _take_in(self, event: Event) -> None:
        self._events.append(event)
        self._users.setdefault(event.user, User(event.user))
        self._past.observe(event)

    def _need(self, items: Sequence[str], advice: str) -> None:
        """Raises UnknownError where an item isn't in the catalogue."""
        unknown = next((item for item in items if item not in self._live), None)
        if unknown is not None:
            raise UnknownError(f"there is no item {unknown!r} in the catalogue of {len(self._live)}; {advice}")

    def _user(self, user: str) -> User:
        if user not in self._users:
            raise UnknownError(f"there is no user {user!r} among the {len(self._users)} known; check the id")
        return self._users[user]


def _num_tokens(tuned: Tuned, texts: Iterable[str]) -> int:
    return sum(map(len, tuned.foundation.tokenizer.encode(list(texts))))


def _by_score(items: Sequence[Item], scores: NDArray[np.floating]) -> list[Ranked]:
    """The items, the best first; those of one score stay in their order."""
    return [Ranked(items[n], float(scores[n])) for n in np.argsort(-scores, kind="stable")]


def _check(request: Request) -> None:
    """Raises ConfigError where a number is out of range."""
    count, offset = request.count, request.offset
    if count < 1 or offset < 0 or offset + count > NUM_RETRIEVED:
        raise ConfigError(
            f"count is {count} and offset {offset}; count must be at least 1, offset at least 0, and both together "
            f"at most {NUM_RETRIEVED}"
        )
    for name, wish in (("diversity", request.diversity), ("calibration", request.calibration)):
        if not 0 <= wish <= 1:
            raise ConfigError(f"{name} is {wish}; it must be 0 (by score alone) to 1")
    if request.diversity and request.calibration:
        raise ConfigError(f"diversity is {request.diversity} and calibration {request.calibration}; give one of them")


def _check_brief(brief: Brief) -> None:
    """Raises ConfigError where a request for texts can't be meant."""
    kind = brief.kind
    if kind not in get_args(CreationKind):
        raise ConfigError(f"kind is {kind!r}; choose one of {', '.join(get_args(CreationKind))}")
    if not 1 <= brief.count <= MAX_CREATED:
        raise ConfigError(f"count is {brief.count}; it must be 1 to {MAX_CREATED}")
    if (brief.item is not None) != (kind == "headline"):
        raise ConfigError(
            f"a {kind} with item {brief.item!r}; a headline needs the id of an item, and nothing else takes one"
        )
    if kind != "design" and (brief.category is not None or brief.catalogue):
        raise ConfigError(
            f"a {kind} takes neither category ({brief.category!r}) nor catalogue ({brief.catalogue}); a design does"
        )


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = 1_000 * (time.perf_counter() - start)
