"""The layouts in which MovieLens is published: tables (events, movies, viewers) with one set of column names.

The 100k as RecBole has it, 1M (``ratings.dat``), and 20M with its kin (``ratings.csv``: 25M, 32M, latest), where
nothing is known of viewers.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from m6rec.data.lines import table
from m6rec.errors import DataError

Tables = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame | None]
AGES = {
    "1": "under 18", "18": "aged 18 to 24", "25": "aged 25 to 34", "35": "aged 35 to 44", "45": "aged 45 to 49",
    "50": "aged 50 to 55", "56": "aged 56 or more",
}  # fmt: skip
"""What the codes of 1M's ``users.dat`` mean; likewise ``OCCUPATIONS``, by number."""
OCCUPATIONS = (
    "other", "educator", "artist", "clerk", "college student", "customer service worker", "healthcare worker",
    "executive", "farmer", "homemaker", "school student", "lawyer", "programmer", "retired", "salesperson", "scientist",
    "self-employed person", "engineer", "tradesperson", "unemployed person", "writer",
)  # fmt: skip
_ARTICLE = r"([^()]+), (The|An?|L[ae]s?|L'|Il|El|O|Das|Der|Die|Det)(\)| \(|$)"  # "Matrix, The" → "The Matrix"


def tables(folder: Path) -> Tables:
    """The tables of a folder, whatever its layout.

    Returns:
        Events (user, item, rating, timestamp), movies (item, title as published, year where it is apart, genres) and
        viewers (user, age as number or in words, gender M or F, occupation), if any.

    Raises:
        DataError: The folder holds none of the layouts, or a file isn't what it should be.
    """
    for name, read in (("ml-100k.inter", _recbole), ("ratings.dat", _dat), ("ratings.csv", _csv)):
        if (folder / name).is_file():
            return read(folder)
    raise DataError(
        f"{folder} holds no MovieLens; give a folder with ratings.dat (1M), ratings.csv (20M) or ml-100k.inter"
    )


def _recbole(folder: Path) -> Tables:
    events, movies, viewers = (
        pl.read_csv(folder / f"ml-100k.{kind}", separator="\t", quote_char=None, infer_schema=False).rename(
            lambda column: column.partition(":")[0].removesuffix("_id")  # RecBole's are called name:type
        )
        for kind in ("inter", "item", "user")
    )
    movies = movies.select(
        "item", "release_year", title="movie_title", genres=pl.col("class").str.replace_all(" ", "|")
    )
    return events, movies, viewers.select("user", pl.col("age").cast(pl.Int64), "gender", "occupation")


def _dat(folder: Path) -> Tables:
    def read(name: str, *columns: str) -> pl.DataFrame:
        def pick(fields: list[str]) -> Sequence[str]:
            if len(fields) != len(columns):
                raise ValueError(f"{len(fields)} fields")
            return fields

        of = f"MovieLens-1M's {name}, {len(columns)} fields divided by '::'"
        schema = dict.fromkeys(columns, pl.String)
        return table(folder / name, schema, pick, of=of, parse=lambda line: line.split("::"), encoding="latin-1")

    events = read("ratings.dat", "user", "item", "rating", "timestamp")
    movies = read("movies.dat", "item", "title", "genres")
    viewers = read("users.dat", "user", "gender", "age", "occupation", "zip")
    numbers = {str(number): name for number, name in enumerate(OCCUPATIONS)}
    codes = pl.col("age").replace_strict(AGES, default=None), pl.col("occupation").replace_strict(numbers, default=None)
    return events, movies, viewers.select("user", "gender", *codes)


def _csv(folder: Path) -> Tables:
    try:
        events = pl.read_csv(folder / "ratings.csv", schema_overrides={"rating": pl.Float64}).rename(
            {"userId": "user", "movieId": "item"}
        )
        movies = pl.read_csv(folder / "movies.csv", infer_schema=False).rename({"movieId": "item"})
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{folder} can't be read ({str(error).splitlines()[0]}); give MovieLens-20M's ratings.csv "
            "(userId,movieId,rating,timestamp) and movies.csv (movieId,title,genres)"
        ) from error
    return events, movies, None


def title_and_year(*apart: str) -> tuple[pl.Expr, pl.Expr]:
    """Columns "title" and "year" from titles as MovieLens writes them: "Matrix, The (1999)", or the year apart."""
    title = pl.col("title").str.strip_chars()
    year = pl.coalesce(title.str.extract(r" \((\d{4})\)$"), *apart).cast(pl.Int64, strict=False)
    natural = title.str.replace(r" \(\d{4}\)$", "").str.replace_all(_ARTICLE, "${2} ${1}${3}").str.replace("L' ", "L'")
    return natural, year.alias("year")
