"""From a prepared log to tuned runs and a report, with settings chosen for the log: what ``m6rec init`` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from m6rec import assets, task_model
from m6rec.ablation import ablations, reading_tables
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.domains.prepared import Prepared
from m6rec.errors import DataError
from m6rec.evaluate import (
    TaskExamples,
    check_leaks,
    class_table,
    fit_blend,
    ranking_table,
    retrieval_tables,
    retriever_of,
    task_examples,
)
from m6rec.fingerprint import Fingerprint, begin, changed, digest
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.states import StateCache
from m6rec.foundation.stores import Store
from m6rec.project import CONFIG, Project
from m6rec.report import Table
from m6rec.retrieval import training as embedding
from m6rec.retrieval.model import RetrievalConfig, RetrievalModel, likes_of, questions_of, train
from m6rec.retrieval.model import create as create_retrieval
from m6rec.retrieval.model import load as load_retrieval
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.task_model import TaskModel, TaskModelConfig
from m6rec.tasks.task import named, texts
from m6rec.train import TrainConfig, TrainingHistory, tune

RETRIEVAL = "m6rec, item vectors"
"""What a run of retrieval is called in a table."""

RANKING = TrainConfig(epochs=1, min_steps=60, patience=1)
"""How ranking is tuned: its base is fitted before, and what reading adds stops growing within an epoch."""

MOST = {TRAIN: 150_000, VALID: 25_000, TEST: 25_000}
"""Questions of a task by part, of users drawn at random where a log has more: what is tuned and measured in minutes."""

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
    ranking_training: TrainConfig = RANKING
    retrieval_training: EmbeddingConfig = EmbeddingConfig()  # noqa: RUF009
    ranking_seeds: Sequence[int] = (0,)
    retrieval_seeds: Sequence[int] = (0,)

    def describe(self) -> dict[str, str]:
        """The choices in words."""
        return {
            "ranking task": self.ranking,
            "questions": f"{MOST[TRAIN]:,} for training and {MOST[TEST]:,} to measure at most, of users drawn",
            "epochs of ranking": f"{self.ranking_training.epochs}, {self.ranking_training.min_steps} steps at least",
            "epochs of retrieval": f"{self.retrieval_training.epochs} at most",
        }


def plan(made: Prepared) -> Plan:
    """Chooses for a log: ``like`` where values are judged, ``click`` where events count."""
    rule = made.domain.rule
    return Plan(ranking="click" if rule is not None and (rule.kinds or not rule.test) else "like")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        ranked: The ranking runs and how their training went, one a seed; empty where the log can't be ranked on.
        retrieved: The retrieval runs, likewise.
        ranking: The tables of ranking, the first beside its peers.
        retrieving: Those of retrieval.
        impossible: Why a task was not tuned, by its name.
    """

    ranked: list[tuple[TaskModel, TrainingHistory]] = field(default_factory=list)
    retrieved: list[tuple[RetrievalModel, embedding.History]] = field(default_factory=list)
    ranking: tuple[Table, ...] = ()
    retrieving: tuple[Table, ...] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)

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
    config = TaskModelConfig(
        task=chosen.ranking,
        domain=made.domain_name,
        rule=None if made.domain.rule is None else made.domain.rule.to_json(),
        foundation=model.source,
        data=dataset.data,
        split=dataset.split,
    )
    impossible: dict[str, str] = {}
    asked: dict[str, TaskExamples] = {}
    with stage("questions"):
        for task in (chosen.ranking, "retrieve"):
            try:
                asked[task] = task_examples(named(task), made.split, made.domain).drawn(MOST)
                check_leaks(made.split, asked[task])
            except DataError as error:
                impossible[task] = str(error)
    if not asked:
        raise DataError(f"nothing can be tuned on this log: {'; '.join(dict.fromkeys(impossible.values()))}")
    store = assets.home() / "states"
    cache = task_model.create(config, model, store).cache
    ranked = []
    if chosen.ranking in asked:
        with stage("states") as update:
            rows = asked[chosen.ranking].rows.values()
            cache.fetch((text for of_part in rows for text in texts(of_part)), update)
        ranked = _tune(project, made, config, model, cache, asked[chosen.ranking], chosen.ranking_training,
                       chosen.ranking_seeds, stage)  # fmt: skip
    retrieved = []
    if "retrieve" in asked:
        of_retrieval = RetrievalConfig(
            domain=config.domain, rule=config.rule, foundation=config.foundation, data=config.data, split=config.split
        )
        shared = None
        for seed in chosen.retrieval_seeds:
            training, folder = replace(chosen.retrieval_training, seed=seed), project.run(f"retrieve-{seed}")
            retrieved.append(
                tune_retrieval(made, of_retrieval, model, asked["retrieve"], training, folder, stage, store, shared)
            )
            shared = retrieved[0][0].cache
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
            by_seed = [retriever_of(one, made.split, asked["retrieve"], made.domain) for one, _ in retrieved]
            retrieving = retrieval_tables(made.split, asked["retrieve"], made.domain, {RETRIEVAL: by_seed})
    return Outcome(
        ranked=ranked,
        retrieved=retrieved,
        ranking=ranking,
        retrieving=retrieving,
        impossible=impossible,
    )


