"""The small parts of the studies that a wrong sign would spoil unseen."""

import numpy as np
import polars as pl

from benchmarks.evidence import OURS
from m6rec.data.read import read
from m6rec.data.split import TEST, TRAIN, Split
from m6rec.evaluation.ablation import by_count
from m6rec.evaluation.metrics import hit_rate


def test_questions_are_counted_by_what_was_before_them():
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z"), ("a", "z"), ("c", "x")]
    events = pl.DataFrame(rows, schema=["user", "item"], orient="row").with_columns(time=pl.int_range(1, 7))
    items = pl.DataFrame({"item": ["x", "y", "z"], "title": ["X", "Y", "Z"]})
    split = Split(read(events, items), np.array([TRAIN, TRAIN, TRAIN, TEST, TEST, TEST], np.uint8))
    ranks = {OURS: [np.array([1.0, 20.0, 1.0])]}
    of_user, of_item = by_count(
        "found", split, np.array([3, 4, 5]), (0, 1, 3), ranks, lambda ranks, asked: hit_rate(ranks[asked], 10)
    )
    assert of_user.rows[0].metrics == {"0 (n=1)": (1.0,), "1 (n=1)": (1.0,), "2-3 (n=1)": (0.0,)}
    assert of_item.rows[0].metrics == {"0 (n=1)": (1.0,), "1 (n=1)": (0.0,), "2-3 (n=1)": (1.0,)}
