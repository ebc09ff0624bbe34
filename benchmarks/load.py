"""Open-loop load on ``m6rec serve``: requests come when they come, whether or not earlier ones are answered.

The client runs on the same cores as the service. A request asks for ten recommendations for a random user of the log:
retrieval over all items, ranking of 100, one page. Latency counts from the moment at which the request was due.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np

from benchmarks.setup import Claims, Setup, rss_mib
from m6rec.domains import prepared

TIMEOUT_S = 30
Answers = list[tuple[int, float]]
"""(status, seconds) of each request; status 0 where there was no answer."""


def _client(url: str) -> aiohttp.ClientSession:
    """A client that costs little: httpx takes 6 ms a request with many connections, of the service's own two cores."""
    return aiohttp.ClientSession(
        url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
    )


async def _one(client: aiohttp.ClientSession, user: str, due: float) -> tuple[int, float]:
    try:
        async with client.post("/v1/recommend", json={"user": user}) as response:
            await response.read()
            status = response.status
    except (aiohttp.ClientError, TimeoutError):
        status = 0
    return status, time.perf_counter() - due


async def _capacity(url: str, users: Sequence[str], seconds: float) -> float:
    """Answers a second with eight clients that each wait for their answer."""
    done, until = 0, time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal done
        rng = np.random.default_rng(number)
        async with _client(url) as http:
            while time.perf_counter() < until:
                status, _ = await _one(http, users[int(rng.integers(len(users)))], 0)
                done += status == 200

    start = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(8)))
    return done / (time.perf_counter() - start)


async def _warm(url: str, users: Sequence[str]) -> None:
    """Asks for every user once, so that their states and neighbours are known, as those of a busy service are."""
    async with _client(url) as http:
        for user in users:
            await _one(http, user, 0)


async def _open_loop(url: str, users: Sequence[str], rate: float, seconds: float, seed: int) -> Answers:
    """Requests at random moments (a Poisson process) of so many a second."""
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))
    tasks = []
    async with _client(url) as http:
        start = time.perf_counter()
        for moment in due:
            await asyncio.sleep(max(0, start + moment - time.perf_counter()))
            tasks.append(asyncio.create_task(_one(http, users[int(rng.integers(len(users)))], start + moment)))
        return list(await asyncio.gather(*tasks))


async def _watched(load: Awaitable[Answers], pid: int, seconds: float) -> tuple[Answers, list[float]]:
    """The answers, and the memory of the service in MiB ten times during the load."""
    task, memory = asyncio.ensure_future(load), []
    for _ in range(10):
        await asyncio.sleep(seconds / 10)
        memory.append(rss_mib(pid))
    return await task, memory


def _summary(answers: Answers) -> dict[str, Any]:
    accepted = 1_000 * np.array([seconds for status, seconds in answers if status == 200])
    refused = 1_000 * np.array([seconds for status, seconds in answers if status == 429])
    return {
        "requests": len(answers),
        "statuses": {str(code): sum(status == code for status, _ in answers) for code in {s for s, _ in answers}},
        "p50_ms": float(np.median(accepted)),
        "p99_ms": float(np.quantile(accepted, 0.99)),
        "refused_p99_ms": float(np.quantile(refused, 0.99)) if len(refused) else 0.0,
    }


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    users = list(prepared.load(setup.data).split.log.users)
    with TemporaryDirectory() as folder, setup.serving(Path(folder)) as (child, url, lines):
        asyncio.run(_warm(url, users))
        capacity = asyncio.run(_capacity(url, users, 10 if setup.quick else 30))
        before, seconds = rss_mib(child.pid), 20 if setup.quick else 300
        load = _open_loop(url, users, 0.8 * capacity, seconds, 0)
        answers, memory = asyncio.run(_watched(load, child.pid, seconds))
        steady = _summary(answers)
        begun = len(lines)
        over = _summary(asyncio.run(_open_loop(url, users, 3 * capacity, 10 if setup.quick else 60, 1)))
        end = rss_mib(child.pid)
        logged = [json.loads(line) for line in lines[begun:] if '"status": 429' in line]
    over["refused_p99_ms_in_the_service"] = float(np.quantile([line["ms"] for line in logged], 0.99)) if logged else 0.0
    errors = steady["requests"] - steady["statuses"].get("200", 0)
    odd = over["requests"] - sum(over["statuses"].get(code, 0) for code in ("200", "429"))
    results = {
        "capacity_a_second": capacity,
        "at 80 %": steady,
        "at 300 %": over,
        "memory_mib": {"before": before, "at 80 %": memory, "after 300 %": end},
    }
    accepted = over["p99_ms"] / steady["p99_ms"]
    claims: Claims = [
        ("load at 80 %: p99 as a multiple of p50", steady["p99_ms"] / steady["p50_ms"], "<=", 3),
        ("load at 80 %: requests without an answer", errors, "<=", 0),
        ("load at 80 %: memory at the end as a multiple of that after a tenth", memory[-1] / memory[0], "<=", 1.05),
        (
            "load at 300 %: p99 of the accepted as a multiple of that at 80 %",
            accepted,
            "<=",
            2,
        ),
        ("load at 300 %: answers other than 200 and 429", odd, "<=", 0),
        ("load at 300 %: p99 of refusals in ms, by the client's clock", over["refused_p99_ms"], "<=", 50),
        (
            "load at 300 %: p99 of refusals in ms, by the service's clock",
            over["refused_p99_ms_in_the_service"],
            "<=",
            50,
        ),
    ]
    return {"results": results}, claims
