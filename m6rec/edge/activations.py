"""What the teacher's lower half makes of texts: its states, and the attention of its last lower layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from m6rec.foundation.model import Block, Layer
from m6rec.readouts import ScoreModel
from m6rec.text import prefixes
from m6rec.text.prefixes import Tree

BATCH_TOKENS = 1024
"""Tokens of a step of distillation, as ``prefixes`` lays them."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class TeacherActivations:
    """What the teacher's lower half makes of every token of some texts, in the order of the trees' tokens.

    Attributes:
        trees: The texts.
        starts: Where each tree's tokens begin.
        hidden_TD: The states.
        relations: Queries, keys and values of the last lower layer.
    """

    trees: list[Tree]
    starts: list[int]
    hidden_TD: Tensor
    relations: tuple[Tensor, Tensor, Tensor]


class ActivationRecorder:
    """A ``AdapterHook`` that changes nothing and keeps the queries, keys and values of one layer."""

    def __init__(self, layer: int) -> None:
        self._layer = layer
        self.recorded: dict[str, Tensor] = {}

    def block(self, layer: int, frozen: Block) -> Layer:
        """See ``AdapterHook``."""
        return frozen

    def linear(self, layer: int, name: str, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        if layer == self._layer and name in ("q", "k", "v"):
            self.recorded[name] = y_BLD
        return y_BLD

    def ffn(self, layer: int, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        return y_BLD


def record_activations(
    teacher: ScoreModel, texts: Sequence[str], store: Path | None, progress: Progress
) -> TeacherActivations:
    """Runs the teacher over the texts, or reads what was kept of it."""
    model, depth = teacher.foundation.model, teacher.cache.config.depth
    trees = prefixes.grow(teacher.foundation.tokenizer.encode(texts))
    starts = np.cumsum([0, *(len(tree.ids) for tree in trees)]).tolist()
    scope = json.dumps([model.id, str(model.dtype), depth, list(texts)])
    file = store / f"{hashlib.blake2b(scope.encode(), digest_size=8).hexdigest()}.safetensors" if store else None
    names = ("hidden", "q", "k", "v")
    said: dict[str, Tensor] | None = None
    if file is not None and file.is_file():
        try:
            said = load_file(file)
        except SafetensorError:
            said = None  # damaged: said anew
    if said is None:
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        order = sorted(range(len(trees)), key=lambda number: -len(trees[number].ids))
        for batch in groups(order, trees, 2 * BATCH_TOKENS):
            ids_BL, positions_BL, mask_BLL = padded([trees[number] for number in batch], model.device)
            recorder = ActivationRecorder(depth - 1)
            with torch.no_grad():
                hidden = model.lower(ids_BL, depth, positions_BL=positions_BL, mask_BLL=mask_BLL, hook=recorder)
            for name, values in {"hidden": hidden, **recorder.recorded}.items():
                parts[name] += [row[: len(trees[n].ids)].cpu() for row, n in zip(values, batch, strict=True)]
            progress("the teacher reads", len(parts["hidden"]), len(trees))
        place = np.argsort(order)
        said = {name: torch.cat([parts[name][n] for n in place]) for name in names}
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            save_file(said, partial)
            partial.replace(file)
    return TeacherActivations(trees, starts, said["hidden"], (said["q"], said["k"], said["v"]))


def groups(order: Sequence[int], trees: Sequence[Tree], most: int) -> Iterator[list[int]]:
    """The trees in this order, in batches that have no more than ``most`` tokens with padding."""
    group: list[int] = []
    for number in order:
        longest = max(len(trees[n].ids) for n in [*group, number])
        if group and longest * (len(group) + 1) > most:
            yield group
            group = []
        group = [*group, number]
    if group:
        yield group


def padded(trees: Sequence[Tree], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(ids_BL, positions_BL, mask_BLL) of trees, each a row."""
    ids_BL, positions_BL, mask_BLL = (torch.from_numpy(array).to(device) for array in prefixes.pad_trees(trees))
    return ids_BL, positions_BL, mask_BLL
