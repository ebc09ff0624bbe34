"""Headline or push copy for an item to a user: the item's name, then one reason to like it.

The reason is a statement of ``tasks.explain``, so that copy promises nothing which the log doesn't hold. The model
chooses between its wordings, as in an explanation. There is no log of copy to learn from, so nothing is tuned for it.
"""

from m6rec.domains.domain import Domain
from m6rec.tasks.explain import LONGEST_TITLE
from m6rec.text.verbalise import quote
from m6rec.types import Item

LONGEST = 200
"""Characters of copy."""


def prompt(item: Item, domain: Domain) -> str:
    """Region 2 up to what is said of the item."""
    return f"The user is now recommended {domain.item(item)}. A short headline that tells them why: {_named(item)}:"


def copy(words: str, item: Item) -> str:
    """The headline from what the model wrote, or from a statement's sentence."""
    said = " ".join(words.split()).strip()
    return f"{_named(item)}: {said[:1].upper()}{said[1:].rstrip('.!')}."


def plain(item: Item) -> str:
    """Copy for an item for which nothing is known to speak."""
    return f"{_named(item)}: Picked for you."


def _named(item: Item) -> str:
    return quote(item.title, longest=LONGEST_TITLE)
