"""What scores are trained and validated by: their base, which is fitted first, the pairwise loss, the metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from m6rec.adapters import TaskAdapter
from m6rec.evaluation.metrics import auc, base_rates, cross_entropy, uauc
from m6rec.text.batch import Example
from m6rec.training import TrainConfig, TrainingHistory, fit

BASE_QUESTIONS = 512
"""Questions of a batch of the base."""
BASE = "base"
"""Where a run keeps the training of its base."""
BASE_TRAINING = TrainConfig(epochs=12, learning_rate=1e-3, patience=3)
"""How the base of a score is fitted."""


def fit_numbers(
    adapter: TaskAdapter,
    training: Sequence[Example],
    validation: Sequence[Example],
    config: TrainConfig = BASE_TRAINING,
    *,
    folder: Path | None = None,
) -> TrainingHistory | None:
    """Fits what a tuning makes of numbers alone, before it reads: the base of its scores, and how traces are normed.

    Args:
        adapter: Fitted in place, if it takes numbers; the base is fixed from then on.
        training: Rows of the training part.
        validation: Rows that choose the epoch of the base.
        config: How the base is trained; it takes seconds.
        folder: See ``fit``.

    Returns:
        The history of the base; None where there is none.
    """
    if adapter.event_encoder is not None:
        adapter.event_encoder.fit(torch.from_numpy(np.concatenate([row.event_features for row in training])))
    base = adapter.base
    if base is None:
        return None
    network, device = base.network, adapter.slots_SD.device

    def of(rows: Sequence[Example]) -> tuple[Tensor, Tensor]:
        features_QF = torch.from_numpy(np.concatenate([row.features for row in rows]))
        return features_QF.to(device), torch.from_numpy(np.concatenate([row.labels for row in rows])).to(device)

    (features_QF, labels_Q), (signals_VF, answers_V) = of(training), of(validation)
    network.fit(features_QF)
    labels = answers_V.cpu().numpy()
    users = np.repeat(np.arange(len(validation)), [len(row.candidates) for row in validation])
    rates_C = base_rates(labels_Q.cpu().numpy(), adapter.config.num_classes)

    def batches(epoch: int) -> Sequence[Tensor]:
        order = np.random.default_rng([config.seed, epoch]).permutation(len(labels_Q))
        return torch.split(torch.from_numpy(order).to(device), BASE_QUESTIONS)

    def validate() -> float:
        with torch.no_grad():
            probabilities_VC = base(signals_VF).softmax(-1).double().cpu().numpy()
        return class_metric(labels, probabilities_VC, users, rates_C)

    network.requires_grad_(True)
    history = fit(
        network,
        batches,
        lambda chosen: F.cross_entropy(base(features_QF[chosen]), labels_Q[chosen]),
        config,
        validate=validate,
        folder=folder,
    )
    network.requires_grad_(False)
    return history


def class_metric(
    labels: NDArray[np.int64],
    probabilities_QC: NDArray[np.float64],
    users: NDArray[np.int64],
    base_C: NDArray[np.float64],
    pairwise: float = 0.0,
) -> float:
    """The validation metric of a task with classes; greater is better.

    Of two classes AUC, in the share ``pairwise`` UAUC; minus what the log loss is above that of the base rates, so that
    an epoch that is worse than knowing nothing isn't kept for its order. Of more, and where validation has one class
    only, minus the log loss.
    """
    loss = cross_entropy(labels, probabilities_QC)
    if probabilities_QC.shape[1] > 2 or len(np.unique(labels)) < 2:
        return -loss
    scores = probabilities_QC[:, 1]
    within = uauc(labels, scores, users) if pairwise else 0.0
    worse = max(0.0, loss - cross_entropy(labels, np.broadcast_to(base_C, probabilities_QC.shape)))
    return (1 - pairwise) * auc(labels, scores) + pairwise * within - (0.0 if pairwise else worse)


def pair_loss(score_Q: Tensor, yes_Q: Tensor, user_Q: Tensor) -> Tensor:
    """RankNet loss (Burges et al., 2005) over pairs of a positive and a negative query of one user.

    Mean over the pairs of a user, then over users, as UAUC weighs them; 0 where no user has a pair.

    Args:
        score_Q: Log-odds of yes.
        yes_Q: Whether that is the answer.
        user_Q: Number of the user, from 0.
    """
    pairs_QQ = (user_Q[:, None] == user_Q) & yes_Q[:, None] & ~yes_Q
    loss_QQ = F.softplus(score_Q - score_Q[:, None]) * pairs_QQ
    sums_U = score_Q.new_zeros(2, int(user_Q.max()) + 1)
    sums_U = sums_U.index_add(1, user_Q, torch.stack([loss_QQ.sum(1), pairs_QQ.sum(1).to(loss_QQ)]))
    sums_U = sums_U[:, sums_U[1] > 0]
    return (sums_U[0] / sums_U[1]).sum() / max(1, sums_U.shape[1])
