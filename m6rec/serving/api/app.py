"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from m6rec.errors import M6RecError
from m6rec.serving.api import page, tracing
from m6rec.serving.api.access import needs
from m6rec.serving.api.client_routes import ClientRoutes
from m6rec.serving.api.client_schema import ChatAnswer
from m6rec.serving.api.gate import Gate
from m6rec.serving.api.operator_routes import LINES, OperatorRoutes
from m6rec.serving.api.problems import problem_of
from m6rec.serving.api.project_routes import FILE_CONTENT, HTML_CONTENT, ProjectRoutes
from m6rec.serving.api.routes import Service
from m6rec.serving.api.schema import ErrorAnswer
from m6rec.serving.backend import LocalBackend
from m6rec.serving.settings import Role, Settings

if TYPE_CHECKING:
    from m6rec.foundation.states import CacheStatistics
    from m6rec.serving.deployment import Deployment
    from m6rec.serving.project_files import ProjectFiles

ERRORS = (400, 401, 403, 404, 408, 413, 422, 429, 500, 503)


def create_app(
    backend: LocalBackend,
    settings: Settings,
    *,
    reload: Callable[[], None] | None = None,
    statistics: Callable[[], CacheStatistics] | None = None,
    deployment: Callable[[], Deployment] | None = None,
    files: Callable[[], ProjectFiles] | None = None,
) -> Gate:
    """The service as an ASGI application; its lifespan ends when all that was accepted is done.

    Args:
        backend: What is served.
        settings: How.
        reload: Loads new tunings into the backend while it serves; M6RecError where it can't.
        statistics: Of the cache of states, for ``/metrics`` and ``/v1/status``.
        deployment: Reads which runs are served, and what was measured of them.
        files: Where the project's device folder and reports are now.

    Raises:
        ConfigError: The file of keys can't be used.
    """
    service = Service(backend, settings, reload, statistics)
    clients = ClientRoutes(backend, service.work, service.measurements)
    operator = OperatorRoutes(backend, service, statistics, deployment)
    project = ProjectRoutes(backend, service, files)

    traced = tracing.Tracing(settings.traces)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.work.close)
        await asyncio.to_thread(traced.close)

    app = FastAPI(
        title="m6rec",
        version="1",
        description="One pretrained language model as a whole recommender.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        telemetry=traced.config,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    problems: dict[int | str, dict[str, Any]] = {status: {"model": ErrorAnswer} for status in ERRORS}
    routes = APIRouter(route_class=_Route, responses=problems)
    streamed: dict[int | str, dict[str, Any]] = {200: {"model": ChatAnswer, "content": {"text/event-stream": {}}}}
    exported: dict[int | str, dict[str, Any]] = {200: {"content": {LINES: {"schema": {"type": "string"}}}}}
    plain: dict[str, Any] = {"response_model_exclude_none": True}
    table: tuple[tuple[Role, str, str, Callable[..., Any], dict[str, Any]], ...] = (
        ("read", "POST", "/v1/recommend", service.recommend, plain),
        ("read", "POST", "/v1/retrieve", service.retrieve, plain),
        ("read", "POST", "/v1/rank", service.rank, plain),
        ("read", "POST", "/v1/neighbours", service.neighbours, plain),
        ("read", "POST", "/v1/inspect", service.inspect, plain),
        ("read", "POST", "/v1/explain", service.explain, plain),
        ("read", "POST", "/v1/create", service.create, plain),
        ("write", "POST", "/v1/events", service.events, {"status_code": 201, **plain}),
        ("write", "POST", "/v1/items", service.items, plain),
        ("admin", "POST", "/v1/admin/reload", service.reload, plain),
        ("read", "POST", "/v1/rerank", clients.rerank, plain),
        ("read", "POST", "/v2/rerank", clients.rerank, {"name": "rerank_v2", **plain}),
        ("read", "POST", "/rerank", clients.rerank, {"name": "rerank_plain", **plain}),
        ("read", "POST", "/v1/embeddings", clients.embeddings, plain),
        ("read", "POST", "/v1/chat/completions", clients.chat, {"responses": streamed, **plain}),
        ("read", "GET", "/v1/models", clients.models, {}),
        ("read", "GET", "/v1/models/{id:path}", clients.model, {}),
        ("read", "GET", "/v1/items", service.find_items, {}),
        ("read", "GET", "/v1/users", service.find_users, {}),
        ("read", "GET", "/v1/items/{id:path}", service.get_item, plain),
        ("write", "DELETE", "/v1/items/{id:path}", service.delete, {}),
        ("write", "PUT", "/v1/users/{id:path}", service.put_user, {}),
        ("read", "GET", "/v1/users/{id:path}", service.get_user, {}),
        ("admin", "DELETE", "/v1/users/{id:path}", service.forget, {}),
        ("read", "GET", "/v1/status", operator.status, plain),
        ("read", "GET", "/v1/deployment", operator.deployment, plain),
        ("read", "GET", "/v1/report", project.report, {"responses": HTML_CONTENT, "response_class": Response}),
        (
            *("read", "GET", "/v1/reports/{name:path}", project.report_file),
            {"responses": HTML_CONTENT, "response_class": Response},
        ),
        ("read", "GET", "/v1/device", project.device, plain),
        ("read", "POST", "/v1/device/inputs", project.device_inputs, {}),
        (
            *("read", "GET", "/v1/device/{name}", project.device_file),
            {"responses": FILE_CONTENT, "response_class": Response},
        ),
        ("admin", "GET", "/v1/export/{kind}", operator.export, {"responses": exported, "response_class": Response}),
        ("read", "GET", "/metrics", service.metrics, {"response_class": Response}),
    )
    for role, method, path, answer, options in table:
        routes.add_api_route(path, answer, methods=[method], dependencies=[needs(role)], **options)
    app.include_router(routes)
    unready: dict[int | str, dict[str, Any]] = {503: {"model": ErrorAnswer}}
    app.add_api_route("/healthz", service.healthz, methods=["GET"], responses=unready)
    app.add_api_route("/readyz", service.readyz, methods=["GET"], responses=unready)
    app.add_api_route("/", page.index, methods=["GET"], include_in_schema=False)
    app.add_api_route("/page/{name:path}", page.asset, methods=["GET"], include_in_schema=False)
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
            tracing.tell({"request_id": request.scope["request_id"]})
            response: Response = await handle(_JsonRequest(request.scope, request.receive))
            return response

        return strict
