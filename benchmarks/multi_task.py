"""One set of adapters for several domains and tasks, beside one set for each; and a domain that no tuning has seen.

A setting is a task in a domain: likes and queries, of films, books and clothes. All sets have the same shape
and read the same states before the last layer, so that one cache serves every setting. A set is tuned on the batches of
its settings, mixed in one order, each of them as often as where it is tuned alone; nothing tells a set which domain
or task a batch is of but the words.

For the domain that no tuning has seen, a set is tuned on the likes of the other two, beside an MLP on the statistics of
the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import parts, sets
from benchmarks.core import most_read
from benchmarks.samples import normed
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.adapters import TaskAdapter, TaskAdapterConfig
from m6rec.adapters import create as create_adapter
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, Split, leave_one_out, split_by_item
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.evaluation import baselines
from m6rec.evaluation.metrics import auc
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import EVENT_FEATURES, FEATURES
from m6rec.foundation.checkpoint import Foundation, load
from m6rec.foundation.states import StateCache
from m6rec.readouts import GenerateModel, ScoreModel, TaskModelConfig
from m6rec.readouts.score import GATED_BY
from m6rec.readouts.scoring import fit_numbers
from m6rec.tasks.examples import TaskExamples, task_drafts, task_examples
from m6rec.tasks.task import named, texts
from m6rec.text.batch import pack, pad, size
from m6rec.training import TrainConfig, fit

ALL, EACH, FRESH = "one set for all", "one set for each", "fresh"
UNSEEN, MOVED = "unseen", "tuned on the other two"
TITLES = {
    "like": "likes, AUC",
    "query": "queries, log-probability of a token in nats",
    UNSEEN: "likes of a domain that no tuning has seen, AUC",
}
Found = dict[str, dict[str, dict[str, float]]]
"""Of a table of ``TITLES``, a method and a domain."""
DrawnT = TypeVar("DrawnT")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is done.

    Attributes:
        batches: Of a setting, drawn at random.
        epochs: Passes over them.
        training: Texts that the queries are learned from.
        tests: Texts of the test part, and rows of it, at most.
    """

    batches: int
    epochs: int
    training: int
    tests: int


FULL = Budget(batches=24, epochs=2, training=200, tests=60)
QUICK = Budget(batches=12, epochs=1, training=40, tests=12)
ROWS = 20
"""So many times ``Budget.tests`` are the rows of likes that are judged, at most."""


@dataclass(eq=False)
class Setting:
    """A task in a domain.

    Attributes:
        task: Its name.
        domain: Its name.
        reads: What answers; its tuning is exchanged.
        batches: To learn from.
        loss: Of one of them.
        validate: The measure of the test part, by the tuning that is in place.
        questions: Of likes, for the statistics.
    """

    task: str
    domain: str
    reads: ScoreModel | GenerateModel
    batches: Sequence[Any]
    loss: Callable[[Any], Tensor]
    validate: Callable[[], float]
    questions: TaskExamples | None = None

    @property
    def name(self) -> str:
        """For folders and progress."""
        return f"{self.domain}-{self.task}"


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    budget, foundation = QUICK if setup.quick else FULL, load(DEFAULT_FOUNDATION)
    splits = _splits(setup)
    at = Path("runs/bench/evidence") / ("quick" if setup.quick else "full") / "together"
    by_seed = [
        parts.kept(at / f"{seed}" / "values.json", partial(_measured, foundation, splits, budget, at / f"{seed}", seed))
        for seed in setup.seeds
    ]
    tables = []
    for of, title in TITLES.items():
        rows = tuple(
            Row(method=method, metrics={name: _one_a_seed(by_seed, of, method, name) for name in values})
            for method, values in by_seed[0][of].items()
        )
        note = f"{budget.batches} batches of each setting at most, {budget.epochs} epochs, {len(by_seed)} seeds."
        ours = ALL
        if of == UNSEEN:
            note = (
                f"The last two know the domain, the others don't. An MLP learns from the same questions as ours. {note}"
            )
            ours = f"{MOVED}, normed"
        metric = next(iter(rows[-1].metrics))
        tables.append(Table(title=f"Together: {title}", metric=metric, rows=rows, ours=ours, note=note))
    told = {
        "seed": list(setup.seeds),
        "settings": sum(len(by_seed[0][task][EACH]) for task in TITLES if task != UNSEEN),
        "parameters_of_a_set": _fresh(foundation, (), 0).num_trainable(),
    }
    return {"tables": tuple(tables), **told}, []


