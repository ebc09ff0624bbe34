"""Reasons for an item: tuned option-adapter beside the untuned model and simple ways, on three sets of reviews.

- clothes: shoppers of whom the age and the verdict are known; no garment is in two parts;
- instruments: users with histories, split at two moments for all;
- xrec: XRec's test set of books, of which we tune on a part, as its training set is not at hand; what XRec published
  for the pairs that we score stands in the same table. Texts are whole explanations, and nobody is told an aspect.

``benchmarks.reviews`` tells pairs, aspects, simple ways and columns. Zero-shot is the untuned model that reads user and
prompt as one text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import xrec
from benchmarks.reviews import Reviews
from benchmarks.setup import SEEDS, AbsentError, Claims, Setup, research
from m6rec import writer as writers
from m6rec.domains import domain as domains
from m6rec.foundation import checkpoint
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.generate import Engine, Prompt, Sampling
from m6rec.report import Row, Table
from m6rec.tasks import explanations
from m6rec.text.log import TRAIN, VALID, split_by_item, split_by_time
from m6rec.text.opinions import sentences
from m6rec.train import TrainConfig, tune_texts
from m6rec.types import Draft
from m6rec.writer import Writer, WriterConfig

NUM_HISTORY = 8
"""Latest behaviours that zero-shot reads, as it reads each word of them."""
TOGETHER = 32
TUNED, ZERO_SHOT, NEAREST, TEMPLATE = "option-adapter", "zero-shot", "nearest review", "template"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is done: texts to tune on and to choose the epoch by, pairs to score, epochs, seeds."""

    training: int
    validation: int
    tests: int
    epochs: int
    seeds: tuple[int, ...]


