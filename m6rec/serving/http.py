"""The service over HTTP: the only module that knows the web framework.

A request passes the ``Gate`` (request id, key, admission, body limit, log line), a route (its body checked against
``schema``), and a ``Batcher`` (one thread for the model, one for what is written to disk). Whatever goes wrong is
answered in one shape, ``{"error": {"type", "message", "request_id"}}``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import signal
import socket
import threading
import time
import traceback
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic_core import from_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m6rec.errors import ConfigError, DataError, M6RecError, StoreError, UnknownError
from m6rec.serving.backend import Answer, Explanation, LocalBackend, Observed, RankRequest, Reply, Writing
from m6rec.serving.batching import Batcher, Done, Kind, OverloadedError
from m6rec.serving.schema import (
    ChatAnswer,
    ChatBody,
    ChatChunk,
    Choice,
    ChunkChoice,
    CreateAnswer,
    CreateBody,
    Delta,
    Document,
    Embedding,
    EmbeddingsAnswer,
    EmbeddingsBody,
    ErrorAnswer,
    EventsBody,
    ExplainBody,
    Found,
    Id,
    ItemsBody,
    ModelsAnswer,
    Problem,
    RankBody,
    RankedAnswer,
    RecommendBody,
    ReplyMessage,
    RerankAnswer,
    RerankBody,
    RerankResult,
    RetrieveBody,
    State,
    Written,
)
from m6rec.serving.settings import Keys, Settings, is_loopback
from m6rec.types import Item, Ranked

if TYPE_CHECKING:
    from m6rec.foundation.states import CacheStatistics

log = logging.getLogger("m6rec.serving")
T = TypeVar("T")
R = TypeVar("R")

OPEN = ("/healthz", "/readyz")  # without a key, and whatever the load
WRITES = ("/v1/events", "/v1/items")
TEXTS = ("/v1/explain", "/v1/create", "/v1/chat/completions")
GONE = 499  # the client left before its answer; seen in logs and measurements only
RETRY_S = 1
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class DeadlineError(M6RecError):
    """The work did not begin in time; nothing was done."""


class ReloadError(M6RecError):
    """The new tunings can't be served; the old ones still are."""


# The first class that fits gives status and type.
PROBLEMS: tuple[tuple[type[Exception], int, str], ...] = (
    (OverloadedError, 429, "overloaded"),
    (DeadlineError, 503, "deadline"),
    (StoreError, 503, "store"),
    (ReloadError, 409, "reload"),
    (UnknownError, 404, "not_found"),
    (DataError, 422, "invalid"),
    (ConfigError, 422, "invalid"),
)
TYPES = {400: "malformed", 401: "unauthorised", 403: "forbidden", 404: "not_found", 405: "method", 408: "slow_body"}
TYPES |= {413: "too_large", 422: "invalid", 429: "overloaded"}


