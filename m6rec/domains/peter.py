"""The review sets of PETER (Li et al., ACL 2021): TripAdvisor, Amazon Movies & TV, Yelp.

They are published as ``reviews.pickle``, and a pickle can run any code, so it is read as JSON. Where you trust it:
    python -c "import json, pickle; json.dump(pickle.load(open('reviews.pickle', 'rb')), open('reviews.json', 'w'))"
A review is {"user", "item", "rating", "template": [feature, adjective, sentence, score]}, without time and title: a
person is shown the item's id, the model's wording leaves it out.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl

from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.errors import DataError
from m6rec.language.opinions import Statement
from m6rec.text.verbalise import stars

_COLUMNS = Columns(time=None, title="item")
_FIELDS = ("user", "item", "value", "aspect", "opinion", "text", "score")


def statements(path: Path) -> tuple[Statement, ...]:
    """The statement that each review was published with, in the order of the events of its log."""
    rows = _reviews(path).select("aspect", "opinion", pl.col("score").sign().cast(pl.Int64), "text").iter_rows()
    return tuple(Statement(*row) for row in rows)


def split(log: Log, folder: Path) -> Split:
    """A published split: ``validation.index`` and ``test.index`` number reviews from 0, the others train."""
    part = np.full(len(log.events), TRAIN, np.uint8)
    try:
        for name, value in (("validation", VALID), ("test", TEST)):
            part[np.array((folder / f"{name}.index").read_text().split(), np.int64)] = value
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{folder} holds no split of these {len(part)} reviews ({error})") from error
    return Split(log, part)


def _reviews(path: Path) -> pl.DataFrame:
    try:
        rows = [(r["user"], r["item"], r["rating"], *r["template"]) for r in json.loads(Path(path).read_bytes())]
        return pl.DataFrame(rows, schema=_FIELDS, orient="row", strict=False)
    except (OSError, ValueError, LookupError, TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} is not JSON in PETER's form ({error!r}); see m6rec.domains.peter") from error


DOMAIN = Domain(
    name="peter", noun="item", assets=(),
    load=lambda path: read(_reviews(path).drop("aspect", "opinion", "score"), columns=_COLUMNS, duplicates="keep"),
    item=lambda item: "the item",
    user=lambda user: "",
    rating=stars, happened="chose {}", values=(1, 5),
)  # fmt: skip
