"""The small parts of the studies that a wrong sign would spoil unseen."""

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.evidence import OURS
from benchmarks.latency import flop, upper_products
from m6rec.data.read import read
from m6rec.data.split import TEST, TRAIN, Split
from m6rec.evaluation.ablation import by_count
from m6rec.evaluation.metrics import auc, hit_rate
from m6rec.foundation.attention import CachedQuery
from m6rec.metrics import hit_rate
from tests import tiny


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


# Not both: the counter leaves out the attention of fresh tokens to each other, which the last layer has none of.
@pytest.mark.parametrize(("num_layers", "num_fresh"), [(2, 0), (1, 3)])
def test_operations_counted_by_hand_are_those_that_run(num_layers, num_fresh):
    model, num_known, num_candidates = tiny.foundation().model, 4, 7
    depth = model.config.num_layers - num_layers
    rng = torch.Generator().manual_seed(0)
    width = model.config.width
    known_ND, new_ND = torch.randn(num_known, width, generator=rng), torch.randn(num_fresh, width, generator=rng)
    blocks_C1D = torch.randn(num_candidates, 1, width, generator=rng)
    _, (known,) = model.forward_cached([CachedQuery((), known_ND, blocks_C1D[:0])], depth)
    with FlopCounterMode(display=False) as counted:
        model.forward_cached([CachedQuery(known, new_ND, blocks_C1D)], depth)
    products = upper_products(model.config, num_layers, num_known + num_fresh, num_fresh, num_candidates)
    assert flop(products) == counted.get_total_flops()
