"""How good the scores of a model are, in numpy only.

Labels are 0 or 1, one an event. Retrieval metrics start from ``ranks``: one target a question, ranked
among all items, so that no sampled candidate list flatters a model (Krichene & Rendle, KDD 2020).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m6rec.errors import ConfigError, DataError

Floats = NDArray[np.float64]
Metric = Callable[[NDArray[np.int64], Floats], float]


def auc(labels: ArrayLike, scores: ArrayLike, *, undefined: float | None = None) -> float:
    """Area under the ROC curve: the chance that a positive is scored above a negative.

    AUC = (#{positive > negative} + ½ #{positive = negative}) / (#positives · #negatives)

    Three of the four pairs below are in order and one is tied:

    >>> auc([1, 0, 1, 0], [0.9, 0.4, 0.4, 0.1])
    0.875

    Args:
        labels: 0 or 1.
        scores: Greater for what is more likely 1.
        undefined: What is returned where only one class is present; None for an error.

    Raises:
        DataError: Lengths differ, a score is NaN, or only one class is present.
    """
    labels_N, scores_N = _checked(labels, scores)
    value = _auc(labels_N, scores_N)
    if np.isnan(value) and undefined is not None:
        return undefined
    if np.isnan(value):
        raise DataError(
            f"AUC needs both classes, but all {len(labels_N)} labels are {labels_N[0]}; "
            "evaluate on more events, or check how the label is derived"
        )
    return value


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> float:
    """AUC within each group (user), averaged with the group's number of events as its weight.

    GAUC = Σ_u n_u · AUC_u / Σ_u n_u, over the users that have both labels (Zhu et al., KDD 2017)

    User 7 has AUC 1 on 2 events, user 8 has AUC ½ on 3, user 9 has one label only:

    >>> gauc([1, 0, 1, 0, 1, 1], [0.9, 0.1, 0.2, 0.4, 0.6, 0.5], [7, 7, 8, 8, 8, 9])
    0.7

    Raises:
        DataError: As ``auc``, with both classes needed in at least one group.
    """
    aucs_G, sizes_G = _auc_by_group(labels, scores, groups)
    return float(np.average(aucs_G, weights=sizes_G))


def uauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> float:
    """AUC within each group (user), averaged with equal weights.

    UAUC = mean_u AUC_u, over the users that have both labels (CoLLM, arXiv 2310.19488)

    >>> uauc([1, 0, 1, 0, 1, 1], [0.9, 0.1, 0.2, 0.4, 0.6, 0.5], [7, 7, 8, 8, 8, 9])
    0.75

    Raises:
        DataError: As ``gauc``.
    """
    aucs_G, _ = _auc_by_group(labels, scores, groups)
    return float(aucs_G.mean())


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean negative log-likelihood in nats.

    LogLoss = −mean(y · ln p + (1 − y) · ln(1 − p)), with p clipped to [ε, 1 − ε], where ε is the
    machine epsilon of the probabilities' own dtype, as scikit-learn does

    (ln 2 + ln 4) / 2:

    >>> round(log_loss([1, 0], [0.5, 0.75]), 4)
    1.0397

    Raises:
        DataError: Lengths differ, or a probability is NaN or outside [0, 1].
    """
    given = np.asarray(probabilities)
    epsilon = np.finfo(given.dtype if given.dtype.kind == "f" else np.float64).eps
    labels_N, p_N = _checked_probabilities(labels, given)
    p_N = np.clip(p_N, epsilon, 1 - epsilon)
    return float(-np.where(labels_N == 1, np.log(p_N), np.log1p(-p_N)).mean())


def base_rates(labels: ArrayLike, num_classes: int) -> Floats:
    """How often each class occurs, [C], each counted once more than it does, so that none is impossible.

    >>> base_rates([0, 0, 1], 3).round(3).tolist()
    [0.5, 0.333, 0.167]
    """
    counts_C = np.bincount(np.asarray(labels, np.int64), minlength=num_classes) + 1.0
    rates_C: Floats = counts_C / counts_C.sum()
    return rates_C


def cross_entropy(labels: ArrayLike, probabilities_NC: ArrayLike) -> float:
    """``log_loss`` for any number of classes: the mean of −ln p of each label's class.

    >>> round(cross_entropy([2, 0], [[0.25, 0.25, 0.5], [0.25, 0.5, 0.25]]), 4)
    1.0397

    Raises:
        DataError: A label has no column, or a row is no distribution.
    """
    labels_N, p_NC = np.asarray(labels, np.int64), np.asarray(probabilities_NC, np.float64)
    if p_NC.ndim != 2 or labels_N.shape != p_NC.shape[:1] or not len(labels_N):
        raise DataError(f"labels have shape {labels_N.shape}, probabilities {p_NC.shape}; give [N] and [N, C]")
    if labels_N.min() < 0 or labels_N.max() >= p_NC.shape[1]:
        raise DataError(f"labels go from {labels_N.min()} to {labels_N.max()}, but there are {p_NC.shape[1]} classes")
    if not (np.all(p_NC >= 0) and np.allclose(p_NC.sum(1), 1, atol=1e-3)):
        raise DataError("a row of the probabilities is no distribution; each must be 0 or more and sum to 1")
    p_N = p_NC[np.arange(len(labels_N)), labels_N]
    return float(-np.log(np.maximum(p_N, np.finfo(np.float32).eps)).mean())


def perplexity(nats: ArrayLike, counts: ArrayLike) -> float:
    """How many tokens a language model is undecided between on average, over all tokens of all texts.

    PPL = exp(−Σ ln p(text) / #{tokens}); comparable between models of one tokenizer only

    Two tokens of probability ½ each and one of ½:

    >>> round(perplexity([2 * np.log(1 / 2), np.log(1 / 2)], [2, 1]), 4)
    2.0

    Args:
        nats: Log-probability of each text, in nats.
        counts: Its tokens.

    Raises:
        DataError: Lengths differ, a log-probability is NaN or above 0, or there is no token.
    """
    nats_N, counts_N = np.asarray(nats, np.float64), np.asarray(counts, np.int64)
    if nats_N.shape != counts_N.shape or counts_N.sum() < 1:
        raise DataError(f"there are {nats_N.size} texts with {counts_N.sum()} tokens in {counts_N.size} counts")
    if not (nats_N <= 0).all():
        raise DataError("a log-probability is above 0 or not a number; give nats")
    return float(np.exp(-nats_N.sum() / counts_N.sum()))


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, num_bins: int = 15) -> float:
    """Expected calibration error over bins of equal width.

    ECE = Σ_b (n_b / N) · |mean p in b − mean y in b|, with b = ⌊p · num_bins⌋ and p = 1 in the last
    bin (Guo et al., ICML 2017, on the probability of the positive class)

    Two bins: [0, ½) says .2 where the truth is 0; [½, 1] says .8 where the truth is ½:

    >>> round(calibration_error([0, 0, 1, 0], [0.1, 0.3, 0.8, 0.8], num_bins=2), 4)
    0.25

    Raises:
        DataError: As ``log_loss``.
        ConfigError: ``num_bins`` is below 1.
    """
    if num_bins < 1:
        raise ConfigError(f"num_bins is {num_bins}; it must be at least 1")
    labels_N, p_N = _checked_probabilities(labels, probabilities)
    bins_N = np.minimum((p_N * num_bins).astype(np.int64), num_bins - 1)
    return float(np.abs(np.bincount(bins_N, weights=p_N - labels_N)).sum() / len(p_N))


