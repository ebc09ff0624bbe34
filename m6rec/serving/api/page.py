"""The page at /: files that ``make web`` builds from ``web/page``, under a strict policy.

It holds no data: what it shows it asks of the same routes as any other client, with the key that is typed into it.
"""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parents[1] / "page"
UNBUILT = (
    "This is m6rec serve. Its page is not built; in a checkout `make web` builds it, and `pip install` of a release "
    "brings it along.\nThe HTTP API is at /v1; /openapi.json describes it.\n"
)
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def is_page(path: str) -> bool:
    """Whether a path is the page's own, which needs no key."""
    return path == "/" or path.startswith("/page/")


async def index() -> Response:
    """The page, or how to build it."""
    file = FOLDER / "index.html"
    return FileResponse(file, headers=HEADERS) if file.is_file() else PlainTextResponse(UNBUILT, headers=HEADERS)


async def asset(name: str) -> Response:
    """A file of the page. 404 where there is none."""
    known = {file.name: file for file in FOLDER.iterdir()} if FOLDER.is_dir() else {}
    if name not in known:
        raise HTTPException(404, "the page has no such file")
    return FileResponse(known[name], headers=HEADERS)
