"""An item as JSON, as it is kept on disk and sent to a device."""

from collections.abc import Mapping
from typing import Any

from m6rec.types import Item


def record_of(item: Item) -> dict[str, Any]:
    """What ``item_of`` takes."""
    return {"id": item.id, "title": item.title, "categories": list(item.categories), "details": dict(item.details)}


def item_of(record: Mapping[str, Any]) -> Item:
    """What ``record_of`` was given. Raises KeyError or TypeError where it is no such record."""
    return Item(**{**record, "categories": tuple(record["categories"]), "details": dict(record["details"])})
