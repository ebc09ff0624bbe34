"""The blend on Amazon sets, leave one out: item-item models and text, each alone and together, by an item's popularity.

Epochs, decay, memories and weights are chosen with the last but one of each sequence as validation; then all but the
last is learned with them, and the last is asked for among all items but those of the history. A set and seed that was
measured at this commit is not measured again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.item_vectors import BUCKETS, MAX_VALIDATED, SETS, Sequences, load, means
from benchmarks.parts import kept, tell
from benchmarks.setup import Claims, Setup, mean_difference
from m6rec.evaluation import report
from m6rec.evaluation.metrics import hit_rate, ndcg, ranks
from m6rec.retrieval.blend import TEXT, Blend, HeldOut, weigh
from m6rec.retrieval.blend import fit as fit_sources
from m6rec.retrieval.embeddings import Embeddings, Floats, Ints, user_vectors
from m6rec.retrieval.sources import MEMORY
from m6rec.retrieval.training import EmbeddingConfig, Questions, fit

TARGETS = {"amazon_toys": (0.088, 0.140), "amazon_beauty": (0.068, 0.114)}
"""NDCG@10 and HitRate@10 wanted of the blend."""
FEW = "1-3"
"""The bucket of items that counts say little of."""
BLEND, MEAN_STATE, POPULARITY = "blend", "blend, text replaced by the mean state", "popularity"
_set = cache(load)


def blend(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    results: dict[str, Any] = {}
    claims: Claims = []
    at = Path("runs/bench/retrieval") / str(report.commit_of_code())
    for name in SETS[: 1 if setup.quick else None]:
        by_seed = [kept(at / f"{name}-{seed}.json", partial(_measured, name, seed)) for seed in setup.seeds]
        sequences = _set(name).sequences
        count_Q = np.array([by_seed[0]["counts"][row[-1]] for row in sequences])
        metrics = {
            method: [_metrics(np.array(one["ranks"][method]), count_Q) for one in by_seed]
            for method in by_seed[0]["ranks"]
        }
        ours = means(metrics[BLEND])
        for metric, target in zip(("NDCG@10", "HitRate@10"), TARGETS[name], strict=True):
            claims.append((f"{name}, blend: {metric}", ours[metric], ">=", target))
        values = [one["NDCG@10"] for one in metrics[BLEND]]
        claims.append(
            (f"{name}, blend: greatest over least NDCG@10 of the refits", max(values) / min(values), "<=", 1.02)
        )
        few = f"NDCG@10, items of {FEW} events"
        claims.append((f"{name}, blend: {few}", ours[few], ">=", 0.05))
        differences = {}
        for other in metrics:
            if other != BLEND:
                gains = [_gains([one["ranks"][method] for one in by_seed]) for method in (BLEND, other)]
                found = mean_difference(*gains)
                differences[other] = {"value": found.value, "low": found.low, "high": found.high, "p": found.p}
        claims.append((f"{name}: NDCG@10 that text adds to the blend", differences[MEAN_STATE]["low"], ">", 0.0))
        facts = [{fact: one[fact] for fact in ("epochs", "decay", "memories", "weights")} for one in by_seed]
        results[name] = {"chosen": facts, "methods": metrics, "NDCG@10 of the blend over": differences}
    return {"results": results, "seeds": list(setup.seeds)}, claims


def _measured(name: str, seed: int) -> dict[str, Any]:
    """What was chosen on validation, the rank of each user's last item by each method, and each item's events."""
    tell(f"{name}, seed {seed}")
    made = _set(name)
    config = EmbeddingConfig(seed=seed)
    earlier, latest = [row[:-2] for row in made.sequences], [row[:-1] for row in made.sequences]
    drawn = np.random.default_rng(seed).permutation(len(made.sequences))[:MAX_VALIDATED].tolist()
    asked = Questions([earlier[n] for n in drawn], np.array([made.sequences[n][-2] for n in drawn]))
    chosen, history = fit(made.ids, made.states_ID, earlier, config, validation=asked)
    tell(f"best after {history.best_epoch} epochs")
    weighed = weigh(_sources(made, earlier, chosen, made.states_ID), _held_out(made, asked, chosen, made.states_ID))
    memories = {name: float(arrays[MEMORY][0]) for name, arrays in weighed.arrays.items()}
    again = replace(config, epochs=history.best_epoch, decays=(chosen.decay,))
    final, _ = fit(made.ids, made.states_ID, latest, again)
    tell("learned again with the last but one")
    tested = Questions(latest, np.array([row[-1] for row in made.sequences]))
    count_I = np.bincount(np.concatenate(latest), minlength=len(made.ids))
    found: dict[str, Floats] = {}
    untold_ID = np.broadcast_to(made.states_ID.mean(0), made.states_ID.shape)
    for label, states_ID in ((BLEND, made.states_ID), (MEAN_STATE, untold_ID)):
        sources = _remembering(_sources(made, latest, final, states_ID), memories)
        alone = {f"{name} alone": {name: 1.0} for name in (*sources.arrays, TEXT)} if label == BLEND else {}
        found |= _ranks(sources, _held_out(made, tested, final, states_ID), {label: weighed.weights, **alone})
        tell(f"ranked: {label}")
    popular = _held_out(made, tested, final, untold_ID)
    popular = replace(
        popular, items_IE=count_I[:, None].astype(np.float32), users_QE=np.ones((len(latest), 1), np.float32)
    )
    found |= _ranks(sources.weighed({TEXT: 1.0}), popular, {POPULARITY: {TEXT: 1.0}})
    return {
        "epochs": history.best_epoch,
        "decay": chosen.decay,
        "memories": memories,
        "weights": dict(weighed.weights),
        "ranks": {method: ranks_Q.tolist() for method, ranks_Q in found.items()},
        "counts": count_I.tolist(),
    }


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


def _remembering(blend: Blend, memories: Mapping[str, float]) -> Blend:
    """With the memories that validation chose, without the sources that it left out."""
    arrays = {name: {**blend.arrays[name], MEMORY: np.array([memory], np.float32)} for name, memory in memories.items()}
    return replace(blend, arrays=arrays)


def _ranks(blend: Blend, held_out: HeldOut, weightings: Mapping[str, Mapping[str, float]]) -> dict[str, Floats]:
    """Rank of each target by the same parts with several weights, as ``retrieval.blend.ranked`` with one."""
    names = [*blend.arrays, TEXT]
    weight_MS = np.array([[weights.get(name, 0.0) for name in names] for weights in weightings.values()], np.float32)
    seen_MI = np.zeros((len(weight_MS), len(held_out.ids)), np.bool_)
    found = np.empty((len(weight_MS), len(held_out.target_Q)))
    for number, (target, parts_SI) in enumerate(zip(held_out.target_Q.tolist(), held_out.parts(blend), strict=True)):
        seen_MI[:, held_out.seen[number]] = True
        found[:, number] = ranks(weight_MS @ parts_SI, np.full(len(weight_MS), target), seen_MI)
        seen_MI[:, held_out.seen[number]] = False
    return dict(zip(weightings, found, strict=True))


def _metrics(ranks_Q: Floats, count_Q: Ints) -> dict[str, float]:
    """Over all users, and by the number of events of the item that is asked for."""
    found = {"HitRate@10": hit_rate(ranks_Q, 10), "NDCG@10": ndcg(ranks_Q, 10)}
    for name, (least, most) in BUCKETS.items():
        asked = (count_Q >= least) & (count_Q <= most)
        if asked.any():
            found[f"NDCG@10, items of {name} events"] = ndcg(ranks_Q[asked], 10)
    return found


def _gains(ranks_SQ: Sequence[Sequence[float]]) -> Floats:
    """Each question's NDCG@10, mean over the seeds."""
    rank_SQ = np.array(ranks_SQ)
    gain_Q: Floats = np.where(rank_SQ <= 10, 1 / np.log2(1 + rank_SQ), 0).mean(0)
    return gain_Q
