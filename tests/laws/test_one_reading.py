"""A table of a log and a request to the service read the same cell alike, or both refuse it."""

import polars as pl
import pytest
from pydantic import ValidationError

from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.errors import DataError
from m6rec.serving.api.schema import EventBody, ItemBody
from m6rec.types import Event, Item

PLAIN = ["x", " x ", "u1\t", "007", "e\u0301", "\u3000a\u00a0b\u3000", "ﬁ", "a\u200bb", "\U0001f600", "x" * 200]
WRONG = ["", "   ", "\u2003", "a\0b", "a\x1fb", "\x1cab", "a\x7f", "x" * 201, "x" * 251]
TITLES = [
    *PLAIN,
    *WRONG,
    "R&amp;B &#39;s",
    "a\nb",
    "&nbsp;",
    "x" * 2000,
    "x" * 2001,
    " \x00 ",
    "&",
    "&;",
    "a&lt;b",
    "nan",
]
CELLS = ["x", " x ", "", " ", "é", "&amp;", "3", 3, 3.5, -1, True, False, None, 2**53, 2**60, "a\0b", "x" * 20_001]
CELLS += [["a", "b"], ["a", None], [" a "], [1, 2], [], [True], [0.5], ["x" * 15_000] * 2, 1e300, {"a": 1}]
CATEGORIES = [[], ["A"], [" A ", ""], ["A", " "], ["c" * 200], ["c" * 201], ["c"] * 32, ["c"] * 33, ["a|b"]]
KINDS = ["view", " View ", "addToCart", "PURCHASED", "test drive", "", " ", "k" * 64, "k" * 65, "a\0"]
REFUSED = "refused"


def in_log(item=None, kind=None, **event):
    """The item and event that a log of one row makes of these cells."""
    item = {"item": "i", "title": "t"} | (item or {})
    row = {"user": "u", "item": "i", "time": 1_600_000_000} | event | ({} if kind is None else {"kind": kind})
    columns = Columns(category="category" if "category" in item else None, kind="kind" if kind is not None else None)
    try:
        log = read(
            pl.DataFrame({name: pl.Series([value]) for name, value in row.items()}),
            items=pl.DataFrame({name: pl.Series([value]) for name, value in item.items()}),
            columns=columns,
        )
    except DataError:
        return REFUSED, REFUSED
    return next(iter(log.items.values())), log.events[0]


def in_service(item=None, **event):
    told = {"id": "i", "title": "t"} | (item or {})
    made: Item | str
    try:
        made = ItemBody.model_validate(told).item()
    except ValidationError:
        made = REFUSED
    try:
        body = EventBody.model_validate({"user": "u", "item": "i", "time": 1_600_000_000} | event)
    except ValidationError:
        return made, REFUSED
    return made, body.event(body.user)


@pytest.mark.parametrize("cell", [*PLAIN, *WRONG], ids=ascii)
def test_ids(cell):
    event, served = in_log(user=cell)[1], in_service(user=cell)[1]
    assert served == event
    assert (served == REFUSED) == (cell in WRONG)


@pytest.mark.parametrize("cell", TITLES, ids=lambda cell: ascii(cell)[:30])
def test_titles(cell):
    assert in_service({"title": cell})[0] == in_log({"title": cell})[0]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: ascii(cell)[:30])
def test_details(cell):
    logged, served = in_log({"year": cell})[0], in_service({"details": {"year": cell}})[0]
    if cell == 1e300:
        assert served == REFUSED, "the log leaves it out and says so"
    else:
        assert served == logged
        assert served == REFUSED or type(served.details.get("year")) is type(logged.details.get("year"))


@pytest.mark.parametrize("cell", CATEGORIES, ids=lambda cell: ascii(cell)[:30])
def test_categories(cell):
    logged = in_log({"category": pl.Series([cell], dtype=pl.List(pl.String))[0]})[0]
    assert in_service({"categories": cell})[0] == logged


@pytest.mark.parametrize("cell", KINDS, ids=lambda cell: ascii(cell)[:30])
def test_kinds(cell):
    assert in_service(kind=cell)[1] == in_log(kind=cell)[1]


@pytest.mark.parametrize(
    "cell",
    [
        1600000000,
        1600000000000,
        1600000000000000,
        1600000000000000000,
        1600000000.75,
        "2020-09-13T12:26:40Z",
        "2020-09-13 12:26:40",
        "2020-09-13T14:26:40+02:00",
        "2020-09-13",
        "2020-09-13T12:26:40.5Z",
    ],
)
def test_times(cell):
    served = in_service(time=cell)[1]
    assert served == in_log(time=cell)[1] != REFUSED
    assert served == Event("u", "i", served.time)


def test_an_item_is_an_item():
    assert in_service()[0] == in_log()[0] == Item("i", "t")
