"""Retrieval of the items that the user will like next (M6-Rec, section 3.1), by item and user vectors.

An item is read alone; a user is the decayed sum of the vectors of what they liked (``retrieval.embeddings``).
"""

from m6rec.domains.domain import Domain
from m6rec.tasks.task import Task
from m6rec.text.verbalise import plain
from m6rec.types import Event, Item, Segment

MAX_CHARS = 2_000
"""Of an item's text that are read."""
_ADDRESSES = ("http://", "https://", "www.")


def describe(item: Item) -> str:
    """All that is said of an item: its categories, the widest first, its title and its details; never its id.

    >>> describe(Item("7", "Reading lamp", ("Lamps", "Home"), {"brand": "Lux", "image": "https://lux.example/7"}))
    'Home, Lamps: Reading lamp. brand: Lux'
    >>> describe(Item("8", "8"))
    'item'
    """
    categories, title = ", ".join(map(plain, reversed(item.categories))), plain(item.title)
    details = (
        f"{plain(name)}: {value:g}" if isinstance(value, float) else f"{plain(name)}: {plain(str(value))}"
        for name, value in item.details.items()
        if not str(value).lower().startswith(_ADDRESSES)
    )
    named = ": ".join(filter(None, (categories, title if item.title != item.id else "")))
    return ". ".join(filter(None, (named, *details)))[:MAX_CHARS] or "item"


def candidate(item: Item, domain: Domain) -> tuple[Segment, ...]:
    """What is read of the item."""
    return (Segment(describe(item), "candidate"),)


def label(event: Event, domain: Domain) -> int | None:
    """Only liked events are targets; which item it was is the answer."""
    return 1 if domain.positive(event) else None


TASK = Task(name="retrieve", readout="embed", candidate=candidate, label=label)
