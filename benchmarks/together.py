"""One set of adapters for several domains and tasks, beside one set for each; and a domain that no tuning has seen.

A setting is a task in a domain: likes, retrieval and queries, of films, books and clothes. All sets have the same shape
and read the same states before the last layer, so that one cache serves every setting. A set is tuned on the batches of
its settings, mixed in one order, each of them as often as where it is tuned alone; nothing tells a set which domain
or task a batch is of but the words.

Clothes have one event a shopper, of whom the age is known, so nothing is retrieved there. For the domain that no tuning
has seen, a set is tuned on the likes of the other two, beside an MLP on the statistics of the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import sets
from benchmarks.core import most_read
from benchmarks.samples import normed
from benchmarks.setup import Claims, Setup
from m6rec import assets, baselines, tuned, writer
from m6rec.cli import bar
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.evaluate import Questions, ask_all, draft_all
from m6rec.foundation.checkpoint import DEFAULT, Foundation, load
from m6rec.foundation.states import StateCache
from m6rec.metrics import auc, ndcg, ranks
from m6rec.report import Row, Table
from m6rec.tasks import writing
from m6rec.tasks.task import named, texts
from m6rec.text.batch import pack, pad, size
from m6rec.text.log import TEST, TRAIN, Split, leave_one_out, split_by_item
from m6rec.text.past import STATISTICS, TRACES
from m6rec.train import RETRIEVAL_TOKENS, TRAINING_TOKENS, TrainConfig, fit
from m6rec.tuned import ItemBlocks, Tuned, TunedConfig
from m6rec.tuning import Tuning, TuningConfig
from m6rec.tuning import create as create_tuning
from m6rec.writer import Writer, WriterConfig

ALL, EACH, FRESH = "one set for all", "one set for each", "fresh"
METRICS = {"like": "AUC", "retrieve": "NDCG@10", "query": "nats a token"}
TITLES = {
    "like": "likes, AUC",
    "retrieve": "retrieval among all items, by what is read alone, NDCG@10",
    "query": "queries, log-probability of a token in nats",
}


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
"""So many times ``Budget.tests`` are the rows of likes and retrieval that are judged, at most."""


@dataclass(eq=False)
class Setting:
    """A task in a domain.

    Attributes:
        task: Its name.
        domain: Its name.
        reads: What answers; its tuning is exchanged.
        batches: To learn from.
        loss: Of one of them.
        judge: The measure of the test part, by the tuning that is in place.
        questions: Of likes, for the statistics.
    """

    task: str
    domain: str
    reads: Tuned | Writer
    batches: Sequence[Any]
    loss: Callable[[Any], Tensor]
    judge: Callable[[], float]
    questions: Questions | None = None

    @property
    def name(self) -> str:
        """For folders and progress."""
        return f"{self.domain}-{self.task}"


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    budget, foundation = QUICK if setup.quick else FULL, load(DEFAULT)
    settings = _settings(foundation, budget, setup)
    at = Path("runs/bench/evidence") / ("quick" if setup.quick else "full") / "together"
    found: dict[str, dict[tuple[str, str], float]] = {FRESH: {}, ALL: {}, EACH: {}}

    def trained(name: str, chosen: Sequence[Setting]) -> Tuning:
        tuning = _fresh(foundation, chosen)
        pairs = [(setting, batch) for setting in chosen for batch in setting.batches]
        for setting in chosen:
            setting.reads.tuning = tuning
        with bar(f"together: {name}") as update:
            config = TrainConfig(epochs=budget.epochs)
            fit(tuning, pairs, lambda pair: pair[0].loss(pair[1]), config, folder=at / name, progress=update)
        return tuning

    def judged(tuning: Tuning, chosen: Sequence[Setting]) -> dict[tuple[str, str], float]:
        values = {}
        for setting in chosen:
            setting.reads.tuning = tuning
            values[setting.task, setting.domain] = setting.judge()
        return values

    found[FRESH] = judged(_fresh(foundation, settings), [one for one in settings if one.task == "query"])
    found[ALL] = judged(trained(ALL, settings), settings)
    for setting in settings:
        found[EACH] |= judged(trained(setting.name, [setting]), [setting])
    names = list(dict.fromkeys(setting.domain for setting in settings))
    tables = []
    for task, title in TITLES.items():
        rows = [
            Row(method=method, metrics={name: (values[task, name],) for name in names if (task, name) in values})
            for method, values in found.items()
            if any(of == task for of, _ in values)
        ]
        note = f"{len(settings)} settings, {budget.batches} batches of each at most, {budget.epochs} epochs, one seed."
        metric = next(iter(rows[-1].metrics))
        tables.append(Table(title=f"Together: {title}", metric=metric, rows=tuple(rows), ours=ALL, note=note))
    size_of_set = _fresh(foundation, settings).num_trainable()
    likes = {setting.domain: setting for setting in settings if setting.task == "like"}
    tables.append(_transfer(likes, names, found, trained, judged))
    return {"tables": tuple(tables), "settings": len(settings), "parameters_of_a_set": size_of_set}, []


def _transfer(
    likes: dict[str, Setting],
    names: Sequence[str],
    found: dict[str, dict[tuple[str, str], float]],
    trained: Callable[[str, Sequence[Setting]], Tuning],
    judged: Callable[[Tuning, Sequence[Setting]], dict[tuple[str, str], float]],
) -> Table:
    """Likes of each domain by what was tuned on the other two; "normed" by the numbers of its own questions."""
    moved, counted, own, share = "tuned on the other two", "MLP, the other two's statistics", "MLP, own", "item's share"
    methods = (moved, f"{moved}, normed", counted, f"{counted}, normed", share, ALL, own)
    told: dict[str, dict[str, tuple[float, ...]]] = {method: {} for method in methods}
    for name in names:
        like, others = likes[name], [likes[other] for other in names if other != name]
        tuning = trained(f"without-{name}", others)
        told[moved][name] = (judged(tuning, [like])["like", name],)
        learned, (signals, labels) = _numbers([like], TRAIN), _numbers([like], TEST)
        assert tuning.signals is not None
        tuning.signals.fit(torch.from_numpy(learned[0]))
        told[f"{moved}, normed"][name] = (judged(tuning, [like])["like", name],)
        told[ALL][name] = (found[ALL]["like", name],)
        told[counted][name] = (auc(labels, baselines.fit_mlp(*_numbers(others, TRAIN))(signals)),)
        told[own][name] = (auc(labels, baselines.fit_mlp(*learned)(signals)),)
        told[share][name] = (auc(labels, signals[:, STATISTICS.index("item_share")]),)
        parts = [_numbers([other], TRAIN) for other in others]
        x = np.concatenate([normed(of, of) for of, _ in parts])
        network = baselines.fit_mlp(x, np.concatenate([answers for _, answers in parts]))
        told[f"{counted}, normed"][name] = (auc(labels, network(normed(signals, learned[0]))),)
    rows = tuple(Row(method=method, metrics=values) for method, values in told.items())
    note = "The last two know the domain, the others don't. An MLP learns from the same questions as ours."
    return Table(
        title="Together: likes of a domain that no tuning has seen, AUC",
        metric=names[0],
        rows=rows,
        ours=f"{moved}, normed",
        note=note,
    )


def _numbers(likes: Sequence[Setting], part: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(statistics, answers) of what these settings learn from, or are judged by."""
    known = [like.questions for like in likes if like.questions]
    signals = np.concatenate([questions.signals(part) for questions in known])
    return signals, np.concatenate([questions.answers(part) for questions in known])


