"""Whether to read a text until its state rests, or by as many layers as all others: exits by confidence and by depth.

All layers of a student are read by one norm and one widening, so each can be the last. By depth all texts leave after
the same one. By confidence a text leaves after the first layer whose state agrees with that of the layer before
(hidden-state saturation: CALM, Schuster et al. 2022, section 3.2), or the second such in a row (patience: PABEE, Zhou
et al. 2020). Agreement is a cosine, of states around their mean and in units of their spread.

Some texts could leave early by lot, too. So a rule is of use where it lies above the line between exits by depth, at as
many operations. Thresholds are those by which a share of the texts that the student learned from leaves before the last
layer. As a bound of what any measure of confidence could gain, texts also leave as they are *told* to: by the cosine of
their states with the teacher's.

Questions have no statistics, as a teacher that reads nothing answers those with statistics nearly as well. They are
read by the teacher's tuning to them as it is. An epoch with each rule's states would bring differences that are chance
into the table, as rules differ by little.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.parts import tell
from benchmarks.setup import Claims
from m6rec.data.split import TEST, VALID
from m6rec.edge.model_card import around
from m6rec.edge.shrink import at_exit
from m6rec.evaluation.metrics import auc
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.states import States
from m6rec.readouts import ScoreModel
from m6rec.text.batch import Example

SHARES = (0.25, 0.5, 0.75)
"""Of the texts, that leave before the last layer."""
PATIENCE = (1, 2)
TOLD = 0.5
"""Layers a text that are left out where texts leave as they are told to."""
PAYS = 0.001
"""AUC over the line of exits by depth, from which on a rule would be worth its graph."""
OPERATIONS, COSINE = "M operations a text", "cosine, items held out"
VALIDATION, WORDS = "AUC, words alone, validation", "AUC, words alone"
LEAD = "over the line"


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """What students are compared by.

    Attributes:
        teacher: Whose states they imitate.
        learned: Texts that they have learned from.
        held_out: Texts of items that they have not seen.
        words: The questions without statistics, by part.
        to_words: The teacher's tuning to these, on a small model's upper layers and states.
    """

    teacher: ScoreModel
    learned: Sequence[str]
    held_out: Sequence[str]
    words: Mapping[int, Sequence[Example]]
    to_words: Callable[[ScoreModel], ScoreModel]

    def of(self, students: Mapping[str, tuple[ScoreModel, Path]]) -> tuple[dict[str, Any], Claims]:
        """A table for each student: exits by depth, by confidence, and as they are told.

        Args:
            students: By name, with the folder that keeps what was measured.
        """
        tables = tuple(self._table(name, small, folder) for name, (small, folder) in students.items())
        claims = []
        for name, table in zip(students, tables, strict=True):
            leads = [row.mean(f"{VALIDATION}, {LEAD}") for row in table.rows if row.method.startswith("leaves at")]
            what = f"{name}: most AUC that a rule of confidence has over exits by depth, validation, words alone"
            claims.append((what, max(leads), "<=", PAYS))
        return {"tables": tables, "texts": len(self.learned) + len(self.held_out)}, claims

    def _table(self, name: str, small: ScoreModel, folder: Path) -> Table:
        every = [*self.learned, *self.held_out]
        reader = small.foundation.model.config.reader
        assert reader is not None
        exits = [at_exit(small, layers) for layers in range(1, reader.num_layers + 1)]
        states_NTD = torch.stack([one.cache.fetch(every).tokens_TD.float() for one in exits])
        cosine_NT = self._cosine(states_NTD)
        operations = Operations.of(small, every)
        rest = agreement(states_NTD, len(self.learned))
        rules: dict[str, tuple[str, NDArray[np.int64]]] = {}
        for layers in range(1, len(exits) + 1):
            rules[f"layer {layers}"] = f"{layers}", np.full(len(every), layers)
        for patience in PATIENCE[: len(exits) - 2]:
            for share in SHARES:
                threshold = float(np.quantile(calm(rest[:, : len(self.learned)], patience), 1 - share))
                rule = f"leaves at {threshold:.5f}" + f", {patience} in a row" * (patience > 1)
                rules[rule] = f"{share:g}-{patience}", left_after(rest, threshold, patience)
        rules["told"] = "told", told(cosine_NT, TOLD)
        rows = []
        for rule, (work, layers_T) in rules.items():
            tell(f"{name}: {rule}")
            chosen = Left.of(small, every, states_NTD, layers_T)
            held_out = np.arange(len(self.learned), len(every))
            metrics = {
                "layers a text": (float(layers_T.mean()),),
                OPERATIONS: (float(operations.of_texts(layers_T, watched="leaves" in rule).mean()) / 1e6,),
                COSINE: (float(cosine_NT[layers_T[held_out] - 1, held_out].mean()),),
                **{what: (value,) for what, value in self._quality(chosen, folder / "exits" / work).items()},
            }
            rows.append(Row(method=rule, metrics=metrics))
        return Table(
            title=f"{name}: exits by depth and by confidence",
            metric=VALIDATION,
            rows=tuple(above(rows, len(exits))),
            note=f"{LEAD}: of exits by depth, at as many operations.",
        )

    def _cosine(self, states_NTD: Tensor) -> NDArray[np.float32]:
        """Of every layer's states with the teacher's, as ``edge.model_card.fidelity`` has them."""
        theirs_TD = self.teacher.cache.fetch([*self.learned, *self.held_out]).tokens_TD.float()
        held_out_TD = theirs_TD[len(self.learned) :]
        target_TD = around(theirs_TD, held_out_TD)
        cosine_NT = torch.stack([F.cosine_similarity(around(of, held_out_TD), target_TD, dim=-1) for of in states_NTD])
        found: NDArray[np.float32] = cosine_NT.numpy()
        return found

    def _quality(self, one: ScoreModel, stem: Path) -> dict[str, float]:
        """AUC; what was measured is kept in a file."""
        file = stem.with_name(f"{stem.name}.json")
        if not file.exists():
            reader = self.to_words(one)
            found = {what: score(reader, self.words[part]) for what, part in ((VALIDATION, VALID), (WORDS, TEST))}
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(found) + "\n")
        kept: dict[str, float] = json.loads(file.read_text())
        return kept


class Left:
    """In place of a cache: of each text the state of the layer after which it was left."""

    def __init__(self, small: ScoreModel, states: States) -> None:
        self.config, self.limits, self._states = small.cache.config, small.cache.limits, states

    @classmethod
    def of(cls, small: ScoreModel, texts: Sequence[str], states_NTD: Tensor, layers_T: NDArray[np.int64]) -> ScoreModel:
        """A small model that reads these texts, each by so many layers."""
        chosen_TD = states_NTD[torch.from_numpy(layers_T) - 1, torch.arange(len(texts))]
        states = States(chosen_TD, {text: (number, 1) for number, text in enumerate(texts)})
        return ScoreModel(small.config, small.foundation, small.adapter, cls(small, states))  # type: ignore[arg-type]

    def fetch(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> States:
        """See ``StateCache``."""
        return self._states


@dataclass(frozen=True)
class Operations:
    """What reading costs: a layer and the widening of each token; and to watch, the last token's widening by layers."""

    lengths_T: NDArray[np.int64]
    of_layer: int
    of_widening: int

    @classmethod
    def of(cls, small: ScoreModel, texts: Sequence[str]) -> Operations:
        """Those of texts; counted as on the card of ``m6rec shrink``."""
        model = small.foundation.model
        reader = model.config.reader
        assert reader is not None
        return cls(
            np.array([len(row) for row in small.foundation.tokenizer.encode(texts)]),
            2 * sum(p.numel() for p in model.reader.layers[0].parameters()),
            2 * (model.widen.weight.numel() + reader.embed_width * reader.width),
        )

    def of_texts(self, layers_T: NDArray[np.int64], *, watched: bool) -> NDArray[np.int64]:
        """Of each text that is left after so many layers; ``watched`` where that was not known beforehand."""
        read_T = self.lengths_T * (self.of_layer * layers_T + self.of_widening)
        found: NDArray[np.int64] = read_T + watched * self.of_widening * (layers_T - 1)
        return found


