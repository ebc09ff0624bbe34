"""Films and the people who rate them with one to five stars: MovieLens-100k."""

from pathlib import Path

import polars as pl

from m6rec.domains.domain import Domain
from m6rec.text.log import Columns, Log, read
from m6rec.text.verbalise import age, names, quote, stars
from m6rec.types import Item, User

_COLUMNS = Columns(time="timestamp", value="rating", title="movie_title", category="class", category_separator=" ")
_ARTICLE = r"([^()]+), (The|An?|L[ae]s?|L'|Il|El|O|Das|Der|Die|Det)(\)| \(|$)"  # "Matrix, The" → "The Matrix"
_GENDERS = {"M": "male", "F": "female"}
_PERSONS = {
    "entertainment": "entertainer", "healthcare": "healthcare worker", "marketing": "marketing specialist",
    "retired": "retiree", "none": "viewer", "other": "viewer",
}  # fmt: skip


def _load(folder: Path) -> Log:
    events, movies, viewers = (
        pl.read_csv(folder / f"ml-100k.{kind}", separator="\t", quote_char=None, infer_schema=False).rename(
            lambda column: column.partition(":")[0].removesuffix("_id")  # RecBole's are called name:type
        )
        for kind in ("inter", "item", "user")
    )
    title = pl.col("movie_title")
    year = pl.coalesce(title.str.extract(r" \((\d{4})\)$"), "release_year").cast(pl.Int64, strict=False)
    natural = title.str.replace(r" \(\d{4}\)$", "").str.replace_all(_ARTICLE, "${2} ${1}${3}").str.replace("L' ", "L'")
    movies = movies.select("item", natural, year.alias("year"), pl.col("class").str.replace("unknown", ""))
    viewers = viewers.select("user", pl.col("age").cast(pl.Int64), "gender", "occupation")
    return read(events, movies, viewers, columns=_COLUMNS)


def _item(item: Item) -> str:
    facts = ", ".join(filter(None, (str(item.details.get("year", "")), names(item.categories))))
    return f"the movie {quote(item.title)}" + (f" ({facts})" if facts else "")


def _user(user: User) -> str:
    if not {"age", "gender", "occupation"} <= user.details.keys():
        return ""
    gender, occupation = _GENDERS[str(user.details["gender"])], str(user.details["occupation"])
    return f"The user is a {gender} {_PERSONS.get(occupation, occupation)} {age(float(user.details['age']))}."


DOMAIN = Domain(
    name="movielens",
    noun="movie",
    assets=("movielens-100k",),
    load=_load,
    item=_item,
    user=_user,
    action=lambda event: stars(event.value),
    likes=lambda event: event.value >= 4,
)
