"""Ours, tuned on a split with several seeds; a run that was stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from m6rec import assets, task_model
from m6rec.cli import bar
from m6rec.data.split import TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.domains.prepared import Prepared
from m6rec.evaluate import Retriever, TaskExamples, check_leaks, retriever_of, task_examples
from m6rec.foundation.checkpoint import load
from m6rec.quickstart import tune_retrieval
from m6rec.retrieval.model import RetrievalConfig
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.task_model import TaskModelConfig
from m6rec.tasks.task import named
from m6rec.text.batch import Example
from m6rec.train import TrainConfig, tune


def tunings(
    config: TaskModelConfig,
    split: Split,
    domain: Domain,
    training: TrainConfig,
    seeds: Sequence[int],
    folder: Path,
    *,
    at_once: Mapping[int, list[Example]] | None = None,
) -> tuple[TaskExamples, list[task_model.TaskModel]]:
    """(questions, a tuning for each seed).

    Args:
        config: What is tuned.
        split: The split, which is checked for leaks.
        domain: The domain.
        training: How; its seed is set.
        seeds: One tuning each.
        folder: Where the runs are kept, each in a folder of its seed.
        at_once: Rows of validation and test that ask all of a user's questions at one moment, in place of the usual.
    """
    foundation = load(config.foundation)
    task = named(config.task)
    questions = task_examples(task, split, domain)
    check_leaks(split, questions)
    questions = replace(questions, rows={**questions.rows, **(at_once or {})})
    first = task_model.create(config, foundation, assets.home() / "states")
    runs = []
    for seed in seeds:
        one = task_model.create(config, foundation, cache=first.cache, seed=seed)
        with bar(f"{folder.name} {config.task}-{seed}") as update:
            rows, items = questions.rows, list(split.log.items.values())
            sized = replace(training, seed=seed)
            tune(one, rows[TRAIN], rows[VALID], items, sized, folder=folder / f"{seed}", progress=update)
        runs.append(one)
    return questions, runs


def retrievals(
    config: RetrievalConfig,
    made: Prepared,
    training: EmbeddingConfig,
    seeds: Sequence[int],
    folder: Path,
) -> tuple[TaskExamples, list[Retriever]]:
    """(questions, what a run of each seed retrieves with on the test part); see ``tunings``."""
    foundation = load(config.foundation)
    questions = task_examples(named(config.task), made.split, made.domain)
    check_leaks(made.split, questions)
    found = []
    for seed in seeds:
        at, sized = folder / f"{seed}", replace(training, seed=seed)
        store = assets.home() / "states"
        one, _ = tune_retrieval(made, config, foundation, questions, sized, at, bar, store)
        found.append(retriever_of(one, made.split, questions, made.domain))
    return questions, found