def ranking_report(
    made: Prepared,
    questions: TaskExamples,
    name: str,
    runs: Sequence[TaskModel],
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
    task, labels = runs[0].task, questions.labels(TEST)
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
    config: TaskModelConfig,
    model: Foundation,
    cache: StateCache,
    questions: TaskExamples,
    training: TrainConfig,
    seeds: Sequence[int],
    stage: Stage,
) -> list[tuple[TaskModel, TrainingHistory]]:
    """A run of a task for each seed."""
    results: list[tuple[TaskModel, TrainingHistory]] = []
    items = list(made.split.log.items.values())
    for seed in seeds:
        name = f"{config.task}-{seed}"
        one = task_model.create(config, model, cache=cache, seed=seed)
        with stage(f"tuning {name}") as update:
            history = tune(
                one,
                questions.rows[TRAIN],
                questions.rows[VALID],
                items,
                replace(training, seed=seed),
                folder=project.run(name),
                progress=update,
            )
        results.append((one, history))
    return results


def tune_retrieval(
    made: Prepared,
    config: RetrievalConfig,
    foundation: Foundation,
    questions: TaskExamples,
    training: EmbeddingConfig,
    folder: Path,
    stage: Stage,
    store: Path | Store | None = None,
    cache: StateCache | None = None,
) -> tuple[RetrievalModel, embedding.History]:
    """A run of retrieval: vectors of the catalogue, trained on the training part, and a blend weighed on validation.

    Args:
        made: The prepared log.
        config: What the run is made from.
        foundation: What reads the items' texts.
        questions: Of the retrieval task.
        training: How vectors are trained.
        folder: The run; what is finished there is read, and another run refused.
        stage: Told of each stage.
        store: Where states are kept.
        cache: A cache of the same split to share.

    Returns:
        The run and how its training went, which is empty for one that was finished before.

    Raises:
        ConfigError: The folder holds another run.
    """
    items, name = list(made.split.log.items.values()), folder.name
    likes, asked = likes_of(made.split, made.domain), questions_of(made.split, made.domain)
    with stage(f"states, {name}") as update:
        model = create_retrieval(config, foundation, items, store, cache=cache, training=training, progress=update)
    examples = digest([likes, asked.likes, asked.targets])
    begin(folder, replace(model.fingerprint(), training=changed(training), examples=examples), results=(CONFIG,))
    if (folder / CONFIG).exists():
        return load_retrieval(folder, foundation, model.cache), embedding.History()
    with stage(f"tuning {name}") as update:
        model, history = train(model, items, likes, asked, training, update)
    with stage(f"item-item models, {name}") as update:
        found = retriever_of(model, made.split, questions, made.domain, VALID)
        blend = fit_blend(made.split, questions, made.domain, found.users_QE, found.items_IE, update)
    model = replace(model, blend=blend)
    model.save(folder)
    return model, history
