"""The page at /: files that ``make web`` builds from ``web/page``, under a strict policy.

It holds no data: what it shows it asks of the same routes as any other client, with the key that is typed into it.
"""

from __future__ import annotations

import asyncio
import gzip
from functools import lru_cache
from pathlib import Path

from fastapi import Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parents[1] / "page"
UNBUILT = (
    "This is m6rec serve. Its page is not built; in a checkout `make web` builds it, and `pip install` of a release "
    "brings it along.\nThe HTTP API is at /v1; /openapi.json describes it.\n"
)


def _policy(**sources: str) -> str:
    """The page's policy, some of whose sources are others."""
    allowed = {"script_src": "'self'", "style_src": "'self'", "img_src": "'self'", "connect_src": "'self'"} | sources
    return "; ".join(
        (
            "default-src 'none'",
            *(f"{name.replace('_', '-')} {source}" for name, source in allowed.items()),
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types m6rec",
        )
    )


HEADERS = {
    "Content-Security-Policy": _policy(),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
OTHER_POLICIES = {
    # A report brings its own styles; it is shown in a frame that runs nothing.
    "report.html": _policy(style_src="'self' 'unsafe-inline'", img_src="'self' data:"),
    # The worker that ranks runs WebAssembly; the page itself may not.
    "device/worker.js": _policy(script_src="'self' 'wasm-unsafe-eval'"),
}
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
"""Whatever the tables of the machine say: browsers run scripts and WebAssembly of these types alone."""


def is_page(path: str) -> bool:
    """Whether a path is the page's own, which needs no key."""
    return path == "/" or path.startswith("/page/")


async def index(request: Request) -> Response:
    """The page, or how to build it."""
    if not (FOLDER / "index.html").is_file():
        return PlainTextResponse(UNBUILT, headers=HEADERS)
    return await asset(request, "index.html")


async def asset(request: Request, name: str) -> Response:
    """A file of the page, compressed; 304 where the browser has it already. 404 where there is none."""
    known = {file.relative_to(FOLDER).as_posix(): file for file in FOLDER.rglob("*") if file.suffix in TYPES}
    if name not in known:
        raise HTTPException(404, "the page has no such file")
    file, changed = known[name], known[name].stat().st_mtime_ns
    headers = HEADERS | {"ETag": f'W/"{changed:x}"', "Vary": "Accept-Encoding"}
    headers["Content-Security-Policy"] = OTHER_POLICIES.get(name, HEADERS["Content-Security-Policy"])
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return FileResponse(file, headers=headers, media_type=TYPES[file.suffix])
    packed = await asyncio.to_thread(_packed, file, changed)
    return Response(packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=TYPES[file.suffix])


@lru_cache(maxsize=32)
def _packed(file: Path, changed: int) -> bytes:
    """The file as gzip, once for each time that it changed."""
    return gzip.compress(file.read_bytes(), mtime=0)