def _one_a_seed(by_seed: Sequence[Found], of: str, method: str, name: str) -> tuple[float, ...]:
    """Values of the seeds; a single one of what draws nothing."""
    values = tuple(found[of][method][name] for found in by_seed)
    return values if len(set(values)) > 1 else values[:1]


def _measured(foundation: Foundation, splits: Mapping[str, Split], budget: Budget, at: Path, seed: int) -> Found:
    """Tunes and judges all sets of a seed, which draws the batches and their order, and where a set starts."""
    settings = _settings(foundation, splits, budget, seed)
    found: Found = {of: {} for of in TITLES}

    def trained(name: str, chosen: Sequence[Setting]) -> TaskAdapter:
        tuning = _fresh(foundation, chosen, seed)
        pairs = [(setting, batch) for setting in chosen for batch in setting.batches]
        for setting in chosen:
            setting.reads.adapter = tuning
        with bar(f"together: {name}, {seed}") as update:
            config = TrainConfig(epochs=budget.epochs, seed=seed)
            fit(tuning, pairs, lambda pair: pair[0].loss(pair[1]), config, folder=at / name, progress=update)
        return tuning

    def validate(method: str, tuning: TaskAdapter, chosen: Sequence[Setting]) -> None:
        for setting in chosen:
            setting.reads.adapter = tuning
            found[setting.task].setdefault(method, {})[setting.domain] = setting.validate()

    validate(FRESH, _fresh(foundation, settings, seed), [one for one in settings if one.task == "query"])
    validate(ALL, trained(ALL, settings), settings)
    for setting in settings:
        validate(EACH, trained(setting.name, [setting]), [setting])
    likes = {setting.domain: setting for setting in settings if setting.task == "like"}
    found[UNSEEN] = _transfer(likes, found["like"][ALL], trained, seed)
    return found


