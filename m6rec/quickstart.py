"""From a prepared log to tuned runs and a report, with settings chosen for the log: what ``m6rec init`` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from m6rec import assets, tuned
from m6rec.ablation import ablations, reading_tables
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.domains.prepared import Prepared
from m6rec.errors import DataError
from m6rec.evaluate import (
    Questions,
    Retriever,
    ask_all,
    check_leaks,
    class_table,
    fit_blend,
    ranking_table,
    retrieval_tables,
    seen_before,
)
from m6rec.fingerprint import Fingerprint
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.states import StateCache
from m6rec.project import Project
from m6rec.report import Table
from m6rec.tasks.task import named, texts
from m6rec.train import History, TrainConfig, tune
from m6rec.tuned import Tuned, TunedConfig

SMALL_EVENTS = 20_000
"""Training events below which it is steps that are counted rather than epochs, and stopped early."""

Stage = Callable[[str], AbstractContextManager[Any]]
"""Begins a stage of the work by its name; the block gets ``update(done, total, loss)``."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is tuned, and how.

    Attributes:
        ranking: The ranking task.
        ranking_training: How it is trained.
        retrieval_training: How retrieval is.
        ranking_seeds: One run each.
        retrieval_seeds: Likewise.
    """

    ranking: str = "like"
    ranking_training: TrainConfig = TrainConfig(epochs=4)  # noqa: RUF009 - frozen
    retrieval_training: TrainConfig = TrainConfig(epochs=2)  # noqa: RUF009
    ranking_seeds: Sequence[int] = (0,)
    retrieval_seeds: Sequence[int] = (0,)

    def describe(self) -> dict[str, str]:
        """The choices in words."""
        return {
            "ranking task": self.ranking,
            "epochs": f"{self.ranking_training.epochs} of ranking, {self.retrieval_training.epochs} of retrieval",
            "steps at least": f"{self.ranking_training.min_steps}, {self.retrieval_training.min_steps}",
        }


def plan(made: Prepared) -> Plan:
    """Chooses for a log: ``like`` where values are judged, ``click`` where events count; few epochs of few events."""
    rule = made.domain.rule
    chosen = Plan(ranking="click" if rule is not None and (rule.kinds or not rule.test) else "like")
    if len(made.split.indices(TRAIN)) >= SMALL_EVENTS:
        return chosen
    return replace(
        chosen,
        ranking_training=replace(chosen.ranking_training, epochs=2, min_steps=120, patience=2),
        retrieval_training=replace(chosen.retrieval_training, min_steps=60, patience=3),
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        ranked: The ranking runs and how their training went, one a seed; empty where the log can't be ranked on.
        retrieved: Likewise.
        ranking: The tables of ranking, the first beside its peers.
        retrieving: Those of retrieval.
        impossible: Why a task was not tuned, by its name.
        num_tokens: Tokens whose states were computed for it.
    """

    ranked: list[tuple[Tuned, History]] = field(default_factory=list)
    retrieved: list[tuple[Tuned, History]] = field(default_factory=list)
    ranking: tuple[Table, ...] = ()
    retrieving: tuple[Table, ...] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)
    num_tokens: int = 0

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables."""
        return (*self.ranking, *self.retrieving)


def tune_all(
    project: Project, made: Prepared, dataset: Fingerprint, model: Foundation, chosen: Plan, stage: Stage
) -> Outcome:
    """Tunes ranking and retrieval in a project and measures them beside the classical baselines.

    What an earlier call finished is not done again.

    Args:
        project: Where the runs go.
        made: The prepared log.
        dataset: Its fingerprint.
        model: The foundation.
        chosen: What to tune.
        stage: Told of each stage.

    Raises:
        DataError: Neither task can be tuned on the log.
        ConfigError: A run in the project is of something else.
    """
    config = TunedConfig(
        task=chosen.ranking,
        domain=made.domain_name,
        rule=None if made.domain.rule is None else made.domain.rule.to_json(),
        foundation=model.source,
        data=dataset.data,
        split=dataset.split,
    )
    impossible: dict[str, str] = {}
    asked: dict[str, Questions] = {}
    with stage("questions"):
        for task in (chosen.ranking, "retrieve"):
            try:
                asked[task] = ask_all(named(task), made.split, made.domain)
                check_leaks(made.split, asked[task])
            except DataError as error:
                impossible[task] = str(error)
    if not asked:
        raise DataError(f"nothing can be tuned on this log: {'; '.join(dict.fromkeys(impossible.values()))}")
    cache = tuned.create(config, model, assets.home() / "states").cache
    with stage("states") as update:
        cache.fetch((text for one in asked.values() for rows in one.rows.values() for text in texts(rows)), update)
    num_tokens = cache.tokens
    ranked = _tune(project, made, config, model, cache, asked.get(chosen.ranking), chosen.ranking_training,
                   chosen.ranking_seeds, stage)  # fmt: skip
    retrieved = _tune(project, made, replace(config, task="retrieve"), model, cache, asked.get("retrieve"),
                      chosen.retrieval_training, chosen.retrieval_seeds, stage)  # fmt: skip
    project.serve(
        ranking=f"{chosen.ranking}-{chosen.ranking_seeds[0]}" if ranked else "",
        retrieval=f"retrieve-{chosen.retrieval_seeds[0]}" if retrieved else "",
    )
    ours = f"m6rec, {config.method}"
    ranking: tuple[Table, ...] = ()
    retrieving: tuple[Table, ...] = ()
    if ranked:
        with stage("measuring ranking") as update:
            ranking = ranking_report(made, asked[chosen.ranking], ours, [one for one, _ in ranked], update)
    if retrieved:
        with stage("measuring retrieval"):
            rows, items = asked["retrieve"].rows[TEST], list(made.split.log.items.values())
            by_seed = [Retriever(one.vectors(rows), one.item_vectors(items), one.blend) for one, _ in retrieved]
            retrieving = retrieval_tables(made.split, asked["retrieve"], made.domain, {ours: by_seed})
    return Outcome(
        ranked=ranked,
        retrieved=retrieved,
        ranking=ranking,
        retrieving=retrieving,
        impossible=impossible,
        num_tokens=num_tokens,
    )


def ranking_report(
    made: Prepared,
    questions: Questions,
    name: str,
    runs: Sequence[Tuned],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Table, ...]:
    """A ranking task on the test part, whatever its number of classes: beside its peers, and of two what reading adds.

    Args:
        made: The prepared log.
        questions: Of the task.
        name: What the task is called in the tables.
        runs: One a seed.
        progress: Told of the questions read.
    """
    task, labels = runs[0].task, questions.answers(TEST)
    found = ablations(name, runs, questions.rows[TEST], progress)
    if task.num_classes > 2 or len(set(labels.tolist())) < 2:
        return (class_table(questions, task, found),)
    scores = {part: [of_seed[:, 1] for of_seed in by_seed] for part, by_seed in found.items()}
    return (
        ranking_table(made.split, questions, made.domain, scores),
        *reading_tables(made.split, labels, questions.events(TEST), scores),
    )


def _tune(
    project: Project,
    made: Prepared,
    config: TunedConfig,
    model: Foundation,
    cache: StateCache,
    questions: Questions | None,
    training: TrainConfig,
    seeds: Sequence[int],
    stage: Stage,
) -> list[tuple[Tuned, History]]:
    """A run of a task for each seed."""
    results: list[tuple[Tuned, History]] = []
    if questions is None:
        return results
    items = list(made.split.log.items.values())
    seen = seen_before(made.split, made.domain, questions, VALID) if named(config.task).readout == "embed" else None
    for seed in seeds:
        name = f"{config.task}-{seed}"
        one = tuned.create(config, model, cache=cache, seed=seed)
        with stage(f"tuning {name}") as update:
            history = tune(
                one,
                questions.rows[TRAIN],
                questions.rows[VALID],
                items,
                replace(training, seed=seed),
                folder=project.run(name),
                seen=seen,
                progress=update,
            )
        if one.task.readout == "embed":
            with stage(f"item-item models, {name}") as update:
                users_QE, items_IE = one.vectors(questions.rows[VALID]), one.item_vectors(items)
                one.blend = fit_blend(made.split, questions, made.domain, users_QE, items_IE, update)
            one.blend.save(project.run(name))
        results.append((one, history))
    return results
