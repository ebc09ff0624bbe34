"""Reasons for an item: tuned option-adapter beside the untuned model and simple ways, on three sets of reviews.

- clothes: shoppers of whom the age and the verdict are known; no garment is in two parts;
- instruments: users with histories, split at two moments for all;
- xrec: XRec's test set of books, of which we tune on a part, as its training set is not at hand; what XRec published
  for the pairs that we score stands in the same table. Texts are whole explanations, and nobody is told an aspect.

``benchmarks.reviews`` tells pairs, aspects, simple ways and columns. Zero-shot is the untuned model that reads user and
prompt as one text.

The gate is measured where it works, in the service's own explanation (``Recommender.explain``), on fewer pairs. The
past holds the evidence and no review of these pairs; no ranking task is tuned, so statements stand in the order of
their evidence. What a sentence states is mined from it; a template on reviews states that they praise an aspect. Beside
it stands what the same writers say freely, and how much of that the gate would let through on all the evidence.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks import xrec
from benchmarks.reviews import Reviews
from benchmarks.setup import SEEDS, AbsentError, Claims, Setup, research
from m6rec.data.split import TRAIN, VALID, split_by_item, split_by_time
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.evaluation.metrics.words import statement_precision
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import InteractionStore
from m6rec.foundation import checkpoint
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.generate import Engine, Prompt, Sampling
from m6rec.readouts import EmbedModel, GenerateModel, ScoreModel, TaskModelConfig
from m6rec.serving.backend import Reason
from m6rec.serving.recommender import Recommender
from m6rec.tasks import explanations
from m6rec.tasks.explain import NUM_STATEMENTS
from m6rec.tasks.faithfulness import unsupported_claim
from m6rec.text.opinions import Statement, agree, mine, sentences
from m6rec.training import TrainConfig
from m6rec.types import Draft, Event, Item

NUM_HISTORY = 8
"""Latest behaviours that zero-shot reads, as it reads each word of them."""
TOGETHER = 32
TUNED, ZERO_SHOT, NEAREST, TEMPLATE = "option-adapter", "zero-shot", "nearest review", "template"
PUBLISHED = "XRec, published"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is done, so that two cores do it in twenty minutes.

    Attributes:
        training: Texts of one sentence to tune on; of whole explanations, which are long, a third.
        validation: Texts to choose the epoch by.
        tests: Pairs that are scored.
        explained: Of them, pairs that the service explains.
        epochs: Passes over the training texts.
        seeds: Of tuning, and of the choice of training texts.
    """

    training: int
    validation: int
    tests: int
    explained: int
    epochs: int
    seeds: tuple[int, ...]


FULL = Budget(training=300, validation=40, tests=80, explained=16, epochs=4, seeds=SEEDS)
QUICK = Budget(training=120, validation=20, tests=24, explained=4, epochs=2, seeds=SEEDS[:1])


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


def _prompt(event: Event, item: Item, domain: Domain, aspect: str) -> str:
    return explanations.prompt(item, domain, domain.action(event), aspect)


def clothes(tests: int) -> Reviews:
    log = domains.load(domains.named("clothes"))
    return Reviews("clothes", split_by_item(log), explanations.TASK, _prompt, tests)


def _instruments(tests: int) -> Reviews:
    log = domains.load(domains.named("instruments"), research("musical_instruments/reviews_5core.jsonl"))
    return Reviews("instruments", split_by_time(log), explanations.TASK, _prompt, tests)


def _xrec(tests: int) -> Reviews:
    log = domains.load(domains.named("xrec"), research("xrec_amazon/test.jsonl"))
    return Reviews("xrec", split_by_item(log), xrec.TASK, xrec.prompt, tests)


