"""Tasks: plain functions composed into one value.

A new task is one file with ``TASK = Task(...)``, used by its path (``shop.tasks:TASK``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m6rec import hooks
from m6rec.data.examples import time_groups
from m6rec.data.negatives import Negatives, Sampler
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.features.interactions import FEATURES, InteractionStore, Query
from m6rec.text.batch import Example
from m6rec.text.verbalise import quote
from m6rec.types import Event, Item, Segment, Situation, User

DRAWN = Negatives()
"""Default negative sampling."""
Readout = Literal["score", "embed", "generate"]
"""What is read of the foundation (``m6rec.readouts``): classes, vectors that are compared, or texts."""


def _no_profile(user: User, domain: Domain) -> tuple[Segment, ...]:
    return ()


def _no_event(event: Event, item: Item, domain: Domain) -> Segment:
    return Segment("", "history")


def _no_candidate(item: Item, domain: Domain) -> tuple[Segment, ...]:
    return ()


def _no_label(event: Event, domain: Domain) -> int | None:
    return None


def _no_texts(event: Event, item: Item | None, domain: Domain) -> tuple[tuple[str, str], ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """How examples of a task are verbalised and labelled.

    Attributes:
        name: Its name in ``named``.
        readout: "score" for classes, "embed" for vectors that are compared, "generate" for texts.
        profile: The text of a user, before the events; by default none.
        event_text: The text of an event of the history. It must not depend on the time of the query, so that its
            state can be cached.
        candidate: What is asked: the text of an item in region 2; for "embed", all that is read of it.
        label: The class of an event, for "embed" any for a target; None if the event is not queried.
        texts: For "generate", (prompt, target) of each text that an event asks for, none where it asks for nothing; the
            item is None where the event has none. A prompt may tell of the event what is given at that moment too, such
            as the item, and never what is to be written. A target follows its prompt to the letter, spaces included.
        lead: For "generate", what the latest events come to, those without an item among them, in words before each
            prompt; None for nothing.
        cross: What is known of user and item together, as segments before the candidate; None for nothing.
        num_classes: Number of classes of ``label``; 0 where the task doesn't score.
        options: A word for each class, whose embeddings initialise the option rows.
        grades: What each class is worth, ascending, where classes are degrees of one thing; the expected grade is then
            the score. () for classes without order; two classes are worth 0 and 1.
        negatives: Negative sampling of a binary task for a log without negatives.
        uses_features: Whether features of user and item are the base of the score, and event features are added to
            the states of events.
    """

    name: str
    readout: Readout
    profile: Callable[[User, Domain], tuple[Segment, ...]] = _no_profile
    event_text: Callable[[Event, Item, Domain], Segment] = _no_event
    candidate: Callable[[Item, Domain], tuple[Segment, ...]] = _no_candidate
    label: Callable[[Event, Domain], int | None] = _no_label
    texts: Callable[[Event, Item | None, Domain], tuple[tuple[str, str], ...]] = _no_texts
    lead: Callable[[Sequence[Event], Mapping[str, Item], Domain], str] | None = None
    cross: Callable[[InteractionStore, User, Item, Situation, Domain], tuple[Segment, ...]] | None = None
    num_classes: int = 0
    options: tuple[str, ...] = ()
    grades: tuple[float, ...] = ()
    negatives: Negatives = DRAWN
    uses_features: bool = False

    def __post_init__(self) -> None:
        if self.readout not in _NEEDS:
            raise ConfigError(f"task {self.name!r} has readout {self.readout!r}; choose one of {', '.join(_NEEDS)}")
        if absent := [name for name, absent in _NEEDS[self.readout].items() if getattr(self, name) is absent]:
            raise ConfigError(f"task {self.name!r} has readout {self.readout!r} and no {absent[0]}; give Task one")
        if self.readout == "score" and self.num_classes < 2:
            raise ConfigError(f"task {self.name!r} has {self.num_classes} classes; give num_classes, 2 or more")
        for name, given in (("options", self.options), ("grades", self.grades)):
            if given and len(given) != self.num_classes:
                raise ConfigError(f"task {self.name!r} has {self.num_classes} classes and {len(given)} {name}")
        if list(self.grades) != sorted(self.grades):
            raise ConfigError(f"task {self.name!r} has grades {self.grades}; give them in ascending order")

    @property
    def reads_history(self) -> bool:
        """Whether the user's events are read."""
        return self.event_text is not _no_event

    @property
    def worth(self) -> tuple[float, ...]:
        """The grade of each class: ``grades``, else 0 and 1 for two classes, else ()."""
        return self.grades or ((0.0, 1.0) if self.num_classes == 2 else ())