def _fresh(foundation: Foundation, settings: Sequence[Setting]) -> Tuning:
    """A set that every task can use, normed by the numbers of all settings."""
    model = foundation.model
    config = TuningConfig(
        method="option-adapter",
        first_layer=model.config.num_layers - tuned.UPPER_LAYERS,
        embed_width=tuned.EMBED_WIDTH,
        num_signals=len(STATISTICS),
        num_traces=len(TRACES),
    )
    tuning = create_tuning(config, model, seed=0)
    rows = [row for setting in settings if setting.questions for row in setting.questions.rows[TRAIN]]
    if rows:
        assert tuning.signals is not None
        assert tuning.traces is not None
        tuning.signals.fit(torch.from_numpy(np.concatenate([row.signals for row in rows])))
        tuning.traces.fit(torch.from_numpy(np.concatenate([row.traces for row in rows])))
    return tuning


def _splits(setup: Setup) -> dict[str, Split]:
    made = sets.movielens_100k()
    books, clothes = (domains.load(domains.named(name)) for name in ("books", "clothes"))
    return {
        "movielens": made.split,
        "books": leave_one_out(most_read(books, setup)),
        "clothes": split_by_item(clothes),
    }


def _settings(foundation: Foundation, budget: Budget, setup: Setup) -> list[Setting]:
    config = TunedConfig(task="like", domain="movielens", foundation=DEFAULT)
    cache = tuned.create(config, foundation, assets.home() / "states").cache
    found = []
    for name, split in _splits(setup).items():
        domain = domains.named(name)
        found.append(_rows("like", name, split, domain, foundation, cache, budget))
        if name != "clothes":
            found.append(_rows("retrieve", name, split, domain, foundation, cache, budget))
        found.append(_texts(name, split, domain, foundation, cache, budget))
    return found