def ranks(scores_BI: ArrayLike, target_B: ArrayLike, excluded_BI: ArrayLike | None = None) -> Floats:
    """Rank of each question's target among all items that are not excluded; 1 is the top.

    rank = 1 + #{score > target's} + ½ #{other items with the target's score}

    A tie costs half of its items (the mid-rank, which may end in .5): deterministic, and equal to the
    expected place under random tie-breaking, so a constant scorer gains nothing.

    Item 2 is beaten by item 0 and tied with item 3; without item 0 only the tie is left:

    >>> ranks([[0.9, 0.1, 0.5, 0.5]], [2])
    array([2.5])
    >>> ranks([[0.9, 0.1, 0.5, 0.5]], [2], [[True, False, False, False]])
    array([1.5])

    Args:
        scores_BI: One row of item scores a question; −inf is allowed, NaN is not.
        target_B: Index of the right item of each question.
        excluded_BI: True where an item may not be recommended, such as one already seen.

    Raises:
        DataError: Shapes disagree, a score is NaN, or a target is out of range or excluded.
    """
    scores_BI, target_B = np.asarray(scores_BI), np.asarray(target_B)
    if scores_BI.ndim != 2 or target_B.shape != scores_BI.shape[:1]:
        raise DataError(
            f"scores have shape {scores_BI.shape} and targets {target_B.shape}; give [questions, items] and [questions]"
        )
    if np.isnan(scores_BI).any():
        raise DataError(f"scores of question {_first(np.isnan(scores_BI).any(1))} contain NaN")
    num_items = scores_BI.shape[1]
    outside_B = (target_B < 0) | (target_B >= num_items)
    if outside_B.any():
        row = _first(outside_B)
        raise DataError(f"target of question {row} is item {target_B[row]}; items are 0 to {num_items - 1}")
    rows_B = np.arange(len(target_B))
    target_score_B1 = scores_BI[rows_B, target_B][:, None]
    greater_BI, tied_BI = scores_BI > target_score_B1, scores_BI == target_score_B1
    if excluded_BI is not None:
        excluded_BI = np.asarray(excluded_BI, dtype=bool)
        if excluded_BI.shape != scores_BI.shape:
            raise DataError(f"excluded has shape {excluded_BI.shape}; scores have {scores_BI.shape}")
        if excluded_BI[rows_B, target_B].any():
            row = _first(excluded_BI[rows_B, target_B])
            raise DataError(
                f"target of question {row}, item {target_B[row]}, is excluded; drop the question or allow it"
            )
        greater_BI, tied_BI = greater_BI & ~excluded_BI, tied_BI & ~excluded_BI
    better_B: Floats = greater_BI.sum(1) + (tied_BI.sum(1) - 1) / 2
    return 1 + better_B


