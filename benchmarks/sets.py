"""Research sets with their published splits, each checked for leaks. None is part of the product."""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from m6rec.data import leakage
from m6rec.data.lines import table
from m6rec.data.log import Log
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains import amazon, movielens, prepared
from m6rec.domains.domain import Domain
from m6rec.domains.grouplens import title_and_year
from m6rec.text.verbalise import choice
from m6rec.types import Feedback

LIKES = replace(
    movielens.DOMAIN,
    name="ml1m_collm",
    assets=(),
    rating=choice("liked", "did not like"),
    values=(0, 1),
)
PURCHASES = replace(amazon.DOMAIN, assets=(), rating=lambda value: Feedback(True, 1.0, "bought {}"))
PUBLISHED = {
    "ml1m_collm": {
        "SASRec": {"AUC": 0.7078, "UAUC": 0.6884},
        "DIN": {"AUC": 0.7166, "UAUC": 0.6459},
        "CoLLM-MF (7B)": {"AUC": 0.7295, "UAUC": 0.6875},
        "BinLLM (7B)": {"AUC": 0.7425, "UAUC": 0.6956},
    },
    "amazon_beauty": {
        "SASRec, sampled softmax": {"HitRate@10": 0.0921, "NDCG@10": 0.0531},
        "TIGER": {"HitRate@10": 0.0648, "NDCG@10": 0.0384},
        "OneRec": {"HitRate@10": 0.0924},
    },
    "amazon_toys": {
        "SASRec, sampled softmax": {"HitRate@10": 0.0970, "NDCG@10": 0.0580},
        "TIGER": {"HitRate@10": 0.0712, "NDCG@10": 0.0432},
        "OneRec": {"HitRate@10": 0.0953},
    },
}
"""What papers say of the same splits."""


@dataclass(frozen=True, eq=False)
class Set:
    """A split as published, checked for leaks.

    Attributes:
        split: The split; its log is in the order in which questions may be asked.
        domain: Its words.
        warm: bool [events], whether user and item are seen in training, as published.
    """

    split: Split
    domain: Domain
    warm: NDArray[np.bool_]


def movielens_100k() -> prepared.Prepared:
    """MovieLens-100k, split by time as in the demo."""
    return prepared.prepare("movielens", "time", Path("runs/bench/movielens"))


def ml1m_collm(folder: Path) -> Set:
    """MovieLens-1M as CoLLM split it by time (arXiv 2310.19488); an event's value is 1 for a like, else 0."""
    columns = ("uid", "iid", "label", "timestamp", "title", "not_cold")
    schema = dict(zip(columns, (*[pl.Int64] * 4, pl.String, pl.Int64), strict=True))
    parts = [
        table(folder / f"{name}.jsonl", schema, lambda row: [row[name] for name in columns], of="CoLLM's split")
        for name in ("train", "valid", "test")
    ]
    rows = pl.concat([rows.with_columns(part=pl.lit(part, pl.UInt8)) for part, rows in enumerate(parts)])
    rows = rows.sort("timestamp", maintain_order=True)  # within a second, events keep the order of the file
    items = rows.unique("iid", keep="first", maintain_order=True).select("iid", *title_and_year())
    named = Columns(user="uid", item="iid", time="timestamp", value="label")
    log = read(rows.drop("title"), items, columns=named, duplicates="keep")  # as the parts are by position
    made = Split(log, rows["part"].to_numpy())
    leakage.check(made, allowed={leakage.SAME_TIME})
    return Set(made, LIKES, rows["not_cold"].to_numpy() == 1)


def amazon_sequences(folder: Path) -> Set:
    """A user's purchases in order, without times: the last is for the test, the last but one for validation.

    The log has all training events first, then those of validation, then those of the test: a question of the test
    may know what everyone bought in training and validation. Ids in the files number items and are left behind.
    """
    items = table(
        folder / "items.jsonl",
        {"item": pl.String, "title": pl.String, "category": pl.List(pl.String)},
        lambda row: (str(row["item_id"]), row["title"], [*dict.fromkeys(chain(*map(reversed, row["categories"])))]),
        of="item_id, title and categories",
    )
    sequences = table(
        folder / "sequences.txt",
        {"user": pl.String, "item": pl.List(pl.String)},
        lambda words: (words[0], words[1:]),
        of="a user and the numbers of items in order",
        parse=str.split,
    )
    rows = sequences.with_columns(at=pl.int_ranges(-pl.col("item").list.len().cast(pl.Int64), 0)).explode("item", "at")
    rows = rows.with_columns(
        part=pl.col("at").replace_strict({-1: TEST, -2: VALID}, default=TRAIN, return_dtype=pl.UInt8)
    )
    rows = rows.sort("part", maintain_order=True)
    log = read(rows.select("user", "item"), items, columns=Columns(time=None), duplicates="keep")
    made = Split(log, rows["part"].to_numpy())
    leakage.check(made)
    return Set(made, PURCHASES, np.ones(len(rows), np.bool_))


def most_active(log: Log, *, items: int, users: int) -> Log:
    """The log of so many items with the most events and, of these, so many users with the most."""
    count = Counter(event.item for event in log.events)
    kept = {item for item, _ in count.most_common(items)}
    people = {user for user, _ in Counter(event.user for event in log.events if event.item in kept).most_common(users)}
    events = tuple(event for event in log.events if event.item in kept and event.user in people)
    return replace(
        log,
        events=events,
        users={user: log.users[user] for user in dict.fromkeys(event.user for event in events)},
        items={item: log.items[item] for item in dict.fromkeys(event.item for event in events)},
    )
