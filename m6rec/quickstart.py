"""From a prepared log to tuned runs and a report, with settings chosen for the log: what ``m6rec init`` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from m6rec import assets, readouts
from m6rec.config import Count, validate
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.domains.prepared import Prepared
from m6rec.errors import DataError
from m6rec.evaluation.report import Table
from m6rec.fingerprint import Fingerprint
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.states import CacheConfig, StateCache
from m6rec.foundation.stores import Store
from m6rec.project import Project
from m6rec.readouts import EmbedModel, TaskModel, TaskModelConfig, TuningConfig
from m6rec.readouts.model import AdapterModel
from m6rec.retrieval.embeddings import Embeddings, user_vectors
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.tasks.task import named
from m6rec.training import TrainConfig, TrainingHistory

RETRIEVAL = "retrieve"
"""The retrieval task."""

RANKING = TrainConfig(epochs=1, min_steps=60, patience=1)
"""How ranking is tuned: its base is fitted before, and what reading adds stops growing within an epoch."""


@dataclass(frozen=True, kw_only=True)
class QuestionLimits:
    """Questions of a task, of users drawn at random where a log has more: what is tuned and measured in minutes.

    Attributes:
        training: Of the training part at most.
        validation: Of the validation part.
        test: Of the test part.
    """

    training: Count = 150_000
    validation: Count = 25_000
    test: Count = 25_000

    def __post_init__(self) -> None:
        validate(self)


FIRST = 2_000
"""Items that the first recommendations are among: those that the latest events are of most."""
_LATEST = 100_000

Stage = Callable[[str], AbstractContextManager[Any]]
"""Begins a stage of the work by its name; the block gets ``update(done, total, loss)``."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is tuned, and how.

    Attributes:
        ranking: The ranking task.
        ranking_tuning: What it tunes.
        ranking_training: How it is trained.
        retrieval_training: How retrieval is.
        ranking_seeds: One run each.
        retrieval_seeds: Likewise.
        questions: How many of each are read.
        states: What the state cache takes.
        store: Where it is kept; None for the folder of $M6REC_HOME.
    """

    ranking: str = "like"
    ranking_tuning: TuningConfig = TuningConfig()
    ranking_training: TrainConfig = RANKING
    retrieval_training: EmbeddingConfig = EmbeddingConfig()
    ranking_seeds: Sequence[int] = (0,)
    retrieval_seeds: Sequence[int] = (0,)
    questions: QuestionLimits = QuestionLimits()
    states: CacheConfig = CacheConfig()
    store: Path | Store | None = None

    def cache(self, config: TaskModelConfig, foundation: Foundation) -> StateCache:
        """A cache of the states that runs of a task read."""
        store = self.store or assets.home() / "states"
        return readouts.of(config.task).cache_of(config, foundation, None, store, self.states)

    def describe(self) -> dict[str, str]:
        """The choices in words."""
        return {
            "ranking task": self.ranking,
            "questions": f"{self.questions.training:,} for training and {self.questions.test:,} to measure at most, "
            "of users drawn",
            "epochs of ranking": f"{self.ranking_training.epochs}, {self.ranking_training.min_steps} steps at least",
            "epochs of retrieval": f"{self.retrieval_training.epochs} at most",
        }


def plan(made: Prepared) -> Plan:
    """Chooses for a log: ``like`` where values are judged, ``click`` where events count."""
    rule = made.domain.rule
    return Plan(ranking="click" if rule is not None and (rule.kinds or not rule.test) else "like")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it, by the name of the task.

    Attributes:
        runs: The runs and how their training went, one a seed.
        measured: Their tables, the first beside its peers.
        impossible: Why a task was not tuned.
    """

    runs: dict[str, list[tuple[TaskModel[Any, Any, Any], TrainingHistory]]] = field(default_factory=dict)
    measured: dict[str, tuple[Table, ...]] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables."""
        return tuple(table for tables in self.measured.values() for table in tables)


@dataclass(frozen=True, kw_only=True)
class FirstList:
    """What a user is recommended before anything is tuned, by titles.

    Attributes:
        user: Whose it is.
        liked: What they liked, the latest first.
        found: What is recommended, the best first.
    """

    user: str
    liked: tuple[str, ...]
    found: tuple[str, ...]

    def describe(self, most: int = 3) -> str:
        """In a sentence."""
        liked, found = (", ".join(titles[:most]) for titles in (self.liked, self.found))
        return f"user {self.user}, who liked {liked}: {found}"


def first_list(
    made: Prepared,
    dataset: Fingerprint,
    model: Foundation,
    chosen: Plan,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FirstList | None:
    """Recommends to the user of the latest like by whitened states of texts alone, in the first minute of any log.

    Args:
        made: The prepared log.
        dataset: Its fingerprint.
        model: The foundation.
        chosen: What is tuned next, and where its states are kept.
        progress: Called with (done, total) texts.

    Returns:
        The list; None where nobody liked anything lately, or there is nothing else to recommend.
    """
    log, latest = made.split.log, made.split.log.events[-_LATEST:]
    common = Counter(event.item for event in latest if event.item in log.items)  # a search has none
    items = [log.items[item] for item, _ in common.most_common(FIRST)]
    number = {item.id: row for row, item in enumerate(items)}
    liking = [event for event in latest if event.item in number and made.domain.positive(event)]
    if not liking:
        return None
    user = liking[-1].user
    liked = [*dict.fromkeys(number[event.item] for event in reversed(liking) if event.user == user)]
    seen = {number[event.item] for event in latest if event.user == user and event.item in number}
    config = config_of(RETRIEVAL, made, dataset, model, TuningConfig())
    one = EmbedModel.create(config, model, cache=chosen.cache(config, model))
    states_ID = one.item_states(items, progress)  # kept for what is tuned next
    training = chosen.retrieval_training
    embeddings = Embeddings.untrained(states_ID, training.width, training.decay)
    vectors_IE = embeddings.item_vectors([item.id for item in items], states_ID)
    (user_E,) = user_vectors(vectors_IE, [np.array(liked[::-1])], embeddings.decay)
    score_I = vectors_IE @ user_E
    found = [row for row in np.argsort(-score_I).tolist() if row not in seen][:10]
    if not found:
        return None
    liked_titles, titles = (tuple(items[row].title for row in rows) for rows in (liked, found))
    return FirstList(user=user, liked=liked_titles, found=titles)


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
    outcome, examples = Outcome(), dict[str, Any]()
    most = {TRAIN: chosen.questions.training, VALID: chosen.questions.validation, TEST: chosen.questions.test}
    tunings = {chosen.ranking: chosen.ranking_tuning, RETRIEVAL: TuningConfig()}
    work: tuple[tuple[str, Any, Sequence[int]], ...] = (
        (chosen.ranking, chosen.ranking_training, chosen.ranking_seeds),
        (RETRIEVAL, chosen.retrieval_training, chosen.retrieval_seeds),
    )
    with stage("questions"):
        for task, *_ in work:
            try:
                examples[task] = readouts.of(task).examples(named(task), made.split, made.domain).drawn(most)
            except DataError as error:
                outcome.impossible[task] = str(error)
    if not examples:
        raise DataError(f"nothing can be tuned on this log: {'; '.join(dict.fromkeys(outcome.impossible.values()))}")
    for task, training, seeds in work:
        if task in examples:
            config = config_of(task, made, dataset, model, tunings[task])
            outcome.runs[task] = _tune(project, config, model, examples[task], training, seeds, chosen, stage)
    served = {task: f"{task}-{seeds[0]}" for task, _, seeds in work if task in examples}
    project.serve(ranking=served.get(chosen.ranking, ""), retrieval=served.get(RETRIEVAL, ""))
    for task, runs in outcome.runs.items():
        with stage(f"measuring {task}") as update:
            tuned = [one for one, _ in runs]
            outcome.measured[task] = readouts.of(task).tables(tuned, made.split, examples[task], progress=update)
    return outcome


def config_of(
    task: str, made: Prepared, dataset: Fingerprint, foundation: Foundation, tuning: TuningConfig
) -> TaskModelConfig:
    """The configuration of a task that is tuned on a prepared log.

    Args:
        task: Its name or path.
        made: The prepared log.
        dataset: Its fingerprint.
        foundation: The model to tune.
        tuning: What of it is tuned.

    Raises:
        ConfigError: A size is given that the method doesn't take.
    """
    readout = readouts.of(task)
    if issubclass(readout, AdapterModel):
        tuning.require_read(tuning.method or readout.METHOD)
    return TaskModelConfig(
        task=task,
        domain=made.domain_name,
        rule=None if made.domain.rule is None else made.domain.rule.to_json(),
        foundation=foundation.source,
        data=dataset.data,
        split=dataset.split,
        **asdict(tuning),
    )


def _tune(
    project: Project,
    config: TaskModelConfig,
    foundation: Foundation,
    examples: Any,
    training: Any,
    seeds: Sequence[int],
    chosen: Plan,
    stage: Stage,
) -> list[tuple[TaskModel[Any, Any, Any], TrainingHistory]]:
    """A run of a task for each seed."""
    results: list[tuple[TaskModel[Any, Any, Any], TrainingHistory]] = []
    readout = readouts.of(config.task)
    cache = chosen.cache(config, foundation)
    for seed in seeds:
        name = f"{config.task}-{seed}"
        one = readout.create(config, foundation, cache=cache, seed=seed)
        if not results:
            with stage(f"states, {config.task}") as update:
                cache.fetch(one.texts(examples), update)
        with stage(f"tuning {name}") as update:
            history = one.tune(
                examples[TRAIN],
                examples[VALID],
                replace(training, seed=seed),
                folder=project.run(name),
                progress=update,
            )
        results.append((one, history))
    return results
