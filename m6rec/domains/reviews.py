"""What the published sets of reviews have in common: a file of reviews and one that describes what was reviewed."""

from collections.abc import Callable, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import polars as pl

from m6rec.data.lines import Schema, table
from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.data.schema import Limits

Record = Mapping[str, Any]
_EVENT: Schema = {"user": pl.String, "item": pl.String, "time": pl.String, "value": pl.Float64, "text": pl.String}
_ITEM: Schema = {"item": pl.String, "title": pl.String, "category": pl.List(pl.String)}


def read_reviews(
    name: str,
    reviews: Path,
    review: Callable[[Record], tuple[object, ...]],
    descriptions: Path | None,
    describe: Callable[[Record], tuple[object, ...]],
    details: Schema,
) -> Log:
    """The log of a published set; descriptions of what nobody reviewed are left out.

    A title that nothing is known of is the id, which a domain's wording leaves out. A review that was published twice
    is kept once.

    Args:
        name: Of the set, for the message of an error.
        reviews: A review a line.
        review: From it to user, item, time, value and text.
        descriptions: An item a line, if any.
        describe: From it to id, title, categories (most specific first) and ``details``.
        details: Further columns of the items.

    Raises:
        DataError: A file isn't what it should be; the message names the line.
    """
    events = table(reviews, _EVENT, review, of=f"reviews of {name}, one a line").with_columns(
        pl.col("text").str.strip_chars().str.slice(0, Limits.TEXT_CHARS)
    )
    known = events.select(pl.col("item").unique(maintain_order=True))
    ids = set(known["item"])

    def pick(row: Record) -> tuple[object, ...] | None:
        item = describe(row)
        return item if item[0] in ids else None

    schema = {**_ITEM, **details}
    items = pl.DataFrame(schema=schema)
    if descriptions is not None:
        items = table(descriptions, schema, pick, of=f"descriptions of what was reviewed in {name}, one a line")
    items = known.join(items.unique("item", keep="first"), on="item", how="left", maintain_order="left")
    title = pl.col("title").map_elements(unescape, return_dtype=pl.String).str.strip_chars()
    title = pl.when(title != "").then(title.str.slice(0, Limits.TITLE_CHARS)).otherwise("item")
    return read(events, items.with_columns(title.alias("title")))
