"""Training of item vectors on who liked what: of the head, and of a residual for each item of the log.

A step takes some users and, as columns, items that someone liked: all of them, or those of the users' likes and as many
others drawn. So an epoch's time is linear in likes, and memory in items × width. An item that nobody has liked yet is
no negative: it would teach that texts like its own are not liked, and new items have to be found by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from m6rec import hooks
from m6rec.config import CHOICES, Count, Natural, NonNegative, OpenShare, Positive, Share, validate
from m6rec.evaluation.metrics import ndcg, ranks
from m6rec.retrieval.blend import WeightConfig
from m6rec.retrieval.embeddings import Embeddings, Floats, Head, Ints, Whitening, user_vectors
from m6rec.retrieval.sources import Source
from m6rec.training import TrainingHistory

CUT = 10
"""Validation is by NDCG at so many."""
_SCORES_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class Step:
    """Likes of some users among the columns of a step.

    Attributes:
        likes_BL: Columns of each user's likes, oldest first; -1 behind the last.
        log_share_K: Logarithm of each column's chance to be one, the correction of a sampled sum over the catalogue.
    """

    likes_BL: Tensor
    log_share_K: Tensor

    def liked_BK(self) -> Tensor:
        """1 where a user liked a column's item."""
        liked_BK = torch.zeros(len(self.likes_BL), len(self.log_share_K) + 1)
        liked_BK.scatter_(1, self.likes_BL.where(self.likes_BL >= 0, len(self.log_share_K)), 1.0)
        return liked_BK[:, :-1]


class Loss(Protocol):
    """What is minimised: of the unit vectors of a step's columns, a number."""

    def __call__(self, vectors_KE: Tensor, step: Step) -> Tensor:
        """The loss of a step."""


@dataclass(frozen=True, kw_only=True)
class ItemMatrix:
    """What a user's likes say of each other, as in ELSA (Vančura et al., RecSys 2022) and beeFormer (2024).

    ‖unit(X(AAᵀ − 1)) − unit(X)‖² summed over the columns, mean over the users X, for item vectors A.
    """

    def __call__(self, vectors_KE: Tensor, step: Step) -> Tensor:
        """See ``Loss``."""
        liked_BK = step.liked_BK()
        told_BK = F.normalize((liked_BK @ vectors_KE) @ vectors_KE.T - liked_BK, dim=1)
        return (told_BK - F.normalize(liked_BK, dim=1)).square().sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class Softmax:
    """Cross-entropy of each like among all items, given the decayed sum of those before it.

    A sum over drawn columns stands for that over the catalogue by its logQ correction (Yi et al., RecSys 2019).

    Attributes:
        temperature: What cosines are divided by.
        decay: What a like weighs for each later one.
    """

    temperature: Positive = 0.07
    decay: Share = 0.8

    def __post_init__(self) -> None:
        validate(self)

    def __call__(self, vectors_KE: Tensor, step: Step) -> Tensor:
        """See ``Loss``."""
        there_BL = step.likes_BL >= 0
        likes_BLE = F.embedding(step.likes_BL.clamp(min=0), vectors_KE) * there_BL[..., None]
        age_LL = torch.arange(likes_BLE.shape[1])[:, None] - torch.arange(likes_BLE.shape[1]) - 1
        weight_LL = torch.where(age_LL >= 0, self.decay ** age_LL.clamp(min=0).float(), 0.0)
        users_BLE = F.normalize(weight_LL @ likes_BLE, dim=-1)
        asked_BL = there_BL.clone()
        asked_BL[:, 0] = False
        logits_QK = users_BLE[asked_BL] @ vectors_KE.T / self.temperature - step.log_share_K
        # What a user liked besides the target is no negative.
        row_Q = asked_BL.nonzero()[:, 0]
        target_Q = step.likes_BL[asked_BL]
        other_QK = step.liked_BK()[row_Q].bool()
        other_QK[torch.arange(len(target_Q)), target_Q] = False
        return F.cross_entropy(logits_QK.masked_fill(other_QK, -torch.inf), target_Q)


