"""News articles that were shown and clicked or not: MIND (Wu et al., ACL 2020).

``load`` takes folders with ``behaviors.tsv`` and ``news.tsv`` (MINDsmall_train, MINDsmall_dev). An article of an
impression is an event, value 1 if clicked, else 0. Clicks of a ``history`` have no time, but were made before the file
begins: they come one second before, in their order. The published test part marks no clicks and can't be read.
"""

import re
from pathlib import Path

import polars as pl

from m6rec.data.lines import table
from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.domains.domain import Domain
from m6rec.text.verbalise import choice, quote
from m6rec.types import Item

_NEWS = ("item", "topic", "subtopic", "title", "abstract")
_BEHAVIOUR = ("number", "user", "time", "history", "shown")
_SHOWN = re.compile(r"\S+-[01]( \S+-[01])*")


def _load(*folders: Path) -> Log:
    news = pl.concat([_read(folder / "news.tsv", _NEWS) for folder in folders]).unique("item", maintain_order=True)
    news = news.select("item", "title", "abstract", category=pl.concat_list("subtopic", "topic"))
    behaviours = [_read(folder / "behaviors.tsv", _BEHAVIOUR) for folder in folders]
    moment = pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p", strict=False).dt.epoch("s")
    behaviours = [rows.with_columns(moment, start=moment.min() - 1) for rows in behaviours]
    # A later file repeats in a user's history what an earlier one showed them.
    first = pl.concat(behaviours).unique("user", keep="first", maintain_order=True)
    before = first.select("user", time="start", item=pl.col("history").str.split(" "), value=pl.lit("1"))
    before = before.explode("item").filter(pl.col("item") != "")
    shown = pl.concat(behaviours).select("user", "time", pl.col("shown").str.split(" ")).explode("shown")
    shown = shown.select("user", "time", item=pl.col("shown").str.head(-2), value=pl.col("shown").str.tail(1))
    return read(pl.concat([before, shown]), news)


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    def pick(fields: list[str]) -> list[str]:
        row = fields[: len(columns)]
        if len(row) < len(columns) or (columns is _BEHAVIOUR and not _SHOWN.fullmatch(row[-1])):
            raise ValueError("a field is missing, or no click marked")
        return row

    of = f"MIND's {path.name}, {', '.join(columns)} between tabs"
    return table(path, dict.fromkeys(columns, pl.String), pick, of=of, parse=lambda line: line.split("\t"))


def _item(item: Item) -> str:
    category = f" of category {quote(item.categories[0])}" if item.categories else ""
    return f"the news article{category} named {quote(item.title)}"


DOMAIN = Domain(
    name="mind", noun="article", assets=(), load=_load, item=_item, user=lambda user: "",
    rating=choice("clicked", "skipped"), happened="clicked {}", values=(0, 1),
)  # fmt: skip
