"""Tuning methods at full depth, the paper's setting: the department of a toy, one of 18, from its title.

All layers are tuned on few titles a class, and only the text is read. Every method has three learning rates to choose
from on validation, the same titles, steps and seeds. "full" tunes the whole foundation; the others train 1 % at most.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import parts
from benchmarks.setup import Claims, Setup, research
from m6rec import hooks
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.checkpoint import Foundation, load
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.tasks.task import Task
from m6rec.text.batch import Example
from m6rec.text.verbalise import quote
from m6rec.training import TrainConfig
from m6rec.types import Segment

SMALL = (5e-4, 2e-3, 8e-3)
RATES: Mapping[str, tuple[float, float, float]] = {
    "option-adapter": SMALL,
    "adapter": SMALL,
    "option": SMALL,
    "prompt": SMALL,
    "lora": SMALL,
    "head": SMALL,
    "full": (2e-5, 1e-4, 5e-4),
}
"""Learning rates of each method."""
SIZES: Mapping[str, Mapping[str, Any]] = {
    "option-adapter": {"adapter_rank": 32},
    "adapter": {"adapter_rank": 32},
    "lora": {"lora_rank": 4},
}
"""What makes a method of all 30 layers train 1 % of them at most."""
NAME = "departments of Toys"
SHOTS = 16
"""Titles to learn from, a class."""
TITLES_AT_ONCE = 16
STEPS = 48
JUDGED = {"validation": 160, "test": 480}
QUICKER = 12
"""The short form makes so many times fewer steps."""
FEWEST = 20
"""Items of a class."""


@dataclass(frozen=True, kw_only=True)
class Titles:
    """Titles with classes, in an order drawn once.

    Attributes:
        titles: Those that are judged first, then those to learn from.
        labels: int64, the class of each.
        classes: Their names.
    """

    titles: Sequence[str]
    labels: np.ndarray
    classes: Sequence[str]

    def task(self) -> str:
        """Registers the task of telling the classes apart, and returns its name."""
        task = Task(
            name=NAME,
            readout="score",
            event_text=lambda event, item, domain: Segment(item.title, "history"),
            candidate=lambda item, domain: (asked(item.title),),
            label=lambda event, domain: 0,
            num_classes=len(self.classes),
            options=tuple(f" {name}" for name in self.classes),
        )
        hooks.TASKS.registered[NAME] = task
        return NAME

    def judged(self, part: str) -> np.ndarray:
        """Positions of the titles of a part."""
        first = 0 if part == "validation" else JUDGED["validation"]
        return np.arange(first, first + JUDGED[part])

    def drawn(self, seed: int) -> np.ndarray:
        """Positions of at most ``SHOTS`` titles of each class, in random order."""
        rng = np.random.default_rng(seed)
        rest = np.arange(sum(JUDGED.values()), len(self.titles))
        of_class = [rng.permutation(rest[self.labels[rest] == number])[:SHOTS] for number in range(len(self.classes))]
        return rng.permutation(np.concatenate(of_class))

    def rows(self, positions: np.ndarray) -> list[Example]:
        """Examples that ask of ``TITLES_AT_ONCE`` titles each, so that they share one pass of the prompts."""
        return [
            Example(
                (),
                np.zeros(len(group), np.int64),
                tuple((asked(self.titles[position]),) for position in group),
                np.zeros((len(group), 0), np.float32),
                self.labels[group],
                np.asarray(group),
            )
            for group in np.split(positions, range(TITLES_AT_ONCE, len(positions), TITLES_AT_ONCE))
        ]


def asked(title: str) -> Segment:
    """Words it as 'The product "…" is in the category'."""
    return Segment(f"The product {quote(title)} is in the category", "candidate")


def departments() -> Titles:
    """Titles of Toys with the category below the root. Raises AbsentError."""
    rows = [json.loads(line) for line in research("amazon_toys/items.jsonl").read_text().splitlines()]
    found = [(row["title"], row["categories"][0][1]) for row in rows if row["title"] and _deep(row)]
    counts = Counter(category for _, category in found)
    classes = sorted(category for category, count in counts.items() if count >= FEWEST)
    known = [(title, classes.index(category)) for title, category in found if category in set(classes)]
    order = np.random.default_rng(0).permutation(len(known))
    return Titles(
        titles=[known[number][0] for number in order],
        labels=np.array([known[number][1] for number in order]),
        classes=classes,
    )


def _deep(row: Mapping[str, Any]) -> bool:
    return bool(row["categories"]) and len(row["categories"][0]) > 1


def accuracy(titles: Titles, steps: int, foundation: Foundation, method: str, rate: float, seed: int) -> dict[str, Any]:
    """Tunes for some steps and returns the columns of a run."""
    config = TaskModelConfig(
        task=titles.task(),
        domain="generic",
        foundation=DEFAULT_FOUNDATION,
        method=method,
        depth=0,
        keep=0,
        num_prompts=len(titles.classes) if method.startswith("option") else 8,
        **SIZES.get(method, {}),
    )
    one = ScoreModel.create(config, foundation, seed=seed)
    training, validation, test = (
        titles.rows(positions) for positions in (titles.drawn(seed), titles.judged("validation"), titles.judged("test"))
    )
    began = time.process_time()
    with bar(f"{NAME} {method} {rate:g} {seed}") as update:
        # A row is a batch, and all steps are one epoch, so that the last weights are kept.
        how = TrainConfig(epochs=1, learning_rate=rate, batch_tokens=1, average=0.9, seed=seed)
        one.tune((training * steps)[:steps], validation[:1], how, progress=update)
    trained = time.process_time() - began
    found = {}
    for part, rows in (("validation", validation), ("test", test)):
        right = one.probabilities(rows).argmax(1) == titles.labels[titles.judged(part)]
        found[part] = float(right.mean())
    return {
        "accuracy": found["test"],
        "validation": found["validation"],
        "learning rate": rate,
        "% of the foundation": 100 * one.adapter.trainable_share(one.foundation.model),
        "processor s": trained,
    }


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    table = _compared(departments(), load(DEFAULT_FOUNDATION), setup)
    return {"seed": list(setup.seeds), "tables": (table,)}, [_lead(table)]


def _compared(titles: Titles, foundation: Foundation, setup: Setup) -> Table:
    """The methods, each with the learning rate that is best on validation."""
    at = parts.cache("tasks", setup) / "categories" / NAME
    steps = STEPS // QUICKER if setup.quick else STEPS

    def run(method: str, rate: float, seed: int) -> dict[str, Any]:
        file = at / f"{method}-{rate:g}-{seed}.json"
        return parts.kept(file, partial(accuracy, titles, steps, foundation, method, rate, seed))

    def row(method: str) -> Row:
        tried = [run(method, rate, setup.seeds[0]) for rate in (RATES[method][:1] if setup.quick else RATES[method])]
        best = max(tried, key=lambda one: one["validation"])["learning rate"]
        return Row.of(method, [run(method, best, seed) for seed in setup.seeds])

    return Table(
        title=f"{len(titles.classes)} {NAME}, {SHOTS} titles a class",
        metric="accuracy",
        rows=tuple(row(method) for method in (list(RATES)[:2] if setup.quick else RATES)),
        ours=next(iter(RATES)),
        note=f"All layers, {steps} steps of {TITLES_AT_ONCE} titles, {len(setup.seeds)} seeds",
    )


def _lead(table: Table) -> tuple[str, float, str, float]:
    """The claim that option-adapter leads the best method that trains 1 % at most."""
    ours, *others = table.rows
    best = max((row for row in others if row.mean("% of the foundation") <= 1), key=lambda row: row.mean("accuracy"))
    lead = ours.mean("accuracy") - best.mean("accuracy")
    return f"{table.title}: option-adapter's lead over {best.method}", lead, ">=", 0
