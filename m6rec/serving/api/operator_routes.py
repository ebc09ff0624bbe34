"""Routes for those who run the service: how it does, what is served, and all of its data."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Path, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from m6rec.serving.api.routes import Service
from m6rec.serving.api.traffic import NUM_FAULTS, NUM_TIMED, FaultyRequest, RouteTraffic
from m6rec.serving.backend import ExportKind, LocalBackend
from m6rec.serving.deployment import Deployment
from m6rec.serving.settings import Role
from m6rec.types import Event, Item, User

if TYPE_CHECKING:
    from m6rec.foundation.states import CacheStatistics

LINES = "application/x-ndjson"
ROWS_AT_ONCE = 500


class QueueStatus(BaseModel):
    """A queue: reads of the model, events and users, or the catalogue."""

    queue: str
    waiting: int
    limit: Annotated[int, Field(description="More are rejected (429).")]


class CacheStatus(BaseModel):
    """The cache of states of texts, since the start."""

    model_config = ConfigDict(from_attributes=True)

    hits: int
    misses: int
    entries: Annotated[int, Field(description="Texts in memory.")]
    bytes: Annotated[int, Field(description="What they take.")]
    store_failures: int


class TaskStatus(BaseModel):
    """Long work of the service that is going on."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    done: int
    total: int
    eta_s: float | None = None


class DataStatus(BaseModel):
    """What the service holds, and how fresh it is."""

    model_config = ConfigDict(from_attributes=True)

    num_items: int
    num_indexed: Annotated[int, Field(description="Items that can be retrieved.")]
    index_changed: Annotated[float, Field(description="Seconds since 1970.")]
    num_users: int
    num_events: int
    num_new_events: Annotated[
        int, Field(description="Events that came in since the log was prepared: no run was tuned on them.")
    ]
    events_changed: Annotated[float | None, Field(description="Seconds since 1970; absent if none came in.")] = None


class ServiceStatus(BaseModel):
    """How the service does."""

    version: str
    now: Annotated[float, Field(description="The service's clock, seconds since 1970.")]
    started: float
    role: Annotated[Role, Field(description="Of the key that asks; admin without keys.")]
    keys: Annotated[bool, Field(description="Whether the service has keys.")]
    running: Annotated[int, Field(description="Requests that are being answered, this one included.")]
    queues: list[QueueStatus]
    traffic: Annotated[
        list[RouteTraffic],
        Field(description=f"By route, the busiest first; times are of the latest {NUM_TIMED:,} requests."),
    ]
    faults: Annotated[
        list[FaultyRequest],
        Field(description=f"The latest {NUM_FAULTS} that were refused and that failed, the latest first."),
    ]
    cache: CacheStatus | None = None
    data: DataStatus
    tasks: list[TaskStatus]


class OperatorRoutes:
    """The routes, and what they read.

    Args:
        backend: What is served.
        service: Its queues and its traffic.
        statistics: Of the cache of states.
        deployment: Which runs are served, and what was measured of them.
    """

    def __init__(
        self,
        backend: LocalBackend,
        service: Service,
        statistics: Callable[[], CacheStatistics] | None,
        deployment: Callable[[], Deployment] | None,
    ) -> None:
        self._backend, self._service, self._statistics, self._deployment = backend, service, statistics, deployment
        self._started = time.time()

    async def status(self, request: Request) -> ServiceStatus:
        """How the service does: traffic, queues, cache, freshness, errors. It waits in no queue."""
        service, held = self._service, self._backend.holdings()
        return ServiceStatus(
            version=version("m6rec"),
            now=time.time(),
            started=self._started,
            role=request.scope["api_key"].role,
            keys=service.keys is not None,
            running=service.traffic.running,
            queues=[
                QueueStatus(queue=name, waiting=batcher.depth, limit=service.settings.max_queue)
                for name, batcher in service.work.queues.items()
            ],
            traffic=service.traffic.routes(),
            faults=service.traffic.faults(),
            cache=CacheStatus.model_validate(self._statistics()) if self._statistics else None,
            data=DataStatus.model_validate(held),
            tasks=[TaskStatus.model_validate(task) for task in held.tasks],
        )

    async def deployment(self) -> Deployment:
        """Which runs are served, what was measured of them, on which data, and which tunings go on."""
        return await asyncio.to_thread(self._deployment) if self._deployment else Deployment()

    async def export(self, kind: Annotated[ExportKind, Path()]) -> StreamingResponse:
        """All events, items or users of one moment, one JSON object a line, as `m6rec prepare` reads tables.

        Details and contexts are fields beside the others; a name that is taken begins with ``detail_``.
        """
        values = await asyncio.to_thread(self._backend.export, kind)
        name = f'attachment; filename="{kind}.jsonl"'
        return StreamingResponse(_lines(values), media_type=LINES, headers={"Content-Disposition": name})


def _lines(values: Sequence[Event | Item | User]) -> Iterator[str]:
    """The values as JSON, some a piece, so that a slow reader holds up nobody."""
    rows = map(_row, values)
    while some := [*islice(rows, ROWS_AT_ONCE)]:
        yield "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in some)


def _row(value: Event | Item | User) -> dict[str, Any]:
    """As a row of a table of `m6rec prepare`: details and context are columns; what says nothing is left out."""
    match value:
        case Event(kind="search"):
            row = {**asdict(value), "query": value.text, "text": ""}
            further: Mapping[str, Any] = dict(row.pop("context"))
        case Event():
            row = asdict(value)
            further = dict(row.pop("context"))
        case Item():
            row, further = {"item": value.id, "title": value.title, "categories": value.categories}, value.details
        case User():
            row, further = {"user": value.id}, value.details
    row |= {f"detail_{name}" if name in row else name: one for name, one in further.items()}
    return {name: one for name, one in row.items() if one not in (None, "", ())}
