"""Peers that tell whether a user will like an item: what was counted, linear models, trees and a network.

All are fitted on the likes of the training part and chosen by AUC on validation. What a question may know is what came
before it, test events included, as in ``m6rec.evaluation``; a peer of numbers alone (user, item) knows less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.sparse import csr_matrix
from torch import nn

from benchmarks.peers.search import Budget, Floats, Peer, Settings, Tell, measured
from m6rec.data import leakage
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.evaluation import baselines
from m6rec.evaluation.metrics import auc, uauc
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import FEATURES
from m6rec.tasks.examples import TaskExamples, check_leaks
from m6rec.types import Event

Ints = NDArray[np.int64]
Scorer = Callable[[Ints], Floats]
"""From positions of events to a score for each."""
MAX_HISTORY = 400
"""Likes of a user that linear peers look at."""
BATCH = 256


@dataclass(frozen=True, eq=False)
class Asked:
    """A log in numbers, each event with what was known before it.

    Attributes:
        user_E: Number of the user of each event, from 1.
        item_E: Number of its item, from 1.
        liked_E: 1 for a like, else 0.
        train: Positions that may be fitted on.
        statistics_ES: ``m6rec.features.interactions.FEATURES`` of each question; 0 of an event that asks nothing.
        num_items: How many items there are, those without events included.
        count_E4: Before each event: events and likes of its item, events and likes of its user.
        rate_E: Share of likes before each event.
    """

    user_E: Ints
    item_E: Ints
    liked_E: Ints
    train: Ints
    statistics_ES: NDArray[np.float32]
    num_items: int
    count_E4: Ints = field(init=False)
    rate_E: Floats = field(init=False)

    def __post_init__(self) -> None:
        counts = [*_before(self.item_E, self.liked_E), *_before(self.user_E, self.liked_E)]
        object.__setattr__(self, "count_E4", np.stack(counts, 1))
        earlier_E = np.arange(len(self.liked_E))
        rate_E = (np.cumsum(self.liked_E) - self.liked_E + 0.5) / (earlier_E + 1)  # 0.5 before the first
        object.__setattr__(self, "rate_E", rate_E)

    @property
    def num_users(self) -> int:
        """How many users there are."""
        return int(self.user_E.max())

    def histories(self, positions: Ints, length: int) -> Ints:
        """The latest items that each event's user had liked before it, oldest first, after zeros [N, length]."""
        likes = np.flatnonzero(self.liked_E)
        likes = likes[np.argsort(self.user_E[likes], kind="stable")]
        starts_U = np.searchsorted(self.user_E[likes], np.arange(self.num_users + 1))
        first_N1 = starts_U[self.user_E[positions]][:, None]
        at_NL = first_N1 + self.count_E4[positions, 3][:, None] + np.arange(-length, 0)
        return np.where(at_NL >= first_N1, self.item_E[likes[np.maximum(at_NL, 0)]], 0)


def ask(split: Split, domain: Domain, questions: TaskExamples) -> Asked:
    """Puts a log in numbers."""
    events, ids = split.log.events, split.log.items
    item_of = {item: number for number, item in enumerate(ids, 1)}
    user_of = {user: number for number, user in enumerate(split.log.users, 1)}
    statistics_ES = np.zeros((len(events), len(FEATURES)), np.float32)
    for part in (TRAIN, VALID, TEST):
        statistics_ES[questions.events(part)] = questions.features(part)
    return Asked(
        np.array([user_of[event.user] for event in events]),
        np.array([item_of[event.item] for event in events]),
        np.array([int(domain.positive(event)) for event in events]),
        questions.events(TRAIN),
        statistics_ES,
        len(ids),
    )


def _before(key_E: Ints, liked_E: Ints) -> tuple[Ints, Ints]:
    """Of each event: how many earlier ones have its key, and how many of those are likes."""
    order = np.argsort(key_E, kind="stable")
    likes = np.cumsum(liked_E[order]) - liked_E[order]
    _, starts, sizes = np.unique(key_E[order], return_index=True, return_counts=True)
    found = np.empty((2, len(key_E)), np.int64)
    found[0, order] = np.arange(len(key_E)) - np.repeat(starts, sizes)
    found[1, order] = likes - np.repeat(likes[starts], sizes)
    return found[0], found[1]


_PRIOR = FloatDistribution(0.3, 100, log=True)


