"""The search query that a user would type next (M6-Rec, section 3.1).

    The user now searches the query "comedy groundhog"

Our logs hold no queries, so ``wording`` makes a stand-in from the item that the user liked next: its first category and
the longest words of its title, which tell most. So what is learned is whom a query of this form would lead to which
item, not how people search; with a log of queries, ``wording`` gives way to what was typed.
"""

import re
from dataclasses import replace

from m6rec.domains.domain import Domain, titled
from m6rec.tasks import like, taste
from m6rec.tasks.task import Task
from m6rec.types import Event, Item

LONGEST = 60
"""Characters of a query."""
NUM_WORDS = 2
"""Words of a title in a query."""
_WORD = re.compile(r"[^\W\d_]{3,}(?:['’][^\W\d_]+)*")
_EMPTY = frozenset("the and for from with into out off his her our your who that this not".split())


def prompt() -> str:
    """Region 2 up to the query."""
    return 'The user now searches the query "'


def wording(item: Item) -> str:
    """A query that leads to the item.

    >>> wording(Item("1", "The Silence of the Lambs", ("Drama", "Thriller")))
    'drama silence lambs'
    """
    words = [word for word in _WORD.findall(item.title.lower()) if word not in _EMPTY]
    longest = sorted(range(len(words)), key=lambda place: (-len(words[place]), place))[:NUM_WORDS]
    said = [*(name.lower() for name in item.categories[:1]), *(words[place] for place in sorted(longest))]
    return " ".join(" ".join(said).replace('"', "'").split())[:LONGEST]


def _texts(event: Event, item: Item | None, domain: Domain) -> tuple[tuple[str, str], ...]:
    if item is None or not domain.positive(event):
        return ()
    said = wording(item if titled(domain, item) else replace(item, title=""))
    return ((prompt(), f'{said}"'),) if said else ()


TASK = Task(
    name="query", readout="generate", profile=like.profile, event_text=like.event_text, texts=_texts, lead=taste.lead
)
