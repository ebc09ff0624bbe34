"""The paper's zero-shot question: how likely is an item's name after the names of what the user liked?

    A user likes Toy Story, Aladdin | also likes The Lion King

The score is the mean log-probability of the tokens after "also likes" (M6-Rec, section 3.1, "zero-shot"). It reads
titles alone; ``tasks.diary`` asks for a verdict instead, which lets dislikes and the item's like share be read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from m6rec.data.examples import time_groups
from m6rec.domains.domain import Domain
from m6rec.text.batch import Example
from m6rec.types import Event, Item, Segment

LEAD, QUESTIONS = 8, 48
"""Liked items before the first question of a row, and questions in one."""


def candidate(title: str) -> tuple[Segment, ...]:
    """Region 2, whose segment of slot "candidate" is what the score is about."""
    return Segment(" also likes", "ask"), Segment(f" {title}", "candidate")


def build_examples(
    events: Sequence[Event], items: Mapping[str, Item], domain: Domain, first: int, last: int
) -> list[Example]:
    """Rows that ask of the events [first, last) of a log in order of time; a question sees earlier likes only."""
    events = events[:last]
    of_user: dict[str, list[_Asked]] = {}
    likes: dict[str, list[str]] = {}
    for group in time_groups(events):
        for position in group.queries:
            event = events[position]
            answer = domain.feedback(event).positive if event.item else None
            if answer is not None and position >= first:
                asked = _Asked(position, items[event.item].title, int(answer), len(likes.get(event.user, ())))
                of_user.setdefault(event.user, []).append(asked)
        for position in group.events:
            event = events[position]
            if event.item and domain.positive(event):
                likes.setdefault(event.user, []).append(items[event.item].title)
    return [
        _row(likes.get(user, []), asked[begin : begin + QUESTIONS])
        for user, asked in of_user.items()
        for begin in range(0, len(asked), QUESTIONS)
    ]


class _Asked(NamedTuple):
    position: int
    title: str
    answer: int
    num_likes: int
    """The user's likes before it."""


def _row(likes: Sequence[str], asked: Sequence[_Asked]) -> Example:
    begin = max(0, asked[0].num_likes - LEAD)
    words = (
        f"{', ' if number else ' likes '}{title}" for number, title in enumerate(likes[begin : asked[-1].num_likes])
    )
    return Example(
        (Segment("A user", "user"), *(Segment(text, "history") for text in words)),
        np.array([1 + one.num_likes - begin for one in asked]),
        tuple(candidate(one.title) for one in asked),
        np.zeros((len(asked), 0), np.float32),
        np.array([one.answer for one in asked]),
        np.array([one.position for one in asked]),
    )