def _item_share(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
    yield lambda at: _share(data, at, 0, settings["item_prior"])


def _user_share(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
    yield lambda at: _share(data, at, 2, settings["user_prior"])


def _both_shares(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
    yield (
        lambda at: (
            _share(data, at, 0, settings["item_prior"])
            + settings["weight"] * _share(data, at, 2, settings["user_prior"])
        )
    )


def _share(data: Asked, at: Ints, column: int, prior: float) -> Floats:
    events, likes = data.count_E4[at, column], data.count_E4[at, column + 1]
    share: Floats = (likes + prior * data.rate_E[at]) / (events + prior)
    return share


def _linear(factory: Callable[..., baselines.Baseline]) -> Callable[[Asked, Settings, int], Iterator[Scorer]]:
    """A recommender of histories; "mean" divides its score by the weight of the history."""

    def fit(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
        mean, memory = settings["mean"], settings["memory"]
        seeded = {"seed": seed} if factory is baselines.MatrixFactorisation else {}
        model = factory(**{k: v for k, v in settings.items() if k not in ("mean", "memory")}, **seeded)
        likes = data.train[data.liked_E[data.train] == 1]
        shape = (data.num_users + 1, data.num_items)
        ones = np.ones(len(likes), np.float32)
        matrix = csr_matrix((ones, (data.user_E[likes], data.item_E[likes] - 1)), shape)
        matrix.data[:] = 1
        model.fit(matrix)

        def score(at: Ints) -> Floats:
            history_NL = data.histories(at, MAX_HISTORY)
            rows, places = np.nonzero(history_NL)
            weights = (memory ** np.arange(MAX_HISTORY - 1, -1, -1)).astype(np.float32)[places]
            histories = csr_matrix((weights, (rows, history_NL[rows, places] - 1)), (len(at), data.num_items))
            scores = baselines.pair_scores(model, histories, data.item_E[at] - 1)
            whole = np.asarray(histories.sum(1)).ravel() if mean else 1
            return scores / np.maximum(whole, 1e-9)

        yield score

    return fit


_HISTORY = {"mean": CategoricalDistribution([False, True]), "memory": FloatDistribution(0.8, 1)}
_AS_IS = {"mean": False, "memory": 1.0}


def _trees(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
    """A pass is twenty trees."""
    import lightgbm

    fixed = {
        "objective": "binary", "bagging_fraction": 0.8, "bagging_freq": 1, "seed": seed, "deterministic": True,
        "force_row_wise": True, "num_threads": 1, "verbosity": -1,
    }  # fmt: skip
    table = lightgbm.Dataset(data.statistics_ES[data.train], data.liked_E[data.train])
    booster = lightgbm.Booster({**fixed, **settings}, table)
    while True:
        for _ in range(20):
            booster.update()
        yield lambda at: np.asarray(booster.predict(data.statistics_ES[at]))


def _perceptron(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
    """Two hidden layers on the statistics, by cross-entropy; a pass is one over the training questions."""
    torch.manual_seed(seed)
    width, dropout = settings["width"], settings["dropout"]
    hidden = (nn.ReLU(), nn.Dropout(dropout))
    network = nn.Sequential(
        nn.Linear(len(FEATURES), width), *hidden, nn.Linear(width, width), *hidden, nn.Linear(width, 1)
    )
    known = data.statistics_ES[data.train]
    mean, spread = known.mean(0), known.std(0) + 1e-6
    number_NS, liked_N = torch.from_numpy((known - mean) / spread), torch.from_numpy(data.liked_E[data.train]).float()
    optimiser = torch.optim.Adam(network.parameters(), lr=settings["rate"], weight_decay=settings["decay"])

    @torch.inference_mode()
    def score(at: Ints) -> Floats:
        logits = network(torch.from_numpy((data.statistics_ES[at] - mean) / spread))[:, 0]
        found: Floats = logits.double().sigmoid().numpy()
        return found

    while True:
        network.train()
        for chosen in torch.split(torch.randperm(len(liked_N)), BATCH):
            optimiser.zero_grad()
            loss = F.binary_cross_entropy_with_logits(network(number_NS[chosen])[:, 0], liked_N[chosen])
            torch.autograd.backward(loss)
            optimiser.step()
        network.eval()
        yield score


PEERS: tuple[Peer[Asked, Scorer], ...] = (
    Peer(name="item's share", fit=_item_share, space={"item_prior": _PRIOR}, first={"item_prior": 5.0}),
    Peer(name="user's share", fit=_user_share, space={"user_prior": _PRIOR}, first={"user_prior": 5.0}),
    Peer(
        name="item's and user's share",
        fit=_both_shares,
        space={"item_prior": _PRIOR, "user_prior": _PRIOR, "weight": FloatDistribution(0.1, 3, log=True)},
        first={"item_prior": 5.0, "user_prior": 5.0, "weight": 1.0},
    ),
    Peer(
        name="item-kNN",
        fit=_linear(baselines.ItemKNN),
        space={
            "k": IntDistribution(10, 800, log=True),
            "weighting": CategoricalDistribution(["count", "tfidf"]),
            **_HISTORY,
        },
        first={"k": 100, "weighting": "count", **_AS_IS},
    ),
    Peer(
        name="EASE",
        fit=_linear(baselines.EASEBaseline),
        space={"regularisation": FloatDistribution(3, 5000, log=True), **_HISTORY},
        first={"regularisation": 300.0, **_AS_IS},
    ),
    Peer(
        name="implicit factorisation (iALS)",
        fit=_linear(baselines.MatrixFactorisation),
        space={
            "factors": CategoricalDistribution([16, 32, 64, 128]),
            "regularisation": FloatDistribution(0.01, 100, log=True),
            "alpha": FloatDistribution(0.3, 30, log=True),
            **_HISTORY,
        },
        first={"factors": 64, "regularisation": 1.0, "alpha": 1.0, **_AS_IS},
        draws=True,
    ),
    Peer(
        name="LightGBM, same statistics",
        fit=_trees,
        space={
            "num_leaves": IntDistribution(4, 63, log=True),
            "min_data_in_leaf": IntDistribution(10, 500, log=True),
            "learning_rate": FloatDistribution(0.01, 0.1, log=True),
            "feature_fraction": FloatDistribution(0.4, 1),
            "lambda_l2": FloatDistribution(0.01, 100, log=True),
        },
        first={
            "num_leaves": 15, "min_data_in_leaf": 100, "learning_rate": 0.05, "feature_fraction": 0.7, "lambda_l2": 1.0,
        },
        draws=True,
        reads=FEATURES,
    ),
    Peer(
        name="MLP, same statistics",
        fit=_perceptron,
        space={
            "width": CategoricalDistribution([32, 64, 128, 256]),
            "rate": FloatDistribution(3e-4, 1e-2, log=True),
            "decay": FloatDistribution(1e-7, 1e-2, log=True),
            "dropout": FloatDistribution(0, 0.5),
        },
        first={"width": 128, "rate": 5e-4, "decay": 1e-5, "dropout": 0.0},
        draws=True,
        reads=FEATURES,
    ),
)  # fmt: skip


def ranking(
    split: Split,
    domain: Domain,
    questions: TaskExamples,
    budget: Budget,
    folder: Path,
    *,
    peers: Sequence[Peer[Asked, Scorer]] = PEERS,
    tell: Tell = lambda text: None,
) -> dict[str, list[Floats]]:
    """Test scores of each peer, one array a seed, in the order of ``questions.labels(TEST)``.

    Args:
        split: The split.
        domain: The domain.
        questions: Of the task "like", which hold the statistics (``evaluate.task_examples``).
        budget: Of each peer.
        folder: Where results are kept; what is there is not measured again.
        peers: Which.
        tell: Told of progress.

    Raises:
        DataError: The split leaks, or a question knows its answer or what comes after.
    """
    check_leaks(split, questions)
    data = ask(split, domain, questions)
    check_future(split, domain, data)
    valid, test = questions.events(VALID), questions.events(TEST)

    def validate(score: Scorer) -> float:
        return auc(data.liked_E[valid], score(valid))

    found = {}
    for peer in peers:
        tell(peer.name)
        found[peer.name] = measured(
            peer, data, validate, lambda: data, lambda score: score(test), budget, folder, test, tell
        )
    return found


def check_future(split: Split, domain: Domain, data: Asked, num_moments: int = 3) -> None:
    """Fails where counts or histories of a held-out event know what comes after it (the statistics have their law)."""
    log = split.log
    held_out = np.flatnonzero(split.part != TRAIN)
    number_of = {item: number for number, item in enumerate(log.items, 1)}

    def lay(events: Sequence[Event]) -> dict[int, object]:
        size = len(events)
        item_E = np.array([number_of[event.item] for event in events])
        liked_E = np.array([int(domain.positive(event)) for event in events])
        of = Asked(
            data.user_E[:size], item_E, liked_E, data.train[data.train < size], data.statistics_ES, data.num_items
        )
        at = held_out[held_out < size]
        told = zip(of.count_E4[at], of.rate_E[at], of.histories(at, 20), strict=True)
        return {int(n): (c.tobytes(), float(r), h.tobytes()) for n, (c, r, h) in zip(at, told, strict=True)}

    moments = held_out[np.linspace(0, len(held_out) - 1, num_moments).astype(np.int64)]
    leakage.fail(leakage.future(log.events, lay, moments.tolist()))


def table(
    title: str,
    split: Split,
    questions: TaskExamples,
    found: Mapping[str, Sequence[Floats]],
    budget: Budget,
    warm: NDArray[np.bool_] | None = None,
) -> Table:
    """AUC and UAUC on the test part, and of warm events where these are told (bool [events])."""
    events, labels = questions.events(TEST), questions.labels(TEST)
    users = np.unique([split.log.events[at].user for at in events], return_inverse=True)[1]
    subsets = {"": np.ones(len(events), np.bool_)} | ({} if warm is None else {", warm": warm[events]})
    rows = []
    for name, by_seed in found.items():
        metrics: dict[str, tuple[float, ...]] = {}
        for label, chosen in subsets.items():
            metrics[f"AUC{label}"] = tuple(auc(labels[chosen], scores[chosen]) for scores in by_seed)
            metrics[f"UAUC{label}"] = tuple(uauc(labels[chosen], scores[chosen], users[chosen]) for scores in by_seed)
        rows.append(Row(method=name, metrics=metrics))
    note = (
        f"{len(events)} test questions of {users.max() + 1} users. Fitted on the training part; for each peer "
        f"{budget.trials} trials or {budget.seconds:g} s of processor time, by AUC on validation."
    )
    return Table(title=title, metric="AUC", rows=tuple(rows), note=note)
