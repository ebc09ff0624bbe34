"""The paper's zero-shot question: how likely is an item's name after the names of what the user liked?

    A user likes Toy Story, Aladdin | also likes The Lion King

The score is the mean log-probability of the tokens after "also likes" (M6-Rec, section 3.1, "zero-shot"). It reads
titles alone; ``tasks.diary`` asks for a verdict instead, which lets dislikes and the item's like share be read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from m6rec.domains.domain import Domain
from m6rec.text.batch import Row
from m6rec.types import Event, Item, Segment

LEAD, QUESTIONS = 8, 48
"""Liked items before the first question of a row, and questions in one."""


def candidate(title: str) -> tuple[Segment, ...]:
    """Region 2, whose segment of slot "candidate" is what the score is about."""
    return Segment(" also likes", "ask"), Segment(f" {title}", "candidate")


def lay_out(events: Sequence[Event], items: Mapping[str, Item], domain: Domain, first: int, last: int) -> list[Row]:
    """Rows that ask of the events [first, last) of a log in order of time; a question sees earlier likes only."""
    of_user: dict[str, list[int]] = {}
    for position, event in enumerate(events[:last]):
        of_user.setdefault(event.user, []).append(position)
    rows = []
    for positions in of_user.values():
        start = sum(position < first for position in positions)
        for begin in range(start, len(positions), QUESTIONS):
            likes = [position for position in positions[:begin] if domain.positive(events[position])][-LEAD:]
            rows.append(_row(events, items, domain, likes, positions[begin : begin + QUESTIONS]))
    return rows


def _row(events: Sequence[Event], items: Mapping[str, Item], domain: Domain, likes: list[int], asked: list[int]) -> Row:
    titles = {position: items[events[position].item].title for position in (*likes, *asked)}
    answers = [int(domain.positive(events[position])) for position in asked]
    visible = 1 + len(likes) + np.cumsum([0, *answers[:-1]])  # "A user" and the likes so far
    likes = [*likes, *(position for position, answer in zip(asked, answers, strict=True) if answer)][: visible[-1] - 1]
    words = (f"{', ' if number else ' likes '}{titles[position]}" for number, position in enumerate(likes))
    return Row(
        (Segment("A user", "user"), *(Segment(text, "history") for text in words)),
        visible,
        tuple(candidate(titles[position]) for position in asked),
        np.zeros((len(asked), 0), np.float32),
        np.array(answers),
        np.array(asked),
    )
