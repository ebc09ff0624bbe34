"""Reviews of women's clothes by anonymous shoppers, of whom only the age is known.

The data name neither shopper, garment nor time: each review is the one event of its shopper, and a garment is known
by class, department and division alone. The value is 1 where the shopper recommends the garment, else 0.
"""

from pathlib import Path

import polars as pl

from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.domains.domain import Domain
from m6rec.text.verbalise import age, choice, quote
from m6rec.types import Item, User

_FIELDS = {
    "Clothing ID": "item", "Age": "age", "Review Text": "text", "Recommended IND": "value",
    "Class Name": "class", "Department Name": "department", "Division Name": "division",
}  # fmt: skip
_PLACES = ("class", "department", "division")


def _load(folder: Path) -> Log:
    reviews = pl.read_parquet(folder / "reviews.parquet", columns=list(_FIELDS)).rename(_FIELDS).with_row_index("row")
    reviews = reviews.with_columns(
        pl.format("shopper-{}", "row").alias("user"), pl.col(_PLACES).replace("Initmates", "Intimate")
    )
    most = pl.col(_PLACES).drop_nulls().mode(maintain_order=True).first()
    garments = reviews.group_by("item", maintain_order=True).agg(most).drop_nulls("class")
    # The number tells a person the garments of one class apart; the model's wording leaves it out.
    title = pl.format("{} no. {}", "class", "item").alias("title")
    places = pl.concat_list(_PLACES).list.unique(maintain_order=True).alias("category")
    shoppers = reviews.select("user", "age")
    events = reviews.select("user", "item", "value", "text")
    return read(events, garments.select("item", title, places), shoppers, columns=Columns(time=None), on_error="drop")


def _item(item: Item) -> str:
    kind, *places = item.categories
    return f"the garment of class {quote(kind)}" + (f" ({', '.join(places)})" if places else "")


def _user(user: User) -> str:
    return f"The user is a shopper {age(float(user.details['age']))}." if "age" in user.details else ""


DOMAIN = Domain(
    name="clothes",
    noun="garment",
    assets=("clothes-reviews",),
    load=_load,
    item=_item,
    user=_user,
    rating=choice("recommended", "did not recommend"),
    happened="recommended {}",
    values=(0, 1),
)
