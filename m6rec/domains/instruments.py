"""Musical instruments and what their buyers wrote: Amazon 2014, the 5-core of "Musical Instruments".

A line of the published file is a review: reviewerID, asin, overall (1 to 5 stars), unixReviewTime, summary and
reviewText. The text of an event is the summary, then the review below it. Instruments have no title: a person is shown
the asin, the model's wording leaves it out.
"""

from pathlib import Path

import polars as pl

from m6rec.domains.domain import Domain
from m6rec.errors import DataError
from m6rec.text.log import LONGEST_TEXT, Columns, Log, read
from m6rec.text.verbalise import stars

_COLUMNS = Columns(user="reviewerID", item="asin", title="asin", time="unixReviewTime", value="overall")
_FIELDS = {
    "reviewerID": pl.String, "asin": pl.String, "overall": pl.Float64, "unixReviewTime": pl.Int64,
    "summary": pl.String, "reviewText": pl.String,
}  # fmt: skip


def _load(path: Path) -> Log:
    try:
        reviews = pl.read_ndjson(path, schema=_FIELDS)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} can't be read ({error}); give the reviews of Amazon 2014, one in JSON a line"
        ) from error
    text = pl.concat_str("summary", "reviewText", separator="\n", ignore_nulls=True).str.strip_chars()
    return read(reviews.select(*list(_FIELDS)[:4], text.str.slice(0, LONGEST_TEXT).alias("text")), columns=_COLUMNS)


DOMAIN = Domain(
    name="instruments",
    noun="instrument",
    assets=(),
    load=_load,
    item=lambda item: "the musical instrument or accessory",
    user=lambda user: "",
    action=lambda event: stars(event.value),
    likes=lambda event: event.value >= 4,
)
