"""The research sets of ``shared/data`` with their published splits, and the floors that any model must pass on them.

``python -m benchmarks.sets FOLDER`` checks each set for leaks and prints its floors. Nothing here is part of the product.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from m6rec import baselines
from m6rec.domains import amazon, movielens
from m6rec.domains.domain import Domain
from m6rec.metrics import auc, hit_rate, ndcg, uauc
from m6rec.text import leaks
from m6rec.text.lines import table
from m6rec.text.log import TEST, TRAIN, VALID, Columns, Log, Split, read
from m6rec.types import Item

LIKES = replace(
    movielens.DOMAIN,
    name="ml1m_collm",
    assets=(),
    action=lambda event: "liked" if event.value > 0 else "did not like",
    likes=lambda event: event.value > 0,
)
PURCHASES = replace(amazon.DOMAIN, assets=(), action=lambda event: "bought", likes=lambda event: True)


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
    log = read(rows, columns=Columns(user="uid", item="iid", time="timestamp", value="label"))
    made = Split(log, rows["part"].to_numpy())
    leaks.check(made, allowed={leaks.SAME_TIME})
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
    rows = rows.with_columns(part=pl.col("at").replace_strict({-1: TEST, -2: VALID}, default=TRAIN, return_dtype=pl.UInt8))
    rows = rows.sort("part", maintain_order=True)
    made = Split(read(rows.select("user", "item"), items, columns=Columns(time=None)), rows["part"].to_numpy())
    leaks.check(made)
    return Set(made, PURCHASES, np.ones(len(rows), np.bool_))


SETS = {"ml1m_collm": ml1m_collm, "amazon_beauty": amazon_sequences, "amazon_toys": amazon_sequences}