@dataclass(frozen=True, eq=False)
class Questions:
    """For which item each user asks next.

    Attributes:
        likes: Rows of what a user liked before, oldest first; they are not asked for.
        targets: Row of the next.
        among: Which items are ranked; None for all.
    """

    likes: Sequence[Ints]
    targets: Ints
    among: NDArray[np.bool_] | None = None

    def ranks(self, vectors_IE: Floats, decay: float) -> NDArray[np.float64]:
        """Rank of each target, from 1, by the product of user and item."""
        users_QE = user_vectors(vectors_IE, self.likes, decay)
        step = max(1, _SCORES_AT_ONCE // len(vectors_IE))
        found = [np.zeros(0)]
        for first in range(0, len(self.targets), step):
            part = slice(first, first + step)
            scores_QI = users_QE[part] @ vectors_IE.T
            without_QI = np.zeros(scores_QI.shape, np.bool_)
            if self.among is not None:
                without_QI[:] = ~self.among
            for row, liked in zip(without_QI, self.likes[part], strict=True):
                row[liked] = True
            without_QI[np.arange(len(scores_QI)), self.targets[part]] = False
            found.append(ranks(scores_QI, self.targets[part], without_QI))
        return np.concatenate(found)


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """How vectors are trained.

    Attributes:
        width: Numbers of a vector, at most those of a state.
        hidden: Of the head's hidden layer.
        loss: What is minimised.
        epochs: Passes over the users, at most; 0 leaves whitened states.
        steps: Of an epoch at most; where a log has more users, each epoch draws others.
        patience: Epochs without a better one on validation before training ends.
        users: Users of a step.
        columns: Items of a step.
        likes: Latest likes of a user that count.
        learning_rate: Of Adam, for the head.
        residual_rate: … for the residuals; 0 learns none.
        residual_penalty: Weight of a residual's squared length.
        residual_dropout: Share of the columns of a step that go without their residual, as a new item does.
        dropout: Share of the numbers of a whitened state that the head doesn't see.
        decays: What a like may weigh for each later one, when a user's vector is made; chosen on validation.
        seed: Of initial weights and all that is drawn.
        weights: How the weights of vectors and sources are learned (``blend.weigh``).
        sources: Item-item models that are fitted beside the vectors, by name.
    """

    width: Count = 256
    hidden: Count = 512
    loss: Loss = field(default_factory=ItemMatrix, metadata={CHOICES: {"item-matrix": ItemMatrix, "softmax": Softmax}})
    epochs: Natural = 20
    steps: Count = 200
    patience: Natural = 3
    users: Count = 256
    columns: Count = 4096
    likes: Count = 50
    learning_rate: NonNegative = 1.5e-3
    residual_rate: NonNegative = 1e-3
    residual_penalty: NonNegative = 1e-3
    residual_dropout: Share = 0.3
    dropout: OpenShare = 0.2
    decays: tuple[Share, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    seed: int = 0
    weights: WeightConfig = WeightConfig()
    sources: Mapping[str, Source] = field(default_factory=hooks.SOURCES.all)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def decay(self) -> float:
        """The decay where none is chosen, and by which epochs are: the middle one."""
        return self.decays[len(self.decays) // 2]


def fit(
    ids: Sequence[str],
    states_ID: Floats,
    likes: Sequence[Ints],
    config: EmbeddingConfig,
    *,
    validation: Questions | None = None,
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> tuple[Embeddings, TrainingHistory]:
    """Trains vectors and keeps the epoch that is best on validation.

    Args:
        ids: Of the items.
        states_ID: States of their texts.
        likes: For each user the rows of what they liked, oldest first.
        config: How to train.
        validation: Of likes that are not among those given; None trains for all epochs.
        progress: Called with (steps done, steps at most, loss).

    Returns:
        The vectors, and the mean loss of each epoch, NDCG@10 before the first epoch and after each, and after how many
        it is best.

    Where no user liked two items, nothing can be learned, and vectors are whitened states.

    Raises:
        DataError: States can't be whitened.
    """
    chosen = [row[-config.likes :] for row in likes if len(row) > 1]
    if not chosen:
        return Embeddings.untrained(states_ID, config.width, config.decay), TrainingHistory()
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    whitening = Whitening.fit(states_ID)
    known_I = np.bincount(np.concatenate(chosen), minlength=len(ids)) > 0
    net = _Net(states_ID.shape[1], config, torch.from_numpy(known_I & (config.residual_rate > 0)))
    whitened_ID = torch.from_numpy(whitening(states_ID))
    batches = _Batches(chosen, len(ids), config, random)
    optimisers: list[torch.optim.Optimizer] = [torch.optim.Adam(net.head_parameters(), config.learning_rate)]
    if net.residuals is not None:
        optimisers.append(torch.optim.SparseAdam([*net.residuals.parameters()], config.residual_rate))
    history = TrainingHistory()

    def embeddings(decay: float) -> Embeddings:
        return net.embeddings(ids, whitening, decay)

    def validate(decay: float) -> float:
        assert validation is not None
        return ndcg(validation.ranks(embeddings(decay).item_vectors(ids, states_ID), decay), CUT)

    best = net.copy()
    if validation is not None:
        history.validation_scores.append(validate(config.decay))
    total = config.epochs * batches.per_epoch
    for epoch in range(1, config.epochs + 1):
        net.train()
        losses = []
        for columns_K, step in batches:
            vectors_KE = net(whitened_ID[columns_K], columns_K)
            loss = config.loss(vectors_KE, step)
            if net.residuals is not None:
                loss = loss + config.residual_penalty * net.residuals(columns_K).square().sum(1).mean()
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimiser in optimisers:
                optimiser.step()
            losses.append(loss.item())
            progress((epoch - 1) * batches.per_epoch + len(losses), total, losses[-1])
        history.losses.append(float(np.mean(losses)))
        if validation is None:
            history.best_epoch, best = epoch, net.copy()
            continue
        history.validation_scores.append(validate(config.decay))
        if history.validation_scores[-1] > max(history.validation_scores[:-1]):
            history.best_epoch, best = epoch, net.copy()
        if epoch - history.best_epoch >= config.patience:
            break
    net.load_state_dict(best)
    decay = config.decay if validation is None else max(config.decays, key=validate)
    return embeddings(decay), history


class _Net(nn.Module):
    """A ``Head`` and the residuals, as they are trained."""

    def __init__(self, width: int, config: EmbeddingConfig, known_I: Tensor) -> None:
        super().__init__()
        embed_width = min(width, config.width)
        self.skip_DE = nn.Parameter(torch.eye(width, embed_width))
        self.inner_DH = nn.Parameter(torch.randn(width, config.hidden) / math.sqrt(width))
        self.bias_H = nn.Parameter(torch.zeros(config.hidden))
        self.outer_HE = nn.Parameter(torch.zeros(config.hidden, embed_width))
        self._known_I = known_I  # a residual that were only pushed away would say nothing of its item
        self.residuals = nn.Embedding(len(known_I), embed_width, sparse=True) if known_I.any() else None
        if self.residuals is not None:
            nn.init.zeros_(self.residuals.weight)
        self._config = config

    def head_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if not name.startswith("residuals.")]

    def forward(self, whitened_KD: Tensor, rows_K: Tensor) -> Tensor:
        seen_KD = F.dropout(whitened_KD, self._config.dropout, self.training)
        vectors_KE = seen_KD @ self.skip_DE + F.silu(seen_KD @ self.inner_DH + self.bias_H) @ self.outer_HE
        if self.residuals is not None:
            kept_K = self._known_I[rows_K] & (torch.rand(len(rows_K)) >= self._config.residual_dropout)
            vectors_KE = vectors_KE + self.residuals(rows_K) * kept_K[:, None]
        return F.normalize(vectors_KE, dim=1)

    def copy(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.state_dict().items()}

    def embeddings(self, ids: Sequence[str], whitening: Whitening, decay: float) -> Embeddings:
        array = {name: tensor.numpy().copy() for name, tensor in self.state_dict().items()}
        head = Head(*(array[name] for name in Head.__dataclass_fields__))
        residual_IE = array.get("residuals.weight", np.zeros((0, head.skip_DE.shape[1]), np.float32))
        known_I = np.flatnonzero(residual_IE.any(1)).tolist()
        return Embeddings(whitening, head, {ids[n]: row for row, n in enumerate(known_I)}, residual_IE[known_I], decay)


class _Batches:
    """The steps of an epoch, drawn anew each time; columns are of the items that someone liked."""

    def __init__(self, likes: Sequence[Ints], num_items: int, config: EmbeddingConfig, random: np.random.Generator):
        self._likes, self._config, self._random = likes, config, random
        users_I = np.bincount(np.concatenate([np.unique(row) for row in likes]), minlength=num_items)
        self._liked = np.flatnonzero(users_I)
        size = min(config.users, len(likes))
        self._drawn = min(1.0, config.columns / len(self._liked))
        absent_I = (1 - self._drawn) * (1 - users_I / len(likes)) ** size
        self._log_share_I = np.log1p(-np.minimum(absent_I, 1 - 1e-6)).astype(np.float32)
        self.per_epoch = min(config.steps, math.ceil(len(likes) / config.users))

    def __iter__(self) -> Iterator[tuple[Tensor, Step]]:
        order_U = self._random.permutation(len(self._likes))[: self._config.steps * self._config.users]
        for users in np.array_split(order_U, self.per_epoch):
            rows = [self._likes[user] for user in users]
            likes_BL = np.full((len(rows), max(map(len, rows))), -1, np.int64)
            for line, row in zip(likes_BL, rows, strict=True):
                line[: len(row)] = row
            columns_K = self._liked
            if self._drawn < 1:
                drawn = self._random.choice(self._liked, self._config.columns, replace=False)
                columns_K = np.union1d(np.concatenate(rows), drawn)
            there = likes_BL >= 0
            likes_BL[there] = np.searchsorted(columns_K, likes_BL[there])
            log_share_K = torch.from_numpy(self._log_share_I[columns_K])
            yield torch.from_numpy(columns_K), Step(torch.from_numpy(likes_BL), log_share_K)
