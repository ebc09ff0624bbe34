"""Films and the people who rate them with one to five stars: MovieLens-100k."""

from pathlib import Path

import polars as pl

from m6rec.domains.domain import Domain
from m6rec.text.log import Columns, Log, read
from m6rec.text.verbalise import age, names, quote
from m6rec.types import Event, Item, User

_COLUMNS = Columns(
    user="user_id",
    item="item_id",
    time="timestamp",
    value="rating",
    title="movie_title",
    category="class",
    category_separator=" ",
)
_ARTICLE = r"([^()]+), (The|An?|L[ae]s?|L'|Il|El|O|Das|Der|Die|Det)(\)| \(|$)"  # "Matrix, The" → "The Matrix"
_ACTIONS = {5: "loved", 4: "liked", 3: "was lukewarm about", 2: "disliked", 1: "hated"}
_PERSONS = {
    "entertainment": "entertainer",
    "healthcare": "healthcare worker",
    "marketing": "marketing specialist",
    "none": "viewer",
    "other": "viewer",
    "retired": "retiree",
}


def _load(folder: Path) -> Log:
    title, year = pl.col("movie_title"), pl.col("release_year").cast(pl.Int64, strict=False)
    natural = (
        title.str.replace(r" \(\d{4}\)$", "").str.replace_all(_ARTICLE, "${2} ${1}${3}").str.replace_all("L' ", "L'")
    )
    movies = _table(folder, "item").select(
        "item_id",
        natural.alias("movie_title"),
        pl.coalesce(year, title.str.extract(r"\((\d{4})\)$").cast(pl.Int64)).alias("year"),
        pl.col("class").str.replace("unknown", ""),
    )
    viewers = _table(folder, "user").select("user_id", pl.col("age").cast(pl.Int64), "gender", "occupation")
    return read(_table(folder, "inter"), movies, viewers, columns=_COLUMNS)


def _table(folder: Path, kind: str) -> pl.DataFrame:
    """A table of RecBole, whose columns are called ``name:type``, as text."""
    frame = pl.read_csv(folder / f"ml-100k.{kind}", separator="\t", quote_char=None, infer_schema=False)
    return frame.rename(lambda column: column.partition(":")[0])


def _item(item: Item) -> str:
    facts = ", ".join(filter(None, (str(item.details.get("year", "")), names(item.categories))))
    return f"the movie {quote(item.title)}" + (f" ({facts})" if facts else "")


def _user(user: User) -> str:
    if not {"age", "gender", "occupation"} <= user.details.keys():
        return ""
    gender = {"M": "male", "F": "female"}[str(user.details["gender"])]
    occupation = str(user.details["occupation"])
    return f"The user is a {gender} {_PERSONS.get(occupation, occupation)} {age(float(user.details['age']))}."


def _action(event: Event) -> str:
    return _ACTIONS[min(max(int(event.value), 1), 5)]


DOMAIN = Domain(
    name="movielens",
    noun="movie",
    assets=("movielens-100k",),
    load=_load,
    item=_item,
    user=_user,
    action=_action,
    likes=lambda event: event.value >= 4,
)
