"""What reading adds to the numbers of a ranking task: base alone, text alone, both, and both where no text is told.

By MovieLens-100k split in time, MovieLens-1M as CoLLM split it, and the small log of the quick starts, each by how
often item and user had been met; and impressions whose clicks are random, which nothing may tell.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import logs, parts, sets
from benchmarks.data import impressions
from benchmarks.setup import AbsentError, Claims, Setup, research
from benchmarks.tunings import tunings
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.data.split import TEST, Split
from m6rec.demo import OURS
from m6rec.domains import prepared
from m6rec.domains.domain import Domain
from m6rec.evaluation.ablation import BASE_ALONE, MEAN_STATE, TEXT, reading_tables
from m6rec.evaluation.metrics import bootstrap_difference
from m6rec.evaluation.ranking import ranking_table
from m6rec.evaluation.report import Table
from m6rec.quickstart import RANKING, plan
from m6rec.readouts import TaskModelConfig
from m6rec.readouts.score import ablations
from m6rec.training import TrainConfig

NOWHERE = Path("runs/bench/ranking")


def _measured(
    name: str, config: TaskModelConfig, split: Split, domain: Domain, training: TrainConfig, setup: Setup
) -> tuple[list[Table], dict[str, Any]]:
    """(tables, by what is taken away what the AUC loses, by the paired bootstrap over users)."""
    at = NOWHERE / ("quick" if setup.quick else "full") / name
    training = replace(training, epochs=1) if setup.quick else training
    questions, runs = tunings(config, split, domain, training, setup.seeds, at)
    labels, events = questions.labels(TEST), questions.events(TEST)
    found = {
        part: [p_QC[:, 1] for p_QC in by_seed] for part, by_seed in ablations(OURS, runs, questions.rows[TEST]).items()
    }
    beside = ranking_table(split, questions, domain, found, seeds=setup.seeds, progress=parts.tell)
    tables = [beside, *reading_tables(split, labels, events, found)]
    users = np.unique(split.log.table.codes("user")[events], return_inverse=True)[1]
    lost = {
        part: asdict(bootstrap_difference(labels, np.mean(found[OURS], 0), np.mean(found[part], 0), users))
        for part in (BASE_ALONE, TEXT, MEAN_STATE)
    }
    return [replace(table, title=f"{name}: {table.title}") for table in tables], lost


def _small(setup: Setup) -> tuple[list[Table], dict[str, Any]]:
    """The log of 200 users and 100 items, as a quick start tunes it."""
    with tempfile.TemporaryDirectory() as folder:
        made = prepared.make("generic", None, *logs.small(Path(folder), num_events=12_000))
    chosen = plan(made)
    assert made.domain.rule is not None
    config = TaskModelConfig(
        task=chosen.ranking, domain="generic", rule=made.domain.rule.to_json(), foundation=DEFAULT_FOUNDATION
    )
    return _measured("small", config, made.split, made.domain, chosen.ranking_training, setup)


def ranking(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """All sets; that of CoLLM where it is at hand."""
    made = sets.movielens_100k()
    config = TaskModelConfig(task="like", domain="movielens", foundation=DEFAULT_FOUNDATION)
    found = {
        "movielens": _measured("movielens", config, made.split, made.domain, RANKING, setup),
        "small": _small(setup),
    }
    if not setup.quick:
        try:
            other = sets.ml1m_collm(research("ml1m_collm"))
        except AbsentError as absent:
            parts.tell(str(absent))
        else:
            config = replace(config, domain="benchmarks.sets:LIKES")
            found["ml1m_collm"] = _measured("ml1m_collm", config, other.split, other.domain, RANKING, setup)
    random, claims = impressions(setup)
    ours = found["movielens"][0][0].rows[0]
    adds = sum(lost[BASE_ALONE]["value"] > 0 and lost[BASE_ALONE]["p"] < 0.05 for _, lost in found.values())
    claims += [
        ("movielens: AUC", ours.mean("AUC"), ">=", 0.805),
        ("sets where reading adds to the base, p < .05", adds, ">=", 1),
    ]
    result = {
        "seed": list(setup.seeds),
        "lost": {name: lost for name, (_, lost) in found.items()},
        "random impressions": random,
        "tables": tuple(table for tables, _ in found.values() for table in tables),
    }
    return result, claims