def _transfer(
    likes: Mapping[str, Setting],
    together: Mapping[str, float],
    trained: Callable[[str, Sequence[Setting]], TaskAdapter],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Likes of each domain by what was tuned on the other two; "normed" by the numbers of its own questions."""
    counted, own, share = "MLP, the other two's statistics", "MLP, own", "item's share"
    methods = (MOVED, f"{MOVED}, normed", counted, f"{counted}, normed", share, ALL, own)
    told: dict[str, dict[str, float]] = {method: {} for method in methods}
    for name, like in likes.items():
        others = [likes[other] for other in likes if other != name]
        like.reads.adapter = tuning = trained(f"without-{name}", others)
        told[MOVED][name] = like.validate()
        learned, (features, labels) = _numbers([like], TRAIN), _numbers([like], TEST)
        assert tuning.base is not None
        tuning.base.network.fit(torch.from_numpy(learned[0]))
        told[f"{MOVED}, normed"][name] = like.validate()
        told[ALL][name] = together[name]
        told[counted][name] = auc(labels, baselines.fit_mlp(*_numbers(others, TRAIN), seed=seed)(features))
        told[own][name] = auc(labels, baselines.fit_mlp(*learned, seed=seed)(features))
        told[share][name] = auc(labels, features[:, FEATURES.index("item_share")])
        known = [_numbers([other], TRAIN) for other in others]
        x = np.concatenate([normed(of, of) for of, _ in known])
        network = baselines.fit_mlp(x, np.concatenate([answers for _, answers in known]), seed=seed)
        told[f"{counted}, normed"][name] = auc(labels, network(normed(features, learned[0])))
    return told


def _numbers(likes: Sequence[Setting], part: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(statistics, answers) of what these settings learn from, or are judged by."""
    known = [like.questions for like in likes if like.questions]
    features = np.concatenate([questions.features(part) for questions in known])
    return features, np.concatenate([questions.labels(part) for questions in known])


def _fresh(foundation: Foundation, settings: Sequence[Setting], seed: int) -> TaskAdapter:
    """A set that every task can use, normed by the numbers of all settings."""
    model = foundation.model
    config = TaskAdapterConfig(
        method="option-adapter",
        first_layer=model.config.num_layers - ScoreModel.UPPER_LAYERS,
        num_features=len(FEATURES),
        gate_columns=tuple(map(FEATURES.index, GATED_BY)),
        num_event_features=len(EVENT_FEATURES),
    )
    tuning = create_adapter(config, model, seed=seed)
    rows = [row for setting in settings if setting.questions for row in setting.questions.rows[TRAIN]]
    if rows:
        fit_numbers(tuning, rows, rows)
    return tuning


def _splits(setup: Setup) -> dict[str, Split]:
    made = sets.movielens_100k()
    books, clothes = (domains.load(domains.named(name)) for name in ("books", "clothes"))
    return {
        "movielens": made.split,
        "books": leave_one_out(most_read(books, setup)),
        "clothes": split_by_item(clothes),
    }


def _settings(foundation: Foundation, splits: Mapping[str, Split], budget: Budget, seed: int) -> list[Setting]:
    config = TaskModelConfig(task="like", domain="movielens", foundation=DEFAULT_FOUNDATION)
    cache = ScoreModel.create(config, foundation, assets.home() / "states").cache
    found = []
    for name, split in splits.items():
        domain = domains.named(name)
        found.append(_likes(name, split, domain, foundation, cache, budget, seed))
        found.append(_texts(name, split, domain, foundation, cache, budget, seed))
    return found


def _drawn(values: Sequence[DrawnT], count: int, part: int, seed: int = 0) -> list[DrawnT]:
    """So many of them at most, at random; of the test part always the same."""
    return [values[number] for number in np.random.default_rng((part, seed)).permutation(len(values))[:count]]


def _likes(
    name: str, split: Split, domain: Domain, foundation: Foundation, cache: StateCache, budget: Budget, seed: int
) -> Setting:
    """Likes."""
    config = TaskModelConfig(task="like", domain=name, foundation=DEFAULT_FOUNDATION)
    reads = ScoreModel.create(config, foundation, cache=cache)
    questions = task_examples(named("like"), split, domain)
    drawn = questions[TRAIN]
    test = _drawn(questions[TEST], ROWS * budget.tests, TEST)
    length = cache.config.keep  # each text keeps so many tokens
    groups = pack([size(row, lambda _: length) for row in drawn], TrainConfig.batch_tokens)
    chosen = [[drawn[number] for number in group] for group in _drawn(groups, budget.batches, TRAIN, seed)]
    learned = [row for group in chosen for row in group]
    questions = TaskExamples({TRAIN: learned, TEST: test})
    states = cache.fetch([*texts(learned), *texts(test)])
    labels = questions.labels(TEST)
    return Setting(
        "like",
        name,
        reads,
        [pad(group, states.places) for group in chosen],
        lambda batch: reads.loss(batch, states),
        lambda: auc(labels, reads.scores(test)),
        questions,
    )


def _texts(
    name: str, split: Split, domain: Domain, foundation: Foundation, cache: StateCache, budget: Budget, seed: int
) -> Setting:
    """Queries, written with the layer that is tuned alone, as likes are read."""
    config = TaskModelConfig(
        task="query", domain=name, foundation=DEFAULT_FOUNDATION, method="option-adapter", depth=cache.config.depth
    )
    reads = GenerateModel.create(config, foundation, cache=cache)
    drafts = task_drafts(named("query"), split, domain)
    drawn, test = _drawn(drafts[TRAIN], budget.training, TRAIN, seed), _drawn(drafts[TEST], budget.tests, TEST)
    groups = _drawn(reads.batches(drawn, TrainConfig.batch_tokens), budget.batches, TRAIN, seed)
    batches = [[drawn[number] for number in group] for group in groups]

    def validate() -> float:
        nats, counts = reads.nats(test)
        return float(nats.sum() / counts.sum())

    return Setting("query", name, reads, batches, reads.loss, validate)
