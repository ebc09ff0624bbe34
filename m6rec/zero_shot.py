"""Like prediction by likelihood alone: untuned (zero-shot), or after fitting a handful of examples (few-shot).

M6-Rec, section 3.1, scores a candidate by the log-probability of its words (``tasks.also_clicks``). Ours, the default,
scores the answer that completes a line of the user's diary (``tasks.diary``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from m6rec.adapters import TaskAdapter, TaskAdapterConfig, create
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.evaluation.metrics import auc
from m6rec.evaluation.report import Row, Table
from m6rec.foundation import likelihood
from m6rec.foundation.attention import Dense
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import AdapterHook
from m6rec.readouts import ScoreModel
from m6rec.tasks import also_clicks
from m6rec.tasks.diary import ANSWERS, QUESTIONS, Diary, write
from m6rec.text.batch import Example
from m6rec.training import TrainConfig, fit

BATCH_TOKENS = 2048
NUM_SHOWN = 4000
"""Few-shot examples are drawn from this many events at the end of the training part."""
SHOTS = (80, 400)


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """How an untuned model is asked, and fitted to a few answers.

    Attributes:
        answers: The words for no and yes, whose first tokens must differ.
        training: How examples are fitted; the seed is that of the examples.
    """

    answers: tuple[str, str] = ANSWERS
    training: TrainConfig = TrainConfig(epochs=4, learning_rate=5e-4, average=0.0)


DEFAULT = ZeroShotConfig()


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """Diaries after the lower layers.

    Attributes:
        hidden_BLD: The hidden states.
        options_C: Tokens of the answers.
        row_Q: Of each blank the row of ``hidden_BLD``.
        place_Q: … and the place in it.
        answer_Q: … and the right answer.
        events: … and its event.
    """

    hidden_BLD: Tensor
    options_C: Sequence[int]
    row_Q: Tensor
    place_Q: Tensor
    answer_Q: Tensor
    events: list[int]


def log_odds(
    foundation: Foundation, batches: Sequence[PromptBatch], hook: AdapterHook | None = None
) -> dict[int, float]:
    """Log p(yes) − log p(no) of every question, by the position of its event in the log."""
    found: dict[int, float] = {}
    with torch.no_grad():
        for batch in batches:
            logits_QC = _logits(foundation, batch, hook)
            found |= dict(zip(batch.events, (logits_QC[:, 1] - logits_QC[:, 0]).tolist(), strict=True))
    return found


def few_shot(
    foundation: Foundation, diaries: Sequence[Diary], config: ZeroShotConfig = DEFAULT, *, seed: int = 0
) -> TaskAdapter:
    """Adapters of the upper layers, fitted to the answers in the diaries."""
    adapter = _adapters(foundation, seed)
    batches = [read(foundation, [diary], config)[0] for diary in diaries]

    def loss(batch: PromptBatch) -> Tensor:
        return F.cross_entropy(_logits(foundation, batch, adapter), batch.answer_Q)

    fit(adapter, batches, loss, replace(config.training, seed=seed))
    return adapter


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to ask a model that is not trained for it.

    Attributes:
        measure: Scores of test questions by the position of their event, untuned or with what ``learn`` returned.
        learn: Fits (number of examples, seed), drawn from the end of the training part.
        note: How to read the scores.
    """

    measure: Callable[[TaskAdapter | None], Mapping[int, float]]
    learn: Callable[[int, int], TaskAdapter]
    note: str


def _diary(foundation: Foundation, split: Split, domain: Domain, most: int, config: ZeroShotConfig) -> Way:
    events, items = split.log.events, dict(split.log.items)
    (test, end), (shown_from, shown_to) = _parts(split)
    asked = read(foundation, _examples(write(events, items, domain, test, end), most, 0), config)
    shown = write(events, items, domain, shown_from, shown_to)
    return Way(
        measure=lambda adapter: log_odds(foundation, asked, adapter),
        learn=lambda shots, seed: few_shot(foundation, _examples(shown, shots, seed), config, seed=seed),
        note=f"{QUESTIONS} questions at most in a diary; the share of viewers who like the item stands in each line.",
    )


