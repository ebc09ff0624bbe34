"""A backend without a model: it answers at once, or when a test lets it."""

import hashlib
import threading

import numpy as np

from m6rec.errors import ConfigError, DataError, StoreError, UnknownError
from m6rec.predicate import attributes
from m6rec.serving.backend import (
    NO_FILTERS,
    Answer,
    Explanation,
    GenerationResult,
    IngestResult,
    InspectedText,
    Inspection,
    LocalBackend,
    Placement,
    RankingCandidate,
    RankingInputs,
    Reason,
    Reply,
    SourceScore,
)
from m6rec.serving.holdings import Holdings, RunningTask
from m6rec.types import Item, Ranked, Segment, User


class FakeBackend(LocalBackend):
    """Twenty films of two categories and three users; scores fall with an item's place.

    Attributes:
        asked: The requests that were ranked last.
        go: Work waits until it is set.
        begun: Released each time work begins.
        batches: Sizes of the batches that were ranked together.
    """

    def __init__(self, journal=None):
        self.items = {f"i{n}": Item(f"i{n}", f"Film {n}", (("Comedy", "Drama")[n % 2],), {"n": n}) for n in range(20)}
        self.users = {"u0", "u1", "u2"}
        self.told = {}
        self.events, self.journal = [], journal
        self.batches, self.asked = [], []
        self.broken = False
        self.go, self.begun = threading.Event(), threading.Semaphore(0)
        self.go.set()

    def work(self):
        self.begun.release()
        assert self.go.wait(20)
        if self.broken:
            raise RuntimeError("secret of the model")

    def known(self, user, items=()):
        if user not in self.users:
            raise UnknownError(f"there is no user {user!r}")
        for item in items:
            if item not in self.items:
                raise UnknownError(f"there is no item {item!r}")

    def _ordered(self, items):
        names = list(self.items)
        return [Ranked(self.items[item], 1 / (2 + names.index(item))) for item in sorted(items, key=names.index)]

    def recommend_many(self, requests):
        found = [(one, self.retrieve(one.user, 1000, filters=one.filters)) for one in requests]
        timings = {"retrieve": 1.5, "rank": 2.5}
        return [Answer(items[one.offset : one.offset + one.count], timings) for one, items in found]

    def retrieve(self, user, count=100, *, filters=NO_FILTERS, history=(), source="blend"):
        self.work()
        kept = [
            item.id
            for item in self.items.values()
            if item.id not in filters.exclude and filters.predicate.admits(attributes(item))
        ]
        return self._ordered(kept)[:count]

    def rank_many(self, requests):
        self.work()
        self.asked = requests
        answers = []
        for one in requests:
            unknown = tuple(item for item in one.items if item not in self.items)
            if len(unknown) == len(one.items):
                raise UnknownError(f"there is no item {unknown[0]!r}")
            answers.append(
                Answer(self._ordered([item for item in one.items if item in self.items]), {"rank": 2.5}, unknown)
            )
        self.batches.append(len(requests))
        return answers

    def holdings(self):
        return Holdings(
            num_items=len(self.items),
            num_indexed=len(self.items),
            num_users=len(self.users),
            num_events=100 + len(self.events),
            num_new_events=len(self.events),
            index_changed=1_700_000_000.0,
            events_changed=1_700_000_001.0 if self.events else None,
            tasks=(RunningTask(name="read items", total=4, done=1),),
        )

    def export(self, kind):
        known = [self.told.get(user, User(user)) for user in sorted(self.users)]
        return {"events": list(self.events), "items": list(self.items.values()), "users": known}[kind]

    def step(self):
        self.work()

    def neighbours(self, item, count=10, *, by="text"):
        self.work()
        if isinstance(item, str):
            self.known("u0", [item])
        others = [one for one in self.items if one != item]
        return self._ordered(others if by == "text" else others[::2])[:count]

    def ranking_inputs(self, request):
        found = self.retrieve(request.user, filters=request.filters)
        digests = dict.fromkeys(("model", "tuning", "wording", "features"), "made up")
        return RankingInputs(
            **digests,
            context=tuple(Segment(f"Liked {one.item}.", "history") for one in request.history),
            event_features=[[1.0]] * len(request.history),
            candidates=tuple(
                RankingCandidate(one.item, (Segment(one.item.title, "candidate"),), [one.score]) for one in found
            ),
            orders=() if request.history else (tuple(one.item.id for one in found),),
            fusion=60,
        )

    def inspect(self, request):
        self.work()
        history = (InspectedText(f"Liked {one.item}.", "history", "absent") for one in request.history)
        segments = (InspectedText("Age 30.", "user", "memory"), *history)
        if not request.item:
            return Inspection(segments)
        self.known("u0", [request.item])
        sources = SourceScore("text", 0.25, 7), SourceScore("ials", 0.0)
        placement = Placement(
            filtered_by=("exclude",) if request.item in request.filters.exclude else (),
            retrieved=True,
            retrieval_rank=3,
            sources=sources,
            rank=2,
            num_ranked=20,
            score=0.5,
        )
        return Inspection((*segments, InspectedText(self.items[request.item].title, "candidate", "store")), placement)

    def find_items(self, query="", count=10, *, ids=()):
        self.work()
        if ids:
            return [self.items[item] for item in ids if item in self.items]
        return [item for item in self.items.values() if query.lower() in item.title.lower()][:count]

    def find_users(self, prefix="", count=10):
        self.work()
        return sorted(user for user in self.users if user.startswith(prefix))[:count]

    def get_item(self, item):
        self.work()
        self.known("u0", [item])
        return self.items[item], 7 if item == "i1" else None

    def explaining(self, user, item, history=()):
        self.work()
        yield ""
        self.known(user, [item])
        said = [
            Reason("81% of 123 people liked it.", "crowd", {"liked": 100, "seen": 123}, "template", "it babbles"),
            Reason("You may like it because you do.", "history", {"events": [{"item": item, "time": 7}]}, "model"),
        ]
        return Explanation(" ".join(one.text for one in said), said)

    def chatting(self, chat):
        self.work()
        said, pieces = [], ["How about", ' "Film 0"?']
        for piece in pieces:
            said.append(piece)
            yield piece
            if chat.messages[-1].text == "break":
                raise RuntimeError("secret of the model")
        items = self._ordered(["i0"])
        return Reply("".join(said), "recommend", items, [], "stop", len(chat.messages), len(said))

    def creating(self, request):
        self.work()
        yield ""
        item = request.item
        self.known(request.user, [item] if item is not None else [])
        if (item is not None) != (request.kind == "headline"):
            raise ConfigError(f"a {request.kind} with item {item!r}")
        if request.kind == "design":
            named = "i2" if request.catalogue else None
            made = [GenerationResult("Film 2", "model", request.category or "Comedy", named, ("it babbles",))]
        else:
            made = [GenerationResult("comedy films", "template", item=item, rejected=("it has no end",))]
        return (made * request.count)[: request.count]

    def reranking(self, query, documents):
        self.work()
        yield ""
        scores = np.array([len(set(query) & set(text)) / (1 + len(set(query))) for text in documents])
        return scores, sum(map(len, [query, *documents]))

    def embedding(self, texts):
        self.work()
        yield ""
        vectors = np.array([np.cos(np.arange(128) * (1 + len(text))) for text in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), sum(map(len, texts))

    def ingest_many(self, writes):
        self.work()
        made = []
        for events in writes:
            known = [event for event in events if event.item in self.items or not event.item]
            for event in known:
                if event.text == "unwritable":
                    raise DataError("the event can't be written down")
                if event.text == "disk full":
                    raise StoreError("no space left on the disk")
            unknown = tuple({event.item for event in events if event not in known})
            if not known:
                raise UnknownError(f"there is no item {unknown[0]!r}")
            ids = {event.id for event in self.events if event.id}
            is_new = self.journal.append(known) if self.journal is not None else [one.id not in ids for one in known]
            new = [event for event, fresh in zip(known, is_new, strict=True) if fresh]
            self.events.extend(new)
            self.users |= {event.user for event in new}
            made.append(IngestResult(len(new), len(known) - len(new), unknown))
        return made

    def upsert(self, items):
        self.work()
        self.items |= {item.id: item for item in items}

    def put_user(self, user):
        self.work()
        self.users.add(user.id)
        self.told[user.id] = user
        if self.journal is not None:
            self.journal.readmit(user.id)

    def get_user(self, user):
        self.work()
        self.known(user)
        return self.told.get(user, User(user)), [event for event in self.events if event.user == user]

    def pseudonym(self, user):
        return hashlib.sha256(user.encode()).hexdigest()

    def forget(self, user):
        self.work()
        if self.journal is not None:
            self.journal.forget(user)
        self.told.pop(user, None)
        self.events = [event for event in self.events if event.user != user]
        known = user in self.users
        self.users.discard(user)
        return known

    def delete(self, ids):
        self.work()
        return sum(self.items.pop(one, None) is not None for one in ids)
