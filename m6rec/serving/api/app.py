"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from m6rec.errors import M6RecError
from m6rec.serving.api import page
from m6rec.serving.api.client_routes import ClientRoutes
from m6rec.serving.api.client_schema import ChatAnswer
from m6rec.serving.api.gate import Gate
from m6rec.serving.api.problems import problem_of
from m6rec.serving.api.routes import Service
from m6rec.serving.api.schema import ErrorAnswer
from m6rec.serving.backend import LocalBackend
from m6rec.serving.settings import Settings

if TYPE_CHECKING:
    from m6rec.foundation.states import CacheStatistics

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
    clients = ClientRoutes(backend, service.work, service.measurements)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.work.close)

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
    streamed: dict[int | str, dict[str, Any]] = {200: {"model": ChatAnswer, "content": {"text/event-stream": {}}}}
    posts: tuple[tuple[str, Callable[..., Any], dict[str, Any]], ...] = (
        ("/v1/recommend", service.recommend, {}),
        ("/v1/retrieve", service.retrieve, {}),
        ("/v1/rank", service.rank, {}),
        ("/v1/neighbours", service.neighbours, {}),
        ("/v1/inspect", service.inspect, {}),
        ("/v1/explain", service.explain, {}),
        ("/v1/create", service.create, {}),
        ("/v1/events", service.events, {"status_code": 201}),
        ("/v1/items", service.items, {}),
        ("/v1/admin/reload", service.reload, {}),
        ("/v1/rerank", clients.rerank, {}),
        ("/v2/rerank", clients.rerank, {"name": "rerank_v2"}),
        ("/rerank", clients.rerank, {"name": "rerank_plain"}),
        ("/v1/embeddings", clients.embeddings, {}),
        ("/v1/chat/completions", clients.chat, {"responses": streamed}),
    )
    for path, answer, options in posts:
        routes.add_api_route(path, answer, methods=["POST"], response_model_exclude_none=True, **options)
    routes.add_api_route("/v1/models", clients.models, methods=["GET"])
    routes.add_api_route("/v1/models/{id:path}", clients.model, methods=["GET"])
    routes.add_api_route("/v1/items", service.find_items, methods=["GET"])
    routes.add_api_route("/v1/users", service.find_users, methods=["GET"])
    routes.add_api_route("/v1/items/{id:path}", service.get_item, methods=["GET"], response_model_exclude_none=True)
    routes.add_api_route("/v1/items/{id:path}", service.delete, methods=["DELETE"])
    routes.add_api_route("/v1/users/{id:path}", service.put_user, methods=["PUT"])
    routes.add_api_route("/v1/users/{id:path}", service.get_user, methods=["GET"])
    routes.add_api_route("/v1/users/{id:path}", service.forget, methods=["DELETE"])
    routes.add_api_route("/metrics", service.metrics, methods=["GET"], response_class=Response)
    app.include_router(routes)
    unready: dict[int | str, dict[str, Any]] = {503: {"model": ErrorAnswer}}
    app.add_api_route("/healthz", service.healthz, methods=["GET"], responses=unready)
    app.add_api_route("/readyz", service.readyz, methods=["GET"], responses=unready)
    app.add_api_route("/", page.index, methods=["GET"], include_in_schema=False)
    app.add_api_route("/page/{name}", page.asset, methods=["GET"], include_in_schema=False)
    for error in (M6RecError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(error, problem_of)
    return Gate(app, service)


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
