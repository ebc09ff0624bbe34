"""Any log: items with a title and whatever else a table says of them. A value above 0 is positive, 0 is not."""

from collections.abc import Iterator, Mapping

from m6rec.data.feedback import Rule
from m6rec.data.read import read
from m6rec.domains.domain import Domain
from m6rec.domains.genres import GENRES
from m6rec.text.verbalise import age, cost, listed, quote
from m6rec.types import Item, User, Value

_PRICES = ("price", "cost", "amount")
_NOT_WORDS = ("url", "image", "img", "link", "http", "id", "embedding")
MAX_DETAILS = 8
"""Details that are worded, the first ones of the table."""
LONGEST_DETAIL = 300
"""Characters of a detail that are read; a description of more is cut."""


def _details(details: Mapping[str, Value]) -> Iterator[str]:
    """Each detail that a reader can use, with its name."""
    for name, value in list(details.items())[:MAX_DETAILS]:
        words = name.replace("_", " ").strip().lower()
        if any(part in _NOT_WORDS for part in words.split()) or str(value).startswith(("http://", "https://")):
            continue
        if words in _PRICES:
            said = cost(value)
        elif words == "age" and isinstance(value, int | float) and 0 <= value < 130:
            yield age(value)
            continue
        else:
            said = f"{value:g}" if isinstance(value, float) else str(value)
            said = quote(said, longest=LONGEST_DETAIL) if isinstance(value, str) else said
        if said:
            yield f"{words} {said}"


def _item(item: Item) -> str:
    categories = f" of category {quote(listed(item.categories))}" if item.categories else ""
    details = ", ".join(_details(item.details))
    return f"the item{categories} named {quote(item.title)}" + (f" ({details})" if details else "")


def _user(user: User) -> str:
    details = ", ".join(_details(user.details))
    return f"The user: {details}." if details else ""


DOMAIN = Domain(
    name="generic", noun="item", assets=(), load=read, item=_item, user=_user, rating=Rule(test=">").rating,
    happened="chose {}", values=(-1e9, 1e9), synonyms=GENRES,
    other_nouns=("product", "article", "film", "movie", "book", "game", "song"),
)  # fmt: skip
