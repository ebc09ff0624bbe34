"""The point-in-time join of a log with itself: when an event is queried and when it updates the features.

A query knows nothing that happens at its own timestamp. All events of one second, of any user, are queried before any
of them updates the features, and so are all events of an impression, which were decided on together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from m6rec.types import Event


@dataclass(frozen=True, slots=True)
class TimeGroup:
    """A step in the replay of a log.

    Attributes:
        queries: Positions of the events to query first, ascending.
        events: Positions of the events that then update the features.
    """

    queries: list[int]
    events: list[int]


def time_groups(events: Sequence[Event]) -> Iterator[TimeGroup]:
    """Replays a log; every event is queried in one group and updates the features in the same or a later one.

    Events without a time (0) are groups of their own, in the order of the log, unless they share an impression.

    Args:
        events: In order of time.
    """
    impressions: dict[tuple[str, str], list[int]] = {}
    times: list[int] = []
    for position, event in enumerate(events):
        times.append(event.time)
        if event.impression:
            impressions.setdefault((event.user, event.impression), []).append(position)
    together = {position: of for of in impressions.values() for position in of}
    asked_before: set[int] = set()
    begin = 0
    while begin < len(times):
        end = begin + 1
        while times[begin] and end < len(times) and times[end] == times[begin]:
            end += 1
        observed = list(range(begin, end))
        asked = {at for position in observed for at in together.get(position, (position,))}
        if together:
            asked -= asked_before
            asked_before |= asked
        yield TimeGroup(sorted(asked), observed)
        begin = end


def num_known(events: Sequence[Event]) -> list[int]:
    """For each event, the number of earlier events of its user when it is queried."""
    known = [0] * len(events)
    so_far: dict[str, int] = {}
    users = [event.user for event in events]
    for group in time_groups(events):
        for position in group.queries:
            known[position] = so_far.get(users[position], 0)
        for position in group.events:
            so_far[users[position]] = so_far.get(users[position], 0) + 1
    return known


def repeats(events: Sequence[Event], judged: Callable[[Event], bool]) -> set[int]:
    """Positions of events whose user had given feedback on the item before.

    Args:
        events: In order of time.
        judged: Whether an event is positive or negative, more than a view.
    """
    events = list(events)
    found: set[int] = set()
    met: set[tuple[str, str]] = set()
    for group in time_groups(events):
        found.update(position for position in group.queries if (events[position].user, events[position].item) in met)
        met.update((event.user, event.item) for event in (events[at] for at in group.events) if judged(event))
    return found
