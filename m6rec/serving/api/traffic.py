"""The latest requests as an operator sees them: counts and times by route, and what went wrong. Bounded, in memory."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

import numpy as np

NUM_TIMED = 1_000
"""Requests of a route whose times percentiles are taken of, the latest."""
NUM_FAULTS = 50
"""Requests that are remembered of those refused (4xx), and of those that failed (5xx), the latest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultyRequest:
    """A request that was refused or failed. It holds nothing that users wrote: what was wrong is in the answer.

    Attributes:
        time: When it ended, in seconds since 1970.
        request_id: Its id, which the answer and the log have, too.
        method: Of HTTP.
        route: The pattern of its route.
        status: Of the answer.
        type: What kind of error, as in the answer.
    """

    time: float
    request_id: str
    method: str
    route: str
    status: int
    type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteTraffic:
    """The requests of one route since the start.

    Attributes:
        route: Its pattern.
        requests: All of them.
        refused: … that were answered with 4xx.
        failed: … that were answered with 5xx.
        p50_ms: Half of the latest ``NUM_TIMED`` took no longer.
        p99_ms: 99 of 100 took no longer.
    """

    route: str
    requests: int
    refused: int
    failed: int
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class _Counts:
    requests: int = 0
    refused: int = 0
    failed: int = 0
    latest_s: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_TIMED))


class Traffic:
    """Counts of requests, filled by the event loop alone.

    Attributes:
        running: Requests that are being answered.
    """

    def __init__(self) -> None:
        self.running = 0
        self._routes: defaultdict[str, _Counts] = defaultdict(_Counts)
        self._refused: deque[FaultyRequest] = deque(maxlen=NUM_FAULTS)
        self._failed: deque[FaultyRequest] = deque(maxlen=NUM_FAULTS)

    def add(self, route: str, method: str, status: int, seconds: float, request_id: str, kind: str) -> None:
        """Takes in a request; ``kind`` is the type of its error, "" without one."""
        counts = self._routes[route]
        counts.requests += 1
        counts.latest_s.append(seconds)
        if not kind:
            return
        fault = FaultyRequest(
            time=time.time(), request_id=request_id, method=method, route=route, status=status, type=kind
        )
        if status < 500 and kind != "internal":  # a stream that fails has its status out already
            counts.refused += 1
            self._refused.append(fault)
        else:
            counts.failed += 1
            self._failed.append(fault)

    def routes(self) -> list[RouteTraffic]:
        """Every route that was asked, the busiest first."""
        found = []
        for route, counts in self._routes.items():
            p50_s, p99_s = np.percentile(counts.latest_s, (50, 99))
            found.append(
                RouteTraffic(
                    route=route,
                    requests=counts.requests,
                    refused=counts.refused,
                    failed=counts.failed,
                    p50_ms=round(1e3 * float(p50_s), 3),
                    p99_ms=round(1e3 * float(p99_s), 3),
                )
            )
        return sorted(found, key=lambda one: (-one.requests, one.route))

    def faults(self) -> list[FaultyRequest]:
        """The latest that were refused or failed, the latest first."""
        return sorted((*self._refused, *self._failed), key=lambda one: -one.time)
