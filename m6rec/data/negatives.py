"""Negatives of a log that has none: items that a user was not seen to want, drawn beside each positive event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from m6rec.data.examples import TimeGroup
from m6rec.errors import ConfigError
from m6rec.types import Event

Source = Literal["popularity", "uniform", "in-batch", "impression"]
BATCH = 256
"""Positive events, the latest of other users, that "in-batch" draws from."""
_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """How negatives are drawn; seeded, point in time, and never an item that the user wants at any time.

    Attributes:
        source: "popularity" draws an earlier positive event and takes its item, so that items are drawn as often as
            they are wanted; "uniform" draws among the items that were met before; "in-batch" among the items of the
            latest positive events of others; "impression" draws nothing, but takes what was shown beside a positive
            event, and was neither wanted nor rejected, as negative.
        count: For each positive event.
        seed: Of the draws.
    """

    source: Source = "popularity"
    count: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ConfigError(f"negatives from {self.source!r} are unknown; choose {', '.join(get_args(Source))}")
        if self.count < 1:
            raise ConfigError(f"{self.count} negatives of each positive event; give at least 1")

    def describe(self) -> str:
        """In words, for a report."""
        if self.source == "impression":
            return "what was shown beside a positive event of the same impression"
        return f"{self.count} of each positive event, drawn by {self.source} (seed {self.seed})"


class Sampler:
    """Draws the negatives of a log that is walked through moment by moment.

    Args:
        negatives: How.
        events: The log in order of time.
        positive: Whether an event is positive, by its position.
    """

    def __init__(self, negatives: Negatives, events: Sequence[Event], positive: Callable[[int], bool]) -> None:
        self._config, self._events, self._positive = negatives, events, positive
        self._wanted: dict[str, set[str]] = {}
        self._users: list[str] = []
        self._pool: list[str] = []  # items of positive events so far; for "uniform" the items met so far, once each
        self._met: set[str] = set()
        for position, event in enumerate(events):
            if positive(position):
                self._wanted.setdefault(event.user, set()).add(event.item)

    def draw(self, position: int) -> list[str]:
        """Ids of different items beside the positive event at this position; fewer where there are no more."""
        user = self._events[position].user
        wanted, pool = self._wanted.get(user, set()), self._pool
        first = max(0, len(pool) - BATCH) if self._config.source == "in-batch" else 0
        if first == len(pool):
            return []
        rng = np.random.default_rng([self._config.seed, position])
        found: dict[str, None] = {}
        for number in rng.integers(first, len(pool), size=_TRIES * self._config.count).tolist():
            if pool[number] not in wanted and not (first and self._users[number] == user):
                found[pool[number]] = None
            if len(found) == self._config.count:
                break
        return list(found)

    def update(self, group: TimeGroup) -> None:
        """Takes in what happened at a moment; later draws may take it."""
        for position in group.events:
            event = self._events[position]
            if self._config.source == "uniform":
                if event.item and event.item not in self._met:
                    self._met.add(event.item)
                    self._pool.append(event.item)
                    self._users.append("")
            elif self._positive(position):
                self._pool.append(event.item)
                self._users.append(event.user)
