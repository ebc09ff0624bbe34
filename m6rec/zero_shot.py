"""Like prediction by likelihood alone: untuned (zero-shot), or after fitting a handful of examples (few-shot).

M6-Rec, section 3.1, scores a candidate by the log-probability of its words; here the words are the answer that
completes a line of the user's diary (``tasks.diary``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import Delta, Dense
from m6rec.metrics import auc
from m6rec.report import Row, Table
from m6rec.tasks.diary import ANSWERS, QUESTIONS, Diary, write
from m6rec.text.log import TEST, VALID, Split
from m6rec.train import TrainConfig, fit
from m6rec.tuned import UPPER_LAYERS
from m6rec.tuning import TuningConfig, create

BATCH_TOKENS = 2048
NUM_SHOWN = 4000
"""Few-shot examples are drawn from this many events at the end of the training part."""
SHOTS = (80, 400)
FEW_SHOT = TrainConfig(epochs=4, learning_rate=5e-4, average=0.0)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Batch:
    """Diaries after the lower layers: hidden_BLD, and where in it the Q blanks are, with their answers and events."""

    hidden_BLD: Tensor
    row_Q: Tensor
    place_Q: Tensor
    answer_Q: Tensor
    events: list[int]


def scores(foundation: Foundation, batches: Sequence[Batch], delta: Delta | None = None) -> dict[int, float]:
    """Log p(yes) − log p(no) of every question, by the position of its event in the log."""
    found: dict[int, float] = {}
    with torch.no_grad():
        for batch in batches:
            logits_QC = _logits(foundation, batch, delta)
            found |= dict(zip(batch.events, (logits_QC[:, 1] - logits_QC[:, 0]).tolist(), strict=True))
    return found


def few_shot(foundation: Foundation, diaries: Sequence[Diary], *, seed: int = 0) -> Delta:
    """Adapters of the upper layers, fitted to the answers in the diaries."""
    layers = foundation.model.config.num_layers
    config = TuningConfig(method="adapter", first_layer=layers - UPPER_LAYERS, num_classes=0)
    tuning = create(config, foundation.model, seed=seed)
    batches = [read(foundation, [diary])[0] for diary in diaries]

    def loss(batch: Batch) -> Tensor:
        return F.cross_entropy(_logits(foundation, batch, tuning), batch.answer_Q)

    fit(tuning, batches, loss, replace(FEW_SHOT, seed=seed))
    return tuning


def table(
    foundation: Foundation,
    split: Split,
    domain: Domain,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    progress: Callable[[str], None] = lambda name: None,
) -> Table:
    """Test AUC without training, and after ``SHOTS`` examples from the end of the time before the test part."""
    log = split.log
    items = dict(log.items)
    valid, test = int(split.indices(VALID)[0]), int(split.indices(TEST)[0])
    progress("reading diaries")
    asked = read(foundation, write(log.events, items, domain, test, len(log.events)))
    labels = np.array([int(domain.likes(log.events[position])) for position in range(test, len(log.events))])
    shown = write(log.events, items, domain, max(0, valid - NUM_SHOWN), valid)

    def measure(delta: Delta | None) -> float:
        found = scores(foundation, asked, delta)
        return auc(labels, np.array([found[position] for position in range(test, len(log.events))]))

    rows = [Row(method="zero-shot", metrics={"AUC": (measure(None),)})]
    for shots in SHOTS:
        values = []
        for seed in seeds:
            progress(f"{shots} examples, seed {seed}")
            values.append(measure(few_shot(foundation, _examples(shown, shots, seed), seed=seed)))
        rows.append(Row(method=f"{shots} examples", metrics={"AUC": tuple(values)}))
    note = (
        f"{len(labels)} test questions, {QUESTIONS} at most in a diary; few-shot examples from the end of the training "
        "part. The share of viewers who like the item stands in each line."
    )
    return Table(title="Zero-shot and few-shot likes, by likelihood", metric="AUC", rows=tuple(rows), note=note)


def _examples(diaries: Sequence[Diary], shots: int, seed: int) -> list[Diary]:
    """Diaries drawn at random whose questions number ``shots`` in all; the last is cut short."""
    chosen: list[Diary] = []
    left = shots
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(diaries))
    for number in order:
        diary = diaries[number]
        asked = min(left, len(diary.lines) - diary.num_lead)
        end = diary.num_lead + asked
        chosen.append(Diary(diary.lines[:end], diary.events[:end], diary.num_lead))
        left -= asked
        if not left:
            break
    return chosen


def _logits(foundation: Foundation, batch: Batch, delta: Delta | None) -> Tensor:
    """fp32 logits of the two answers at each blank, logits_QC."""
    model = foundation.model
    hidden_BLD = _run(foundation, batch.hidden_BLD, model.config.num_layers - UPPER_LAYERS, None, delta)
    normed_QD = model.finish(hidden_BLD[batch.row_Q, batch.place_Q])
    answers = [ids[0] for ids in foundation.tokenizer.encode(ANSWERS)]
    if answers[0] == answers[1]:
        raise ConfigError(
            f"the tokenizer of {foundation.source!r} starts both {ANSWERS} with one token; use another model"
        )
    return normed_QD.float() @ model.head_VD[answers].float().T


def _run(foundation: Foundation, hidden_BLD: Tensor, first: int, last: int | None, delta: Delta | None) -> Tensor:
    positions_BL = torch.arange(hidden_BLD.shape[1], device=hidden_BLD.device).expand(hidden_BLD.shape[:2])
    return foundation.model.run(hidden_BLD, positions_BL, Dense(positions_BL), first=first, last=last, delta=delta)


@torch.no_grad()
def read(foundation: Foundation, diaries: Sequence[Diary]) -> list[Batch]:
    """Runs the lower layers over diaries, padded to batches of rows alike in length."""
    model, tokenizer, device = foundation.model, foundation.tokenizer, foundation.model.device
    depth = model.config.num_layers - UPPER_LAYERS
    answers = tokenizer.encode(ANSWERS)
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
            Batch(
                _run(foundation, model.embed(ids_BL.to(device)), 0, depth, None),
                torch.tensor([n for n, row in enumerate(part) for _ in row[1]], device=device),
                torch.tensor([place for row in part for place in row[1]], device=device),
                torch.tensor([answer for row in part for answer in row[2]], device=device),
                [event for row in part for event in row[3]],
            )
        )
    return batches
