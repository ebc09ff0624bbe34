"""How many requests one API key may send."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class RateLimit:
    """A token bucket per key, kept as the time at which it is full again (GCRA, the generic cell rate algorithm).

    Args:
        per_s: Requests per second of a key; 0 for no limit.
        burst: Requests that a key may send at once after a pause.
        clock: Seconds, monotonic.
    """

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._full_at: dict[object, float] = {}

    def wait_s(self, key: object) -> int:
        """Takes one request of a known key and returns 0, or takes none and returns the seconds until the next."""
        if not self._per_s:
            return 0
        now, interval = self._clock(), 1 / self._per_s
        full_at = max(self._full_at.get(key, now), now) + interval
        too_early = full_at - now - self._burst * interval
        if too_early > 1e-9:
            return math.ceil(too_early)
        self._full_at[key] = full_at
        return 0
