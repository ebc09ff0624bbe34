"""What makes a model look better than it is: found in a split, by name, before anything is measured.

Some findings are a fault under every protocol (``REPEATED``, ``SHARED``, ``FUTURE``); others are what a protocol is
(leave-one-out trains on what is later than another user's test), so whoever checks names those that are allowed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from m6rec.data.split import TRAIN, Split
from m6rec.errors import DataError
from m6rec.types import Event

REPEATED = "repeated events"
"""Events with the user, item, time and kind of an earlier one."""
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
    return tuple(
        Leak(name, len(at), _words(split.log.events[int(at.min())], int(at.min())))
        for name, at in sorted(_findings(split), key=lambda finding: finding[0])
        if len(at)
    )


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


def _findings(split: Split) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """(What is wrong, positions of the events), in whole columns."""
    events, part = split.log.table, split.part.astype(np.int64)
    users, items, times = events.codes("user"), events.codes("item"), events.column("time").to_numpy()
    kinds = events.column("kind").rank("dense").to_numpy().astype(np.int64)
    held_out = part != TRAIN
    # Stably sorted, what one user did, and did with one item, lies side by side in the order of the log: of time.
    by_user = np.argsort(users, kind="stable")
    by_pair = np.argsort(users * (items.max(initial=0) + 1) + items, kind="stable")
    at_once = _follows(by_pair, users, items, times)
    repeats = by_pair[at_once | np.append(at_once[1:], False)]
    repeats = repeats[np.lexsort((repeats, kinds[repeats], times[repeats], items[repeats], users[repeats]))]
    repeated = _follows(repeats, users, items, times, kinds)
    yield REPEATED, repeats[repeated]
    # Within a run of repeats an event has one of another part before it where the part has changed since the first.
    changes = np.cumsum(repeated & ~_follows(repeats, part))
    runs = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(repeats))))
    yield SHARED, repeats[repeated & (changes > changes[runs])]
    yield KNOWN, by_pair[_follows(by_pair, users, items) & held_out[by_pair]]
    yield SAME_TIME, by_user[_follows(by_user, users, times) & held_out[by_user] & (times[by_user] != 0)]
    yield LATE, np.flatnonzero(part < np.maximum.accumulate(part))
    # The highest part so far of each user: offset by their user, a running maximum starts anew.
    ranks = users[by_user] * 3 + part[by_user]
    yield OWN_LATE, by_user[ranks < np.maximum.accumulate(ranks)]


def _follows(order: NDArray[np.int64], *columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the event before it, in an order, is alike in all columns."""
    alike = np.zeros(len(order), np.bool_)
    alike[1:] = np.logical_and.reduce([column[order[1:]] == column[order[:-1]] for column in columns])
    return alike


def _words(event: Event, position: int) -> str:
    return f"event {position}, user {event.user!r}, item {event.item!r}, time {event.time}"
