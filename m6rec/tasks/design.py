"""Design of a product that a user would like: a category, unless given, and a title (M6-Rec, section 3.1).

    The user now likes another movie of category "Comedy" named "…"

The paper fills both blanks. Targets are the items that users liked next, once for each of their categories.
"""

from dataclasses import replace

from m6rec.domains.domain import Domain, titled
from m6rec.tasks import query
from m6rec.text.verbalise import quote
from m6rec.types import Event, Item

LONGEST = 80
"""Characters of a title."""
OTHER = "other"
"""Category of an item that has none."""
_BETWEEN = '" named "'


def categories(item: Item) -> tuple[str, ...]:
    """Those under which the item is designed."""
    return item.categories or (OTHER,)


def prompt(domain: Domain, category: str = "") -> str:
    """Region 2 up to the first blank: the category, or the title where the category is given."""
    opened = f'The user now likes another {domain.noun} of category "'
    return f"{opened}{_inside(category)}{_BETWEEN}" if category else opened


def target(category: str, title: str = "") -> str:
    """What fills the blanks from the category on, to the last quotation mark; with no title, up to its first."""
    return f"{_inside(category)}{_BETWEEN}" + (closed(title) if title else "")


def closed(title: str) -> str:
    """What fills the second blank."""
    return f'{_inside(title)}"'


def read(text: str, category: str = "") -> tuple[str, str]:
    """(category, title) of what was written after ``prompt(domain, category)``."""
    category, _, title = (text if not category else target(category) + text).partition(_BETWEEN)
    return category, title.removesuffix('"').strip()


def _inside(text: str) -> str:
    return quote(text)[1:-1]


def _texts(event: Event, item: Item | None, domain: Domain) -> tuple[tuple[str, str], ...]:
    if item is None or not domain.positive(event) or not titled(domain, item):
        return ()
    return tuple((prompt(domain), target(name, item.title)) for name in categories(item))


TASK = replace(query.TASK, name="design", texts=_texts)