def agreement(states_NTD: Tensor, learned: int) -> NDArray[np.float32]:
    """Of the second layer on: the cosine [N - 1, T] of a text's state with that of the layer before.

    States are around the mean, and in units of the spread, of those that the last layer has for texts learned, which
    come first.
    """
    normed_NTD = around(states_NTD, states_NTD[-1, :learned])
    found: NDArray[np.float32] = F.cosine_similarity(normed_NTD[1:], normed_NTD[:-1], dim=-1).numpy()
    return found


def left_after(agreement_NT: NDArray[np.float32], threshold: float, patience: int) -> NDArray[np.int64]:
    """The layer after which each text is left: the first with so many that agree in a row, else the last."""
    last = len(agreement_NT) + 1
    in_a_row_T, left_T = np.zeros(agreement_NT.shape[1], np.int64), np.full(agreement_NT.shape[1], last)
    for layer, agrees_T in enumerate(agreement_NT >= threshold, 2):
        in_a_row_T = np.where(agrees_T, in_a_row_T + 1, 0)
        left_T = np.where((in_a_row_T >= patience) & (left_T == last), layer, left_T)
    return left_T


def calm(agreement_NT: NDArray[np.float32], patience: int) -> NDArray[np.float32]:
    """The largest threshold by which each text is left before the last layer."""
    early_NT = agreement_NT[:-1]
    windows = [early_NT[first : first + patience].min(0) for first in range(len(early_NT) - patience + 1)]
    found: NDArray[np.float32] = np.max(windows, axis=0)
    return found


def told(cosine_NT: NDArray[np.float32], share: float) -> NDArray[np.int64]:
    """The layers that give the best mean cosine with the teacher if so large a share of the last layers is left out.

    Each text leaves where its cosine minus a price of layers is largest; the price is found by halving.
    """
    number_N1 = np.arange(1, len(cosine_NT) + 1)[:, None]
    most = len(cosine_NT) - share
    low, high = 0.0, 1.0
    for _ in range(40):
        price = (low + high) / 2
        layers_T = 1 + np.argmax(cosine_NT - price * number_N1, axis=0)
        low, high = (price, high) if layers_T.mean() > most else (low, price)
    return 1 + np.argmax(cosine_NT - high * number_N1, axis=0)


def above(rows: Sequence[Row], exits: int) -> list[Row]:
    """The rows, of which the first ``exits`` are by depth, with how far the others lie over the line between those."""
    fixed = [row.mean(OPERATIONS) for row in rows[:exits]]
    found = list(rows[:exits])
    for row in rows[exits:]:
        leads = {
            f"{what}, {LEAD}": (
                row.mean(what) - float(np.interp(row.mean(OPERATIONS), fixed, [of.mean(what) for of in rows[:exits]])),
            )
            for what in (COSINE, VALIDATION, WORDS)
        }
        found.append(Row(method=row.method, metrics={**row.metrics, **leads}))
    return found


def score(one: ScoreModel, rows: Sequence[Example]) -> float:
    """AUC of the questions."""
    return auc(np.concatenate([row.labels for row in rows]), one.scores(rows))
