"""Any log: items with a title and perhaps categories. A value above 0 is a like, 0 a skipped item."""

from m6rec.data.read import read
from m6rec.domains.domain import Domain
from m6rec.text.verbalise import names, quote
from m6rec.types import Item


def _item(item: Item) -> str:
    categories = f" of category {quote(names(item.categories))}" if item.categories else ""
    return f"the item{categories} named {quote(item.title)}"


DOMAIN = Domain(
    name="generic",
    noun="item",
    assets=(),
    load=read,
    item=_item,
    user=lambda user: "",
    action=lambda event: "chose" if event.value > 0 else "skipped",
    likes=lambda event: event.value > 0,
)