_SENTENCE = Sampling(max_tokens=40, stops=("\n",))
KINDS = (
    Kind(load=clothes, task="explain", sampling=_SENTENCE, sentence=True),
    Kind(load=_instruments, task="explain", sampling=_SENTENCE, sentence=True),
    Kind(load=_xrec, task="benchmarks.xrec:TASK", sampling=Sampling(max_tokens=96, stops=("\n",)), sentence=False),
)


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    budget, foundation = QUICK if setup.quick else FULL, checkpoint.load()
    tables: list[Table] = []
    claims: Claims = []
    absent: list[str] = []
    seconds: dict[str, float] = {}
    for kind in KINDS:
        start = time.perf_counter()
        try:
            reviews = kind.load(budget.tests)
        except AbsentError as error:
            absent.append(str(error))
            continue
        writers = _tuned(kind, reviews, foundation, budget)
        compared = _tables(kind, reviews, writers, foundation)
        tables += compared
        claims += _leads(compared)
        if kind.sentence:
            tables.append(_gate(reviews, writers, foundation, budget.explained))
            gated, free = tables[-1].rows
            slower = gated.mean("ms") / free.mean("ms")
            claims += [
                (f"{reviews.name}: precision of statements behind the gate", gated.mean("of item"), ">=", 0.9),
                (
                    f"{reviews.name}: share of sentences behind it that the model words",
                    gated.mean("by model"),
                    ">=",
                    0.5,
                ),
                (f"{reviews.name}: time behind it over that of free sentences", slower, "<=", 2),
            ]
        seconds[reviews.name] = time.perf_counter() - start
    measured = {"seed": list(budget.seeds), "budget": asdict(budget), "absent": absent, "seconds": seconds}
    return measured | {"tables": tuple(tables)}, claims


def _tables(kind: Kind, reviews: Reviews, writers: Sequence[GenerateModel], foundation: Foundation) -> list[Table]:
    aspects = {"found": [reviews.found(draft) for draft in reviews.tests]}
    if kind.sentence:
        aspects = {"given": [reviews.feature(draft) for draft in reviews.tests]} | aspects
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


def _tuned(kind: Kind, reviews: Reviews, foundation: Foundation, budget: Budget) -> list[GenerateModel]:
    """A writer a seed, on one cache of states."""
    config = TaskModelConfig(task=kind.task, domain=reviews.name, foundation=foundation.source, method=TUNED)
    count = budget.training if kind.sentence else budget.training // 3
    validation = reviews.drafts(VALID, budget.validation, 0)
    writers: list[GenerateModel] = []
    for seed in budget.seeds:
        writers.append(GenerateModel.create(config, foundation, cache=writers[0].cache if writers else None, seed=seed))
        training = reviews.drafts(TRAIN, count, seed)
        writers[-1].tune(training, validation, TrainConfig(epochs=budget.epochs, seed=seed))
    return writers


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
    return {PUBLISHED: [[said[draft.target.strip()] for draft in reviews.tests]]}


def _first(text: str) -> str:
    return next(iter(sentences(text)), "")


def _row(method: str, by_seed: Sequence[dict[str, float]]) -> Row:
    names = [name for name in by_seed[0] if all(name in scores for scores in by_seed)]
    return Row(method=method, metrics={name: tuple(scores[name] for scores in by_seed) for name in names})


def _leads(tables: Sequence[Table]) -> Claims:
    """By how much the tuned model leads the best of the simple ways and the untuned model."""
    return [
        (f"{table.title}: {metric} of the tuned model over the best other", _lead(table, metric), ">", 0)
        for table in tables
        for metric in ("BLEU-1", "BLEU-4", "ROUGE-1", "ROUGE-2")
    ]


def _lead(table: Table, metric: str) -> float:
    means = {row.method: row.mean(metric) for row in table.rows if row.method != PUBLISHED}
    return means.pop(TUNED) - max(means.values())