def _also_clicks(foundation: Foundation, split: Split, domain: Domain, most: int, config: ZeroShotConfig) -> Way:
    events, items = split.log.events, split.log.items
    (test, end), (shown_from, shown_to) = _parts(split)

    def draw(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
        drawn = _draw([len(row.events) for row in rows], count, seed)
        return [rows[number].only(np.arange(len(rows[number].events)) < kept) for number, kept in drawn]

    asked = draw(also_clicks.build_examples(events, items, domain, test, end), most, 0)
    shown = also_clicks.build_examples(events, items, domain, shown_from, shown_to)

    def measure(adapter: TaskAdapter | None) -> dict[int, float]:
        found_Q = likelihood.scores(foundation, asked, adapter=adapter)
        return dict(zip(np.concatenate([row.events for row in asked]).tolist(), found_Q.tolist(), strict=True))

    def learn(shots: int, seed: int) -> TaskAdapter:
        adapter = _adapters(foundation, seed)
        fit(
            adapter,
            draw(shown, shots, seed),
            lambda row: likelihood.loss(foundation, [row], adapter=adapter),
            replace(config.training, seed=seed),
        )
        return adapter

    return Way(
        measure=measure,
        learn=learn,
        note="How likely the title is after those of liked items, as in the paper; examples fit that likelihood.",
    )


WAYS: dict[str, Callable[[Foundation, Split, Domain, int, ZeroShotConfig], Way]] = {
    "diary": _diary,
    "also-clicks": _also_clicks,
}
"""From foundation, split, domain, and how many test questions are asked at most, of users drawn at random."""


def likes_auc(found: Mapping[int, float], split: Split, domain: Domain) -> float:
    """AUC of what ``Way.measure`` found: whether it tells liked events from others."""
    labels = [int(bool(domain.feedback(split.log.events[position]).positive)) for position in found]
    return auc(np.array(labels), np.array([*found.values()]))


def zero_shot_table(
    foundation: Foundation,
    split: Split,
    domain: Domain,
    *,
    way: str = "diary",
    seeds: Sequence[int] = (0, 1, 2),
    shots: Sequence[int] = SHOTS,
    questions: int | None = None,
    config: ZeroShotConfig = DEFAULT,
    progress: Callable[[str], None] = lambda name: None,
) -> Table:
    """Test AUC without training, and after some examples from the end of the time before the test part.

    Args:
        foundation: The model.
        split: The split, by time.
        domain: Tells likes.
        way: One of ``WAYS``.
        seeds: For the examples that are drawn.
        shots: Numbers of examples, a row each.
        questions: How many of the test part are asked at most, of users drawn at random; None for all.
        config: How the model is asked and fitted.
        progress: Told what is measured.

    Raises:
        ConfigError: ``way`` is none of ``WAYS``, or the split is not one by time.
    """
    if way not in WAYS:
        raise ConfigError(f"there is no prompting strategy {way!r}; choose one of {', '.join(WAYS)}")
    progress("reading")
    made = WAYS[way](foundation, split, domain, questions or len(split.log.events), config)
    untuned = made.measure(None)
    rows = [Row(method="zero-shot", metrics={"AUC": (likes_auc(untuned, split, domain),)})]
    for count in shots:
        values = []
        for seed in seeds:
            progress(f"{count} examples, seed {seed}")
            values.append(likes_auc(made.measure(made.learn(count, seed)), split, domain))
        rows.append(Row(method=f"{count} examples", metrics={"AUC": tuple(values)}))
    note = f"{len(untuned)} test questions; few-shot examples from the end of the training part. {made.note}"
    return Table(
        title=f"Zero-shot and few-shot likes, by likelihood ({way})", metric="AUC", rows=tuple(rows), note=note
    )


def _parts(split: Split) -> tuple[tuple[int, int], tuple[int, int]]:
    """([first, last) of the test events, … of those that few-shot examples are drawn from).

    Raises:
        ConfigError: The parts don't follow one another in the log, so that such a range holds events of another part.
    """
    train, valid, test = (split.indices(part) for part in (TRAIN, VALID, TEST))
    if not (len(train) and len(valid) and len(test)) or train[-1] > valid[0] or valid[-1] > test[0]:
        raise ConfigError(
            f"zero-shot asks of the end of a log, after its training and validation events, but in this split "
            f"({len(train)} training, {len(valid)} validation, {len(test)} test events) a part is empty or they "
            "alternate; prepare the log with --split time"
        )
    return (int(test[0]), len(split.log.events)), (max(0, int(valid[0]) - NUM_SHOWN), int(valid[0]))


def _adapters(foundation: Foundation, seed: int) -> TaskAdapter:
    layers = foundation.model.config.num_layers
    config = TaskAdapterConfig(method="adapter", first_layer=layers - ScoreModel.UPPER_LAYERS, num_classes=0)
    return create(config, foundation.model, seed=seed)


def _examples(diaries: Sequence[Diary], shots: int, seed: int) -> list[Diary]:
    """Diaries drawn at random whose questions number ``shots`` in all; the last is cut short."""
    chosen: list[Diary] = []
    for number, count in _draw([len(diary.lines) - diary.num_lead for diary in diaries], shots, seed):
        diary = diaries[number]
        end = diary.num_lead + count
        chosen.append(Diary(diary.lines[:end], diary.events[:end], diary.num_lead))
    return chosen


def _draw(sizes: Sequence[int], shots: int, seed: int) -> Iterator[tuple[int, int]]:
    """(number of a group, how many of its first questions) at random, until there are ``shots`` or no groups left."""
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(sizes))
    for number in order:
        count = min(shots, sizes[number])
        yield int(number), count
        shots -= count
        if not shots:
            return


