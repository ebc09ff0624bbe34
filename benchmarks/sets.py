"""Research sets with their published splits, and the floors that any model must pass on them.

``python -m benchmarks.sets FOLDER`` checks each for leaks and prints its size and floors. None is part of the product.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from m6rec.data import leakage
from m6rec.data.lines import table
from m6rec.data.read import read
from m6rec.data.schema import Columns
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains import amazon, movielens, prepared
from m6rec.domains.domain import Domain
from m6rec.domains.grouplens import title_and_year
from m6rec.evaluation import baselines
from m6rec.evaluation.metrics import auc, hit_rate, ndcg, uauc
from m6rec.text.verbalise import choice
from m6rec.types import Feedback

Floors = dict[str, dict[str, float]]
"""By method, by metric."""
PARTS = {"training": TRAIN, "validation": VALID, "test": TEST}
MEMORY = 0.6  # of .1 to 1, chosen by NDCG@10 on the validation part of Beauty
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


def ranking_floors(made: Set) -> Floors:
    """AUC and UAUC on the test part of what was counted in training: likes of the item, and its and the user's share.

    A share is shrunk towards the like rate by five observations; "item and user" is the sum of the two.
    """
    events = made.split.log.events
    known, asked = ([events[at] for at in made.split.indices(part)] for part in (TRAIN, TEST))
    rate = float(np.mean([event.value for event in known]))
    likes_of: Counter[str] = Counter()
    for event in known:
        likes_of[event.item] += int(event.value)
        likes_of[f"user {event.user}"] += int(event.value)
    count_of = Counter(chain(*((event.item, f"user {event.user}") for event in known)))

    def share(key: str) -> float:
        return (likes_of[key] + 5 * rate) / (count_of[key] + 5)

    labels, users = np.array([int(event.value) for event in asked]), np.array([event.user for event in asked])
    warm = made.warm[made.split.indices(TEST)]
    found = {}
    for name, score in (
        ("likes of the item", lambda event: float(likes_of[event.item])),
        ("item's share", lambda event: share(event.item)),
        ("item's and user's share", lambda event: share(event.item) + share(f"user {event.user}")),
    ):
        scores = np.array([score(event) for event in asked])
        found[name] = {
            "AUC": auc(labels, scores),
            "UAUC": uauc(labels, scores, users),
            "AUC, warm": auc(labels[warm], scores[warm]),
            "UAUC, warm": uauc(labels[warm], scores[warm], users[warm]),
        }
    return found


@dataclass
class CoOccurrence:
    """Cosine of the buyers of two items, summed over a history whose items are weighted (``baselines.Baseline``)."""

    cosine_II: csr_matrix = field(init=False, repr=False)

    def fit(self, interactions: csr_matrix) -> Self:
        """Counts who bought both."""
        unit = interactions / np.sqrt(np.maximum(interactions.sum(0), 1))
        self.cosine_II = (unit.tocsc().T @ unit.tocsc()).tocsr()
        self.cosine_II.setdiag(0)
        return self

    def scores(self, histories: csr_matrix) -> NDArray[np.floating]:
        """Sums them up [B, I]."""
        return np.asarray((histories @ self.cosine_II).toarray())


def retrieval_floors(made: Set) -> Floors:
    """Full ranking of each user's last item, those before left out: popularity and co-occurrence.

    Both count all but the test part. For co-occurrence an item of the history weighs ``MEMORY`` of the one after it.
    """
    numbers = {item: number for number, item in enumerate(made.split.log.items)}
    sequences: dict[str, list[int]] = {}
    for event in made.split.log.events:
        sequences.setdefault(event.user, []).append(numbers[event.item])
    targets = [sequence[-1] for sequence in sequences.values()]
    before = [sequence[:-1] for sequence in sequences.values()]
    ends = np.concatenate([[0], np.cumsum([len(items) for items in before])])
    columns = np.concatenate(before)
    weights = np.concatenate([MEMORY ** np.arange(len(items))[::-1] for items in before])
    shape = (len(before), len(numbers))
    bought = csr_matrix((np.ones(len(columns)), columns, ends), shape=shape)
    recent = csr_matrix((weights, columns, ends), shape=shape)
    found = {}
    for name, model, histories in (
        ("popularity", baselines.Popularity(), bought),
        ("co-occurrence", CoOccurrence(), recent),
    ):
        ranks = baselines.target_ranks(model.fit(bought), histories, targets, bought)
        found[name] = {"R@10": hit_rate(ranks, 10), "N@10": ndcg(ranks, 10)}
    return found


SETS = {
    "ml1m_collm": (ml1m_collm, ranking_floors),
    "amazon_beauty": (amazon_sequences, retrieval_floors),
    "amazon_toys": (amazon_sequences, retrieval_floors),
}


def main(folder: Path) -> None:
    """Prints the size and the floors of each set, as JSON."""
    result = {}
    for name, (load, floors) in SETS.items():
        made = load(folder / name)
        log = made.split.log
        sizes = {"events": len(log.events), "users": len(log.users), "items": len(log.items)}
        parts = {name: len(made.split.indices(part)) for name, part in PARTS.items()}
        found = {leak.name: leak.count for leak in leakage.find(made.split)}
        result[name] = {**sizes, **parts, "leaks": found, "floors": floors(made)}
        print(f"{name}: {json.dumps(result[name], indent=1)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