_NEEDS: Mapping[str, Mapping[str, object]] = {
    "score": {"event_text": _no_event, "candidate": _no_candidate, "label": _no_label},
    "embed": {"candidate": _no_candidate, "label": _no_label},
    "generate": {"event_text": _no_event, "texts": _no_texts},
}
"""What a task of each readout can't do without."""


def names(*readouts: Readout) -> tuple[str, ...]:
    """The tasks that come with m6rec or with installed packages, by default those of every readout."""
    if not readouts:
        return tuple(hooks.TASKS.names())
    return tuple(name for name in hooks.TASKS.names() if named(name).readout in readouts)


def named(name: str) -> Task:
    """The task of a name, or of a path ``package.module:NAME``.

    Raises:
        ConfigError: There is no such task.
    """
    return hooks.TASKS.find_kind(name, Task)


def context(
    task: Task, interactions: InteractionStore, user: User, domain: Domain, items: dict[str, Item], first: int = 0
) -> tuple[Segment, ...]:
    """Region 1 of a user now: the profile, then the texts of events from ``first`` on."""
    behaviours = (event_text(task, domain, event, items) for event in interactions.timeline(user.id)[first:])
    return task.profile(user, domain) + tuple(behaviours)


def window(count: int, latest: int) -> int:
    """The index of the first event to read, so that about ``latest`` of ``count`` events are.

    It moves in steps of a quarter, so that a context mostly grows at its end only, which keeps its KV cache valid.

    >>> [window(count, 100) for count in (100, 101, 125, 126)]
    [0, 25, 25, 50]
    """
    step = max(1, latest // 4)
    return -(-max(0, count - latest) // step) * step


def event_text(task: Task, domain: Domain, event: Event, items: Mapping[str, Item]) -> Segment:
    """The text of an event in the history; one without an item, such as a search, is worded by its text."""
    if not event.item:
        return Segment(f"The user {domain.action(event, quote(event.text))}.", "history")
    return _behaviour(task, domain, event, items[event.item])


def ask(
    task: Task,
    interactions: InteractionStore,
    user: User,
    candidates: Sequence[Item],
    domain: Domain,
    items: dict[str, Item],
    situation: Situation | None = None,
    latest: int | None = None,
) -> Example:
    """Asks about several items at one moment. ``interactions`` ends before it, so the future is out of reach.

    They are asked in ``situation``, by default at the time of the latest event of anyone. Where ``latest`` is given, no
    more behaviours than those are read (``window``).
    """
    now = situation or Situation(interactions.time)
    first = 0 if latest is None else window(len(interactions.timeline(user.id)), latest)
    words = context(task, interactions, user, domain, items, first)
    blocks = tuple(
        _cross(task, interactions, user, item, now, domain) + _candidate(task, domain, item) for item in candidates
    )
    nothing = np.full(len(blocks), -1)
    return Example(
        words,
        np.full(len(blocks), len(words)),
        blocks,
        interactions.features(user.id, [item.id for item in candidates]) if task.uses_features else _none(len(blocks)),
        nothing,
        nothing,
        interactions.event_features(user.id)[first:] if task.uses_features else _none(0),
    )


def situation_of(event: Event) -> Situation:
    """Time and context of an event."""
    return Situation(event.time, event.context)


def _cross(
    task: Task, interactions: InteractionStore, user: User, item: Item, situation: Situation, domain: Domain
) -> tuple[Segment, ...]:
    return task.cross(interactions, user, item, situation, domain) if task.cross else ()


@lru_cache(maxsize=1 << 16)
def _candidate(task: Task, domain: Domain, item: Item) -> tuple[Segment, ...]:
    """``task.candidate``, cached across requests."""
    return task.candidate(item, domain)


@lru_cache(maxsize=1 << 16)
def _behaviour(task: Task, domain: Domain, event: Event, item: Item) -> Segment:
    """``task.event_text``, likewise."""
    return task.event_text(event, item, domain)


def build_examples(
    task: Task,
    events: Sequence[Event],
    users: Mapping[str, User],
    items: Mapping[str, Item],
    domain: Domain,
    wanted: NDArray[np.bool_],
    negatives: Negatives | None = None,
) -> tuple[list[Example], InteractionStore]:
    """Reads a log forward once and asks ``task`` of the wanted events, each before anything of its moment happens.

    Args:
        task: The task.
        events: The log in order of time.
        users: By id.
        items: By id.
        domain: The domain.
        wanted: bool [len(events)], the events to ask of (a part of the split).
        negatives: How negatives are drawn beside positive events; None for a log that has its own.

    Returns:
        A row for each user with a question, in order of first appearance, and the past after the last event.
    """
    events = list(events)
    answers = [task.label(event, domain) if event.item else None for event in events]
    sampler = None
    if negatives is not None and negatives.source == "impression":
        answers = _within_impressions(events, answers)
    elif negatives is not None:
        sampler = Sampler(negatives, events, lambda position: answers[position] == 1)
    interactions = InteractionStore(items, domain.feedback)
    drafts: dict[str, _Draft] = {}
    numbers = {item: number for number, item in enumerate(items)}
    questions: list[Query] = []
    found = [np.zeros((0, len(FEATURES)), np.float32)]
    num_questions = 0
    for group in time_groups(events):
        asked: dict[str, list[tuple[int, str, int]]] = {}
        for position in group.queries:
            answer, event = answers[position] if wanted[position] else None, events[position]
            if answer is None:
                continue
            of_user = asked.setdefault(event.user, [])
            of_user.append((position, event.item, answer))
            if sampler is not None and answer == 1:
                of_user += [(position, item, 0) for item in sampler.draw(position)]
        for user, of_user in asked.items():
            draft = _draft(drafts, task, users[user], domain)
            for position, item, answer in of_user:
                draft.visible.append(len(draft.context))
                situation = situation_of(events[position])
                cross = _cross(task, interactions, users[user], items[item], situation, domain)
                draft.candidates.append(cross + task.candidate(items[item], domain))
                draft.labels.append(answer)
                draft.events.append(position)
                draft.items.append(numbers[item])
                if task.uses_features:
                    draft.questions.append(num_questions)
                    num_questions += 1
                    questions.append((0 if task.cross else group.events[0], user, item))
        for position in group.events:
            event = events[position]
            draft = _draft(drafts, task, users[event.user], domain)
            draft.context.append(event_text(task, domain, event, items))
        if task.cross:  # which is worded from the past as it is at each moment
            found.append(interactions.replay([events[position] for position in group.events], questions))
            questions.clear()
        if sampler is not None:
            sampler.update(group)
    found.append(interactions.replay(() if task.cross else events, questions))
    features_QF = np.concatenate(found)
    rows = [
        draft.row(features_QF, interactions.event_features(user) if task.uses_features else _none(0))
        for user, draft in drafts.items()
        if draft.events
    ]
    return rows, interactions


def _within_impressions(events: Sequence[Event], answers: Sequence[int | None]) -> list[int | None]:
    """The answers, with 0 for what was shown in an impression beside something positive and says nothing itself."""
    fruitful = {(e.user, e.impression) for e, answer in zip(events, answers, strict=True) if e.impression and answer}
    return [
        0 if answer is None and event.item and (event.user, event.impression) in fruitful else answer
        for event, answer in zip(events, answers, strict=True)
    ]


def texts(rows: Sequence[Example]) -> Iterator[str]:
    """Every segment's text, with repetitions."""
    for row in rows:
        yield from (segment.text for segment in row.context)
        for block in row.candidates:
            yield from (segment.text for segment in block)


def _draft(drafts: dict[str, _Draft], task: Task, user: User, domain: Domain) -> _Draft:
    if user.id not in drafts:
        drafts[user.id] = _Draft([*task.profile(user, domain)])
    return drafts[user.id]


class _Draft:
    """A row in the making."""

    def __init__(self, facts: list[Segment]) -> None:
        self.context = facts
        self.visible: list[int] = []
        self.candidates: list[tuple[Segment, ...]] = []
        self.questions: list[int] = []  # rows of the features; none for tasks without
        self.labels: list[int] = []
        self.events: list[int] = []
        self.items: list[int] = []

    def row(self, features_QF: NDArray[np.float32], event_features: NDArray[np.float32]) -> Example:
        whole = Example(
            tuple(self.context),
            np.array(self.visible),
            tuple(self.candidates),
            features_QF[self.questions] if self.questions else _none(len(self.events)),
            np.array(self.labels),
            np.array(self.events),
            event_features,
            np.array(self.items),
        )
        return whole.only(np.ones(len(self.events), np.bool_))  # nothing after the last question is looked at


def _none(count: int) -> NDArray[np.float32]:
    return np.zeros((count, 0), np.float32)