FULL = Budget(training=2_000, validation=200, tests=300, epochs=2, seeds=SEEDS)
QUICK = Budget(training=200, validation=40, tests=40, epochs=1, seeds=SEEDS[:1])


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a set is written about.

    Attributes:
        load: From the number of pairs to the set.
        task: A name or path of a task of texts.
        sampling: When a text ends.
        sentence: Whether a text is one sentence, about an aspect that is told.
    """

    load: Callable[[int], Reviews]
    task: str
    sampling: Sampling
    sentence: bool


def _clothes(tests: int) -> Reviews:
    log = domains.load(domains.named("clothes"))
    return Reviews("clothes", split_by_item(log), explanations.TASK, explanations.prompt, tests)


def _instruments(tests: int) -> Reviews:
    log = domains.load(domains.named("instruments"), research("musical_instruments/reviews_5core.jsonl"))
    return Reviews("instruments", split_by_time(log), explanations.TASK, explanations.prompt, tests)


def _xrec(tests: int) -> Reviews:
    log = domains.load(domains.named("xrec"), research("xrec_amazon/test.jsonl"))
    return Reviews("xrec", split_by_item(log), xrec.TASK, xrec.prompt, tests)


_SENTENCE = Sampling(max_tokens=40, stops=("\n",))
KINDS = (
    Kind(load=_clothes, task="explain", sampling=_SENTENCE, sentence=True),
    Kind(load=_instruments, task="explain", sampling=_SENTENCE, sentence=True),
    Kind(load=_xrec, task="benchmarks.xrec:TASK", sampling=Sampling(max_tokens=96, stops=("\n",)), sentence=False),
)


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    budget, foundation = QUICK if setup.quick else FULL, checkpoint.load()
    tables: list[Table] = []
    absent: list[str] = []
    seconds: dict[str, float] = {}
    for kind in KINDS:
        start = time.perf_counter()
        try:
            reviews = kind.load(budget.tests)
        except AbsentError as error:
            absent.append(str(error))
            continue
        tables += _tables(kind, reviews, foundation, budget)
        seconds[reviews.name] = time.perf_counter() - start
    measured = {"seed": list(budget.seeds), "budget": asdict(budget), "absent": absent, "seconds": seconds}
    return measured | {"tables": tuple(tables)}, _claims(tables)


def _tables(kind: Kind, reviews: Reviews, foundation: Foundation, budget: Budget) -> list[Table]:
    aspects = {"found": [reviews.found(draft) for draft in reviews.tests]}
    if kind.sentence:
        aspects = {"given": [reviews.feature(draft) for draft in reviews.tests]} | aspects
    writers = [_tuned(kind, reviews, foundation, budget, seed) for seed in budget.seeds]
    tables = []
    for told, spoken in aspects.items():
        asked = reviews.asked(spoken)
        texts = {
            TUNED: [[one.text for one in writer.write(asked, kind.sampling)] for writer in writers],
            ZERO_SHOT: [_zero_shot(foundation, asked, kind.sampling)],
            NEAREST: [reviews.nearest(spoken)],
            TEMPLATE: [reviews.templates(spoken)],
            **({} if kind.sentence else _published(reviews)),
        }
        whole = {
            method: [[_first(text) if kind.sentence else text.strip() for text in one] for one in by_seed]
            for method, by_seed in texts.items()
        }
        rows = tuple(_row(method, [reviews.scores(one) for one in by_seed]) for method, by_seed in whole.items())
        title = f"{reviews.name}, aspect {told}" if kind.sentence else reviews.name
        tables.append(Table(title=title, metric="ROUGE-1", rows=rows, ours=TUNED))
    return tables


def _tuned(kind: Kind, reviews: Reviews, foundation: Foundation, budget: Budget, seed: int) -> Writer:
    config = WriterConfig(task=kind.task, domain=reviews.name, foundation=foundation.source)
    writer = writers.create(config, foundation, seed=seed)
    training = reviews.drafts(TRAIN, budget.training, seed)
    validation = reviews.drafts(VALID, budget.validation, 0)
    tune_texts(writer, training, validation, TrainConfig(epochs=budget.epochs, seed=seed))
    return writer


def _zero_shot(foundation: Foundation, asked: Sequence[Draft], sampling: Sampling) -> list[str]:
    """What the untuned model goes on with after the user's words and the prompt, read as one text."""
    engine = Engine(foundation, 0)
    texts = []
    for first in range(0, len(asked), TOGETHER):
        read = [
            " ".join([*(segment.text for segment in draft.context[-NUM_HISTORY:]), draft.prompt])
            for draft in asked[first : first + TOGETHER]
        ]
        prompts = [Prompt(ids) for ids in foundation.tokenizer.encode(read)]
        texts += [one.text for one in engine.generate(prompts, sampling)]
    return texts


def _published(reviews: Reviews) -> dict[str, list[list[str]]]:
    """What XRec published for the pairs, by the reference."""
    lines = research("xrec_amazon/xrec_published_outputs.jsonl").read_text().splitlines()
    said = {row["reference"].strip(): row["xrec_prediction"] for row in map(json.loads, lines)}
    return {"XRec, published": [[said[draft.target.strip()] for draft in reviews.tests]]}


def _first(text: str) -> str:
    return next(iter(sentences(text)), "")


def _row(method: str, by_seed: Sequence[dict[str, float]]) -> Row:
    names = [name for name in by_seed[0] if all(name in scores for scores in by_seed)]
    return Row(method=method, metrics={name: tuple(scores[name] for scores in by_seed) for name in names})


def _claims(tables: Sequence[Table]) -> Claims:
    """By how much the tuned model leads the best of the simple ways and the untuned model."""
    return [
        (f"{table.title}: {metric} of the tuned model over the best other", _lead(table, metric), ">", 0)
        for table in tables
        for metric in ("BLEU-1", "BLEU-4", "ROUGE-1", "ROUGE-2")
    ]


def _lead(table: Table, metric: str) -> float:
    means = {row.method: row.mean(metric) for row in table.rows if not row.method.startswith("XRec")}
    return means.pop(TUNED) - max(means.values())