def problem(scope: Scope, status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says what went wrong."""
    retry = {"Retry-After": str(RETRY_S)} if status in (429, 503) else {}
    body = ErrorAnswer(error=Problem(type=kind, message=message, request_id=scope["request_id"]))
    return JSONResponse(body.model_dump(), status, {**(headers or {}), **retry})


async def _problem_of(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        kind = TYPES.get(error.status_code, "refused")
        return problem(request.scope, error.status_code, kind, error.detail, dict(error.headers or {}))
    if isinstance(error, RequestValidationError):
        places = [f"{'.'.join(map(str, one['loc']))[:100]}: {one['msg']}" for one in error.errors()[:5]]
        return problem(request.scope, 422, "invalid", "; ".join(places))
    for kind_of_error, status, kind in PROBLEMS:
        if isinstance(error, kind_of_error):
            return problem(request.scope, status, kind, str(error))
    return problem(request.scope, 500, "internal", "the service failed; its log has the reason under this request id")


class Measurements:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("m6rec_requests", "Answers.", ("route", "status"), registry=self.registry)
        self.request_s = Histogram(
            "m6rec_request_seconds", "Time to the answer.", ("route",), buckets=SECONDS, registry=self.registry
        )
        self.stage_s = Histogram(
            "m6rec_stage_seconds", "Time of a stage.", ("stage",), buckets=SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "m6rec_batch_size", "Requests done together.", ("kind",), buckets=(1, 2, 4, 8, 16), registry=self.registry
        )
        self.depth = Gauge("m6rec_queue_depth", "Requests that wait.", ("queue",), registry=self.registry)

    def measure_batch(self, kind: str, size: int) -> None:
        """Takes in a batch."""
        self.batch.labels(kind).observe(size)

    def measure_cache(self, statistics: Callable[[], CacheStatistics]) -> None:
        """Reports a cache's statistics whenever Prometheus asks."""
        self.registry.register(_CacheCollector(statistics))


class _CacheCollector(Collector):
    def __init__(self, statistics: Callable[[], CacheStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        now = self._statistics()
        yield CounterMetricFamily("m6rec_cache_hits", "Texts whose states were kept.", now.hits)
        yield CounterMetricFamily("m6rec_cache_misses", "Texts whose states were computed.", now.misses)
        yield CounterMetricFamily("m6rec_cache_store_failures", "Reads and writes that failed.", now.store_failures)
        yield GaugeMetricFamily("m6rec_cache_entries", "Texts in memory.", now.entries)
        yield GaugeMetricFamily("m6rec_cache_bytes", "What they take.", now.bytes)


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
        self.keys = Keys.load(settings.keys) if settings.keys else None
        self.draining_since: float | None = None
        self._reload, self._reloading = reload, asyncio.Lock()
        self.measurements = Measurements()
        if statistics:
            self.measurements.measure_cache(statistics)
        self.model = self._batcher("model", backend.step, settings.max_texts)
        self.disk = self._batcher("disk")
        self._backend = backend

        def recommend(bodies: Sequence[RecommendBody]) -> list[Answer]:
            return backend.recommend_many([body.request() for body in bodies])

        def retrieve(bodies: Sequence[RetrieveBody]) -> list[list[Ranked]]:
            return [backend.retrieve(body.user, body.count, filters=body.filters.filters()) for body in bodies]

        def upsert(items: Sequence[Sequence[Item]]) -> list[None]:
            backend.upsert([item for some in items for item in some])
            return [None] * len(items)

        self._recommend = Kind("recommend", recommend, settings.max_batch)
        self._retrieve = Kind("retrieve", retrieve)
        self._rank = Kind("rank", backend.rank_many, settings.max_batch)
        self._rerank = Kind[RerankBody, tuple[NDArray[np.float64], int]](
            "rerank", lambda bodies: [backend.rerank(body.query, body.texts()) for body in bodies]
        )
        self._embed = Kind[Sequence[str], tuple[NDArray[np.float32], int]](
            "embed", lambda texts: [backend.embed(some) for some in texts]
        )
        self._observe = Kind("observe", backend.observe_many, settings.max_batch)
        self._upsert = Kind("upsert", upsert, settings.max_batch)
        self._delete = Kind[str, int]("delete", lambda ids: [backend.delete([one]) for one in ids])

    def _batcher(self, queue: str, step: Callable[[], None] = lambda: None, max_texts: int = 1) -> Batcher:
        batcher = Batcher(
            max_queue=self.settings.max_queue,
            max_texts=max_texts,
            step=step,
            measure=self.measurements.measure_batch,
        )
        self.measurements.depth.labels(queue).set_function(lambda: batcher.depth)
        return batcher

    def overloaded(self, path: str) -> bool:
        """Whether a request to ``path`` would be refused, known before its body is read."""
        if not path.startswith("/v1/") or path.startswith("/v1/admin/"):
            return False
        if path.startswith(TEXTS):
            return self.model.full_of_texts
        return (self.disk if path.startswith(WRITES) else self.model).full

    def drain(self) -> None:
        """Turns ``/readyz`` to 503; requests are still answered."""
        self.draining_since = self.draining_since or time.monotonic()

    def close(self) -> None:
        """Returns when all that was accepted is done."""
        self.model.close()
        self.disk.close()

    async def _do(self, batcher: Batcher, kind: Kind[T, R], value: T) -> Done[R]:
        """The result of a piece of work. Where the client leaves or the deadline passes first, it is never begun."""
        future = batcher.submit(kind, value)
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.wait((waiting,), timeout=self.settings.deadline_s)
            if not waiting.done() and future.cancel():
                raise DeadlineError(f"the request waited longer than {self.settings.deadline_s} s; try again later")
            return await waiting
        finally:
            waiting.cancel()

    async def _write(self, begin: Callable[[], Writing[T]]) -> AsyncGenerator[str | Done[T], None]:
        """What may be read of a text, piece by piece, and its result at last. It is given up where the client leaves.

        The deadline is for its beginning, which is told by an empty piece at the latest.
        """
        loop, told = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def tell(piece: str | None) -> None:
            loop.call_soon_threadsafe(told.put_nowait, piece)

        future = self.model.write(begin, tell)
        future.add_done_callback(lambda _: tell(None))
        limit_s: float | None = self.settings.deadline_s
        try:
            while True:
                try:
                    async with asyncio.timeout(limit_s):
                        piece = await told.get()
                except TimeoutError:
                    message = f"the text waited longer than {self.settings.deadline_s} s; try again later"
                    raise DeadlineError(message) from None
                if piece is None:
                    break
                limit_s = None
                yield piece
            yield future.result()
        finally:
            future.cancel()

    async def _written(self, stage: str, begin: Callable[[], Writing[T]]) -> T:
        """The result of a text, whose time is measured."""
        async with aclosing(self._write(begin)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Done):
                    self.measurements.stage_s.labels(stage).observe(piece.run_ms / 1e3)
                    return piece.value
        raise AssertionError("a text ends with its result")

    def _ranked(self, done: Done[list[Ranked]] | Done[Answer], kind: str, timings: bool) -> RankedAnswer:
        answer = done.value if isinstance(done.value, Answer) else Answer(done.value, {kind: done.run_ms})
        stages_ms = {"queue": done.queue_ms, **answer.timings_ms}
        for stage, ms in stages_ms.items():
            self.measurements.stage_s.labels(stage).observe(ms / 1e3)
        return RankedAnswer(items=answer.items, timings_ms=stages_ms if timings else None)

    async def recommend(self, body: RecommendBody) -> RankedAnswer:
        """The items that the user would like most: retrieved, filtered, ranked, diversified, paged."""
        return self._ranked(await self._do(self.model, self._recommend, body), "recommend", body.timings)

    async def retrieve(self, body: RetrieveBody) -> RankedAnswer:
        """The nearest items in the space of the retrieval task.

        ``score`` is the product of the user's and the item's vectors. It is no probability, and it need not fall: one
        place in ten goes to a new item, of which only the text is known.
        """
        return self._ranked(await self._do(self.model, self._retrieve, body), "retrieve", body.timings)

    async def rank(self, body: RankBody) -> RankedAnswer:
        """Orders given items by the probability that the user likes them."""
        done = await self._do(self.model, self._rank, RankRequest(user=body.user, items=tuple(body.items)))
        return self._ranked(done, "rank", body.timings)

    async def explain(self, body: ExplainBody) -> Explanation:
        """Why the user would like the item: statements with their evidence, the most decisive first.

        The model words each, and a gate checks its words against the evidence; those that fail it are replaced by a
        template. ``worded_by`` tells which happened, and ``reason`` why. There may be nothing to say.
        """
        return await self._written("explain", lambda: self._backend.explaining(body.user, body.item))

    async def chat(self, body: ChatBody, request: Request) -> Response:
        """The next message of a conversation: it asks, recommends or explains; takes what clients of OpenAI send.

        A title in it is always that of an item, and ``m6rec.items`` are those recommended, best first. The words that
        are the model's own have passed the gate of explanations. With ``stream`` it comes sentence by sentence.
        """
        chat, key, created = body.chat(), f"chatcmpl-{request.scope['request_id']}", int(time.time())
        if not body.stream:
            reply = await self._written("chat", lambda: self._backend.chatting(chat))
            choice = Choice(message=ReplyMessage(content=reply.text), finish_reason=reply.reason)
            answer = ChatAnswer(id=key, created=created, choices=[choice], usage=_usage(reply), m6rec=Found.of(reply))
            return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")
        pieces = self._write(lambda: self._backend.chatting(chat))
        try:
            first = await anext(pieces)  # what is refused is refused with its status
        except BaseException:
            await pieces.aclose()
            raise
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        events = self._events(first, pieces, key, created, with_usage, request.scope["request_id"])
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def _events(
        self,
        first: str | Done[Reply],
        pieces: AsyncGenerator[str | Done[Reply], None],
        key: str,
        created: int,
        with_usage: bool,
        request_id: str,
    ) -> AsyncGenerator[str, None]:
        """A reply as server-sent events, in OpenAI's shape."""

        def chunk(delta: Delta, reply: Reply | None = None) -> ChatChunk:
            choice = ChunkChoice(delta=delta, finish_reason=reply.reason if reply else None)
            return ChatChunk(id=key, created=created, choices=[choice], m6rec=Found.of(reply) if reply else None)

        async with aclosing(pieces):
            yield _event(chunk(Delta(role="assistant", content="")))
            try:
                piece = first
                while isinstance(piece, str):
                    if piece:
                        yield _event(chunk(Delta(content=piece)))
                    piece = await anext(pieces)
            except Exception as error:
                # The status is out, so that the stream can only say it.
                log.error("stream", extra={"facts": {"request_id": request_id, "error": type(error).__name__}})
                message = "the service failed; its log has the reason under this request id"
                failed = Problem(type="internal", message=message, request_id=request_id)
                yield f"data: {ErrorAnswer(error=failed).model_dump_json()}\n\n"
                return
            self.measurements.stage_s.labels("chat").observe(piece.run_ms / 1e3)
            yield _event(chunk(Delta(), piece.value))
            if with_usage:
                yield _event(ChatChunk(id=key, created=created, choices=[], usage=_usage(piece.value)))
            yield "data: [DONE]\n\n"

    async def models(self) -> ModelsAnswer:
        """What clients of OpenAI can name as ``model``."""
        return ModelsAnswer()

    async def create(self, body: CreateBody) -> CreateAnswer:
        """Texts made for the user: a product that they would like, a query that they would type, copy for an item.

        What is too long, indecent or personal is not shown: the next text stands in for it, and where none is left, a
        template. ``worded_by`` tells which happened, and ``refused`` why. There may be fewer texts than asked for.
        """
        return CreateAnswer(texts=await self._written("create", lambda: self._backend.creating(body.brief())))

    async def events(self, body: EventsBody) -> Observed:
        """Keeps events; 201 means that they are on disk and part of the user's history."""
        return (await self._do(self.disk, self._observe, [event.event() for event in body.events])).value

    async def items(self, body: ItemsBody) -> Written:
        """Adds items or replaces them; they can be retrieved and ranked when the answer comes."""
        await self._do(self.disk, self._upsert, [item.item() for item in body.items])
        return Written(written=len(body.items))

    async def delete(self, item: Annotated[Id, Path(alias="id")]) -> Written:
        """Takes an item out of the catalogue."""
        if not (await self._do(self.disk, self._delete, item)).value:
            raise UnknownError(f"there is no item {item!r} in the catalogue; check the id")
        return Written(written=1)

    async def rerank(self, body: RerankBody, request: Request) -> RerankAnswer:
        """Orders documents by how well they fit a query; takes what clients of Cohere (v2) and Jina send."""
        scores, tokens = (await self._do(self.model, self._rerank, body)).value
        texts = body.texts()
        results = [
            RerankResult(
                index=int(n),
                relevance_score=float(scores[n]),
                document=Document(text=texts[n]) if body.return_documents else None,
            )
            for n in np.argsort(-scores, kind="stable")[: body.top_n]
        ]
        return RerankAnswer(id=request.scope["request_id"], results=results, usage={"total_tokens": tokens})

    async def embeddings(self, body: EmbeddingsBody) -> EmbeddingsAnswer:
        """Unit vectors of texts, those of the retrieval task; takes what clients of OpenAI send."""
        texts = [body.input] if isinstance(body.input, str) else body.input
        vectors, tokens = (await self._do(self.model, self._embed, texts)).value
        data = [
            Embedding(
                index=n,
                embedding=vector.tolist()
                if body.encoding_format == "float"
                else base64.b64encode(vector.astype("<f4").tobytes()).decode(),
            )
            for n, vector in enumerate(vectors)
        ]
        return EmbeddingsAnswer(data=data, usage={"prompt_tokens": tokens, "total_tokens": tokens})

    async def reload(self) -> State:
        """Serves the tunings that lie in the run folders now, and the keys in their file; needs a key."""
        if self.keys is None:
            raise HTTPException(403, "the service has no keys, so nobody may reload it over HTTP; send it SIGHUP")
        await self.swap()
        return State(status="reloaded")

    async def swap(self) -> None:
        """Reads keys and tunings again; requests go on meanwhile, and on the old ones where that fails.

        Raises:
            ReloadError: The new ones can't be served.
        """
        async with self._reloading:
            try:
                keys = Keys.load(self.settings.keys) if self.settings.keys else None
                if self._reload:
                    await asyncio.to_thread(self._reload)
            except M6RecError as error:
                raise ReloadError(f"the old tunings stay: {error}") from error
            self.keys = keys

    async def healthz(self) -> State:
        """200 while the process is of use; else restart it."""
        if not (self.model.alive and self.disk.alive):
            raise HTTPException(503, "a worker has died; restart the service")
        return State(status="ok")

    async def readyz(self) -> State:
        """200 while requests should be sent here."""
        if self.draining_since is not None:
            raise HTTPException(503, "the service is stopping")
        return await self.healthz()

    async def metrics(self) -> Response:
        """Measurements for Prometheus."""
        return Response(generate_latest(self.measurements.registry), media_type=CONTENT_TYPE_LATEST)


def _event(chunk: ChatChunk) -> str:
    return f"data: {chunk.model_dump_json(exclude_none=True)}\n\n"


def _usage(reply: Reply) -> dict[str, int]:
    read, written = reply.num_read, reply.num_written
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


class _JsonRequest(Request):
    async def json(self) -> Any:
        """The body as strict JSON: no NaN, no lone surrogates, bounded nesting. Raises HTTPException."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError:
            raise HTTPException(400, "the body is not JSON, or holds NaN, half a character or deep nesting") from None


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            response: Response = await handle(_JsonRequest(request.scope, request.receive))
            return response

        return strict


class Gate:
    """What happens to every request before and after its route.

    Args:
        app: The routes.
        service: What they share.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        self.app, self.service = app, service
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope["request_id"] = request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        began = time.perf_counter()
        status = GONE
        failure: Exception | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            try:
                async with asyncio.timeout(self.service.settings.deadline_s):
                    await send(message)
            except TimeoutError:
                raise _ClientGoneError from None  # it reads nothing

        self._running += 1
        try:
            refusal = self._refuse(scope)
            if refusal is None:
                body = await self._read(receive)
                await _until_gone(self.app, scope, body, receive, answer)
            else:
                await refusal(scope, receive, answer)
        except _ClientGoneError:
            pass
        except HTTPException as error:
            await (await _problem_of(Request(scope), error))(scope, receive, answer)
        except Exception as error:
            # The framework has answered with 500 already; the trace, without any value in it, goes to the log only.
            failure = error
        finally:
            self._running -= 1
            self._tell(scope, status, time.perf_counter() - began, failure)

    def _refuse(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that must not come in."""
        if scope["path"] in OPEN:
            return None
        headers, service = Headers(scope=scope), self.service
        if service.keys is None and not service.settings.insecure and not is_loopback(_hostname(headers)):
            # A page in a browser of this machine can give its own name our address (DNS rebinding).
            message = "the service has no keys, so it must be called by a loopback name such as 127.0.0.1"
            return problem(scope, 403, TYPES[403], message)
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if service.keys and not (scheme.lower() == "bearer" and service.keys.allow(key.strip())):
            message = "an API key is needed: send the header 'Authorization: Bearer KEY'"
            return problem(scope, 401, TYPES[401], message, {"WWW-Authenticate": "Bearer"})
        if self._running > service.settings.max_concurrent or service.overloaded(scope["path"]):
            return problem(scope, 429, TYPES[429], "too many requests wait already; try again later")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > service.settings.max_body_bytes:
            return problem(scope, 413, TYPES[413], self._too_large())
        return None

    def _too_large(self) -> str:
        return f"the body may have {self.service.settings.max_body_bytes} bytes; send less at once"

    async def _read(self, receive: Receive) -> bytes:
        """The whole body; HTTPException where it is too long or too slow."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.service.settings.deadline_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientGoneError
                    body += message.get("body", b"")
                    if len(body) > self.service.settings.max_body_bytes:
                        raise HTTPException(413, self._too_large())
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise HTTPException(408, f"the body did not come within {self.service.settings.deadline_s} s") from None

    def _tell(self, scope: Scope, status: int, seconds: float, failure: Exception | None) -> None:
        """Measures and logs a request, by the pattern of its route: paths and bodies can hold what users wrote."""
        route = getattr(scope.get("route"), "path", "unknown")
        self.service.measurements.requests.labels(route, status).inc()
        self.service.measurements.request_s.labels(route).observe(seconds)
        facts = {"request_id": scope["request_id"], "method": scope["method"], "route": route, "status": status}
        facts["ms"] = round(1e3 * seconds, 3)
        if failure is None:
            log.info("request", extra={"facts": facts})
        else:
            facts |= {"error": type(failure).__name__, "trace": traceback.format_tb(failure.__traceback__)}
            log.error("request", extra={"facts": facts})


def _hostname(headers: Headers) -> str:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


class _ClientGoneError(Exception):
    """Nobody waits for an answer."""


async def _until_gone(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Runs the routes on a body that was read, and cancels them when the client leaves."""
    unread = [body]

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    route, left = asyncio.ensure_future(app(scope, replay, send)), asyncio.ensure_future(leave())
    try:
        await asyncio.wait((route, left), return_when=asyncio.FIRST_COMPLETED)
        if not route.done():
            route.cancel()
            with suppress(asyncio.CancelledError):
                await route
            raise _ClientGoneError
        await route
    finally:
        route.cancel()
        left.cancel()


ERRORS = (400, 401, 403, 404, 408, 413, 422, 429, 500, 503)


def create_app(
    backend: LocalBackend,
    settings: Settings,
    *,
    reload: Callable[[], None] | None = None,
    statistics: Callable[[], CacheStatistics] | None = None,
) -> Gate:
    """The service as an ASGI application; its lifespan ends when all that was accepted is done.

    Args:
        backend: What is served.
        settings: How.
        reload: Loads new tunings into the backend while it serves; M6RecError where it can't.
        statistics: Of the cache of states, for ``/metrics``.

    Raises:
        ConfigError: The file of keys can't be used.
    """
    service = Service(backend, settings, reload, statistics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="m6rec",
        version="1",
        description="One pretrained language model as a whole recommender.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        telemetry={"tracing": False},
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    problems: dict[int | str, dict[str, Any]] = {status: {"model": ErrorAnswer} for status in ERRORS}
    routes = APIRouter(route_class=_Route, responses=problems, dependencies=[Depends(HTTPBearer(auto_error=False))])
    posts: tuple[tuple[str, Callable[..., Any], int], ...] = (
        ("/v1/recommend", service.recommend, 200),
        ("/v1/retrieve", service.retrieve, 200),
        ("/v1/rank", service.rank, 200),
        ("/v1/explain", service.explain, 200),
        ("/v1/create", service.create, 200),
        ("/v1/events", service.events, 201),
        ("/v1/items", service.items, 200),
        ("/v1/rerank", service.rerank, 200),
        ("/v1/embeddings", service.embeddings, 200),
        ("/v1/admin/reload", service.reload, 200),
    )
    for path, answer, status in posts:
        routes.add_api_route(path, answer, methods=["POST"], status_code=status, response_model_exclude_none=True)
    streamed: dict[int | str, dict[str, Any]] = {200: {"model": ChatAnswer, "content": {"text/event-stream": {}}}}
    routes.add_api_route("/v1/chat/completions", service.chat, methods=["POST"], responses=streamed)
    routes.add_api_route("/v1/models", service.models, methods=["GET"])
    routes.add_api_route("/v1/items/{id:path}", service.delete, methods=["DELETE"])
    routes.add_api_route("/metrics", service.metrics, methods=["GET"], response_class=Response)
    app.include_router(routes)
    unready: dict[int | str, dict[str, Any]] = {503: {"model": ErrorAnswer}}
    app.add_api_route("/healthz", service.healthz, methods=["GET"], responses=unready)
    app.add_api_route("/readyz", service.readyz, methods=["GET"], responses=unready)
    for error in (M6RecError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(error, _problem_of)
    return Gate(app, service)


def serve(
    backend: LocalBackend,
    settings: Settings,
    *,
    reload: Callable[[], None] | None = None,
    statistics: Callable[[], CacheStatistics] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, and returns when the last answer is out. SIGHUP reloads.

    Args:
        backend: See ``create_app``.
        settings: See there.
        reload: See there.
        statistics: See there.

    Raises:
        ConfigError: The address can't be listened at, or the file of keys can't be used.
    """
    gate = create_app(backend, settings, reload=reload, statistics=statistics)
    Server(gate).run(sockets=[bind(settings)])


def log_to_stderr() -> None:
    """Writes the log to stderr from here on, one line of JSON a record."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    for name, level in (("m6rec", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)


def bind(settings: Settings) -> socket.socket:
    """The socket to serve from. Raises ConfigError where the address can't be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's delay of 40 ms off only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"can't listen at {settings.host}:{settings.port} ({error}); give another --port") from error
    return listener


class Server(uvicorn.Server):
    """Drains before it stops, reloads at SIGHUP, and ends without passing the signal on, so that the exit code is 0.

    Args:
        gate: What ``create_app`` made.
    """

    def __init__(self, gate: Gate) -> None:
        self._service = gate.service
        config = uvicorn.Config(
            gate,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(gate.service.settings.deadline_s) + 1,
        )
        super().__init__(config)
        self._swaps: set[asyncio.Task[None]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain, then stop. Second: stop as soon as the answers are out."""
        self.should_exit = self._service.draining_since is not None
        self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        since = self._service.draining_since
        if since is not None and time.monotonic() - since >= self._service.settings.drain_s:
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, and tells where."""
        await super().startup(sockets)
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._swap)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            log.info("listening", extra={"facts": {"host": host, "port": port}})

    def _swap(self) -> None:
        task = asyncio.ensure_future(self._swap_and_tell())
        self._swaps.add(task)
        task.add_done_callback(self._swaps.discard)

    async def _swap_and_tell(self) -> None:
        try:
            await self._service.swap()
            log.info("reloaded")
        except ReloadError as error:
            log.error("reload failed", extra={"facts": {"error": str(error)}})


class _JsonLines(logging.Formatter):
    """A record as one line of JSON; ``extra={"facts": …}`` are its further fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        return json.dumps(line)