def hit_rate(ranks_B: ArrayLike, k: int) -> float:
    """Share of questions whose target is among the first k. With one target, Recall@k is the same.

    HitRate@k = mean(rank ≤ k)

    >>> hit_rate([1, 3, 12], k=10) == 2 / 3
    True

    Raises:
        DataError: There is no rank, or one is below 1.
        ConfigError: ``k`` is below 1.
    """
    ranks_B = _checked_ranks(ranks_B, k)
    return float((ranks_B <= k).mean())


def ndcg(ranks_B: ArrayLike, k: int) -> float:
    """Normalised discounted cumulative gain; with one target the ideal gain is 1.

    NDCG@k = mean([rank ≤ k] / log2(1 + rank)) (Järvelin & Kekäläinen, TOIS 2002)

    (1 / log2 2 + 1 / log2 4 + 0) / 3:

    >>> ndcg([1, 3, 12], k=10)
    0.5

    Raises:
        DataError, ConfigError: As ``hit_rate``.
    """
    ranks_B = _checked_ranks(ranks_B, k)
    return float(((ranks_B <= k) / np.log2(1 + ranks_B)).mean())


def mrr(ranks_B: ArrayLike, k: int) -> float:
    """Mean reciprocal rank, 0 for a target after the first k.

    MRR@k = mean([rank ≤ k] / rank)

    (1 + ¼ + 0) / 3 = 5 / 12:

    >>> mrr([1, 4, 12], k=10) == 5 / 12
    True

    Raises:
        DataError, ConfigError: As ``hit_rate``.
    """
    ranks_B = _checked_ranks(ranks_B, k)
    return float(((ranks_B <= k) / ranks_B).mean())


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much the first of two scorers is better than the second.

    Attributes:
        value: metric(first) − metric(second) on all events.
        low: Lower end of the 95 % percentile interval.
        high: Upper end of the 95 % percentile interval.
        p: Two-sided p-value of "no difference"; never below 2 / (num_samples + 1).
    """

    value: float
    low: float
    high: float
    p: float


def bootstrap_difference(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    metric: Metric = auc,
    num_samples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Compare two scorers of the same events by the paired bootstrap (Efron & Tibshirani 1993, ch. 13, 16).

    Events are drawn with replacement, the same ones for both scorers. With ``groups``, whole groups
    are drawn, since the events of one user are not independent: intervals are then honest (wider).

    d_s = metric(first on draw s) − metric(second on draw s); interval = 2.5 % and 97.5 % quantiles of d;
    p = 2 · (1 + min(#{d ≤ 0}, #{d ≥ 0})) / (num_samples + 1), at most 1

    A scorer compared with itself:

    >>> bootstrap_difference([1, 0, 1, 0], [4, 3, 2, 1], [4, 3, 2, 1], num_samples=10)
    Difference(value=0.0, low=0.0, high=0.0, p=1.0)

    Args:
        labels: 0 or 1 an event.
        first: Scores, or any values that ``metric`` takes, one an event.
        second: The other scorer's, for the same events.
        groups: Whose event it is, such as user numbers.
        metric: From labels and scores to a number. A draw on which it raises DataError (say, one
            class only) is drawn again. Per-question values such as reciprocal ranks are compared by
            ``lambda labels, values: values.mean()``.
        num_samples: How many draws.
        seed: Makes the draws repeatable.

    Raises:
        DataError: Lengths differ, a score is NaN, or ``metric`` isn't defined on all events.
        ConfigError: ``num_samples`` is below 1.
    """
    if num_samples < 1:
        raise ConfigError(f"num_samples is {num_samples}; it must be at least 1")
    labels_N, first_N = _checked(labels, first)
    _, second_N = _checked(labels, second)

    def difference(chosen: NDArray[np.int64] | slice) -> float:
        return metric(labels_N[chosen], first_N[chosen]) - metric(labels_N[chosen], second_N[chosen])

    observed = difference(slice(None))
    units = None if groups is None else _members(labels_N, groups)
    num_units = len(labels_N) if units is None else len(units)
    generator = np.random.default_rng(seed)
    drawn: list[float] = []
    while len(drawn) < num_samples:
        picks = generator.integers(num_units, size=num_units)
        try:
            drawn.append(difference(picks if units is None else np.concatenate([units[p] for p in picks])))
        except DataError:
            continue
    drawn_S = np.array(drawn)
    low, high = np.quantile(drawn_S, [0.025, 0.975])
    tail = min((drawn_S <= 0).sum(), (drawn_S >= 0).sum())
    p = min(1.0, 2 * (1 + float(tail)) / (num_samples + 1))
    return Difference(value=observed, low=float(low), high=float(high), p=p)


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """How often the first of two scorers beats the second on the same question.

    Attributes:
        value: (wins + ½ ties) / questions.
        wins: Questions on which the first is higher.
        losses: Questions on which the second is higher.
        ties: Questions on which they are equal.
        p: Two-sided p-value of the sign test, "either wins as often as the other".
    """

    value: float
    wins: int
    losses: int
    ties: int
    p: float