def _drawn(values: Sequence[DrawnT], count: int, seed: int) -> list[DrawnT]:
    """So many of them at most, at random."""
    return [values[number] for number in np.random.default_rng(seed).permutation(len(values))[:count]]


def _rows(
    task: str, name: str, split: Split, domain: Domain, foundation: Foundation, cache: StateCache, budget: Budget
) -> Setting:
    """Likes or retrieval."""
    config = TunedConfig(task=task, domain=name, foundation=DEFAULT)
    reads = tuned.create(config, foundation, cache=cache)
    questions, items = ask_all(named(task), split, domain), list(split.log.items.values())
    drawn = questions.rows[TRAIN]
    test = _drawn(questions.rows[TEST], ROWS * budget.tests, TEST)
    catalogue = ItemBlocks.of(reads.task, domain, items) if reads.task.readout == "embed" else None
    length = cache.config.keep  # each text keeps so many tokens
    groups = pack([size(row, lambda _: length) for row in drawn], RETRIEVAL_TOKENS if catalogue else TRAINING_TOKENS)
    chosen = [[drawn[number] for number in group] for group in _drawn(groups, budget.batches, TRAIN)]
    learned = [row for group in chosen for row in group]
    questions = Questions({TRAIN: learned, TEST: test}, questions.past)
    states = cache.fetch([*texts(learned), *texts(test), *(catalogue.texts() if catalogue else ())])
    if catalogue:
        catalogue.bind(states)
    labels = questions.answers(TEST)

    def judge() -> float:
        if not catalogue:
            return auc(labels, reads.scores(test))
        return ndcg(ranks(reads.vectors(test) @ reads.item_vectors(items).T, labels), 10)

    batches = [pad(group, states.places) for group in chosen]
    known = questions if task == "like" else None
    return Setting(task, name, reads, batches, lambda batch: reads.loss(batch, states, catalogue), judge, known)


def _texts(
    name: str, split: Split, domain: Domain, foundation: Foundation, cache: StateCache, budget: Budget
) -> Setting:
    """Queries, written with the layer that is tuned alone, as likes and retrieval are read."""
    config = WriterConfig(
        task="query", domain=name, foundation=DEFAULT, method="option-adapter", depth=cache.config.depth
    )
    reads = writer.create(config, foundation, cache=cache)
    drafts = draft_all(writing.named("query"), split, domain)
    drawn, test = _drawn(drafts[TRAIN], budget.training, TRAIN), _drawn(drafts[TEST], budget.tests, TEST)
    groups = _drawn(reads.batches(drawn, TRAINING_TOKENS), budget.batches, TRAIN)
    batches = [[drawn[number] for number in group] for group in groups]

    def judge() -> float:
        nats, counts = reads.nats(test)
        return float(nats.sum() / counts.sum())

    return Setting("query", name, reads, batches, reads.loss, judge)
