"""Ours beside tuned peers on the same split files: ``make bench-evidence``.

Parts, each of which can be run alone (``--part``):

- movielens_like, ml1m_collm: like-ranking, beside peers that one harness tuned (``benchmarks.peers``);
- movielens_retrieve, amazon_beauty, amazon_toys: full ranking of the catalogue;
- methods, methods_texts: tuning methods at one number of parameters (``benchmarks.methods``).

``QUICK=1`` has one seed and short searches, and writes to ``runs/bench``; the full form writes to
``benchmarks/results``. A part that was stopped goes on where it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import methods, parts, sets
from benchmarks.peers import FULL, QUICK, Budget, folder, rankers, retrievers
from benchmarks.setup import Claims, Setup, research
from benchmarks.tunings import retrievals, tunings
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.demo import OURS
from m6rec.domains.domain import Domain
from m6rec.domains.prepared import Prepared
from m6rec.evaluation.ablation import by_count
from m6rec.evaluation.metrics import auc, bootstrap_difference, hit_rate, ndcg
from m6rec.evaluation.report import Row
from m6rec.evaluation.retrieval import Retriever, retrieval_ranks
from m6rec.quickstart import RANKING
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.readouts.embed import fit_sources
from m6rec.retrieval.examples import likes_of
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.tasks.examples import TaskExamples
from m6rec.training import TrainConfig

Floats = NDArray[np.floating[Any]]
SOURCES, TEXT = "m6rec, its item-item models alone", "m6rec, its text alone"
COUNTS, COLD = (0, 3, 10, 30, 100), (0, 1, 3, 6, 10)
"""Where the numbers of earlier events of user or item are cut for the tables of cold starts, of likes and retrieval."""


def _budget(setup: Setup) -> Budget:
    return QUICK if setup.quick else FULL


def _tuned(
    name: str, config: TaskModelConfig, split: Split, domain: Domain, training: TrainConfig, setup: Setup
) -> tuple[TaskExamples, list[ScoreModel]]:
    training = replace(training, epochs=1) if setup.quick else training
    at = parts.cache("evidence", setup) / name
    return tunings(config, split, domain, training, setup.seeds, at)


def ranked(
    name: str, task_domain: str, split: Split, domain: Domain, setup: Setup, warm: NDArray[np.bool_] | None = None
) -> tuple[dict[str, Any], Claims]:
    """Like-ranking of one set: ours and the peers, and the same by how much was known."""
    config = TaskModelConfig(task="like", domain=task_domain, foundation=DEFAULT_FOUNDATION)
    questions, runs = _tuned(name, config, split, domain, RANKING, setup)
    found: dict[str, list[Floats]] = {OURS: [one.scores(questions.rows[TEST]) for one in runs]}
    peers = rankers.ranking(split, domain, questions, _budget(setup), folder(name, _budget(setup)), tell=parts.tell)
    table = rankers.table(f"Likes, {name}", split, questions, found | peers, _budget(setup), warm)
    events, labels = questions.events(TEST), questions.labels(TEST)
    users = np.unique([split.log.events[at].user for at in events], return_inverse=True)[1]
    best = max(peers, key=lambda peer: np.mean([auc(labels, scores) for scores in peers[peer]]))
    gap = bootstrap_difference(labels, np.mean(found[OURS], 0), np.mean(peers[best], 0), users)
    note = (
        f"{table.note} Paired bootstrap over users, seeds averaged, against {best}: {gap.value:+.4f} AUC, "
        f"95 % [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.3f}. Every method is told all events before a question."
    )
    table = replace(table, ours=OURS, note=note, rows=(*table.rows, *_published(name, table.metric)))

    def validate(scores: Floats, asked: NDArray[np.bool_]) -> float | None:
        return auc(labels[asked], scores[asked]) if len(set(labels[asked])) == 2 else None

    chosen = {OURS: found[OURS], best: peers[best]}
    tables = [table, *by_count(f"Likes, {name}: AUC", split, events, COUNTS, chosen, validate)]
    claims: Claims = [
        (f"{name}: lead over the best tuned peer, {best}, in AUC", gap.value, ">", 0),
        (f"{name}: p of that lead", gap.p, "<=", 0.05),
    ]
    if name == "ml1m_collm":
        ours = next(row for row in table.rows if row.method == OURS)
        claims += [(f"{name}: AUC", ours.mean("AUC"), ">=", 0.745), (f"{name}: UAUC", ours.mean("UAUC"), ">=", 0.70)]
    return {"seed": list(setup.seeds), "tables": tuple(tables)}, claims


def _published(name: str, metric: str) -> list[Row]:
    """What papers say of the set, where they tell the metric that decides."""
    return [
        Row(method=f"{who}, published", metrics={of: (value,) for of, value in told.items()})
        for who, told in sets.PUBLISHED.get(name, {}).items()
        if metric in told
    ]


def retrieved(
    name: str, task_domain: str, made: Prepared | sets.Set, setup: Setup, *, refit: bool
) -> tuple[dict[str, Any], Claims]:
    """Full ranking of the catalogue: ours and the peers; with ``refit`` sources and peers know validation too."""
    config = TaskModelConfig(task="retrieve", domain=task_domain, foundation=DEFAULT_FOUNDATION)
    split, domain = made.split, made.domain
    training = EmbeddingConfig(epochs=1) if setup.quick else EmbeddingConfig()
    at = parts.cache("evidence", setup) / name
    examples, by_seed = retrievals(config, split, domain, training, setup.seeds, at)
    if refit:
        by_seed = [_refitted(one, split, domain) for one in by_seed]
    found = {
        method: [retrieval_ranks(examples, one) for one in chosen]
        for method, chosen in {
            OURS: by_seed,
            SOURCES: [replace(one, users_QE=0 * one.users_QE) for one in by_seed],
            TEXT: [replace(one, blend=None) for one in by_seed],
        }.items()
    }
    at = folder(name, _budget(setup))
    peers = retrievers.retrieval(split, domain, _budget(setup), at, refit=refit, tell=parts.tell)
    title = f"Retrieval, {name}"
    tables = list(retrievers.tables(title, split, domain, found | peers, _budget(setup), refit=refit))
    tables[0] = replace(tables[0], rows=(*tables[0].rows, *_published(name, tables[0].metric)))
    tables = [replace(table, ours=OURS) for table in tables]
    claims: Claims = []
    everything, warm, unseen = tables[0], tables[1 % len(tables)], tables[2:]
    for metric in ("HitRate@10", "NDCG@10"):
        value = {row.method: row.mean(metric) for row in warm.rows}
        best = max(peers, key=lambda peer: value[peer])
        claims.append((f"{name}: warm items, {metric} over that of {best}", value[OURS] - value[best], ">=", 0))
        ours_of_all = next(row for row in everything.rows if row.method == OURS).mean(metric)
        for who, told in sets.PUBLISHED.get(name, {}).items():
            if who.startswith("SASRec"):
                claims.append((f"{name}: {metric}", ours_of_all, ">=", told[metric]))
    for table in unseen:
        value = {row.method: row.mean("HitRate@10") for row in table.rows}
        twice = 2 * max(value[peer] for peer in peers)
        claims.append((f"{name}: unseen items, HitRate@10 less twice the best peer's", value[OURS] - twice, ">", 0))
    means = {peer: ndcg(np.concatenate(by_seed), 10) for peer, by_seed in peers.items()}
    best = max(means, key=lambda peer: means[peer])
    chosen = {**found, best: peers[best]}
    tables += by_count(
        f"{title}: HitRate@10",
        split,
        examples[TEST].events,
        COLD,
        chosen,
        lambda ranks, asked: hit_rate(ranks[asked], 10),
    )
    return {"seed": list(setup.seeds), "tables": tuple(tables)}, claims


def _refitted(one: Retriever, split: Split, domain: Domain) -> Retriever:
    """Its sources know the validation part as well."""
    assert one.blend is not None
    sources = fit_sources(likes_of(split, domain, TRAIN, VALID), one.items_IE)
    return replace(one, blend=sources.weighed(one.blend.weights))


def movielens_like(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The demo's like-ranking."""
    made = sets.movielens_100k()
    return ranked("movielens_like", "movielens", made.split, made.domain, setup)


def movielens_retrieve(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """The demo's retrieval."""
    made = sets.movielens_100k()
    return retrieved("movielens_retrieve", "movielens", made, setup, refit=False)


def ml1m_collm(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Likes of MovieLens-1M on CoLLM's split."""
    made = sets.ml1m_collm(research("ml1m_collm"))
    return ranked("ml1m_collm", "benchmarks.sets:LIKES", made.split, made.domain, setup, made.warm)


def _purchases(name: str) -> parts.Measure:
    def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
        made = sets.amazon_sequences(research(name))
        return retrieved(name, "benchmarks.sets:PURCHASES", made, setup, refit=True)

    return measure


TITLE = "Evidence"
PARTS: dict[str, parts.Measure] = {
    "movielens_like": movielens_like,
    "ml1m_collm": ml1m_collm,
    "movielens_retrieve": movielens_retrieve,
    "amazon_beauty": _purchases("amazon_beauty"),
    "amazon_toys": _purchases("amazon_toys"),
    "methods": methods.likes,
    "methods_texts": methods.texts,
}

if __name__ == "__main__":
    parts.run("evidence", TITLE, PARTS)
