"""What the page of ``m6rec serve`` costs and whom it fits: ``make bench-page``.

Parts, each of which can be run alone (``--part``):

- paint: cold loads of each view at 390 and 1 280 px over loopback, the processor throttled to a quarter as DevTools
  does it: when something is seen first, and when the view's own content is;
- bundle: what the page loads, gzipped, without the runtime that ranks in the page;
- axe: violations of the rules of axe in every view, at both widths, light and dark, English and Chinese.

The page is served over a recommender of a tiny model (``tests.visits``), beside which a real one would only delay the
content, not what is seen first. ``QUICK=1`` loads each view twice and writes to ``runs/bench``.
"""

from __future__ import annotations

import gzip
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import parts
from benchmarks.setup import Claims, Setup
from m6rec.evaluation.report import Row, Table
from m6rec.serving.api.page import FOLDER
from tests import browser, running, visits

LOADS = 5
SLOWER = 4
WIDTHS = (390, 1280)
VIEWS = {"person": ".card", "item/i4": ".both .lines li", "chat": ".conversation", "operator": "#traffic ~ .wide tr"}
"""By the address within the page, its own content."""
_WATCH = """(content) => {
    new MutationObserver((_, watch) => {
        if (!document.querySelector(content)) return;
        globalThis.contentMs = performance.now();
        watch.disconnect();
    }).observe(document, { childList: true, subtree: true });
}"""


@contextmanager
def served() -> Iterator[tuple[Any, str]]:
    """(a browser, the URL of a service)."""
    backend = visits.recommender()
    service = running.service(backend, deadline_s=60.0, statistics=backend.cache_statistics)
    with service as url, browser.chromium() as chromium:
        yield chromium, url


def paint(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """First paint and content of cold loads, in ms."""
    rows, worst_ms = [], 0.0
    with served() as (chromium, url):
        for view, content in VIEWS.items():
            for width in WIDTHS:
                loads = [_load(chromium, f"{url}/#/{view}", width, content) for _ in range(2 if setup.quick else LOADS)]
                first, whole = (sorted(times) for times in zip(*loads, strict=True))
                worst_ms = max(worst_ms, first[-1])
                metrics = {"first paint, median": first, "first paint, worst": first, "content, median": whole}
                values = {
                    name: (max(times) if "worst" in name else statistics.median(times),)
                    for name, times in metrics.items()
                }
                rows.append(Row(method=f"{view}, {width} px", metrics=values))
    table = Table(title=f"ms at {SLOWER}× throttling", metric="first paint, median", rows=tuple(rows))
    return {"loads": len(loads), "tables": (table,)}, [
        (f"first paint at {SLOWER}x throttling, worst load of any view, ms", worst_ms, "<=", 1000)
    ]


def _load(chromium: Any, url: str, width: int, content: str) -> tuple[float, float]:
    """(first contentful paint, content of the view) of a load by a browser that has nothing of the page, in ms."""
    context = chromium.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    page.add_init_script(f"({_WATCH})({content!r})")
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    page.goto(url)
    whole_ms = float(page.wait_for_function("() => globalThis.contentMs").json_value())
    first_ms = float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    context.close()
    return first_ms, whole_ms


def bundle(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """What the page loads, gzipped, and what it loads to rank by itself."""
    browser.build()
    own, runtime = (
        {file.name: len(gzip.compress(file.read_bytes())) for file in sorted(folder.iterdir()) if file.is_file()}
        for folder in (FOLDER, FOLDER / "device")
    )
    claims: Claims = [("all files of the page, gzipped, bytes", sum(own.values()), "<=", 300_000)]
    return {"gzipped_bytes": own, "gzipped_bytes_of_runtime": runtime}, claims


def axe(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Violations by view, width, scheme and language."""
    found: dict[str, list[str]] = {}
    looks = 0
    with served() as (chromium, url):
        for view, content in VIEWS.items():
            for screen in visits.ALL_SCREENS:
                page, _, _ = visits.visit(chromium, f"{url}/#/{view}", screen)
                for language in ("en", "zh"):
                    page.locator(".choices select").last.select_option(language)
                    page.locator(content).first.wait_for()
                    if violations := visits.violations(page):
                        found[f"{view}, {screen}, {language}"] = [rule for rule, _ in violations]
                    looks += 1
                page.context.close()
    count = sum(map(len, found.values()))
    return {"looks": looks, "violations": found}, [(f"axe violations in {looks} looks", count, "<=", 0)]


TITLE = "The page"
PARTS: dict[str, parts.Measure] = {"paint": paint, "bundle": bundle, "axe": axe}

if __name__ == "__main__":
    parts.run("page", TITLE, PARTS)
