"""Products that were reviewed with one to five stars: Amazon reviews of 2014, 2018 and 2023.

``load`` takes a file of reviews and, where there is one, the metadata of the same category, as published. What the
metadata count over a product's whole life (ranks, mean stars, also bought) knows the future and is left out. The text
of an event is the summary, then the review below it.
"""

import re
from itertools import chain
from pathlib import Path

import polars as pl

from m6rec.data.log import Log
from m6rec.domains.domain import Domain
from m6rec.domains.genres import GENRES
from m6rec.domains.reviews import Record, read_reviews
from m6rec.text.verbalise import cost, quote, stars
from m6rec.types import Item


def _load(reviews: Path, metadata: Path | None = None) -> Log:
    return read_reviews("Amazon", reviews, _review, metadata, _describe, {"brand": pl.String, "price": pl.Float64})


def _review(row: Record) -> tuple[object, ...]:
    if "reviewerID" in row:  # 2014 and 2018
        text = "\n".join(filter(None, (row.get("summary"), row.get("reviewText"))))
        return row["reviewerID"], row["asin"], row["unixReviewTime"], row["overall"], text
    text = "\n".join(filter(None, (row["title"], row["text"])))
    return row["user_id"], row["parent_asin"], row["timestamp"] // 1000, row["rating"], text


def _describe(row: Record) -> tuple[object, ...]:
    paths = row.get("categories") or row.get("category") or []
    paths = paths if paths and isinstance(paths[0], list) else [paths]  # 2014 has several, each from the root
    categories = [*dict.fromkeys(chain.from_iterable(reversed(path) for path in paths))]
    amount = re.match(r"\$?(\d[\d,]*\.?\d*)", str(row.get("price")))
    price = amount and float(amount[1].replace(",", ""))
    brand = row.get("brand") or row.get("store")
    return row.get("parent_asin") or row["asin"], row.get("title"), categories, brand, price


def _item(item: Item) -> str:
    category = f" of category {quote(item.categories[0])}" if item.categories else ""
    title = f" named {quote(item.title)}" if item.title != item.id else ""
    brand = f" by {quote(str(item.details['brand']))}" if "brand" in item.details else ""
    price = cost(item.details.get("price"))
    return f"the product{category}{title}{brand}" + (f", {price}" if price else "")


DOMAIN = Domain(
    name="amazon", noun="product", assets=(), load=_load, item=_item, user=lambda user: "",
    rating=stars, happened="bought {}", values=(1, 5), synonyms=GENRES,
)  # fmt: skip
