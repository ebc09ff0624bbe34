"""Two services on one journal and one store: how soon one sees what the other took in, and what a kill loses.

Their throughput beside that of one is not measured: on two cores the services, nginx, the server of events and the
client would share what each needs alone. Behind the balancer, requests come at a fixed rate below capacity.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import parts
from benchmarks.setup import Claims, Setup
from m6rec.client import Client, ServiceError
from m6rec.errors import UnknownError
from m6rec.types import Event, Item
from tests import redis_server, running, shop

EVENTS, QUICK_EVENTS = 200, 60
PATIENCE_S = 10.0
RATE, KILL_S, QUICK_KILL_S = 20.0, 20.0, 8.0
"""Requests a second through the balancer, and for how long; a service is killed in the middle."""


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


def balanced(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """``scripts/services.sh``: two services behind nginx, of which one is killed under load."""
    num = (QUICK_EVENTS if setup.quick else EVENTS) // 2
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = shop.make(Path(name))
        client = stack.enter_context(Client(stack.enter_context(_script(folder)), retries=0))
        parts.tell("visibility")
        # The balancer gives the write and each look to either service.
        seconds = sorted(_until_seen(client, client, number) for number in range(num))
        items_s = sorted(_until_item(client, client, number) for number in range(num // 4))
        parts.tell("late and repeated events")
        late = [Event("late", f"i{n}", 1_000 - n, 1.0, id=f"l{n}") for n in range(5)]
        repeated = sum(client.ingest([late[n]]).repeated for n in (3, 0, 4, 3, 1, 2, 0, 4))
        time.sleep(1)
        wrong = sum(client.get_user("late")[1] != late[::-1] for _ in range(6))
        parts.tell("kill")
        pid = int((folder / "services" / "service-1.pid").read_text())
        outcomes, acknowledged = _killing(client, pid, QUICK_KILL_S if setup.quick else KILL_S)
        time.sleep(1)
        lost = sum(not _seen(client, user) for user in acknowledged)
    failed = [at for at, is_answered in outcomes if not is_answered]
    failing_s = max(failed) - min(failed) if failed else 0.0
    results = {
        "requests": len(outcomes),
        "failed": len(failed),
        "s from the first failure to the last": failing_s,
        "acknowledged": len(acknowledged),
        "of these lost": lost,
        "seen through the balancer after, ms": {"p50": 1_000 * median(seconds), "most": 1_000 * seconds[-1]},
        "items seen after, ms": {"p50": 1_000 * median(items_s), "most": 1_000 * items_s[-1]},
    }
    claims: Claims = [
        ("share of requests that fail where a service is killed", len(failed) / len(outcomes), "<=", 0.01),
        ("s in which these fail", failing_s, "<=", 2),
        ("acknowledged events that are lost behind the balancer", lost, "<=", 0),
        ("events sent again that count again, of 3", 3 - repeated, "<=", 0),
        ("looks at a history of late and repeated events that differ, of 6", wrong, "<=", 0),
        ("ms until an event is seen through the balancer, most", 1_000 * seconds[-1], "<=", 100),
        ("ms until an item is seen through the balancer, most", 1_000 * items_s[-1], "<=", 1_000),
    ]
    return results, claims


def _killing(client: Client, pid: int, duration_s: float) -> tuple[list[tuple[float, bool]], list[str]]:
    """(when each request was sent and whether it was answered, users of acknowledged events); one service is killed."""
    outcomes: list[tuple[float, bool]] = []
    acknowledged = []
    is_killed = False
    began = time.perf_counter()
    while (now := time.perf_counter() - began) < duration_s:
        if now > duration_s / 2 and not is_killed:
            os.kill(pid, signal.SIGKILL)
            is_killed = True
        user = f"k{len(outcomes)}"
        try:
            if len(outcomes) % 2:
                client.recommend("u1", 3)
            else:
                client.ingest([_event(user)])
                acknowledged.append(user)
            outcomes.append((now, True))
        except (ServiceError, OSError):
            outcomes.append((now, False))
        time.sleep(max(0.0, len(outcomes) / RATE - (time.perf_counter() - began)))
    return outcomes, acknowledged


@contextmanager
def _script(folder: Path) -> Iterator[str]:
    """The URL of ``scripts/services.sh`` with the shop in this folder."""
    words = "--data data --retrieve retrieve --rank click --store store --dtype float32".split()
    command = [str(running.ROOT / "scripts" / "services.sh"), str(_free_ports(4)), "services", *words]
    environment = shop.environment(folder) | {"PYTHON": sys.executable}
    script = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert script.stdout is not None
        if not (told := script.stdout.readline()):
            raise RuntimeError("the services didn't start; what is above tells why")
        yield told.split()[-1]
    finally:
        script.terminate()
        script.wait(60)


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nothing listens at."""
    while True:
        first = running.free_port()
        if all(_is_free(port) for port in range(first, first + count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return port < 65_536 and probe.connect_ex(("127.0.0.1", port)) != 0


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
