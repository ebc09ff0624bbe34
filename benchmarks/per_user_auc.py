"""Likes ordered within a user: all test questions of a user asked at one moment, as a service asks.

Over questions that are spread over time, AUC within a user punishes who knows the user's own share of likes, as every
like behind is one less ahead (``design/log.md``). Asked at the moment of the user's first test event, it tells what a
service does: which of these items. Ours, and the peers that know our statistics, which alone can be asked so, learn
likes as before, or besides the order of a user's items, pair by pair (``TrainConfig.pairwise``; LightGBM's lambdarank).
All are chosen on validation, asked likewise.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import parts, sets
from benchmarks.peers import FULL, QUICK, Budget, folder, rankers
from benchmarks.peers.search import Floats
from benchmarks.setup import Claims, Setup, research
from benchmarks.tunings import tunings
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.data.split import TEST, VALID, Split
from m6rec.demo import OURS
from m6rec.domains.domain import Domain
from m6rec.evaluation.metrics import auc, uauc
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import InteractionStore
from m6rec.quickstart import RANKING
from m6rec.readouts import TaskModelConfig
from m6rec.tasks.examples import task_examples
from m6rec.tasks.task import Task, ask, named
from m6rec.text.batch import Example

FOLDER = Path("runs/bench/evidence")
PAIRS = "m6rec, pairs of a user"
SHARE = 0.7
"""Of the pairs in our loss; chosen with one seed on validation of .5, .7 and .8."""


def moments(task: Task, split: Split, domain: Domain, part: int) -> list[Example]:
    """A row for each user with events in a part: all of their items there, asked just before the first."""
    log = split.log
    own: dict[str, list[int]] = {}
    for at in np.flatnonzero(split.part == part).tolist():
        own.setdefault(log.events[at].user, []).append(at)
    interactions, rows = InteractionStore(log.items, domain.feedback), []
    for at, event in enumerate(log.events):
        positions = own.get(event.user, [])
        if positions and positions[0] == at:
            later = [log.events[position] for position in positions]
            items = [log.items[one.item] for one in later]
            row = ask(task, interactions, log.users[event.user], items, domain, dict(log.items))
            answers = np.array([int(domain.positive(one)) for one in later])
            rows.append(replace(row, labels=answers, events=np.array(positions)))
        interactions.update(event)
    return rows


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made = sets.ml1m_collm(research("ml1m_collm"))
    split, domain, task = made.split, made.domain, named("like")
    at_once = {part: moments(task, split, domain, part) for part in (VALID, TEST)}
    budget: Budget = QUICK if setup.quick else FULL
    found: dict[str, list[Floats]] = {}
    for name, share in ((PAIRS, SHARE), (OURS, 0.0)):
        config = TaskModelConfig(task=task.name, domain="benchmarks.sets:LIKES", foundation=DEFAULT_FOUNDATION)
        training = replace(RANKING, pairwise=share, **({"epochs": 1} if setup.quick else {}))
        at = FOLDER / ("quick" if setup.quick else "full") / "within" / f"pairs-{share:g}"
        _, runs = tunings(config, split, domain, training, setup.seeds, at, at_once=at_once)
        found[name] = [one.scores(at_once[TEST]) for one in runs]
    found |= rankers.ranking(
        split,
        domain,
        task_examples(task, split, domain),
        budget,
        folder("within", budget),
        peers=rankers.OF_STATISTICS,
        at_once=at_once,
        tell=parts.tell,
    )
    labels = np.concatenate([row.labels for row in at_once[TEST]])
    users = np.repeat(np.arange(len(at_once[TEST])), [len(row.candidates) for row in at_once[TEST]])
    rows = [
        Row(
            method=name,
            metrics={
                "UAUC": tuple(uauc(labels, scores, users) for scores in by_seed),
                "AUC": tuple(auc(labels, scores) for scores in by_seed),
            },
        )
        for name, by_seed in found.items()
    ]
    table = Table(
        title="Likes of ml1m_collm within a user, asked at once",
        metric="UAUC",
        rows=tuple(rows),
        ours=PAIRS,
        note="Asked at the moment of a user's first test event; nobody is told what anyone does from then on. Peers "
        f"are chosen by UAUC on validation, asked likewise, with {budget.trials} trials or {budget.seconds:g} s each.",
    )
    value = {row.method: row.mean("UAUC") for row in rows}
    best = max((name for name in value if name not in (PAIRS, OURS)), key=lambda name: value[name])
    claims: Claims = [
        ("ml1m_collm, asked at once: UAUC", value[PAIRS], ">=", 0.70),
        (f"ml1m_collm, asked at once: UAUC over that of {best}", value[PAIRS] - value[best], ">", 0),
    ]
    return {"seed": list(setup.seeds), "share of pairs in the loss": SHARE, "tables": (table,)}, claims
