"""Films and the people who rate them with one to five stars: MovieLens, the 100k, or a folder of 1M or 20M."""

from pathlib import Path

import polars as pl

from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.domains.domain import Domain
from m6rec.domains.genres import GENRES
from m6rec.domains.grouplens import tables, title_and_year
from m6rec.text.verbalise import age, listed, quote, stars
from m6rec.types import Item, User

_COLUMNS = Columns(time="timestamp", value="rating", category="genres")
_GENDERS = {"M": "male", "F": "female"}
_PERSONS = {
    "entertainment": "entertainer", "healthcare": "healthcare worker", "marketing": "marketing specialist",
    "retired": "retiree", "none": "viewer", "other": "viewer",
}  # fmt: skip


def _load(folder: Path) -> Log:
    events, movies, viewers = tables(Path(folder))
    genres = pl.col("genres").replace(["unknown", "(no genres listed)"], "")
    apart = [name for name in movies.columns if name == "release_year"]
    return read(events, movies.select("item", *title_and_year(*apart), genres), viewers, columns=_COLUMNS)


def _item(item: Item) -> str:
    facts = ", ".join(filter(None, (str(item.details.get("year", "")), listed(item.categories))))
    return f"the movie {quote(item.title)}" + (f" ({facts})" if facts else "")


def _user(user: User) -> str:
    if not {"age", "gender", "occupation"} <= user.details.keys():
        return ""
    gender, occupation = _GENDERS.get(str(user.details["gender"]), ""), str(user.details["occupation"])
    years = user.details["age"]
    phrase = years if isinstance(years, str) else age(years)
    person = _PERSONS.get(occupation, occupation)
    return f"The user is a {gender} {person} {phrase}." if gender else f"The user is a {person} {phrase}."


DOMAIN = Domain(
    name="movielens",
    noun="movie",
    other_nouns=("film",),
    synonyms=GENRES,
    assets=("movielens-100k",),
    load=_load,
    item=_item,
    user=_user,
    rating=stars,
    happened="watched {}",
    values=(0.5, 5),
)
