"""Two services on one journal and one store: how soon one sees what the other took in, and what a kill loses."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import parts
from benchmarks.setup import Claims, Setup
from m6rec.client import Client, ServiceError
from m6rec.errors import UnknownError
from m6rec.types import Event, Item
from tests import redis_server, shop

EVENTS, QUICK_EVENTS = 200, 60
PATIENCE_S = 10.0


def services(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module: each service is ``m6rec serve`` with a tiny model, the journal is a durable Valkey or Redis."""
    num = QUICK_EVENTS if setup.quick else EVENTS
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = shop.make(Path(name))
        server = redis_server.Server(folder / "redis", durable=True).start()
        stack.callback(server.stop)
        started = [stack.enter_context(shop.serving(folder, "--journal", server.url, store="store")) for _ in range(2)]
        (killed, first_url), (_, second_url) = started
        first, second = (stack.enter_context(Client(url)) for url in (first_url, second_url))
        parts.tell("visibility")
        seconds = sorted(_until_seen(first, second, number) for number in range(num))
        items_s = sorted(_until_item(first, second, number) for number in range(num // 4))
        parts.tell("kill")
        acknowledged = []
        for number in range(num):
            if number == num // 2:
                killed.kill()
            try:
                first.ingest([_event(f"k{number}")])
            except (ServiceError, OSError):
                break
            acknowledged.append(f"k{number}")
        time.sleep(1)
        lost = sum(not _seen(second, user) for user in acknowledged)
    results: dict[str, Any] = {
        "events": num,
        "seen after, ms": {
            "p50": 1_000 * median(seconds),
            "p99": 1_000 * seconds[int(0.99 * num)],
            "most": 1_000 * seconds[-1],
        },
        "items seen after, ms": {"p50": 1_000 * median(items_s), "most": 1_000 * items_s[-1]},
        "acknowledged by the one that was killed": len(acknowledged),
        "of these not seen by the other": lost,
    }
    claims: Claims = [
        ("ms until another service sees an event, p50", results["seen after, ms"]["p50"], "<=", 100),
        ("ms until another service sees an event, p99", results["seen after, ms"]["p99"], "<=", 100),
        ("ms until another service sees an item, most", 1_000 * items_s[-1], "<=", 1_000),
        ("acknowledged events that are lost where a service is killed", lost, "<=", 0),
    ]
    return results, claims


def _event(user: str) -> Event:
    return Event(user, "i3", 1_000, 1.0)


def _until_seen(first: Client, second: Client, number: int) -> float:
    """Seconds from the acknowledgement of an event by the first to where the second knows of it."""
    first.ingest([_event(f"v{number}")])
    return _until(lambda: _seen(second, f"v{number}"))


def _until_item(first: Client, second: Client, number: int) -> float:
    """Likewise of an item."""
    first.upsert([Item(f"new{number}", f"Film {number} of today")])
    return _until(lambda: _has(second, f"new{number}"))


def _until(is_there: Callable[[], bool]) -> float:
    start = time.perf_counter()
    while not is_there() and time.perf_counter() - start < PATIENCE_S:
        time.sleep(0.002)
    return time.perf_counter() - start


def _seen(client: Client, user: str) -> bool:
    try:
        return len(client.get_user(user)[1]) == 1
    except UnknownError:
        return False


def _has(client: Client, item: str) -> bool:
    try:
        client.get_item(item)
    except UnknownError:
        return False
    return True
