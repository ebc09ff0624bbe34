"""Continued pretraining on behaviour text, on and off (M6-Rec, section 3.1): MovieLens-100k.

The foundation reads on in what the users of the training part did, in the words in which the project writes it: the
next token of a user's facts and some behaviours in a row; and for half of the texts infilling: a title, or what stands
in parentheses after it, is blank, and follows at the end after plain words. All layers learn, in fp32 with products in
bf16. Then the foundation as shipped and the one that read on do the same: likes asked without tuning, likes after the
usual tuning of the last layer, whose states each foundation reads anew, and the language model itself on behaviours of
the validation part and on reviews of clothes. A seed draws the texts, their blanks and their order, and is that of the
tuning that follows. Budget, rate and lengths were fixed beforehand; nothing was searched.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks import sets
from benchmarks.forgetting import nats
from benchmarks.samples import Cells
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.evaluation.metrics import auc
from m6rec.evaluation.report import Row, Table
from m6rec.foundation import checkpoint
from m6rec.foundation.checkpoint import Foundation, load
from m6rec.foundation.likelihood import log_probabilities
from m6rec.foundation.states import StateCache
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.tasks.examples import TaskExamples, task_examples
from m6rec.tasks.like import event_text
from m6rec.tasks.task import named
from m6rec.text.batch import Example
from m6rec.training import TrainConfig, fit
from m6rec.zero_shot import WAYS, likes_auc

HERE = Path("runs/bench/evidence/pretraining")
SHIPPED, READ_ON = "foundation as shipped", "foundation that read on"
BEHAVIOURS = 8
"""In one text."""
BATCH = 8
"""Texts of one step."""
BLANK, ANSWER = "___", " In the blank:"
SPAN = re.compile(r'"[^"]+"|\([^()]+\)')
"""What may be left blank: a title with its quotes, or year and genres with their parentheses."""
WORDS, FEATURES = "AUC, words alone", "AUC, with statistics"
TASKS = {WORDS: "benchmarks.edge:WORDS", FEATURES: "like"}
ASKED = {"diary": "AUC untuned, diary", "also-clicks": "AUC untuned, titles"}
BEHAVIOUR, FILLED, OTHER = "nats a token, behaviours", "nats a token, blanks", "nats a token, reviews of clothes"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is done.

    Attributes:
        texts: To read on in.
        held: Texts of the validation part, and reviews, that the language model is judged by.
        asked: Test events that are asked of without tuning.
        rows: Of each part of the questions, for tuning; 0 for all.
        training: How the last layer is tuned.
    """

    texts: int
    held: int
    asked: int
    rows: int
    training: TrainConfig


FULL = Budget(texts=240, held=100, asked=1_000, rows=0, training=TrainConfig(epochs=2))
QUICK = Budget(texts=16, held=8, asked=50, rows=2, training=TrainConfig(epochs=1))
READING = TrainConfig(epochs=1, learning_rate=1e-4, average=0.0)


@dataclass(frozen=True)
class Text:
    """What is read: words, and what fills their blank; "" where nothing is blank."""

    words: str
    fill: str = ""


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    budget, at = (QUICK, HERE / "quick") if setup.quick else (FULL, HERE / "full")
    made = sets.movielens_100k()
    cells, seeds = Cells(at / "cells.json"), setup.seeds
    cards = [_read_on(made.split, made.domain, budget, at / f"{seed}", seed) for seed in seeds]
    questions = {
        column: _some(task_examples(named(task), made.split, made.domain), budget) for column, task in TASKS.items()
    }
    shipped = load(DEFAULT_FOUNDATION)
    _judge(cells, SHIPPED, 0, shipped, made.split, made.domain, budget)
    cache = ScoreModel.create(_config("like", DEFAULT_FOUNDATION), shipped, assets.home() / "states").cache
    _tune(cells, SHIPPED, seeds, cache, DEFAULT_FOUNDATION, questions, budget)
    for seed in seeds:
        source = str(at / f"{seed}" / "foundation")
        read_on = load(source)
        _judge(cells, READ_ON, seed, read_on, made.split, made.domain, budget)
        cache = ScoreModel.create(_config("like", source), read_on, at / f"{seed}" / "states").cache
        _tune(cells, READ_ON, [seed], cache, source, questions, budget)
    columns = (WORDS, FEATURES, *ASKED.values(), BEHAVIOUR, FILLED, OTHER)
    rows = tuple(
        Row(method=arm, metrics={column: tuple(cells.values[arm][column].values()) for column in columns})
        for arm in (SHIPPED, READ_ON)
    )
    table = Table(
        title="Continued pretraining on behaviour text, likes of MovieLens-100k",
        metric=WORDS,
        rows=rows,
        ours=READ_ON,
        note=f"{cards[0]['texts']} texts of the training part, {_mean(cards, 'tokens')} tokens, {cards[0]['steps']} "
        f"steps, {_mean(cards, 'processor s')} processor seconds; then the last layer is tuned for "
        f"{budget.training.epochs} epochs; {len(seeds)} seeds of both. Untuned: the first {budget.asked} test events. "
        f"{budget.held} texts of the validation part, and as many reviews.",
    )
    before, after = rows

    def change(column: str) -> float:
        return after.mean(column) - before.mean(column)

    claims: Claims = [
        ("gain in AUC of likes by words alone", change(WORDS), ">", 0),
        ("gain in AUC of likes with statistics", change(FEATURES), ">", 0),
        *((f"gain in {column}", change(column), ">", 0) for column in ASKED.values()),
        ("change of nats a token of held-out behaviours", change(BEHAVIOUR), "<=", 0),
        ("change of nats a token of other text", change(OTHER), "<=", 0),
    ]
    return {"seed": list(seeds), "tables": (table,), "reading": cards}, claims


