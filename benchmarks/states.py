"""What states of 8 bits a number cost in quality, and what they save: one run, asked with states of both kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.evaluate import ask_all
from m6rec.foundation.states import StateCache
from m6rec.metrics import auc
from m6rec.text.log import TEST
from m6rec.tuned import Tuned


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    _, like, made, _ = setup.recommender()
    questions = ask_all(like.task, made.split, made.domain)
    answers_Q = questions.answers(TEST)
    scores, results = {}, {}
    for name, quantised in (("as computed", False), ("8 bits", True)):
        config = replace(like.cache.config, quantised=quantised)
        cache = StateCache(like.foundation, config, None if quantised else assets.home() / "states")
        scores[name] = Tuned(like.config, like.foundation, like.tuning, cache).scores(questions.rows[TEST])
        held = cache.statistics()
        results[name] = {
            "test_auc": auc(answers_Q, scores[name]),
            "texts": held.entries,
            "bytes_of_a_text_in_memory": held.bytes / held.entries,
        }
    changes_Q = np.abs(scores["as computed"] - scores["8 bits"])
    lost = results["as computed"]["test_auc"] - results["8 bits"]["test_auc"]
    return {
        "results": results,
        "change_of_a_score": {"mean": float(changes_Q.mean()), "largest": float(changes_Q.max())},
    }, [("states of 8 bits: test AUC lost", lost, "<=", 0.001)]
