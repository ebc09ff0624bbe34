"""Explanations: whether the cited evidence is what moved the scores, by deleting it.

For the first recommendations of users of the demo, each reason that cites events of the user is put to the test: the
cited events are deleted from the history, and as many other likes instead, and the item is retrieved and ranked anew.
Evidence is faithful where its deletion lowers the scores more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.parts import tell
from benchmarks.setup import Claims, Setup, mean_difference
from m6rec.evaluation.report import Row, Table
from m6rec.serving.backend import InspectRequest
from m6rec.serving.recommender import Recommender
from m6rec.types import Event

NUM_USERS = 60
NUM_ITEMS = 2
"""Recommendations of a user that are explained."""
DRAWS = 3
"""Other likes that are deleted in place of the cited ones, so often."""
SCORES = ("retrieval score", "probability of a like")


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    recommender, _, made, interactions = setup.recommender()
    users = sorted(user for user in made.split.log.users if len(interactions.history(user)) >= 20)
    chosen = np.random.default_rng(0).permutation(users)[: 20 if setup.quick else NUM_USERS]
    cases: list[tuple[str, str, np.ndarray, np.ndarray]] = []
    said, by_model, with_reasons, recommended = 0, 0, 0, 0
    for number, user in enumerate(chosen):
        if number % 20 == 0:
            tell(f"{number} of {len(chosen)} users")
        history = [event for event in interactions.history(user) if event.item]
        likes = [event for event in history if made.domain.positive(event)]
        for one in recommender.recommend(user, NUM_ITEMS).items:
            reasons = recommender.explain(user, one.item.id).reasons
            recommended, with_reasons = recommended + 1, with_reasons + bool(reasons)
            for reason in reasons:
                said, by_model = said + 1, by_model + (reason.source == "model")
                cited = {event["item"] for event in reason.evidence.get("events", ())}
                others = [event.item for event in likes if event.item not in cited]
                if cited and len(others) >= len(cited):
                    cases.append((reason.kind, user, *_falls(recommender, one.item.id, history, cited, others)))
    table, claims = _told(cases)
    claims += [
        ("recommendations with a reason: coverage", with_reasons / recommended, ">=", 0.95),
        ("recommendations with a reason: worded by the model", by_model / said, ">=", 0.6),
    ]
    return {"users": len(chosen), "reasons": said, "tables": (table,)}, claims


def _falls(
    recommender: Recommender, item: str, history: Sequence[Event], cited: set[str], others: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """How much both scores fall without the cited events, and, on average, without as many other likes."""
    rng = np.random.default_rng(len(history))
    whole = _scores(recommender, item, history)
    drawn = [set(rng.choice(others, len(cited), replace=False).tolist()) for _ in range(DRAWS)]
    without, *instead = (
        whole - _scores(recommender, item, [event for event in history if event.item not in gone])
        for gone in (cited, *drawn)
    )
    return without, np.mean(instead, 0)


def _scores(recommender: Recommender, item: str, history: Sequence[Event]) -> np.ndarray:
    """(retrieval score, probability of a like) for somebody of whom only this history is known."""
    placement = recommender.inspect(InspectRequest(item=item, history=tuple(history))).placement
    assert placement is not None
    return np.array([sum(one.score for one in placement.sources), placement.score])


def _told(cases: Sequence[tuple[str, str, np.ndarray, np.ndarray]]) -> tuple[Table, Claims]:
    rows: list[Row] = []
    claims: Claims = []
    kinds = {"all": cases} | {
        kind: [case for case in cases if case[0] == kind] for kind in sorted({c[0] for c in cases})
    }
    for kind, of_kind in kinds.items():
        cited, others = (np.array([case[place] for case in of_kind]) for place in (2, 3))
        metrics = {"reasons": (float(len(of_kind)),)}
        for place, score in enumerate(SCORES):
            metrics[f"{score}: fall without the evidence"] = (float(cited[:, place].mean()),)
            metrics[f"{score}: … without other likes"] = (float(others[:, place].mean()),)
            metrics[f"{score}: evidence falls more"] = (float((cited[:, place] > others[:, place]).mean()),)
            if kind == "all":
                lead = mean_difference(cited[:, place], others[:, place], groups=[case[1] for case in of_kind])
                claims.append((f"{score}: fall without the evidence less that without other likes", lead.value, ">", 0))
                claims.append((f"{score}: p of that difference", lead.p, "<=", 0.01))
        rows.append(Row(method=kind, metrics=metrics))
    note = f"Reasons by kind; as many other likes are deleted as events are cited, {DRAWS} times"
    return Table(title="Deletion of the cited events", metric="reasons", rows=tuple(rows), note=note), claims
