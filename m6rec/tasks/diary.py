"""Zero-shot like prediction: a user's events as a diary whose next line the untuned model completes.

    Toy Story, liked by 80%: yes
    Heat, liked by 75%: ___

The score is log p(" yes") − log p(" no") at the blank. Earlier lines show how readily this user says yes, and the
share, which is counted from the past alone, says what a model that never saw the item can't know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m6rec.data.examples import time_groups
from m6rec.domains.domain import Domain
from m6rec.features.interactions import InteractionStore
from m6rec.text.verbalise import share
from m6rec.types import Event, Item

ANSWERS = (" no", " yes")
LEAD, QUESTIONS = 8, 64
"""Lines of history before the first question of a diary, and questions in one: long enough to share, short to run."""


@dataclass(frozen=True)
class Diary:
    """A run of one user's lines; each is (text up to the blank, class of the answer).

    Attributes:
        lines: Oldest first; a question sees the answers of the lines before it, which had happened by then.
        events: Position in the log of each line's event.
        num_lead: How many lines at the start are history only.
    """

    lines: tuple[tuple[str, int], ...]
    events: tuple[int, ...]
    num_lead: int


def line(item: Item, item_share: float) -> str:
    """An event's line up to the blank."""
    return f"\n{item.title}, liked by {share(item_share)}:"


def write(events: Sequence[Event], items: dict[str, Item], domain: Domain, first: int, last: int) -> list[Diary]:
    """Diaries that ask of the events [first, last) of a log, in order of time, each line written at its moment."""
    interactions = InteractionStore(items, domain.feedback)
    lines: dict[str, list[tuple[int, int, str, int]]] = {}
    events = events[:last]
    for number, group in enumerate(time_groups(events)):
        for position in group.queries:
            event = events[position]
            answer = domain.feedback(event).positive if event.item else None
            if answer is not None:
                text = line(items[event.item], interactions.item_share(event.item))
                lines.setdefault(event.user, []).append((number, position, text, int(answer)))
        interactions.update_all(events[position] for position in group.events)
    return [diary for of_user in lines.values() for diary in _diaries(of_user, first)]


def _diaries(lines: Sequence[tuple[int, int, str, int]], first: int) -> Iterator[Diary]:
    """Diaries of one user's lines: (moment, position of the event, text, answer).

    Lines of one moment are asked in a diary each, as none of them knows the answer of another.
    """
    begin = 0
    while begin < len(lines):
        moment, position, *_ = lines[begin]
        end = begin + 1
        while end < len(lines) and lines[end][0] == moment:
            end += 1
        lead = lines[max(0, begin - LEAD) : begin]
        if end - begin > 1:
            yield from (_diary(lead, [one]) for one in lines[begin:end] if one[1] >= first)
        elif position >= first:
            while end < len(lines) and end - begin < QUESTIONS and lines[end][0] != lines[end - 1][0]:
                if end + 1 < len(lines) and lines[end + 1][0] == lines[end][0]:
                    break
                end += 1
            yield _diary(lead, lines[begin:end])
        begin = end


def _diary(lead: Sequence[tuple[int, int, str, int]], asked: Sequence[tuple[int, int, str, int]]) -> Diary:
    every = [*lead, *asked]
    return Diary(tuple((t, a) for _, _, t, a in every), tuple(p for _, p, _, _ in every), len(lead))