def _mean(cards: Sequence[Mapping[str, float]], of: str) -> str:
    return f"{np.mean([card[of] for card in cards]):.0f}"


def texts(split: Split, domain: Domain, part: int, *, blanks: float, seed: int | Sequence[int]) -> list[Text]:
    """Users' facts and ``BEHAVIOURS`` of their behaviours in a row, of one part; a share of them with a blank."""
    log, runs = split.log, dict[str, list[list[str]]]()
    for at in split.indices(part).tolist():
        event = log.events[at]
        of_user = runs.setdefault(event.user, [[]])
        if len(of_user[-1]) == BEHAVIOURS:
            of_user.append([])
        of_user[-1].append(event_text(event, log.items[event.item], domain).text)
    rng, found = np.random.default_rng(seed), []
    for user, of_user in runs.items():
        facts = domain.user(log.users[user])
        for run in of_user:
            blank = _blanked(run, rng) if rng.random() < blanks else None
            said = Text(" ".join(run)) if blank is None else blank
            found.append(replace(said, words=f"{facts} {said.words}".strip()))
    return found


def _blanked(run: Sequence[str], rng: np.random.Generator) -> Text | None:
    """The behaviours with one span left blank; None where no behaviour has any."""
    places = [(number, found) for number, text in enumerate(run) for found in SPAN.finditer(text)]
    if not places:
        return None
    number, span = places[rng.integers(len(places))]
    holed = f"{run[number][: span.start()]}{BLANK}{run[number][span.end() :]}"
    return Text(" ".join([*run[:number], holed, *run[number + 1 :]]) + ANSWER, f" {span[0]}")


def _drawn(split: Split, domain: Domain, part: int, count: int, blanks: float, seed: int = 0) -> list[Text]:
    draw = (part, seed)
    every = texts(split, domain, part, blanks=blanks, seed=draw)
    return [every[number] for number in np.random.default_rng(draw).permutation(len(every))[:count]]


def _read_on(split: Split, domain: Domain, budget: Budget, at: Path, seed: int) -> dict[str, float]:
    """Trains the foundation and keeps it in a folder; returns what that took."""
    note = at / "reading.json"
    if not (at / "foundation").is_dir():
        foundation = load(DEFAULT_FOUNDATION, dtype="float32")
        encoded = encode(foundation, _drawn(split, domain, TRAIN, budget.texts, blanks=0.5, seed=seed))
        batches = [encoded[first : first + BATCH] for first in range(0, len(encoded), BATCH)]
        began = time.process_time()
        training = replace(READING, seed=seed)
        with bar(f"reading on-{seed}") as update:
            foundation.model.requires_grad_(True)
            history = fit(foundation.model, batches, lambda ids: loss(foundation, ids), training, progress=update)
            foundation.model.requires_grad_(False)
        card = {
            "texts": len(encoded),
            "tokens": sum(map(len, encoded)),
            "steps": len(history.losses),
            "processor s": time.process_time() - began,
            "losses": history.losses,
        }
        at.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(card, indent=1) + "\n")
        tokenizer = at / "tokenizer.json"
        foundation.tokenizer.save(tokenizer)
        written = foundation.model.to(torch.bfloat16)  # as it is used from now on
        checkpoint.save(written, written.config.to_hf(), tokenizer, at / "foundation")
        tokenizer.unlink()
    found: dict[str, float] = json.loads(note.read_text())
    return found