def _logits(foundation: Foundation, batch: PromptBatch, hook: AdapterHook | None) -> Tensor:
    """fp32 logits of the two answers at each blank, logits_QC."""
    model = foundation.model
    depth = model.config.num_layers - ScoreModel.UPPER_LAYERS
    positions_BL = torch.arange(batch.hidden_BLD.shape[1], device=model.device).expand(batch.hidden_BLD.shape[:2])
    hidden_BLD = model.run(batch.hidden_BLD, positions_BL, Dense(positions_BL), first=depth, hook=hook)
    normed_QD = model.finish(hidden_BLD[batch.row_Q, batch.place_Q])
    return normed_QD.float() @ model.head_VD[batch.options_C].float().T


@torch.no_grad()
def read(foundation: Foundation, diaries: Sequence[Diary], config: ZeroShotConfig = DEFAULT) -> list[PromptBatch]:
    """Runs the lower layers over diaries, padded to batches of rows alike in length.

    Raises:
        ConfigError: The answers start with one token.
    """
    model, tokenizer, device = foundation.model, foundation.tokenizer, foundation.model.device
    depth = model.config.num_layers - ScoreModel.UPPER_LAYERS
    answers = tokenizer.encode(config.answers)
    options_C = [ids[0] for ids in answers]
    if options_C[0] == options_C[1]:
        raise ConfigError(
            f"the tokenizer of {foundation.source!r} starts both {config.answers} with one token; give other answers, "
            "or use another model"
        )
    rows = []
    for diary in diaries:
        ids: list[int] = []
        blanks = []
        for tokens, (_, answer) in zip(tokenizer.encode([text for text, _ in diary.lines]), diary.lines, strict=True):
            ids += tokens
            blanks.append(len(ids) - 1)
            ids += answers[answer]
        lead = diary.num_lead
        rows.append((ids[: blanks[-1] + 1], blanks[lead:], [a for _, a in diary.lines[lead:]], diary.events[lead:]))
    rows.sort(key=lambda row: len(row[0]))
    batches = []
    while rows:
        longest = len(rows[-1][0])
        count = max(1, BATCH_TOKENS // longest)
        part, rows = rows[-count:], rows[:-count]
        ids_BL = torch.zeros(len(part), longest, dtype=torch.long)
        for number, (tokens, *_) in enumerate(part):
            ids_BL[number, : len(tokens)] = torch.tensor(tokens)
        batches.append(
            PromptBatch(
                model.lower(ids_BL.to(device), depth),
                options_C,
                torch.tensor([n for n, row in enumerate(part) for _ in row[1]], device=device),
                torch.tensor([place for row in part for place in row[1]], device=device),
                torch.tensor([answer for row in part for answer in row[2]], device=device),
                [event for row in part for event in row[3]],
            )
        )
    return batches
