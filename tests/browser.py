"""m6rec-web in a real browser: the packages are built, its folders are served, and Chromium opens a page of them."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from m6rec.serving.api.page import FOLDER
from m6rec.types import Event

WEB = Path(__file__).parents[1] / "web"
CONTRACT = WEB.parent / "tests" / "golden" / "openapi.json"
BUILT = FOLDER / "index.html"  # written last
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
"""A browser that asks nobody anything by itself."""


def need() -> str:
    """The browser's program; skips the test, by name, where something is absent that ``make web`` installs."""
    pytest.importorskip("playwright", reason="Playwright is not installed")
    found = [path for name in CHROMIUM if (path := shutil.which(name))]
    absent = [*([] if found else ["Chromium"]), *([] if shutil.which("node") else ["node"])]
    if not (WEB / "node_modules").is_dir():
        absent.append("web/node_modules")
    if absent:
        pytest.skip(f"m6rec-web is not tested: there is no {', no '.join(absent)}; make web installs what is needed")
    return found[0]


@cache
def build() -> None:
    """Builds the packages and the service's page as they are now, unless another process just did."""
    sources = [file for place in ("src", "demo", "page", "client/src") for file in (WEB / place).iterdir()]
    sources += [WEB / "build.mjs", CONTRACT]
    with FileLock(WEB / "node_modules" / ".build.lock"):
        if BUILT.is_file() and BUILT.stat().st_mtime > max(file.stat().st_mtime for file in sources):
            return
        done = subprocess.run(["npm", "run", "-s", "build"], cwd=WEB, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser, each context of which is a fresh user."""
    program = need()
    build()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield browser
        browser.close()


def plain(events: Sequence[Event]) -> list[dict[str, object]]:
    """Events as a page takes them."""
    return [{"item": one.item, "time": one.time, "value": one.value} for one in events]


class Server:
    """``serve.mjs`` as a process. Prefixes other than those of the page, "/" and "/blank/", are device folders."""

    def __init__(self, blank: Path, **folders: Path) -> None:
        blank.mkdir()
        (blank / "index.html").write_text("<!doctype html><title>blank</title><link rel=icon href='data:,'>")
        pairs = {"": WEB / "dist" / "page", "blank/": blank} | {f"{name}/": path for name, path in folders.items()}
        words = [f"/{prefix}={folder}" for prefix, folder in pairs.items()]
        command = ["node", str(WEB / "serve.mjs"), "--port", "0", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def stop(self) -> None:
        """Ends it; a page has no network from here on."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


class Phone:
    """A page that runs a device folder.

    Args:
        context: Of Playwright; the page is a new one of it.
        url: Of the server.

    Attributes:
        requests: URLs of all that the page asked for.
    """

    def __init__(self, context: Any, url: str) -> None:
        self.page, self.url = context.new_page(), url
        self.requests: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{url}blank/")

    def load(self, folder: str = "/phone/", **options: object) -> "Phone":
        self.page.evaluate(
            """async ([folder, options]) => {
                const { Device } = await import("/m6rec.js");
                globalThis.device = await Device.load(folder, options);
            }""",
            [folder, options],
        )
        return self

    def receive(self, bundle: Path) -> None:
        self.page.evaluate("bytes => device.receive(Uint8Array.from(bytes))", list(bundle.read_bytes()))

    def ingest(self, events: Sequence[Event]) -> None:
        self.page.evaluate("events => device.ingest(...events)", plain(events))

    def rank(self, items: Sequence[str]) -> dict[str, float]:
        """Scores by item, the highest first."""
        ranked = self.page.evaluate("items => device.rank(items)", list(items))
        return {one["item"]["id"]: one["score"] for one in ranked}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.page.evaluate("texts => texts.map((text) => device.encode(text))", list(texts))
        return ids
