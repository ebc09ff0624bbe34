"""Books and their readers: Book-Crossing, 1.1 million ratings of 2004, without time.

A value of 1 to 10 is a rating; 0, a book that was had but not rated, counts as a like.
"""

from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import polars as pl

from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.domains.domain import Domain
from m6rec.text.verbalise import age, quote
from m6rec.types import Feedback, Item, User


def _load(folder: Path) -> Log:
    ratings = _table(folder / "BX-Book-Ratings.csv", "user", "item", "value")
    books = _table(folder / "BX-Books.csv", "item", "title", "author", "year")
    readers = _table(folder / "BX-Users.csv", "user", "place", "age")
    year, years = (pl.col(name).cast(pl.Int64, strict=False) for name in ("year", "age"))  # some are 0, 2050 or 244
    books = books.with_columns(year=pl.when(year.is_between(1000, 2004)).then(year))
    country = pl.col("place").str.extract(r", ([a-z .]+)$").str.to_titlecase().str.replace("^Usa$", "USA")
    readers = readers.select("user", age=pl.when(years.is_between(5, 100)).then(years), country=country)
    log = read(ratings, books, readers, columns=Columns(time=None), on_error="drop")
    users = {event.user: log.users[event.user] for event in log.events}
    return replace(log, users=users, items={event.item: log.items[event.item] for event in log.events})


def _table(path: Path, *names: str) -> pl.DataFrame:
    text = path.read_text(encoding="latin-1").replace('\\"', "'").replace("&amp;", "&").replace(";NULL", ';"NULL"')
    rows = (line.strip('"').split('";"') for line in text.splitlines()[1:])
    return pl.DataFrame(dict(zip(names, zip_longest(*rows), strict=False)))  # a broken line lacks fields


def _item(item: Item) -> str:
    author, year = (item.details.get(name) for name in ("author", "year"))
    return f"the book {quote(item.title)}" + (f" by {author}" if author else "") + (f" ({year})" if year else "")


def _user(user: User) -> str:
    years, country = (user.details.get(name) for name in ("age", "country"))
    facts = (f" {age(float(years))}" if years else "") + (f" from {country}" if country else "")
    return f"The user is a reader{facts}." if facts else ""


def _rating(value: float) -> Feedback:
    degrees = ((9, "loved {}"), (7, "liked {}"), (5, "was lukewarm about {}"), (1, "disliked {}"))
    words = next((words for start, words in degrees if value >= start), "read {}")
    return Feedback(value == 0 or value >= 7, (value - 1) / 9 if value else 0.75, words)


DOMAIN = Domain(
    name="books", noun="book", assets=("book-crossing",), load=_load, item=_item, user=_user, rating=_rating,
    happened="read {}", values=(0, 10),
)  # fmt: skip