def win_rate(first: ArrayLike, second: ArrayLike) -> WinRate:
    """Compare two scorers question by question, with the exact sign test (Conover 1999, ch. 3.4).

    With n = wins + losses, p = 2 · Σ_{k ≤ min(wins, losses)} C(n, k) / 2ⁿ, at most 1; ties say nothing

    Three wins, no loss and a tie: p = 2 · ½³

    >>> win_rate([0.9, 0.8, 0.7, 0.2], [0.1, 0.2, 0.3, 0.2])
    WinRate(value=0.875, wins=3, losses=0, ties=1, p=0.25)

    Args:
        first: One number a question, higher is better (a log-likelihood, a reciprocal rank).
        second: The other scorer's, for the same questions.

    Raises:
        DataError: Lengths differ, there is no question, or a number is NaN.
    """
    first_N, second_N = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first_N.ndim != 1 or first_N.shape != second_N.shape or not first_N.size:
        raise DataError(f"scorers have shapes {first_N.shape} and {second_N.shape}; give one number each a question")
    if np.isnan(first_N).any() or np.isnan(second_N).any():
        row = _first(np.isnan(first_N) | np.isnan(second_N))
        raise DataError(f"a score of question {row} is NaN; scores must be numbers")
    wins, losses = int((first_N > second_N).sum()), int((first_N < second_N).sum())
    ties, decided = len(first_N) - wins - losses, wins + losses
    tail, ways = 0, 1  # exact integers: 2ⁿ is no float beyond n = 1023
    for k in range(min(wins, losses) + 1):
        tail += ways
        ways = ways * (decided - k) // (k + 1)
    p = min(2 * tail, 2**decided) / 2**decided
    return WinRate(value=(wins + ties / 2) / len(first_N), wins=wins, losses=losses, ties=ties, p=p)


