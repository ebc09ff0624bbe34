"""Whether what is told of a question changes with its future."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from m6rec.data import leakage
from m6rec.data.split import TRAIN, Split
from m6rec.domains.domain import Domain
from m6rec.errors import DataError
from m6rec.retrieval.blend import Blend
from m6rec.retrieval.examples import queries
from m6rec.tasks.task import Task, build_examples
from m6rec.text.batch import Example
from m6rec.types import Event

Told = Callable[[Split, Domain, Collection[str]], Mapping[int, object]]
"""The input of each question of some users, by the position of its event."""


def check_future(told: Told, split: Split, domain: Domain, users: Collection[str], *, num_moments: int = 3) -> None:
    """Fails where a question of some users knows what comes after it; slow, as all is laid out again and again.

    Args:
        told: The input of each question: ``told_to`` a task, or ``told_to_retrieval``.
        split: The split.
        domain: The domain.
        users: Whose questions to compare.
        num_moments: How many moments among their held-out events the future is changed from.

    Raises:
        DataError: A question changed with its future, or the users have no held-out event.
    """
    log = split.log

    def lay(events: Sequence[Event]) -> dict[int, object]:
        return dict(told(Split(replace(log, events=tuple(events)), split.part[: len(events)]), domain, users))

    held_out = [at for at in np.flatnonzero(split.part != TRAIN).tolist() if log.events[at].user in users]
    if not held_out:
        raise DataError(f"none of the {len(users)} users has an event in validation or test; name others")
    chosen = np.linspace(0, len(held_out) - 1, num_moments).astype(np.int64)
    leakage.fail(leakage.future(log.events, lay, [held_out[at] for at in chosen]))


def told_to(task: Task) -> Told:
    """Texts, features and event features of each question of a task."""

    def told(split: Split, domain: Domain, users: Collection[str]) -> dict[int, object]:
        log = split.log
        wanted = np.array([event.user in users for event in log.events])
        rows, _ = build_examples(task, log.events, log.users, log.items, domain, wanted)
        return {int(row.events[n]): _told(row, n) for row in rows for n in range(len(row.events))}

    return told


def told_to_retrieval(fit: Callable[[Split, Domain], Blend]) -> Told:
    """What a user had liked and seen before each like, and what sources that are fitted on the split say of it."""

    def told(split: Split, domain: Domain, users: Collection[str]) -> dict[int, object]:
        events, ids = split.log.events, list(split.log.items)
        asked = [at for at, event in enumerate(events) if event.user in users and event.item and domain.positive(event)]
        known, blend = queries(split, domain, np.array(asked, np.int64)), fit(split, domain)
        return {
            at: (
                *(rows.tolist() for rows in (liked, seen, most)),
                list(blend.numbers),
                blend.scores([ids[row] for row in liked.tolist()]).tobytes(),
            )
            for at, liked, seen, most in zip(asked, known.likes, known.seen, known.most_liked, strict=True)
        }

    return told


def _told(row: Example, number: int) -> tuple[object, ...]:
    """The whole input of a query: texts, features and event features."""
    seen = max(0, row.visible[number] - row.num_profile)
    numbers = row.features[number], row.event_features[:seen]
    return row.question(number), *(of.tobytes() for of in numbers)
