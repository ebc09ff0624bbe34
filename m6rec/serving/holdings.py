"""What a recommender holds, and the long work that is going on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True, eq=False)
class RunningTask:
    """Long work that is going on.

    Attributes:
        name: What it is, such as "read items".
        total: Parts of it.
        done: … that are done.
        began: When it began, in seconds since 1970.
    """

    name: str
    total: int
    done: int = 0
    began: float = field(default_factory=time.time)

    @property
    def eta_s(self) -> float | None:
        """Seconds that it takes from now on, if it goes on at its pace; None before the first part is done."""
        return (self.total - self.done) * (time.time() - self.began) / self.done if self.done else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdings:
    """What a recommender holds, and how fresh it is. Times are in seconds since 1970.

    Attributes:
        num_items: Items of the catalogue.
        num_indexed: … that can be retrieved.
        num_users: Users.
        num_events: Events.
        num_new_events: … that came in since the log was prepared: nothing was tuned on them.
        index_changed: When the index of items changed last.
        events_changed: When the last event was stored; None if none was since the start.
        tasks: Long work that is going on.
    """

    num_items: int
    num_indexed: int
    num_users: int
    num_events: int
    num_new_events: int
    index_changed: float
    events_changed: float | None
    tasks: tuple[RunningTask, ...] = ()
