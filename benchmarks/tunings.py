"""Ours, tuned on a split with several seeds; a run that was stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from m6rec import assets, tuned
from m6rec.cli import bar
from m6rec.data.split import TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.evaluate import Questions, ask_all, check_leaks, fit_blend
from m6rec.foundation.checkpoint import load
from m6rec.tasks.task import named
from m6rec.text.batch import Row
from m6rec.train import TrainConfig, tune
from m6rec.tuned import TunedConfig


def tunings(
    config: TunedConfig,
    split: Split,
    domain: Domain,
    training: TrainConfig,
    seeds: Sequence[int],
    folder: Path,
    *,
    at_once: Mapping[int, list[Row]] | None = None,
) -> tuple[Questions, list[tuned.Tuned]]:
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
    questions = ask_all(task, split, domain)
    check_leaks(split, questions)
    questions = replace(questions, rows={**questions.rows, **(at_once or {})})
    first = tuned.create(config, foundation, assets.home() / "states")
    runs = []
    for seed in seeds:
        one = tuned.create(config, foundation, cache=first.cache, seed=seed)
        with bar(f"{folder.name} {config.task}-{seed}") as update:
            rows, items = questions.rows, list(split.log.items.values())
            sized = replace(training, seed=seed)
            tune(one, rows[TRAIN], rows[VALID], items, sized, folder=folder / f"{seed}", progress=update)
        if task.readout == "embed":
            one.blend = fit_blend(split, questions, domain, one.vectors(rows[VALID]), one.item_vectors(items))
        runs.append(one)
    return questions, runs
