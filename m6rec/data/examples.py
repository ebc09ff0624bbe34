"""The point-in-time join of a log with itself: when an event is queried and when it updates the features.

A query knows nothing that happens at its own timestamp. All events of one second, of any user, are queried before any
of them updates the features, and so are all events of an impression, which were decided on together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass

from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.errors import DataError
from m6rec.types import Event

SAY_WHAT = "say what is positive (m6rec prepare … --positive 'value>=4', or --implicit)"


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


def require_parts(task: str, by_part: Mapping[int, Sized]) -> None:
    """Raises DataError where a part of a split has no example of a task.

    Args:
        task: Its name.
        by_part: The examples of TRAIN, VALID and TEST.

    Raises:
        DataError: A part has none, so nothing could be tuned or measured on it.
    """
    for part, name in ((TRAIN, "training"), (VALID, "validation"), (TEST, "test")):
        if not by_part[part]:
            raise DataError(
                f"the {name} part has no event that {task!r} asks about; give a larger part or another split, or "
                f"{SAY_WHAT}"
            )
