"""The task of XRec's test set: a whole explanation, from what a language model said of the user and of the book."""

from m6rec.domains.domain import Domain
from m6rec.tasks import like
from m6rec.tasks.task import Task
from m6rec.text.verbalise import quote
from m6rec.types import Event, Item

LONGEST_SUMMARY = 240


def prompt(event: Event, item: Item, domain: Domain, aspect: str = "") -> str:
    """Region 2 up to the explanation; nothing of the event itself is told, nor any aspect."""
    summary = quote(str(item.details.get("summary", "")), longest=LONGEST_SUMMARY)
    return f"The user now purchases {domain.item(item)}. About the book: {summary}. Why the user would buy it:"


def texts(event: Event, item: Item, domain: Domain) -> tuple[tuple[str, str], ...]:
    """The reference explanation."""
    return ((prompt(event, item, domain), f" {event.text.strip()}"),)


TASK = Task(name="xrec", readout="generate", profile=like.profile, event_text=like.event_text, texts=texts)