def encode(foundation: Foundation, said: Sequence[Text]) -> list[list[int]]:
    """Token ids; what fills a blank is encoded by itself, as it is judged by itself."""
    words, fills = (foundation.tokenizer.encode([getattr(one, of) for one in said]) for of in ("words", "fill"))
    return [[*a, *b] for a, b in zip(words, fills, strict=True)]


def loss(foundation: Foundation, batch: Sequence[Sequence[int]]) -> Tensor:
    """Mean surprise, in nats, of all tokens of the texts but the first of each; products in bf16."""
    model = foundation.model
    ids_BL = pad_sequence([torch.tensor(ids) for ids in batch], batch_first=True)
    length_B = torch.tensor([len(ids) for ids in batch])
    with torch.autocast("cpu", torch.bfloat16):
        normed_BLD = model.finish(model.lower(ids_BL, model.config.num_layers))
        told_BL = torch.arange(1, ids_BL.shape[1]) < length_B[:, None]
        return -log_probabilities(model, normed_BLD[:, :-1][told_BL], ids_BL[:, 1:][told_BL]).mean()


def _judge(
    cells: Cells, arm: str, seed: int, foundation: Foundation, split: Split, domain: Domain, budget: Budget
) -> None:
    """What needs no tuning."""
    plain = [text.words for text in _drawn(split, domain, VALID, budget.held, blanks=0.0)]
    blank = [text for text in _drawn(split, domain, VALID, budget.held, blanks=1.0) if text.fill]
    reviews = [event.text for event in domains.load(domains.named("clothes")).events[: budget.held]]
    cells.measure(arm, BEHAVIOUR, seed, lambda: nats(foundation, foundation.model, plain))
    cells.measure(arm, FILLED, seed, lambda: nats_of_blanks(foundation, blank))
    cells.measure(arm, OTHER, seed, lambda: nats(foundation, foundation.model, reviews))
    start = int(split.indices(TEST)[0])
    end = start + budget.asked
    begun = Split(replace(split.log, events=split.log.events[:end]), split.part[:end])
    for way, column in ASKED.items():
        cells.measure(
            arm,
            column,
            seed,
            lambda way=way: likes_auc(WAYS[way](foundation, begun, domain, budget.asked).measure(None), begun, domain),
        )


def _tune(
    cells: Cells,
    arm: str,
    seeds: Sequence[int],
    cache: StateCache,
    source: str,
    questions: Mapping[str, TaskExamples],
    budget: Budget,
) -> None:
    """Likes after tuning."""
    for seed in seeds:
        for column, asked in questions.items():
            one = ScoreModel.create(_config(TASKS[column], source), cache.foundation, cache=cache, seed=seed)
            training = replace(budget.training, seed=seed)
            cells.measure(arm, column, seed, partial(_tuned, one, asked, training, f"{arm}: {column}, {seed}"))


def _tuned(one: ScoreModel, asked: TaskExamples, training: TrainConfig, what: str) -> float:
    """AUC on the test part."""
    with bar(what) as update:
        one.tune(asked.rows[TRAIN], asked.rows[VALID], training, progress=update)
    return auc(asked.labels(TEST), one.scores(asked.rows[TEST]))


@torch.no_grad()
def nats_of_blanks(foundation: Foundation, said: Sequence[Text]) -> float:
    """Mean surprise of a token of what fills the blanks, each text read by itself."""
    model, found = foundation.model, []
    fills = foundation.tokenizer.encode([text.fill for text in said])
    for ids, fill in zip(encode(foundation, said), fills, strict=True):
        row = torch.tensor([ids])
        normed_LD = model.finish(model.lower(row, model.config.num_layers))[0]
        found.append(-log_probabilities(model, normed_LD[-len(fill) - 1 : -1], row[0, -len(fill) :]))
    return float(torch.cat(found).mean())


def _config(task: str, source: str) -> TaskModelConfig:
    return TaskModelConfig(task=task, domain="movielens", foundation=source)


def _some(questions: TaskExamples, budget: Budget) -> TaskExamples:
    """The questions, or so many rows of each part."""
    some: dict[int, list[Example]] = {part: list(rows)[: budget.rows or None] for part, rows in questions.rows.items()}
    return TaskExamples(some)
