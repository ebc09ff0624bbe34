"""Places that were reviewed with one to five stars: the Yelp Open Dataset.

``load`` takes ``yelp_academic_dataset_review.json`` and, where there is one, ``…_business.json``. Mean stars and number
of reviews of a place are counted over its whole life, know the future, and are left out.
"""

from pathlib import Path

import polars as pl

from m6rec.data.log import Log
from m6rec.domains.domain import Domain
from m6rec.domains.reviews import Record, read_reviews
from m6rec.text.verbalise import listed, quote, stars
from m6rec.types import Item


def _load(reviews: Path, businesses: Path | None = None) -> Log:
    return read_reviews("Yelp", reviews, _review, businesses, _describe, {"city": pl.String})


def _review(row: Record) -> tuple[object, ...]:
    return row["user_id"], row["business_id"], row["date"], row["stars"], row["text"]


def _describe(row: Record) -> tuple[object, ...]:
    categories = row["categories"] or []  # one text with commas; a list in the older editions
    listed = categories.split(", ") if isinstance(categories, str) else categories
    return row["business_id"], row["name"], listed, row["city"]


def _item(item: Item) -> str:
    title = f" {quote(item.title)}" if item.title != item.id else ""
    city = f" in {item.details['city']}" if "city" in item.details else ""
    return f"the place{title}{city}" + (f" ({listed(item.categories[:3])})" if item.categories else "")


DOMAIN = Domain(
    name="yelp",
    noun="place",
    assets=(),
    load=_load,
    item=_item,
    user=lambda user: "",
    rating=stars,
    happened="visited {}",
    values=(1, 5),
)
