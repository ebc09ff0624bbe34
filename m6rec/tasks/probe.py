"""Digests of what a task words and of what the features are, from a small made-up log.

They tell whether a run was tuned with the words and features of this code: a rewording or a redefined feature changes
them, wherever in the code it stands, and a renamed function or a comment doesn't.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from m6rec.domains.domain import Domain
from m6rec.features.interactions import EVENT_FEATURES, FEATURES, InteractionStore
from m6rec.fingerprint import digest
from m6rec.tasks.task import Task, event_text
from m6rec.types import Event, Feedback, Item, Situation, User, Value

_DETAILS: dict[str, Value] = {
    "year": 1995,
    "price": 19.5,
    "author": "Ann Lee",
    "brand": "Acme",
    "description": "A quiet story.",
}
_ITEMS = (
    Item("a", "The Long Way Home (1995)", ("Drama", "Comedy"), _DETAILS),
    Item("b", 'Sea & "Sand"', ("Drama",), {"year": 2004}),
    Item("c", "Ash", (), {"price": 3}),
    Item("d", "Tin Men", ("Comedy",)),
)
_USERS = (User("u"), User("v", {"age": 31, "gender": "F", "occupation": "writer", "place": "Oslo"}), User("w"))
_TEXT = "The story is great. I hated the ending."
_KINDS = ("", "view", "click", "cart", "purchase", "rating", "skip", "like")
_EVENTS = tuple(
    Event(
        _USERS[n * 7 % 11 % 3].id,
        _ITEMS[(n * n + n // 3) % 7 % 4].id,
        86_400 * (11_000 + n // 2),
        None if n % 7 == 3 else float(n * 5 % 13 % 6),
        _TEXT if n % 2 else "",
        _KINDS[n % len(_KINDS)],
    )
    for n in range(28)
)
_SEARCH = Event("u", "", 86_400, text="boots", kind="search")
_SPOKEN = (
    Event("u", "", 86_400, text='I liked "Ash".', kind="utterance"),
    Event("u", "", 86_460, text='Try "Tin Men", then.', kind="response"),
)
_BY_ID = {item.id: item for item in _ITEMS}


def wording(task: Task, domain: Domain) -> str:
    """The digest of a task's words and labels for the made-up log in a domain."""
    words: list[Any] = [task.readout, task.num_classes, task.options, task.grades, task.negatives]
    words += [_said(task.profile, user, domain) for user in _USERS]
    words += [_said(task.event_text, event, _BY_ID[event.item], domain) for event in _EVENTS]
    words += [_said(event_text, task, domain, _SEARCH, _BY_ID)]
    words += [_said(task.candidate, item, domain) for item in _ITEMS]
    words += [_said(task.label, event, domain) for event in _EVENTS]
    words += [_said(task.texts, event, _BY_ID[event.item], domain) for event in _EVENTS]
    words += [_said(task.lead, _EVENTS[:count], _BY_ID, domain) for count in (0, 9)]
    spoken = [_said(task.lead, _SPOKEN, _BY_ID, domain), *(_said(task.texts, e, None, domain) for e in _SPOKEN)]
    words += filter(None, spoken)  # nothing where no dialogue is read
    interactions = InteractionStore(_BY_ID, domain.feedback)
    words += [_said(task.cross, interactions, _USERS[0], item, Situation(86_400), domain) for item in _ITEMS]
    return digest(words)


@cache
def features() -> str:
    """The digest of the features' names, and of their values, to four digits, for the made-up log."""
    interactions = InteractionStore(_BY_ID, _feedback).update_all(_EVENTS)
    tables = [
        table
        for user in _USERS
        for table in (interactions.features(user.id, list(_BY_ID)), interactions.event_features(user.id))
    ]
    return digest([FEATURES, EVENT_FEATURES, [f"{value:.4g}" for table in tables for value in table.ravel().tolist()]])


def _feedback(event: Event) -> Feedback:
    value = event.value
    return Feedback(None, 0.5, "") if value is None else Feedback(value >= 3, value / 5, "")


def _said(function: Callable[..., object] | None, *given: object) -> object:
    """What a function returns; the kind of its error where it can't word what is made up."""
    try:
        return function(*given) if function else None
    except Exception as error:  # the functions may be a user's own
        return type(error).__name__
