"""What may come in: an event, item or user that is accepted can be worded, read and counted ever after.

The checks run what answers will run (the domain's words and those of every task), so that a failure is the sender's to
see, and not that of everyone who is answered later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from m6rec.domains.domain import Domain, titled
from m6rec.errors import DataError
from m6rec.language.lexicon import Lexicon
from m6rec.tasks.task import Task, event_text, named, names
from m6rec.text.verbalise import quote
from m6rec.types import Event, Item, Segment, User

MAX_AHEAD_S = 86_400
"""A clock may be wrong by a day, or its zone be forgotten; what is later would turn everyone's month."""


class Admission:
    """Says of what comes in why it can't be kept.

    Args:
        domain: Whose words are used.
        tasks: Those that read events and items, besides all that write.
    """

    def __init__(self, domain: Domain, tasks: Sequence[Task]) -> None:
        self._domain, self._tasks = domain, tasks
        self._text_tasks = [named(name) for name in names("generate")]

    def event(self, event: Event, item: Item | None) -> None:
        """Raises DataError where the event can't have happened, or can't be worded.

        Args:
            event: The event.
            item: Its item; None for an event without one.
        """
        what = f"the event of user {event.user!r} with item {event.item!r}"
        if not event.user:
            raise DataError(f"{what} has no user; give the id of one")
        latest = int(time.time()) + MAX_AHEAD_S
        if isinstance(event.time, bool) or not isinstance(event.time, int) or not 0 <= event.time <= latest:
            raise DataError(
                f"{what} has time {event.time!r}; give whole seconds since 1970, not milliseconds, from 0 to a day "
                f"from now ({latest})"
            )
        least, greatest = self._domain.values
        if event.value is not None and not least <= event.value <= greatest:
            raise DataError(
                f"{what} has value {event.value!r}; the domain {self._domain.name!r} takes {least:g} to {greatest:g}, "
                "or none where it just happened"
            )
        with _worded(what, self._domain):
            _check_texts([event.user, event.item, event.kind, event.text, event.impression, event.id])
            _check_texts([text for name, value in event.context for text in (name, str(value))])
            said = self._domain.feedback(event)
            if not 0 <= said.strength <= 1:
                raise ValueError(f"its strength is {said.strength}, not 0 to 1")
            items = {} if item is None else {item.id: item}
            _check_segments(event_text(task, self._domain, event, items) for task in self._tasks if task.reads_history)
            if item is not None:
                _check_segments(task.event_text(event, item, self._domain) for task in self._text_tasks)
                for task in self._text_tasks:
                    if task.lead:
                        _check_texts([task.lead([event], items, self._domain)])

    def item(self, item: Item) -> None:
        """Raises DataError where the item can't be worded or counted."""
        what = f"the item {item.id!r}"
        if not item.id:
            raise DataError(f"the item with the title {item.title!r} has no id; give one")
        if not quote(item.title)[1:-1]:
            raise DataError(f"{what} has the title {item.title!r}; give one that can be read")
        for name, value in item.details.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise DataError(f"{what} has {name} {value!r}; a detail must be a text or a number")
            if isinstance(value, float) and not math.isfinite(value):
                raise DataError(f"{what} has {name} {value!r}; a number must be finite")
        with _worded(what, self._domain):
            _check_texts([item.id, item.title, *item.categories])
            _check_texts([text for name, value in item.details.items() for text in (name, str(value))])
            if not all(quote(name)[1:-1] for name in item.categories):
                raise ValueError("a category is blank")
            _check_texts([self._domain.item(item)])
            titled(self._domain, item)
            Lexicon([item])
            _check_segments(segment for task in self._tasks for segment in task.candidate(item, self._domain))
        self.event(Event("someone", item.id, 0), item)

    def user(self, user: User) -> None:
        """Raises DataError where the user can't be worded."""
        what = f"the user {user.id!r}"
        if not user.id:
            raise DataError("the user has no id; give one")
        with _worded(what, self._domain):
            _check_texts([user.id, *(text for name, value in user.details.items() for text in (name, str(value)))])
            _check_segments(segment for task in self._tasks for segment in task.profile(user, self._domain))


@contextmanager
def _worded(what: str, domain: Domain) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a domain's own code: whatever it raises, it would raise for ever
        raise DataError(
            f"{what} can't be read in the domain {domain.name!r} ({type(error).__name__}: {error}); correct its fields"
        ) from error


def _check_texts(texts: Sequence[str]) -> None:
    """Raises UnicodeEncodeError for half a character, and TypeError for what is no text."""
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no text")
        text.encode()


def _check_segments(segments: Iterator[Segment]) -> None:
    for segment in segments:
        if not segment.text:
            raise ValueError("its words are empty")
        segment.text.encode()
