"""Zero-shot retrieval in a domain that nothing was trained on: which states of its items' texts say who likes what.

Leave one out: a user's last like is asked for among all items, by the decayed sum of those before it. Nothing is chosen
on the domain; whitening is fitted on its texts alone. Beside it a metric learned in the other domains: for whitened
states z of two items that one user liked, the mean of z zᵀ over pairs less what chance alone gives. Its principal axes,
each scaled by the root of its eigenvalue, replace those of whitening. So that it can be carried over, axes of whitened
states are those of the states themselves (ZCA) and not those of the domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import sets
from benchmarks.item_vectors import SETS, load
from benchmarks.parts import tell
from benchmarks.peers.retrievers import minilm_states
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.data.split import TEST, TRAIN, leave_one_out
from m6rec.domains import domain as domains
from m6rec.evaluation.metrics import hit_rate, ndcg
from m6rec.foundation import checkpoint
from m6rec.readouts import EmbedModel, TaskModelConfig
from m6rec.retrieval.embeddings import Embeddings, Floats, Ints, Whitening, unit
from m6rec.retrieval.examples import build_examples
from m6rec.retrieval.training import EmbeddingConfig, Questions
from m6rec.tasks.task import named
from m6rec.types import Item

RAW, WHITENED, MINILM, MINILM_WHITENED = "raw states", "whitened", "MiniLM", "MiniLM, whitened"
METRIC = "whitened, metric of the other domains"
SHRINKAGE = 0.3
"""What is added to the eigenvalues of a metric, of which the greatest is 1."""
LONGEST = 200
"""Likes of a user that pairs are made of."""


@dataclass(frozen=True, eq=False)
class _Domain:
    """A domain's items with their states, who liked what, and the likes that are asked for."""

    items: Sequence[Item]
    states_ID: Floats
    likes: Sequence[Ints]
    asked: Questions


def unseen(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    domains_by_name = {name: _of_log(name, setup) for name in ("movielens", "books")}
    for name in () if setup.quick else SETS:
        made = load(name)
        before, targets = [row[:-1] for row in made.sequences], np.array([row[-1] for row in made.sequences])
        domains_by_name[name] = _Domain(made.items, made.states_ID, before, Questions(before, targets))
    whitened = {name: _zca(domain.states_ID) for name, domain in domains_by_name.items()}
    metrics = {name: _metric(whitened[name], domain.likes) for name, domain in domains_by_name.items()}
    results = {}
    for name, domain in domains_by_name.items():
        tell(name)
        others_DD = sum(metric_DD / np.trace(metric_DD) for other, metric_DD in metrics.items() if other != name)
        minilm_ID = minilm_states(tuple(domain.items))
        vectors = {
            RAW: unit(domain.states_ID),
            WHITENED: _vectors(domain.states_ID, EmbeddingConfig().width),
            MINILM: minilm_ID,
            MINILM_WHITENED: _vectors(minilm_ID, minilm_ID.shape[1]),
            METRIC: unit(whitened[name] @ _root(others_DD)),
        }
        ranks = {method: domain.asked.ranks(of, EmbeddingConfig().decay) for method, of in vectors.items()}
        results[name] = {
            method: {"NDCG@10": ndcg(of, 10), "HitRate@10": hit_rate(of, 10)} for method, of in ranks.items()
        }
    claims: Claims = []
    for name, of_domain in results.items():
        ndcg_of = {method: found["NDCG@10"] for method, found in of_domain.items()}
        claims += [
            (f"{name}: NDCG@10 of whitened over raw states", ndcg_of[WHITENED] / ndcg_of[RAW], ">=", 1.6),
            (f"{name}: … over whitened MiniLM", ndcg_of[WHITENED] / ndcg_of[MINILM_WHITENED], ">=", 1.0),
            (f"{name}: … of the other domains' metric over whitened", ndcg_of[METRIC] / ndcg_of[WHITENED], ">=", 1.2),
        ]
    questions = {name: len(domain.asked.targets) for name, domain in domains_by_name.items()}
    return {"results": results, "questions": questions, "decay": EmbeddingConfig().decay}, claims


def _of_log(name: str, setup: Setup) -> _Domain:
    if name == "movielens":
        made = sets.movielens_100k()
        split, domain = made.split, made.domain
    else:
        domain = domains.named(name)
        few = 10 if setup.quick else 1
        split = leave_one_out(sets.most_active(domains.load(domain), items=2_000 // few, users=3_000 // few))
    items = list(split.log.items.values())
    tell(f"states of {len(items)} items of {name}")
    foundation = checkpoint.load()
    config = TaskModelConfig(task="retrieve", domain=name, foundation=assets.DEFAULT_FOUNDATION)
    states_ID = EmbedModel.create(config, foundation, assets.home() / "states").item_states(items)
    examples = build_examples(named("retrieve"), split, domain)
    return _Domain(items, states_ID, examples[TRAIN].likes, examples[TEST].validation())


def _vectors(states_ID: Floats, width: int) -> Floats:
    made = Embeddings.untrained(states_ID, width, 1.0)
    return made.item_vectors([""] * len(states_ID), states_ID)


def _zca(states_ID: Floats) -> Floats:
    """Whitened states of unit length, along the axes of the states themselves."""
    whitening = Whitening.fit(states_ID)
    axes_DD = whitening.map_DD / np.linalg.norm(whitening.map_DD, axis=0)
    return unit(whitening(states_ID) @ axes_DD.T)


def _metric(whitened_ID: Floats, likes: Sequence[Ints]) -> NDArray[np.float64]:
    """Mean of z zᵀ over pairs of items that one user liked, each user by their number of likes, less that of chance."""
    width = whitened_ID.shape[1]
    pairs_DD, sum_D, total = np.zeros((width, width)), np.zeros(width), 0
    for row in (np.unique(row)[:LONGEST] for row in likes):
        if len(row) < 2:
            continue
        liked_ND = whitened_ID[row].astype(np.float64)
        all_D = liked_ND.sum(0)
        pairs_DD += (np.outer(all_D, all_D) - liked_ND.T @ liked_ND) / (len(row) - 1)
        sum_D += all_D
        total += len(row)
    return pairs_DD / total - np.outer(sum_D / total, sum_D / total)


def _root(metric_DD: NDArray[np.float64]) -> NDArray[np.float64]:
    """The principal axes of a metric, each by the root of its shrunk eigenvalue."""
    value_D, axes_DD = np.linalg.eigh(metric_DD)
    value_D = np.clip(value_D, 0, None) / value_D.max() + SHRINKAGE
    root_DD: NDArray[np.float64] = axes_DD * np.sqrt(value_D)
    return root_DD
