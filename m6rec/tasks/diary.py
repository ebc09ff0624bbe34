"""Zero-shot like prediction: a user's events as a diary whose next line the untuned model completes.

    Toy Story, liked by 80%: yes
    Heat, liked by 75%: ___

The score is log p(" yes") − log p(" no") at the blank. Earlier lines show how readily this user says yes, and the
share, which is counted from the past alone, says what a model that never saw the item can't know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m6rec.domains.domain import Domain
from m6rec.text.past import Past
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
    past = Past(items, domain.feedback)
    lines: dict[str, list[tuple[int, str, int]]] = {}
    for position, event in enumerate(events[:last]):
        text = line(items[event.item], past.item_share(event.item))
        lines.setdefault(event.user, []).append((position, text, int(domain.positive(event))))
        past.observe(event)
    diaries = []
    for of_user in lines.values():
        start = sum(position < first for position, _, _ in of_user)
        for begin in range(start, len(of_user), QUESTIONS):
            lead = max(0, begin - LEAD)
            part = of_user[lead : begin + QUESTIONS]
            diaries.append(Diary(tuple((t, a) for _, t, a in part), tuple(p for p, _, _ in part), begin - lead))
    return diaries
