"""Ranking by whether the user will like the item (M6-Rec, section 3.1, CTR and CVR).

Every text about an item begins with the item, so that all of them share the states of that beginning
(``text.prefixes``), and its last token, which is kept, has read both the item and what is said of it.
"""

from m6rec.domains.domain import Domain
from m6rec.tasks.task import Task
from m6rec.text.verbalise import sentence
from m6rec.types import Event, Item, Segment, User


def profile(user: User, domain: Domain) -> tuple[Segment, ...]:
    """The user's sentence, where the domain knows anything."""
    text = domain.user(user)
    return (Segment(text, "user"),) if text else ()


def event_text(event: Event, item: Item, domain: Domain) -> Segment:
    """Words it as "The movie …. The user liked it."."""
    return Segment(f"{sentence(domain.item(item))} The user {domain.action(event)}.", "history")


def candidate(item: Item, domain: Domain) -> tuple[Segment, ...]:
    """Words it as "The movie …. Does the user like it?"."""
    return (Segment(f"{sentence(domain.item(item))} Does the user like it?", "candidate"),)


def label(event: Event, domain: Domain) -> int | None:
    """1 for positive feedback, 0 for negative; nothing is asked of an event that is neither."""
    positive = domain.feedback(event).positive
    return None if positive is None else int(positive)


TASK = Task(
    name="like",
    readout="score",
    profile=profile,
    event_text=event_text,
    candidate=candidate,
    label=label,
    num_classes=2,
    options=(" no", " yes"),
    uses_features=True,
)
