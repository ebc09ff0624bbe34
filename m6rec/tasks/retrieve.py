"""Retrieval of the items that the user will like next (M6-Rec, section 3.1): a user vector and item vectors."""

from m6rec.domains.domain import Domain
from m6rec.tasks import like
from m6rec.tasks.task import Task
from m6rec.text.verbalise import month_and_year, sentence
from m6rec.types import Event, Item, Segment


def candidate(item: Item, domain: Domain) -> tuple[Segment, ...]:
    """The item's own side: a noun phrase, read without any user."""
    return (Segment(f"{sentence(domain.item(item))} It is recommended.", "candidate"),)


def answer(event: Event, domain: Domain) -> int | None:
    """Only liked events are targets; which item it was is the answer."""
    return 1 if domain.positive(event) else None


def ask(time: int) -> tuple[Segment, ...]:
    """Names the month, as what is new changes with it."""
    when = f"It is {month_and_year(time)}. " if time else ""
    return (Segment(f"{when}The user would next like:", "ask"),)


TASK = Task(
    name="retrieve",
    readout="embed",
    facts=like.facts,
    behaviour=like.behaviour,
    candidate=candidate,
    answer=answer,
    ask=ask,
)
