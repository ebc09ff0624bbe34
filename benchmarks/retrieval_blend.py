"""The blend on Amazon sets, leave one out: item-item models and text, each alone and together, by an item's popularity.

Epochs, decay and weights are chosen with the last but one of each sequence as validation; then all but the last is
learned with them, and the last is asked for among all items but those of the history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.item_vectors import BUCKETS, MAX_VALIDATED, SETS, Sequences, load
from benchmarks.parts import tell
from benchmarks.setup import Claims, Setup
from m6rec.metrics import hit_rate, ndcg
from m6rec.retrieval.blend import TEXT, Blend, HeldOut, ranked, weigh
from m6rec.retrieval.blend import fit as fit_sources
from m6rec.retrieval.embeddings import Embeddings, Floats, Ints, user_vectors
from m6rec.retrieval.training import EmbeddingConfig, Questions, fit

TARGETS = {"amazon_toys": (0.088, 0.140), "amazon_beauty": (0.068, 0.114)}
"""NDCG@10 and HitRate@10 wanted of the blend."""
BLEND, MEAN_STATE = "blend", "blend, text replaced by the mean state"


def blend(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    results: dict[str, Any] = {}
    for name in SETS[: 1 if setup.quick else None]:
        made = load(name)
        by_seed = [_measured(made, seed) for seed in setup.seeds]
        results[name] = {
            "weights": [weights for _, weights in by_seed],
            "methods": {method: [found[method] for found, _ in by_seed] for method in by_seed[0][0]},
        }
    claims: Claims = []
    for name, of_set in results.items():
        means = {
            method: {metric: float(np.mean([one[metric] for one in by_seed])) for metric in by_seed[0]}
            for method, by_seed in of_set["methods"].items()
        }
        for metric, target in zip(("NDCG@10", "HitRate@10"), TARGETS[name], strict=True):
            claims.append((f"{name}, blend: {metric}", means[BLEND][metric], ">=", target))
        without = means[MEAN_STATE]["NDCG@10"]
        claims.append((f"{name}: NDCG@10 that text adds to the blend", means[BLEND]["NDCG@10"] - without, ">", 0.0))
    return {"results": results, "seeds": list(setup.seeds)}, claims


def _measured(made: Sequences, seed: int) -> tuple[dict[str, dict[str, float]], Mapping[str, float]]:
    """(metrics by method, what each part weighs)."""
    tell(f"{made.name}, seed {seed}")
    config = EmbeddingConfig(seed=seed)
    earlier, latest = [row[:-2] for row in made.sequences], [row[:-1] for row in made.sequences]
    drawn = np.random.default_rng(seed).permutation(len(made.sequences))[:MAX_VALIDATED].tolist()
    asked = Questions([earlier[n] for n in drawn], np.array([made.sequences[n][-2] for n in drawn]))
    chosen, history = fit(made.ids, made.states_ID, earlier, config, validation=asked)
    weighed = weigh(_sources(made, earlier, chosen, made.states_ID), _held_out(made, asked, chosen, made.states_ID))
    again = replace(config, epochs=history.best_epoch, decays=(chosen.decay,))
    final, _ = fit(made.ids, made.states_ID, latest, again)
    tested = Questions(latest, np.array([row[-1] for row in made.sequences]))
    held_out = _held_out(made, tested, final, made.states_ID)
    whole = _sources(made, latest, final, made.states_ID).weighed(weighed.weights)
    untold_ID = np.broadcast_to(made.states_ID.mean(0), made.states_ID.shape)
    without = _sources(made, latest, final, untold_ID).weighed(weighed.weights)
    names = [*whole.arrays, TEXT]
    ranks = {
        BLEND: ranked(whole, held_out),
        MEAN_STATE: ranked(without, _held_out(made, tested, final, untold_ID)),
        **{f"{name} alone": ranked(_alone(whole, name), held_out) for name in names},
    }
    count_Q = np.bincount(np.concatenate(latest), minlength=len(made.ids))[tested.targets]
    return {method: _metrics(of, count_Q) for method, of in ranks.items()}, weighed.weights


def _sources(made: Sequences, sequences: Sequence[Ints], one: Embeddings, states_ID: Floats) -> Blend:
    vectors_IE = one.item_vectors(made.ids, states_ID)
    events = ((str(user), made.ids[item], True) for user, row in enumerate(sequences) for item in row.tolist())
    return fit_sources(events, dict(zip(made.ids, vectors_IE, strict=True)))


def _held_out(made: Sequences, asked: Questions, one: Embeddings, states_ID: Floats) -> HeldOut:
    vectors_IE = one.item_vectors(made.ids, states_ID)
    return HeldOut(
        liked=asked.likes,
        seen=asked.likes,
        target_Q=asked.targets,
        users_QE=user_vectors(vectors_IE, asked.likes, one.decay),
        ids=made.ids,
        items_IE=vectors_IE,
    )


def _alone(whole: Blend, name: str) -> Blend:
    return replace(whole, weights={other: float(other == name) for other in (*whole.arrays, TEXT)})


def _metrics(ranks_Q: Floats, count_Q: Ints) -> dict[str, float]:
    """Over all users, and by the number of events of the item that is asked for."""
    found = {"HitRate@10": hit_rate(ranks_Q, 10), "NDCG@10": ndcg(ranks_Q, 10)}
    for name, (least, most) in BUCKETS.items():
        asked = (count_Q >= least) & (count_Q <= most)
        if asked.any():
            found[f"NDCG@10, items of {name} events"] = ndcg(ranks_Q[asked], 10)
    return found
