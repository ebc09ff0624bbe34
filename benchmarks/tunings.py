"""Ours, tuned on a split with several seeds; a run that was stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from m6rec import assets
from m6rec.cli import bar
from m6rec.data.split import TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.evaluation.retrieval import Retriever
from m6rec.foundation.checkpoint import load
from m6rec.readouts import EmbedModel, ScoreModel, TaskModelConfig
from m6rec.retrieval.examples import RetrievalExamples
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.tasks.examples import TaskExamples, task_examples
from m6rec.tasks.task import named
from m6rec.training import TrainConfig
from m6rec.types import Draft


def tunings(
    config: TaskModelConfig,
    split: Split,
    domain: Domain,
    training: TrainConfig,
    seeds: Sequence[int],
    folder: Path,
) -> tuple[TaskExamples, list[ScoreModel]]:
    """(questions, a tuning for each seed).

    Args:
        config: What is tuned.
        split: The split, which is checked for leaks.
        domain: The domain.
        training: How; its seed is set.
        seeds: One tuning each.
        folder: Where the runs are kept, each in a folder of its seed.
    """
    foundation = load(config.foundation)
    task = named(config.task)
    questions = task_examples(task, split, domain)
    first = ScoreModel.create(config, foundation, assets.home() / "states")
    runs = []
    for seed in seeds:
        one = ScoreModel.create(config, foundation, cache=first.cache, seed=seed)
        with bar(f"{folder.name} {config.task}-{seed}") as update:
            sized = replace(training, seed=seed)
            one.tune(questions[TRAIN], questions[VALID], sized, folder=folder / f"{seed}", progress=update)
        runs.append(one)
    return questions, runs


def drawn(drafts: Mapping[int, Sequence[Draft]], part: int, count: int, seed: int) -> list[Draft]:
    """So many texts of a part, at random, in the order of the log."""
    order = np.random.default_rng([seed, part]).permutation(len(drafts[part]))
    return [drafts[part][number] for number in sorted(order[:count])]


def retrievals(
    config: TaskModelConfig,
    split: Split,
    domain: Domain,
    training: EmbeddingConfig,
    seeds: Sequence[int],
    folder: Path,
) -> tuple[RetrievalExamples, list[Retriever]]:
    """(examples, what a run of each seed retrieves with on the test part); see ``tunings``."""
    foundation = load(config.foundation)
    examples = EmbedModel.examples(named(config.task), split, domain)
    found = []
    for seed in seeds:
        one = EmbedModel.create(config, foundation, assets.home() / "states")
        with bar(f"{folder.name} {config.task}-{seed}") as update:
            sized = replace(training, seed=seed)
            one.tune(examples[TRAIN], examples[VALID], sized, folder=folder / f"{seed}", progress=update)
        found.append(one.retriever(examples))
    return examples, found
