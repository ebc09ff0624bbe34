"""Books with a reference explanation of why the user would buy each: the test set of XRec (Ma et al., EMNLP 2024).

A line is {"uid", "iid", "title", "user_summary", "item_summary", "explanation"}. The text of an event is the
explanation; what a language model said of user and book stays with them as their ``summary``. There is no time.
"""

from html import unescape
from pathlib import Path

import polars as pl

from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.domains.domain import Domain
from m6rec.errors import DataError
from m6rec.text.verbalise import choice, quote

_FIELDS = {
    "uid": "user", "iid": "item", "title": "title", "user_summary": "of_user", "item_summary": "of_item",
    "explanation": "text",
}  # fmt: skip


def _load(path: Path) -> Log:
    try:
        rows = pl.read_ndjson(path, schema_overrides={"uid": pl.String, "iid": pl.String})
        rows = rows.select(list(_FIELDS)).rename(_FIELDS)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} can't be read ({error}); give XRec's test set, one explanation in JSON a line"
        ) from error
    rows = rows.with_columns(pl.col("title").map_elements(unescape, return_dtype=pl.String))
    books = rows.select("item", "title", summary="of_item").unique("item", keep="first", maintain_order=True)
    readers = rows.select("user", summary="of_user").unique("user", keep="first", maintain_order=True)
    return read(rows.select("user", "item", "text"), books, readers, columns=Columns(time=None))


DOMAIN = Domain(
    name="xrec",
    noun="book",
    assets=(),
    load=_load,
    item=lambda item: f"the book {quote(item.title)}",
    user=lambda user: str(user.details.get("summary", "")),
    rating=choice("bought", "did not buy"),
    happened="bought {}",
    values=(0, 1),
)
