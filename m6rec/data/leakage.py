"""What makes a model look better than it is: found in a split, by name, before anything is measured.

Some findings are a fault under every protocol (``REPEATED``, ``SHARED``, ``FUTURE``); others are what a protocol is
(leave-one-out trains on what is later than another user's test), so whoever checks names those that are allowed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from m6rec.data.split import TRAIN, Split
from m6rec.errors import DataError
from m6rec.types import Event

REPEATED = "repeated events"
"""Events with the user, item and time of an earlier one."""
SHARED = "events in two parts"
"""… of an earlier one in another part of the split."""
KNOWN = "targets in history"
"""Held-out events with an item that their user has had to do with before."""
LATE = "early parts after later ones"
"""Events of training after the first of validation or test, or of validation after the first of test."""
OWN_LATE = "early parts after later ones of one user"
"""… of the same user."""
SAME_TIME = "targets beside events of their time"
"""Held-out events that their user's history reaches within the same second, in the order of the file."""
FUTURE = "questions that know the future"
"""Questions that change when what is not yet known at them does."""
PROTOCOL = frozenset({KNOWN, LATE, OWN_LATE, SAME_TIME})
"""The findings that a protocol can mean."""

Lay = Callable[[Sequence[Event]], Mapping[int, object]]
"""From events in order to all that is told of each question but its answer, by the position of its event."""


@dataclass(frozen=True)
class Leak:
    """A finding: one of the names above, how often, and the first case in words."""

    name: str
    count: int
    example: str


def find(split: Split) -> tuple[Leak, ...]:
    """Every leak that the split alone can show; those that don't occur are left out."""
    found: dict[str, list[int]] = {}
    for position, name in _findings(split):
        found.setdefault(name, []).append(position)
    return tuple(Leak(name, len(at), _words(split.log.events[at[0]], at[0])) for name, at in sorted(found.items()))


def check(split: Split, *, allowed: Collection[str] = ()) -> None:
    """Fails where the split leaks.

    Raises:
        DataError: There is a finding that isn't ``allowed``; the message counts each and names a case.
    """
    fail(leak for leak in find(split) if leak.name not in allowed)


def fail(leaks: Iterator[Leak] | Sequence[Leak]) -> None:
    """Raises DataError with the findings, if there are any."""
    words = [f"{leak.count} {leak.name} (the first: {leak.example})" for leak in leaks]
    if words:
        raise DataError(f"what is measured would be flattered by {'; '.join(words)}. Correct the log or the split.")


def future(events: Sequence[Event], lay: Lay, moments: Sequence[int], *, seed: int = 0) -> tuple[Leak, ...]:
    """Lays the questions out again where all is other from some moment on, and compares those up to it.

    At each moment what follows is once removed and once shuffled: other items, values and texts for the same users and
    times. The event of the moment itself keeps its item, which is asked about, and gets another's value and text.

    Args:
        events: In order of time.
        lay: The layout to check, such as that of a task for some users.
        moments: Positions of events; each costs two layouts.
        seed: Of the shuffling.

    Returns:
        One finding or none.
    """
    rng = np.random.default_rng(seed)
    before = lay(events)
    changed: set[int] = set()
    for now in moments:
        order = now + rng.permutation(len(events) - now)
        shuffled = [
            replace(event, item=events[other].item, value=events[other].value, text=events[other].text)
            for event, other in zip(events[now:], order, strict=True)
        ]
        shuffled[0] = replace(shuffled[0], item=events[now].item)
        for after in (lay(events[: now + 1]), lay([*events[:now], *shuffled])):
            # Whether an event asks anything may depend on its own value.
            changed |= {at for at in before if at < now and after.get(at) != before[at]}
            changed |= {now} if now in before and after.get(now, before[now]) != before[now] else set()
    if not changed:
        return ()
    return (Leak(FUTURE, len(changed), _words(events[min(changed)], min(changed))),)


def _findings(split: Split) -> Iterator[tuple[int, str]]:
    """(position of an event, what is wrong with it)."""
    parts: dict[tuple[str, str, int], set[int]] = {}
    met: set[tuple[str, str]] = set()
    time_of_user: dict[str, int] = {}
    part_of_user: dict[str, int] = {}
    latest = TRAIN
    for position, (event, part) in enumerate(zip(split.log.events, split.part.tolist(), strict=True)):
        before = parts.setdefault((event.user, event.item, event.time), set())
        if before:
            yield position, REPEATED
        if before - {part}:
            yield position, SHARED
        if part != TRAIN and (event.user, event.item) in met:
            yield position, KNOWN
        if part != TRAIN and event.time and time_of_user.get(event.user) == event.time:
            yield position, SAME_TIME
        if part < latest:
            yield position, LATE
        if part < part_of_user.get(event.user, TRAIN):
            yield position, OWN_LATE
        before.add(part)
        met.add((event.user, event.item))
        time_of_user[event.user] = event.time
        latest = max(latest, part)
        part_of_user[event.user] = max(part_of_user.get(event.user, TRAIN), part)


def _words(event: Event, position: int) -> str:
    return f"event {position}, user {event.user!r}, item {event.item!r}, time {event.time}"
