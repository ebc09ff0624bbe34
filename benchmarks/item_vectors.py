"""Item vectors alone: of items that nobody has met yet, and of the next item by text without any counts.

- cold: 15 % of the items are in no training sequence and are asked for (``protocols/cold_items.py``);
- alone: leave one out: a user's last item is asked for, the last but one chooses epochs; all items are ranked but those
  of the history. Vectors have no residuals, so that they are of text alone; beside them, with residuals.

All is chosen on validation: for cold items on others that are taken out of training likewise.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.parts import tell
from benchmarks.setup import Claims, Setup, research
from m6rec import assets
from m6rec.evaluation.metrics import hit_rate, ndcg
from m6rec.foundation import checkpoint
from m6rec.readouts import EmbedModel, TaskModelConfig
from m6rec.retrieval.embeddings import Embeddings, Floats, Ints, Whitening, user_vectors
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
    items: Sequence[Item]
    sequences: Sequence[Ints]
    states_ID: Floats

    @property
    def ids(self) -> list[str]:
        """Of the items."""
        return [item.id for item in self.items]


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
    foundation = checkpoint.load()
    config = TaskModelConfig(task="retrieve", domain="generic", foundation=assets.DEFAULT_FOUNDATION)
    states_ID = EmbedModel.create(config, foundation, assets.home() / "states").item_states(items)
    return Sequences(name, items, [np.array(row, np.int64) for row in words], states_ID)


RAW, WHITENED, HEAD, RESIDUAL = "raw states", "whitened", "head", "head and residuals"


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
    found = {name: means(by_seed) for name, by_seed in results[SETS[0]].items()}
    return {"results": results, "seeds": list(setup.seeds)}, [
        ("Toys, cold items: HitRate@10 among cold", found[HEAD]["cold HitRate@10"], ">=", 0.21),
        ("Toys, cold items: HitRate@10 among all", found[HEAD]["all HitRate@10"], ">=", 0.075),
        (
            "Toys, cold items: HitRate@10 of whitened over raw states",
            found[WHITENED]["cold HitRate@10"] / found[RAW]["cold HitRate@10"],
            ">=",
            1.6,
        ),
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
    found = means(results[SETS[0]][HEAD])
    return {"results": results, "seeds": list(setup.seeds)}, [
        ("Toys, text alone: NDCG@10", found["NDCG@10"], ">=", 0.0565),
        ("Toys, text alone: HitRate@10", found["HitRate@10"], ">=", 0.099),
    ]


def _methods(
    made: Sequences, training: Sequence[Ints], everything: Sequence[Ints], validation: Questions, setup: Setup
) -> dict[str, list[Embeddings]]:
    """By name, vectors of each seed: epochs and decay are chosen on ``training``, then ``everything`` is learned.

    Methods without training have one seed.
    """
    width = made.states_ID.shape[1]
    raw = replace(Embeddings.untrained(made.states_ID, width, 1.0), whitening=_as_it_is(width))
    whitened = Embeddings.untrained(made.states_ID, EmbeddingConfig().width, 1.0)
    found = {name: [_best_decay(one, made, validation)] for name, one in ((RAW, raw), (WHITENED, whitened))}
    for name, config in TRAINED.items():
        tell(f"{made.name}: {name}")
        by_seed = []
        for seed in setup.seeds:
            chosen, history = fit(made.ids, made.states_ID, training, replace(config, seed=seed), validation=validation)
            if everything is not training:
                again = replace(config, seed=seed, epochs=history.best_epoch, decays=(chosen.decay,))
                chosen, _ = fit(made.ids, made.states_ID, everything, again)
            by_seed.append(chosen)
        found[name] = by_seed
    return found


TRAINED = {
    HEAD: EmbeddingConfig(residual_rate=0.0),
    RESIDUAL: EmbeddingConfig(),
}


def _as_it_is(width: int) -> Whitening:
    return Whitening(np.zeros(width, np.float32), np.eye(width, dtype=np.float32))


def _best_decay(made: Embeddings, of: Sequences, validation: Questions) -> Embeddings:
    vectors_IE = made.item_vectors(of.ids, of.states_ID)
    decays = EmbeddingConfig().decays
    return replace(made, decay=max(decays, key=lambda decay: ndcg(validation.ranks(vectors_IE, decay), 10)))


def _protocol() -> Any:
    """The module of ``protocols/cold_items.py``. Raises AbsentError."""
    file = research("../protocols/cold_items.py")
    spec = importlib.util.spec_from_file_location("cold_items", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def _without(
    sequences: Sequence[Sequence[int]], warm_I: NDArray[np.bool_], share: float = 0.15
) -> tuple[list[Ints], Questions]:
    """(training sequences without some of the warm items, questions for these among all warm ones)."""
    random = np.random.default_rng(1)
    warm = random.permutation(np.flatnonzero(warm_I))
    held = np.zeros(len(warm_I), np.bool_)
    held[warm[: int(share * len(warm))]] = True
    training, before, targets = [], [], []
    for sequence in sequences:
        kept = [item for item in sequence if not held[item]]
        training.append(np.array(kept, np.int64))
        for place, item in enumerate(sequence):
            known = [other for other in sequence[:place] if not held[other]]
            if held[item] and known:
                before.append(np.array(known, np.int64))
                targets.append(item)
    return training, _drawn(before, targets, among=warm_I)


def _drawn(before: Sequence[Ints], targets: Sequence[int], among: NDArray[np.bool_] | None = None) -> Questions:
    drawn = np.random.default_rng(2).permutation(len(targets))[:MAX_VALIDATED].tolist()
    return Questions([before[n] for n in drawn], np.array([targets[n] for n in drawn]), among)


def _scorer(made: Sequences, one: Embeddings) -> Callable[[Sequence[list[int]]], Floats]:
    vectors_IE = one.item_vectors(made.ids, made.states_ID)

    def score(histories: Sequence[list[int]]) -> Floats:
        likes = [np.array(history, np.int64) for history in histories]
        scores_QI: Floats = user_vectors(vectors_IE, likes, one.decay) @ vectors_IE.T
        return scores_QI

    return score


def _measured(made: Sequences, one: Embeddings, asked: Questions, count_I: Ints) -> dict[str, float]:
    """Over all users, and by the number of training events of the item that is asked for."""
    found = asked.ranks(one.item_vectors(made.ids, made.states_ID), one.decay)
    count_Q = count_I[asked.targets]
    metrics = {"HitRate@10": hit_rate(found, 10), "NDCG@10": ndcg(found, 10)}
    for name, (least, most) in BUCKETS.items():
        chosen = (count_Q >= least) & (count_Q <= most)
        if chosen.any():
            metrics[f"NDCG@10, items of {name} events"] = ndcg(found[chosen], 10)
    return metrics


def means(by_seed: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {metric: float(np.mean([one[metric] for one in by_seed])) for metric in by_seed[0]}
