"""How near to evaluation a service is that reads users turn by turn, or keeps states in 8 bits, and what those save."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.data.split import TEST
from m6rec.evaluation.metrics import auc
from m6rec.foundation.states import StateCache
from m6rec.readouts import ScoreModel
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.tasks.examples import task_examples

NUM_USERS, NUM_TURNS = 50, 40


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    _, like, made, _ = setup.recommender()
    questions = task_examples(like.task, made.split, made.domain)
    rows, labels_Q = questions.rows[TEST], questions.labels(TEST)
    scores, states = {}, {}
    for name, quantised in (("as computed", False), ("8 bits", True)):
        config = replace(like.cache.config, quantised=quantised)
        cache = StateCache(like.foundation, config, None if quantised else assets.home() / "states")
        scores[name] = ScoreModel(like.config, like.foundation, like.adapter, cache).scores(rows)
        held = cache.statistics()
        states[name] = {
            "test_auc": auc(labels_Q, scores[name]),
            "texts": held.entries,
            "bytes_of_a_text_in_memory": held.bytes / held.entries,
        }
    by_row = np.split(scores["as computed"], np.cumsum([len(row.labels) for row in rows])[:-1])
    turns = KVCachePool(like)
    served: list[Any] = []
    evaluated: list[Any] = []
    for number in range(0, len(rows), max(1, len(rows) // NUM_USERS)):
        served += [turns.predict([(str(number), row)])[0] for row in rows[number].by_timestamp()[:NUM_TURNS]]
        evaluated.append(by_row[number][: sum(map(len, served)) - sum(map(len, evaluated))])
    lost = states["as computed"]["test_auc"] - states["8 bits"]["test_auc"]
    in_turns = _changes(np.concatenate(served), np.concatenate(evaluated))
    return {
        "states": states,
        "by states of 8 bits": _changes(scores["8 bits"], scores["as computed"]),
        "in turns": in_turns,
    }, [
        ("states of 8 bits: test AUC lost", lost, "<=", 0.001),
        ("served in turns: largest difference of a score from evaluation", in_turns["largest"], "<=", 0.001),
    ]


def _changes(scores_Q: np.ndarray[Any, Any], others_Q: np.ndarray[Any, Any]) -> dict[str, float]:
    """How far scores are from others."""
    change_Q = np.abs(scores_Q - others_Q)
    return {"scores": len(change_Q), "mean": float(change_Q.mean()), "largest": float(change_Q.max())}
