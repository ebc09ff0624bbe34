"""A task that writes: which texts an event asks for, as plain functions composed into one value.

A new one is one file with ``TASK = TextTask(...)``, used by its path (``shop.tasks:TASK``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m6rec.data.examples import time_groups
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.tasks.task import names as task_names
from m6rec.tasks.task import value_at
from m6rec.types import Draft, Event, Item, Segment, User

LATEST = 64
"""Latest behaviours in the context of a text."""


@dataclass(frozen=True, kw_only=True)
class TextTask:
    """How one kind of text is asked for.

    Attributes:
        name: Its name in ``named``.
        profile: The user in segments, before any behaviour.
        event_text: One past event as a segment of the context. It must not depend on the moment of the text, so that
            its state is computed once.
        texts: (prompt, target) of each text that an event asks for, none where it asks for nothing. A prompt may tell
            of the event what is given at that moment too, such as the item, and never what is to be written. A target
            follows its prompt to the letter, spaces included.
        lead: What the latest behaviours come to, in words before each prompt; None for nothing.
    """

    name: str
    profile: Callable[[User, Domain], tuple[Segment, ...]]
    event_text: Callable[[Event, Item, Domain], Segment]
    texts: Callable[[Event, Item, Domain], tuple[tuple[str, str], ...]]
    lead: Callable[[Sequence[Event], Mapping[str, Item], Domain], str] | None = None


_TASKS = {
    "explain": "m6rec.tasks.explanations:TASK",
    "design": "m6rec.tasks.design:TASK",
    "query": "m6rec.tasks.query:TASK",
}


def names() -> tuple[str, ...]:
    """The tasks of texts that come with m6rec."""
    return tuple(_TASKS)


def named(name: str) -> TextTask:
    """The task of a name, or of a path ``package.module:NAME``.

    Raises:
        ConfigError: There is no such task, or it writes no texts.
    """
    task = value_at(_TASKS.get(name, name))
    if not isinstance(task, TextTask):
        raise ConfigError(
            f"there is no task of texts {name!r}; tasks: {', '.join(_TASKS)}, or your own as package.module:NAME"
        )
    return task


def writes(name: str) -> bool:
    """Whether a task, by its name or path, is one of texts.

    Raises:
        ConfigError: There is no task of this name, of either kind.
    """
    if ":" not in name and name not in (*_TASKS, *task_names()):
        known = ", ".join((*task_names(), *_TASKS))
        raise ConfigError(f"there is no task {name!r}; tasks: {known}, or your own as package.module:NAME")
    return isinstance(value_at(_TASKS.get(name, name)), TextTask)


def draft(
    task: TextTask, history: Sequence[Event], user: User, domain: Domain, items: Mapping[str, Item], prompt: str
) -> Draft:
    """Asks for a text now: region 1 is the user's facts, then the ``LATEST`` of these behaviours, oldest first."""
    history = history[-LATEST:]
    behaviours = (task.event_text(event, items[event.item], domain) for event in history)
    return Draft((*task.profile(user, domain), *behaviours), _led(task, history, domain, items) + prompt)


def _led(task: TextTask, history: Sequence[Event], domain: Domain, items: Mapping[str, Item]) -> str:
    return task.lead(history, items, domain) if task.lead else ""


def build_drafts(
    task: TextTask,
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
    latest: dict[str, tuple[deque[Event], deque[Segment]]] = {}
    drafts = []
    events = list(events)
    for group in time_groups(events):
        for position in group.queries:
            event = events[position]
            texts = task.texts(event, items[event.item], domain) if wanted[position] and event.item else ()
            history, behaviours = latest.get(event.user, ((), ()))
            lead = _led(task, history, domain, items) if texts else ""
            for prompt, target in texts:
                words = (*task.profile(users[event.user], domain), *behaviours)
                drafts.append(Draft(words, lead + prompt, target, position))
        for position in group.events:
            event = events[position]
            if event.item:
                history, behaviours = latest.setdefault(event.user, (deque(maxlen=LATEST), deque(maxlen=LATEST)))
                history.append(event)
                behaviours.append(task.event_text(event, items[event.item], domain))
    return sorted(drafts, key=lambda draft: draft.event)
