"""Ranking by how much the user will like the item, in five degrees: a graded label, the strength of the feedback."""

from dataclasses import replace

from m6rec.domains.domain import Domain
from m6rec.tasks import like
from m6rec.text.verbalise import sentence
from m6rec.types import Event, Item, Segment

GRADES = (0.0, 0.25, 0.5, 0.75, 1.0)


def candidate(item: Item, domain: Domain) -> tuple[Segment, ...]:
    """Words it as "The movie …. How much does the user like it?"."""
    return (Segment(f"{sentence(domain.item(item))} How much does the user like it?", "candidate"),)


def label(event: Event, domain: Domain) -> int | None:
    """The degree next to the strength; nothing is asked of an event that is neither positive nor negative."""
    feedback = domain.feedback(event)
    if feedback.positive is None:
        return None
    return min(range(len(GRADES)), key=lambda grade: abs(GRADES[grade] - feedback.strength))


TASK = replace(
    like.TASK,
    name="rating",
    candidate=candidate,
    label=label,
    num_classes=len(GRADES),
    options=(" terrible", " bad", " fair", " good", " great"),
    grades=GRADES,
)
