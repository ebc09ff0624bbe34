"""Tables of retrieval: full ranking of the catalogue, ours beside classical models with the same past."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.evaluation import baselines, collaborative
from m6rec.evaluation.metrics import hit_rate, mrr, ndcg
from m6rec.evaluation.report import Row, Table
from m6rec.retrieval.blend import Blend, ranked
from m6rec.retrieval.examples import RetrievalExamples

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
RETRIEVAL_CUT = 10


@dataclass(frozen=True, eq=False)
class Retriever:
    """What retrieves for the queries of a part.

    Attributes:
        users_QE: User vectors of the queries.
        items_IE: Item vectors in the order of the log.
        blend: Of the run, if it has any.
    """

    users_QE: NDArray[np.float32]
    items_IE: NDArray[np.float32]
    blend: Blend | None = None


def retrieval_tables(
    split: Split,
    examples: RetrievalExamples,
    domain: Domain,
    ours: Mapping[str, Sequence[Retriever]],
    *,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[Table, ...]:
    """Retrieval of each liked test item among the whole catalogue, items already seen left out.

    Args:
        split: The split.
        examples: Of the split.
        domain: The domain.
        ours: Our methods, one retriever a seed.
        progress: Told what is being fitted.

    Returns:
        A table for all items and, where there are any, one for items without an event in the training part.
    """
    valid, test = (_Matrices.of(examples, part) for part in (VALID, TEST))
    targets = test.targets
    found = {name: [retrieval_ranks(examples, one) for one in by_seed] for name, by_seed in ours.items()}
    likes = collaborative.likes_matrix(split, domain)
    for name in collaborative.MODELS:
        progress(name)
        model = collaborative.tuned(name, likes, lambda model: ndcg(valid.ranks(model), RETRIEVAL_CUT))
        found[name] = [test.ranks(model)]
    known = {event.item for event, part in zip(split.log.events, split.part.tolist(), strict=True) if part == TRAIN}
    unseen = np.array([item not in known for item in split.log.items])[targets]
    tables = []
    for title, chosen in (("all items", np.ones(len(targets), np.bool_)), ("items unseen in training", unseen)):
        if not chosen.any():
            continue
        rows = [Row.of(name, [_retrieval_metrics(r[chosen]) for r in by_seed]) for name, by_seed in found.items()]
        note = (
            f"{int(chosen.sum())} positive test events whose item the user had not met before, full ranking over "
            f"{len(split.log.items)} items."
        )
        tables.append(
            Table(title=f"Retrieval, {title}", metric="NDCG@10", rows=tuple(rows), ours=next(iter(ours)), note=note)
        )
    return tuple(tables)


def retrieval_ranks(examples: RetrievalExamples, retriever: Retriever, part: int = TEST) -> Floats:
    """Rank of each target of a part among all items that its user had not seen before, from 1: float64 [Q]."""
    held_out = examples.queries[part].held_out(examples.ids, retriever.users_QE, retriever.items_IE)
    return ranked(retriever.blend, held_out)


@dataclass(frozen=True, eq=False)
class _Matrices:
    """The queries of a part as classical models take them: 1 where an item was liked, or seen, [queries, items]."""

    likes: csr_matrix
    seen: csr_matrix
    targets: Ints

    @classmethod
    def of(cls, examples: RetrievalExamples, part: int) -> _Matrices:
        queries, num_items = examples.queries[part], len(examples.items)
        likes, seen = (collaborative.matrix(lists, num_items) for lists in (queries.likes, queries.seen))
        return cls(likes, seen, queries.targets)

    def ranks(self, model: baselines.Baseline) -> Floats:
        return baselines.target_ranks(model, self.likes, self.targets, self.seen)


def _retrieval_metrics(ranks_Q: Floats) -> dict[str, float]:
    return {
        "NDCG@10": ndcg(ranks_Q, RETRIEVAL_CUT),
        "HitRate@10": hit_rate(ranks_Q, RETRIEVAL_CUT),
        "MRR@10": mrr(ranks_Q, RETRIEVAL_CUT),
        "HitRate@100": hit_rate(ranks_Q, 100),
    }
