"""The service's own routes; OpenAI-, Cohere- and Jina-compatible ones are in ``client_routes``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from fastapi import Header, Path, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from m6rec.errors import M6RecError, UnknownError
from m6rec.serving.api import tracing
from m6rec.serving.api.fields import Id
from m6rec.serving.api.metrics import Measurements
from m6rec.serving.api.problems import ReloadError
from m6rec.serving.api.schema import (
    CreateAnswer,
    CreateBody,
    ErasureAnswer,
    EventsBody,
    ExplainBody,
    InspectBody,
    ItemAnswer,
    ItemListAnswer,
    ItemsBody,
    ItemSearch,
    NeighboursBody,
    RankBody,
    RankedAnswer,
    RecommendBody,
    RetrieveBody,
    StatusAnswer,
    UserAnswer,
    UserBody,
    UserListAnswer,
    UserSearch,
    WriteAnswer,
)
from m6rec.serving.api.traffic import Traffic
from m6rec.serving.api.work import Work
from m6rec.serving.backend import Answer, Explanation, IngestResult, Inspection, LocalBackend
from m6rec.serving.batching import Done, Kind
from m6rec.serving.settings import MAX_KEY_CHARS, ApiKeys, Settings
from m6rec.types import Item, Ranked, User

if TYPE_CHECKING:
    from m6rec.foundation.states import CacheStatistics

log = logging.getLogger("m6rec.serving")

IdInPath = Annotated[Id, Path(alias="id")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_CHARS,
        description="Names this write: sent again, it counts once. It stands in for the ids of events that have none.",
    ),
]


class Service:
    """The routes, and what they share.

    Args:
        backend: What is served.
        settings: How.
        reload: Loads new tunings into the backend while it serves; M6RecError where it can't.
        statistics: Of the cache of states.
    """

    def __init__(
        self,
        backend: LocalBackend,
        settings: Settings,
        reload: Callable[[], None] | None = None,
        statistics: Callable[[], CacheStatistics] | None = None,
    ) -> None:
        self.settings = settings
        self.keys = ApiKeys.load(settings.keys) if settings.keys else None
        self.draining_since: float | None = None
        self._reload, self._reloading = reload, asyncio.Lock()
        self.measurements, self.traffic = Measurements(), Traffic()
        if statistics:
            self.measurements.measure_cache(statistics)
        self.work = Work(backend, settings, self.measurements)
        self._backend = backend

        def recommend(bodies: Sequence[RecommendBody]) -> list[Answer]:
            return backend.recommend_many([body.request() for body in bodies])

        def retrieve(bodies: Sequence[RetrieveBody]) -> list[list[Ranked]]:
            return [
                backend.retrieve(
                    body.user, body.count, filters=body.filters.filters(), history=body.events(), source=body.source
                )
                for body in bodies
            ]

        def rank(bodies: Sequence[RankBody]) -> list[Answer]:
            return backend.rank_many([body.request() for body in bodies])

        def neighbours(bodies: Sequence[NeighboursBody]) -> list[list[Ranked]]:
            return [backend.neighbours(body.subject(), body.count, by=body.by) for body in bodies]

        def inspect(bodies: Sequence[InspectBody]) -> list[Inspection]:
            return [backend.inspect(body.request()) for body in bodies]

        def find_items(wanted: Sequence[ItemSearch]) -> list[ItemListAnswer]:
            return [ItemListAnswer(items=backend.find_items(one.query, one.count, ids=one.id)) for one in wanted]

        def find_users(wanted: Sequence[UserSearch]) -> list[UserListAnswer]:
            return [UserListAnswer(users=backend.find_users(one.prefix, one.count)) for one in wanted]

        def get_item(ids: Sequence[str]) -> list[ItemAnswer]:
            found = [backend.get_item(one) for one in ids]
            return [ItemAnswer(item=item, num_likes=num_likes) for item, num_likes in found]

        def upsert(items: Sequence[Sequence[Item]]) -> list[None]:
            backend.upsert([item for some in items for item in some])
            return [None] * len(items)

        def put_user(users: Sequence[User]) -> list[None]:
            for user in users:
                backend.put_user(user)
            return [None] * len(users)

        def get_user(ids: Sequence[str]) -> list[UserAnswer]:
            return [UserAnswer.of(*backend.get_user(one)) for one in ids]

        self._recommend = Kind("recommend", recommend, settings.max_batch)
        self._retrieve = Kind("retrieve", retrieve)
        self._rank = Kind("rank", rank, settings.max_batch)
        self._neighbours, self._inspect = Kind("neighbours", neighbours), Kind("inspect", inspect)
        self._find_items, self._find_users = Kind("find_items", find_items), Kind("find_users", find_users)
        self._get_item = Kind("get_item", get_item)
        self._ingest = Kind("ingest", backend.ingest_many, settings.max_batch)
        self._upsert = Kind("upsert", upsert, settings.max_batch)
        self._delete = Kind[str, int]("delete", lambda ids: [backend.delete([one]) for one in ids])
        self._put_user, self._get_user = Kind("put_user", put_user), Kind("get_user", get_user)
        self._forget = Kind[str, bool]("forget", lambda ids: [backend.forget(one) for one in ids])

    def drain(self) -> None:
        """Makes ``/readyz`` return 503; requests are still answered."""
        self.draining_since = self.draining_since or time.monotonic()

    def _ranked(self, done: Done[list[Ranked]] | Done[Answer], kind: str, timings: bool) -> RankedAnswer:
        answer = done.value if isinstance(done.value, Answer) else Answer(done.value, {kind: done.run_ms})
        stages_ms = {"queue": done.queue_ms, **answer.timings_ms}
        for stage, ms in stages_ms.items():
            self.measurements.stage_s.labels(stage).observe(ms / 1e3)
        tracing.tell({f"{stage}_ms": ms for stage, ms in stages_ms.items()})
        told = stages_ms if timings else None
        return RankedAnswer(items=answer.items, unknown=list(answer.unknown), timings_ms=told)

    async def recommend(self, body: RecommendBody) -> RankedAnswer:
        """Recommends items: retrieval, filters, ranking, reranking, paging.

        An unknown user gets popular items, or items that fit the ``history`` if there is one.
        """
        return self._ranked(await self.work.do(self.work.model, self._recommend, body), "recommend", body.timings)

    async def retrieve(self, body: RetrieveBody) -> RankedAnswer:
        """Candidates by retrieval score, which is not a probability."""
        return self._ranked(await self.work.do(self.work.model, self._retrieve, body), "retrieve", body.timings)

    async def rank(self, body: RankBody) -> RankedAnswer:
        """Ranks the given items by the probability of a like; reports unknown ids."""
        return self._ranked(await self.work.do(self.work.model, self._rank, body), "rank", body.timings)

    async def neighbours(self, body: NeighboursBody) -> RankedAnswer:
        """Similar items, most similar first; a draft is not stored."""
        done = await self.work.do(self.work.model, self._neighbours, body)
        return self._ranked(done, "neighbours", False)

    async def inspect(self, body: InspectBody) -> Inspection:
        """The exact texts that the ranking model reads of a user and an item, and where the item stands: why not X.

        ``placement`` says which filters exclude the item, its place and score by each candidate source, and its place
        and score among the ranked candidates, with and without the contribution of the text. Nothing is stored.
        """
        return (await self.work.do(self.work.model, self._inspect, body)).value

    async def find_items(self, search: Annotated[ItemSearch, Query()]) -> ItemListAnswer:
        """Items by the beginnings of words of their titles, or by their ids; without either, what is liked most."""
        return (await self.work.do(self.work.model, self._find_items, search)).value

    async def find_users(self, search: Annotated[UserSearch, Query()]) -> UserListAnswer:
        """Users by the beginning of their ids."""
        return (await self.work.do(self.work.model, self._find_users, search)).value

    async def get_item(self, item: IdInPath) -> ItemAnswer:
        """An item, and how many users like it, if they are enough not to be told apart."""
        return (await self.work.do(self.work.model, self._get_item, item)).value

    async def explain(self, body: ExplainBody) -> Explanation:
        """Explains why the user would like the item: reasons with evidence, most decisive first.

        Each sentence is generated and checked against its evidence; if it fails, a template replaces it. ``source`` is
        which, and ``rejection`` why. There may be no reason at all.
        """
        return await self.work.written("explain", lambda: self._backend.explaining(body.user, body.item, body.events()))

    async def create(self, body: CreateBody) -> CreateAnswer:
        """Generates texts for the user: a product design, a search query, or a headline for an item.

        Texts that are too long, offensive or personal are rejected; if none is left, a template is returned. ``source``
        says which, and ``rejected`` why. There may be fewer texts than requested.
        """
        return CreateAnswer(texts=await self.work.written("create", lambda: self._backend.creating(body.request())))

    async def events(self, body: EventsBody, key: IdempotencyKey = None) -> IngestResult:
        """Stores events; 201 means that they are on disk and part of their users' histories.

        Retries are safe: an event that was accepted before, by its id, is counted as ``repeated``. Events of unknown
        items are dropped, and the items listed in ``unknown``.
        """
        return (await self.work.do(self.work.events, self._ingest, body.named(key))).value

    async def items(self, body: ItemsBody) -> WriteAnswer:
        """Adds or replaces items; on return they can be recommended."""
        await self.work.do(self.work.items, self._upsert, [item.item() for item in body.items])
        return WriteAnswer(written=len(body.items))

    async def delete(self, item: IdInPath) -> WriteAnswer:
        """Deletes an item from the catalogue."""
        if not (await self.work.do(self.work.items, self._delete, item)).value:
            raise UnknownError(f"there is no item {item!r} in the catalogue; check the id")
        return WriteAnswer(written=1)

    async def put_user(self, user: IdInPath, body: UserBody) -> StatusAnswer:
        """Adds or replaces the details of a user."""
        await self.work.do(self.work.events, self._put_user, User(user, body.details))
        return StatusAnswer(status="kept")

    async def get_user(self, user: IdInPath) -> UserAnswer:
        """All stored data of a user."""
        return (await self.work.do(self.work.events, self._get_user, user)).value

    async def forget(self, user: IdInPath, request: Request) -> ErasureAnswer:
        """Erases a user from all files of the service; ``erased`` is false if there was nothing to erase."""
        erased = (await self.work.do(self.work.events, self._forget, user)).value
        key = request.scope["api_key"]
        facts = {"request_id": request.scope["request_id"], "key": key.name, "role": key.role, "erased": erased}
        log.info("erasure", extra={"facts": facts | {"user": self._backend.pseudonym(user)}})
        return ErasureAnswer(erased=erased)

    async def reload(self) -> StatusAnswer:
        """Reloads runs and API keys; requires a key."""
        if self.keys is None:
            raise HTTPException(403, "the service has no API keys, so it can't be reloaded over HTTP; send SIGHUP")
        await self.swap()
        return StatusAnswer(status="reloaded")

    async def swap(self) -> None:
        """Reloads runs and API keys while requests are served; on failure the old ones stay.

        Raises:
            ReloadError: The new ones can't be loaded.
        """
        async with self._reloading:
            try:
                keys = ApiKeys.load(self.settings.keys) if self.settings.keys else None
                if self._reload:
                    await asyncio.to_thread(self._reload)
            except M6RecError as error:
                raise ReloadError(f"the old runs stay in use: {error}") from error
            self.keys = keys

    async def healthz(self) -> StatusAnswer:
        """Liveness: 200, or 503 if the process must be restarted."""
        if not self.work.alive:
            raise HTTPException(503, "a worker has died; restart the service")
        return StatusAnswer(status="ok")

    async def readyz(self) -> StatusAnswer:
        """Readiness: 200 while the service accepts requests."""
        if self.draining_since is not None:
            raise HTTPException(503, "the service is stopping")
        return await self.healthz()

    async def metrics(self) -> Response:
        """Metrics in Prometheus format."""
        return Response(generate_latest(self.measurements.registry), media_type=CONTENT_TYPE_LATEST)
