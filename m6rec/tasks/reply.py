"""The next reply of whoever recommends, in a dialogue (M6-Rec, section 3.1).

    USER: I liked "The Mask" (1988). SYSTEM: Have you seen @?

Region 1 is what the user liked and disliked, region 2 the latest messages. Where a reply names items it has ``TITLE``
in their place, so that what is learned is how one recommends, and what is recommended stays with retrieval and ranking.
"""

import re
from collections.abc import Mapping, Sequence

from m6rec.domains.domain import Domain
from m6rec.tasks import like
from m6rec.tasks.task import Task
from m6rec.types import Event, Item

NUM_MESSAGES, LONGEST = 12, 500
"""Latest messages that are read, and characters of one."""
TITLE = "@"
"""In place of an item's title."""
SPEAKERS: Mapping[str, str] = {"utterance": "USER:", "response": "SYSTEM:"}
"""Who speaks, by the kind of the event."""
_QUOTED = re.compile(r'"[^"]*"(?: \(\d{4}\))?')


def lead(history: Sequence[Event], items: Mapping[str, Item], domain: Domain) -> str:
    """The latest messages with their speakers, and a space at the end."""
    said = [f"{SPEAKERS[event.kind]} {event.text[:LONGEST]} " for event in history if event.kind in SPEAKERS]
    return "".join(said[-NUM_MESSAGES:])


def prompt() -> str:
    """Region 2 after the messages, up to the reply."""
    return SPEAKERS["response"]


def _texts(event: Event, item: Item | None, domain: Domain) -> tuple[tuple[str, str], ...]:
    return ((prompt(), f" {_QUOTED.sub(TITLE, event.text)}"),) if event.kind == "response" else ()


TASK = Task(name="reply", readout="generate", profile=like.profile, event_text=like.event_text, texts=_texts, lead=lead)
