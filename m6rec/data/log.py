"""A log: behaviours in the order of time, over items and users."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from m6rec.types import Event, Item, User

_REPEATS = "events: an earlier one has the same user, item and time"


@dataclass(frozen=True, repr=False)
class Log:
    """Behaviours in the order of time, over items and users.

    Attributes:
        events: Sorted by time; events of one time keep the order of the file.
        items: By id, in the order of the table; also those without events.
        users: By id.
        dropped: What was left out when reading, by reason.
    """

    events: tuple[Event, ...]
    items: Mapping[str, Item]
    users: Mapping[str, User]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = f"{len(self.events)} events, {len(self.items)} items, {len(self.users)} users"
        return f"Log({counts}, {sum(self.dropped.values())} dropped)"


def without_repeats(log: Log) -> Log:
    """The log with the first event only of each user, item and time; the others are counted in ``dropped``."""
    first = {(event.user, event.item, event.time): event for event in reversed(log.events)}
    kept = tuple(event for event in log.events if first[event.user, event.item, event.time] is event)
    repeats = len(log.events) - len(kept)
    return replace(log, events=kept, dropped={**log.dropped, _REPEATS: repeats}) if repeats else log
