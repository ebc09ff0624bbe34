"""Peers that tell whether a user will like an item: what was counted, linear models, trees and a network.

All are fitted on the likes of the training part and chosen by AUC on validation. What a question may know is what came
before it, test events included, as for ours, whose questions they are (``tasks.examples``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.sparse import csr_matrix
from torch import nn

from benchmarks.peers.retrievers import weighted
from benchmarks.peers.search import Budget, Floats, Peer, Settings, Tell, measured
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.evaluation import baselines
from m6rec.evaluation.collaborative import likes_matrix
from m6rec.evaluation.metrics import auc, uauc
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import FEATURES
from m6rec.retrieval.embeddings import Ints
from m6rec.retrieval.examples import queries
from m6rec.tasks.examples import TaskExamples, check_leaks

Scorer = Callable[[int], Floats]
"""From a part to a score for each of its questions."""
MAX_HISTORY = 400
"""Likes of a user that linear peers look at."""
BATCH = 256


@dataclass(frozen=True, eq=False)
class Asked:
    """What peers are told.

    Attributes:
        questions: Of a ranking task, which hold our statistics.
        training: 1 where a user liked an item in the training part.
        likes: Of VALID and TEST, what each question's user had liked before it, oldest first.
    """

    questions: TaskExamples
    training: csr_matrix
    likes: Mapping[int, Sequence[Ints]]

    def share(self, part: int, name: str) -> Floats:
        """One of our statistics."""
        found: Floats = self.questions.features(part)[:, FEATURES.index(name)].astype(np.float64)
        return found


def ask(split: Split, domain: Domain, questions: TaskExamples) -> Asked:
    """What peers are told of a split."""
    likes = {part: queries(split, domain, questions.events(part)).likes for part in (VALID, TEST)}
    return Asked(questions, likes_matrix(split, domain), likes)


def _item_share(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
    yield lambda part: data.share(part, "item_share")


def _user_share(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
    yield lambda part: data.share(part, "user_share")


def _both_shares(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
    yield lambda part: data.share(part, "item_share") + settings["weight"] * data.share(part, "user_share")


def _linear(factory: Callable[..., baselines.Baseline]) -> Callable[[Asked, Settings, int], Iterator[Scorer]]:
    """A recommender of histories; "mean" divides its score by the weight of the history."""

    def fit(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
        seeded = {"seed": seed} if factory is baselines.MatrixFactorisation else {}
        model = factory(**{k: v for k, v in settings.items() if k not in ("mean", "memory")}, **seeded)
        model.fit(data.training)

        def score(part: int) -> Floats:
            latest = [likes[-MAX_HISTORY:] for likes in data.likes[part]]
            histories = weighted(latest, data.training.shape[1], settings["memory"])
            scores = baselines.pair_scores(model, histories, data.questions.items(part))
            whole = np.asarray(histories.sum(1)).ravel() if settings["mean"] else 1
            return np.asarray(scores / np.maximum(whole, 1e-9))

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
    table = lightgbm.Dataset(data.questions.features(TRAIN), data.questions.labels(TRAIN))
    booster = lightgbm.Booster({**fixed, **settings}, table)
    while True:
        for _ in range(20):
            booster.update()
        yield lambda part: np.asarray(booster.predict(data.questions.features(part)))


def _perceptron(data: Asked, settings: Settings, seed: int) -> Iterator[Scorer]:
    """Two hidden layers on the statistics, by cross-entropy; a pass is one over the training questions."""
    torch.manual_seed(seed)
    width, dropout = settings["width"], settings["dropout"]
    hidden = (nn.ReLU(), nn.Dropout(dropout))
    network = nn.Sequential(
        nn.Linear(len(FEATURES), width), *hidden, nn.Linear(width, width), *hidden, nn.Linear(width, 1)
    )
    known = data.questions.features(TRAIN)
    mean, spread = known.mean(0), known.std(0) + 1e-6
    number_NS = torch.from_numpy((known - mean) / spread)
    liked_N = torch.from_numpy(data.questions.labels(TRAIN)).float()
    optimiser = torch.optim.Adam(network.parameters(), lr=settings["rate"], weight_decay=settings["decay"])

    @torch.inference_mode()
    def score(part: int) -> Floats:
        logits = network(torch.from_numpy((data.questions.features(part) - mean) / spread))[:, 0]
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
    Peer(name="item's share", fit=_item_share),
    Peer(name="user's share", fit=_user_share),
    Peer(
        name="item's and user's share",
        fit=_both_shares,
        space={"weight": FloatDistribution(0.1, 3, log=True)},
        first={"weight": 1.0},
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
        questions: Of the task "like".
        budget: Of each peer.
        folder: Where results are kept; what is there is not measured again.
        peers: Which.
        tell: Told of progress.

    Raises:
        DataError: The split leaks.
    """
    check_leaks(split, questions)
    data, labels = ask(split, domain, questions), questions.labels(VALID)
    found = {}
    for peer in peers:
        tell(peer.name)
        found[peer.name] = measured(
            peer,
            data,
            lambda score: auc(labels, score(VALID)),
            lambda: data,
            lambda score: score(TEST),
            budget,
            folder,
            questions.events(TEST),
            tell,
        )
    return found


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
