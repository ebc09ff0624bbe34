"""Item vectors alone: of items that nobody has met yet, and of the next item by text without any counts.

- cold: 15 % of the items are in no training sequence and are asked for (``protocols/cold_items.py``);
- alone: leave one out: a user's last item is asked for, the last but one chooses epochs; all items are ranked but those
  of the history. Vectors have no residuals, so that they are of text alone; beside them, with residuals.

All is chosen on validation: for cold items on others that are taken out of training likewise.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.parts import tell
from benchmarks.setup import Claims, Setup, research
from m6rec import assets
from m6rec.foundation import checkpoint
from m6rec.foundation.states import StateCache, StatesConfig
from m6rec.metrics import hit_rate, ndcg
from m6rec.retrieval.embeddings import Embeddings, Floats, Ints, user_vectors
from m6rec.retrieval.model import states_of
from m6rec.retrieval.training import EmbeddingConfig, Questions, fit
from m6rec.types import Item

SETS = ("amazon_toys", "amazon_beauty")
"""The first alone in the short form."""
MAX_VALIDATED = 4_000
"""Validation questions; so many are drawn."""
BUCKETS = {"0": (0, 0), "1-3": (1, 3), "4-10": (4, 10), "> 10": (11, 1 << 30)}
"""By an item's number of training events."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """What users bought, in order, by numbers of items from 0, and a state of each item's text."""

    name: str
    ids: Sequence[str]
    sequences: Sequence[Ints]
    states_ID: Floats


def load(name: str) -> Sequences:
    """A set with its states, which are computed once on a machine. Raises AbsentError."""
    lines = research(f"{name}/items.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    items = [
        Item(str(row["item_id"]), row.get("title") or "unknown", tuple(reversed((row.get("categories") or [[]])[0])))
        for row in rows
    ]
    words = (line.split()[1:] for line in research(f"{name}/sequences.txt").read_text().splitlines())
    tell(f"states of {len(items)} items of {name}")
    foundation = checkpoint.load(dtype="float32")
    depth = foundation.model.config.num_layers
    cache = StateCache(foundation, StatesConfig(depth=depth, mean=True), assets.home() / "states")
    return Sequences(
        name, [item.id for item in items], [np.array(row, np.int64) for row in words], states_of(cache, items)
    )


def cold(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    protocol = _protocol()
    results: dict[str, Any] = {}
    for name in SETS[: 1 if setup.quick else None]:
        made = load(name)
        split = protocol.load(research(name))
        training, validation = _without(split.train, ~split.cold)
        everything = [np.array(row, np.int64) for row in split.train]
        methods = _methods(made, training, everything, validation, setup)
        results[name] = {
            method: [protocol.evaluate(split, _scorer(made, one)) for one in by_seed]
            for method, by_seed in methods.items()
        }
    found = {name: _means(by_seed) for name, by_seed in results[SETS[0]].items()}
    return {"results": results, "seeds": list(setup.seeds)}, [
        ("Toys, cold items: HitRate@10 among cold", found[HEAD]["cold HitRate@10"], ">=", 0.21),
        ("Toys, cold items: HitRate@10 among all", found[HEAD]["all HitRate@10"], ">=", 0.075),
        ("Toys, whitened, times raw states among cold", _times(found, "cold HitRate@10"), ">=", 1.6),
    ]


def alone(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    results: dict[str, Any] = {}
    for name in SETS[: 1 if setup.quick else None]:
        made = load(name)
        training = [row[:-2] for row in made.sequences]
        validation = _drawn([row[:-2] for row in made.sequences], [row[-2] for row in made.sequences])
        asked = Questions([row[:-1] for row in made.sequences], np.array([row[-1] for row in made.sequences]))
        count_I = np.bincount(np.concatenate(training), minlength=len(made.ids))
        methods = _methods(made, training, training, validation, setup)
        results[name] = {
            method: [_measured(made, one, asked, count_I) for one in by_seed] for method, by_seed in methods.items()
        }
    found = _means(results[SETS[0]][HEAD])
    return {"results": results, "seeds": list(setup.seeds)}, [
        ("Toys, text alone: NDCG@10", found["NDCG@10"], ">=", 0.0565),
        ("Toys, text alone: HitRate@10", found["HitRate@10"], ">=", 0.099),
    ]
