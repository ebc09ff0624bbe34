"""Routes for what lies in the project: a device folder and what is ranked by it, and reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import Header, Path
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import BaseModel, Field

from m6rec.errors import AssetError
from m6rec.serving.api import page
from m6rec.serving.api.routes import Service
from m6rec.serving.api.schema import DeviceInputsBody
from m6rec.serving.backend import LocalBackend, RankingInputs
from m6rec.serving.batching import Kind
from m6rec.serving.project_files import ProjectFiles

BYTES = "application/octet-stream"
DEVICE_HEADERS = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
REPORT_HEADERS = page.HEADERS | {
    # A report runs nothing and fetches nothing, whoever wrote it; its styles are its own.
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "private, no-store",
}


class DeviceAnswer(BaseModel):
    """The project's device folder."""

    num_bytes: Annotated[int | None, Field(description="Of its files; absent where the project has none.")] = None
    dtype: Annotated[str | None, Field(description="Of its large weights.")] = None
    problem: Annotated[str | None, Field(description="Why it can't be used; absent if it can.")] = None


class ProjectRoutes:
    """The routes, and what they read.

    Args:
        backend: What is served.
        service: Its queues.
        files: Where the project's files are now; None where they are nowhere.
    """

    def __init__(self, backend: LocalBackend, service: Service, files: Callable[[], ProjectFiles] | None) -> None:
        self._work, self._drawing = service.work, asyncio.Lock()
        self._files = files or (lambda: ProjectFiles(device=None, reports=None, runs=()))

        def ranking_inputs(bodies: Sequence[DeviceInputsBody]) -> list[RankingInputs]:
            return [backend.ranking_inputs(body.request()) for body in bodies]

        self._ranking_inputs = Kind("ranking_inputs", ranking_inputs)

    async def device(self) -> DeviceAnswer:
        """Whether the project has a device folder, which a browser can rank by."""
        try:
            manifest = await asyncio.to_thread(self._files().manifest)
        except AssetError as error:
            return DeviceAnswer(problem=str(error))
        if manifest is None:
            return DeviceAnswer()
        num_bytes = sum(int(facts["bytes"]) for facts in manifest.files.values())
        return DeviceAnswer(num_bytes=num_bytes, dtype=manifest.dtype)

    async def device_file(
        self,
        name: Annotated[str, Path(max_length=64)],
        known: Annotated[str | None, Header(alias="If-None-Match", max_length=200)] = None,
    ) -> Response:
        """A file of the device folder: `manifest.json`, or one that it lists, whose ETag is its sha256."""
        file, sha256 = await asyncio.to_thread(self._files().device_file, name)
        headers = DEVICE_HEADERS | ({"ETag": f'"{sha256}"'} if sha256 else {})
        if sha256 and known == f'"{sha256}"':
            return Response(status_code=304, headers=headers)
        return FileResponse(file, headers=headers, media_type=BYTES)

    async def device_inputs(self, body: DeviceInputsBody) -> RankingInputs:
        """What a device needs to rank the recommendations of a user by itself: candidates, texts and features.

        Ranked by a device folder of the served run, they have the order of `/v1/recommend`.
        """
        return (await self._work.do(self._work.model, self._ranking_inputs, body)).value

    async def report(self) -> Response:
        """A report of the served runs as HTML: their learning curves, and what was measured of them."""
        async with self._drawing:  # it takes a core for a second
            return HTMLResponse(await asyncio.to_thread(self._files().report_of_runs), headers=REPORT_HEADERS)

    async def report_file(self, name: Annotated[str, Path(max_length=200)]) -> Response:
        """A report of the project as HTML, by its name in `/v1/deployment`."""
        file = await asyncio.to_thread(self._files().report, name)
        return FileResponse(file, headers=REPORT_HEADERS, media_type="text/html")


FILE_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "The file is as it was."},
}
HTML_CONTENT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
