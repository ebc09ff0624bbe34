"""Ranking by whether the user will like the item (M6-Rec, section 3.1, CTR and CVR)."""

from m6rec.domains.domain import Domain
from m6rec.tasks.task import Task
from m6rec.types import Event, Item, Segment, User


def facts(user: User, domain: Domain) -> tuple[Segment, ...]:
    """The user's sentence, where the domain knows anything."""
    text = domain.user(user)
    return (Segment(text, "user"),) if text else ()


def behaviour(event: Event, item: Item, domain: Domain) -> Segment:
    """Words it as "The user liked the movie …"."""
    return Segment(f"The user {domain.action(event)} {domain.item(item)}.", "history")


def candidate(item: Item, domain: Domain) -> tuple[Segment, ...]:
    """Words it as "Does the user like the movie …?"."""
    return (Segment(f"Does the user like {domain.item(item)}?", "candidate"),)


TASK = Task(
    name="like",
    readout="score",
    facts=facts,
    behaviour=behaviour,
    candidate=candidate,
    answer=lambda event, domain: int(domain.likes(event)),
    num_classes=2,
    options=(" no", " yes"),
    uses_signals=True,
)