def _gate(reviews: Reviews, writers: Sequence[GenerateModel], foundation: Foundation, most: int) -> Table:
    """What the service says of the first pairs, beside what the same writers say freely of what is praised."""
    pairs = reviews.tests[:most]
    aspects = [reviews.found(draft) for draft in reviews.tests]
    asked = reviews.asked(aspects)[:most]
    gated, free = [], []
    for writer in writers:
        explained = list(_explained(reviews, pairs, foundation, writer))
        of_reviews = [[one for one in reasons if one.kind == "review"] for reasons, _ in explained]
        said = [one for reasons in of_reviews for one in reasons]
        stated = [[one for reason in reasons for one in _stated(reason)] for reasons in of_reviews]
        gated.append(
            _precision(reviews, pairs, stated)
            | {
                "pairs told of": sum(map(bool, of_reviews)) / most,
                "sentences": len(said) / most,
                "by model": sum(one.source == "model" for one in said) / max(1, len(said)),
                "ms": sum(spent for _, spent in explained) / most,
            }
        )
        start = time.perf_counter()
        texts = [_first(writer.write([draft] * NUM_STATEMENTS, _SENTENCE)[0].text) for draft in asked]
        spent = 1_000 * (time.perf_counter() - start) / most
        passed = [_passes(reviews, *one) for one in zip(pairs, texts, aspects, strict=False)]
        free.append(
            _precision(reviews, pairs, [mine(text) for text in texts])
            | {"pairs told of": sum(map(bool, texts)) / most, "by model": sum(passed) / most, "ms": spent}
        )
    rows = (_row("gated", gated), _row("free", free))
    note = (
        f"ms: of up to {NUM_STATEMENTS} sentences. By model: worded by it; of free ones, what the gate would let pass."
    )
    return Table(title=f"{reviews.name}, gate", metric="of item", rows=rows, ours="gated", note=note)


def _passes(reviews: Reviews, draft: Draft, text: str, aspect: str) -> bool:
    """Whether the gate lets a text through on the praise of the aspect in all of the evidence."""
    item = reviews.log.items[reviews.log.events[draft.event].item]
    heard = [one.sentence for one in reviews.evidence(draft.event) if one.aspect == aspect and one.polarity > 0]
    return bool(text) and unsupported_claim(text, " ".join(heard), (item.title, *item.categories)) is None


def _explained(
    reviews: Reviews, pairs: Sequence[Draft], foundation: Foundation, writer: GenerateModel
) -> Iterator[tuple[list[Reason], float]]:
    """(the reasons that the service gives for a pair, the milliseconds that it takes)."""
    log, wanted = reviews.log, {draft.event for draft in pairs}
    timed = bool(log.events[-1].time)
    first = min(wanted)
    before = (e for n, e in enumerate(log.events) if (n < first if timed else n not in wanted))
    interactions = InteractionStore(log.items, reviews.domain.feedback).update_all(before)
    config = TaskModelConfig(task="like", domain=reviews.name, foundation=foundation.source)
    rank = ScoreModel.create(config, foundation)
    retrieve = EmbedModel.create(replace(config, task="retrieve"), foundation).whiten([*log.items.values()])
    recommender = Recommender(retrieve, rank, log, interactions, writers={"explain": writer})
    for position, event in enumerate(log.events):
        if position in wanted:
            start = time.perf_counter()
            told = recommender.explain(event.user, event.item)
            yield told.reasons, 1_000 * (time.perf_counter() - start)
        if timed and position >= first:
            recommender.ingest([event])


def _stated(reason: Reason) -> tuple[Statement, ...]:
    if reason.source == "model":
        return mine(reason.text)
    return (Statement(reason.evidence["aspect"], "praised", 1, reason.text),)


def _precision(reviews: Reviews, pairs: Sequence[Draft], said: Sequence[Collection[Statement]]) -> dict[str, float]:
    if not any(said):
        return {"of item": 0.0, "of pair": 0.0, "statements": 0.0}
    return {
        "of item": statement_precision(said, [reviews.of_item(draft.event) for draft in pairs], agree),
        "of pair": statement_precision(said, [reviews.mined[draft.event] for draft in pairs], agree),
        "statements": sum(map(len, said)) / len(pairs),
    }
