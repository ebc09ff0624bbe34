"""Which columns hold what, and how long what is in them may be."""

from dataclasses import dataclass

LONGEST_TITLE = 2_000
"""Characters in a title, category or id; longer ones are a mistake in the table."""
LONGEST_TEXT = 20_000
"""Characters in what a user wrote."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of the tables hold what.

    Attributes:
        user: Id of the user (events, users).
        item: Id of the item (events, items); where events have none, the title is the id.
        time: Seconds since 1970, or a date and time (UTC if it names no zone); None for a log without time.
        value: Strength of an event; may be absent, then 1.0.
        text: What the user wrote; may be absent or empty.
        title: Title of the item (items, or events where there is no table of items).
        category: A list, or one string that ``category_separator`` divides; may be absent or empty.
        category_separator: What divides the categories of an item within a string.

    Further columns of items and users become their details.
    """

    user: str = "user"
    item: str = "item"
    time: str | None = "time"
    value: str = "value"
    text: str = "text"
    title: str = "title"
    category: str = "category"
    category_separator: str = "|"
