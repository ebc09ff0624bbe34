"""How good an answer is: each metric with its formula and a worked example.

``scores`` are of numbers (its names are here too), ``words`` of texts, ``conversation`` of items named in turns.
"""

from m6rec.evaluation.metrics.scores import (
    Difference,
    WinRate,
    auc,
    base_rates,
    bootstrap_difference,
    calibration_error,
    cross_entropy,
    gauc,
    hit_rate,
    log_loss,
    mrr,
    ndcg,
    perplexity,
    ranks,
    uauc,
    win_rate,
)

__all__ = [
    "Difference",
    "WinRate",
    "auc",
    "base_rates",
    "bootstrap_difference",
    "calibration_error",
    "cross_entropy",
    "gauc",
    "hit_rate",
    "log_loss",
    "mrr",
    "ndcg",
    "perplexity",
    "ranks",
    "uauc",
    "win_rate",
]
