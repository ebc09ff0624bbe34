"""Drafts of the texts that a task generates: for one moment, or of a whole log."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from m6rec.data.examples import time_groups
from m6rec.domains.domain import Domain
from m6rec.tasks.task import Task
from m6rec.types import Draft, Event, Item, Segment, User

LATEST = 64
"""Latest events that a text is written after."""


def draft(
    task: Task, history: Sequence[Event], user: User, domain: Domain, items: Mapping[str, Item], prompt: str
) -> Draft:
    """Asks for a text now: region 1 is the user's facts, then what they did of these latest events, oldest first."""
    history = history[-LATEST:]
    behaviours = (task.event_text(event, items[event.item], domain) for event in history if event.item)
    return Draft((*task.profile(user, domain), *behaviours), _led(task, history, domain, items) + prompt)


def _led(task: Task, history: Sequence[Event], domain: Domain, items: Mapping[str, Item]) -> str:
    return task.lead(history, items, domain) if task.lead else ""


def build_drafts(
    task: Task,
    events: Sequence[Event],
    users: Mapping[str, User],
    items: Mapping[str, Item],
    domain: Domain,
    wanted: NDArray[np.bool_],
) -> list[Draft]:
    """Reads a log forward once and drafts the texts of the wanted events, each before anything of its moment happens.

    Args:
        task: The task.
        events: The log in order of time.
        users: By id.
        items: By id.
        domain: The domain.
        wanted: bool [len(events)], the events to ask of (a part of the split).

    Returns:
        In the order of the events.
    """
    latest: dict[str, tuple[deque[Event], deque[Segment | None]]] = {}
    drafts = []
    events = list(events)
    for group in time_groups(events):
        for position in group.queries:
            event = events[position]
            texts = task.texts(event, items.get(event.item), domain) if wanted[position] else ()
            history, behaviours = latest.get(event.user, ((), ()))
            lead = _led(task, history, domain, items) if texts else ""
            for prompt, target in texts:
                words = (*task.profile(users[event.user], domain), *filter(None, behaviours))
                drafts.append(Draft(words, lead + prompt, target, position))
        for position in group.events:
            event = events[position]
            history, behaviours = latest.setdefault(event.user, (deque(maxlen=LATEST), deque(maxlen=LATEST)))
            history.append(event)
            behaviours.append(task.event_text(event, items[event.item], domain) if event.item else None)
    return sorted(drafts, key=lambda draft: draft.event)