def _auc(labels_N: NDArray[np.int64], scores_N: Floats) -> float:
    """Mann-Whitney form: from the mid-ranks of the positives; NaN where a class is missing."""
    num_positive = int(labels_N.sum())
    num_negative = len(labels_N) - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    _, value_N, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    midranks = np.cumsum(counts) - (counts - 1) / 2
    above = midranks[value_N[labels_N == 1]].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def _auc_by_group(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> tuple[Floats, Floats]:
    """AUC and number of events of every group that has both labels."""
    labels_N, scores_N = _checked(labels, scores)
    members = _members(labels_N, groups)
    aucs_G = np.array([_auc(labels_N[member], scores_N[member]) for member in members])
    defined_G = ~np.isnan(aucs_G)
    if not defined_G.any():
        raise DataError(
            f"none of the {len(members)} groups has both labels, so no AUC within a group is defined; "
            "use auc, or evaluate on more events a group"
        )
    sizes_G = np.array([len(member) for member in members], dtype=np.float64)
    return aucs_G[defined_G], sizes_G[defined_G]


def _members(labels_N: NDArray[np.int64], groups: ArrayLike) -> list[NDArray[np.int64]]:
    """The event numbers of each group."""
    groups_N = np.asarray(groups)
    if groups_N.shape != labels_N.shape:
        raise DataError(f"groups have shape {groups_N.shape}; labels have {labels_N.shape}")
    _, group_N = np.unique(groups_N, return_inverse=True)
    order = np.argsort(group_N, kind="stable")
    return np.split(order, np.cumsum(np.bincount(group_N))[:-1])


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    labels_N, scores_N = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels_N.ndim != 1 or labels_N.shape != scores_N.shape:
        raise DataError(f"labels have shape {labels_N.shape} and scores {scores_N.shape}; give one of each an event")
    if not len(labels_N):
        raise DataError("there are no events to evaluate; give at least one")
    wrong_N = (labels_N != 0) & (labels_N != 1)
    if wrong_N.any():
        raise DataError(f"label of event {_first(wrong_N)} is {labels_N[wrong_N][0]}; allowed are 0 and 1")
    if np.isnan(scores_N).any():
        raise DataError(f"score of event {_first(np.isnan(scores_N))} is NaN; scores must be numbers")
    return labels_N.astype(np.int64), scores_N


def _checked_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    labels_N, p_N = _checked(labels, probabilities)
    outside_N = (p_N < 0) | (p_N > 1)
    if outside_N.any():
        raise DataError(
            f"probability of event {_first(outside_N)} is {p_N[outside_N][0]}; allowed is 0 to 1; "
            "turn logits into probabilities by a sigmoid first"
        )
    return labels_N, p_N


def _checked_ranks(ranks_B: ArrayLike, k: int) -> Floats:
    if k < 1:
        raise ConfigError(f"k is {k}; it must be at least 1")
    ranks_B = np.asarray(ranks_B, dtype=np.float64)
    if not ranks_B.size or not (ranks_B >= 1).all():
        raise DataError("ranks must be at least one number, each 1 or more; make them by metrics.ranks")
    return ranks_B


def _first(flags: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(flags)[0])
