"""What a small model weighs, what it costs, and how near it is to its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from m6rec.edge.recipe import Recipe
from m6rec.evaluation.metrics import auc
from m6rec.readouts import ScoreModel
from m6rec.text.batch import Example


def model_card(
    small: ScoreModel,
    teacher: ScoreModel,
    learned: Sequence[str],
    held_out: Sequence[str],
    asked: Sequence[Example],
    recipe: Recipe,
) -> dict[str, Any]:
    """Parameters, bytes, operations and quality.

    Args:
        small: What was made.
        teacher: What it was made from.
        learned: Texts that the student learned from.
        held_out: Texts of the items that it was kept from.
        asked: Questions of the validation part, as the small model is asked them.
        recipe: What it was made by.
    """
    model, adapter = small.foundation.model, small.adapter
    reader = model.config.reader
    assert reader is not None
    lengths = [len(row) for row in small.foundation.tokenizer.encode(learned)]
    block = sum(p.numel() for p in model.reader.layers[0].parameters())
    widening = model.widen.weight.numel() + reader.embed_width * reader.width
    counts = {
        "student": sum(p.numel() for p in model.reader.parameters()) + sum(p.numel() for p in model.widen.parameters()),
        "upper layers": sum(p.numel() for p in [*model.layers.parameters(), *model.norm.parameters()]),
        "tuning": sum(p.numel() for p in adapter.parameters()),
    }
    answers = np.concatenate([row.labels for row in asked])
    return {
        "recipe": asdict(recipe),
        "task": small.config.task,
        "domain": small.config.domain,
        "teacher": {"foundation": teacher.config.foundation, "parameters": teacher.foundation.model.num_parameters()},
        "parameters": {**counts, "all": sum(counts.values())},
        "parameters that are not zero": sum(int((p != 0).sum()) for p in [*model.parameters(), *adapter.parameters()]),
        "tokens": small.foundation.tokenizer.vocab_size,
        "bytes": 4 * sum(counts.values()),
        "operations": {
            "to read a text, by layers": [
                round(2 * float(np.mean(lengths)) * (block * (1 + layer) + widening))
                for layer in range(reader.num_layers)
            ],
            "of an upper token": 2 * (counts["upper layers"] + sum(p.numel() for p in adapter.module.parameters())),
        },
        "quality": {
            "texts learned": fidelity(small, teacher, learned),
            "texts of items held out": fidelity(small, teacher, held_out) if held_out else {},
            "validation AUC": auc(answers, small.scores(asked)),
            "validation AUC of the teacher": auc(answers, teacher.scores(asked)),
        },
    }


def fidelity(small: ScoreModel, teacher: ScoreModel, texts: Sequence[str]) -> dict[str, float]:
    """How near a small model's states are to the teacher's: cosine around the teacher's mean, and relative error.

    Both are means over texts; the error is squared, and 1 for a student that always says the teacher's mean.
    """
    theirs_TD = teacher.cache.fetch(texts).tokens_TD.float().cpu()
    ours_TD = small.cache.fetch(texts).tokens_TD.float()
    theirs_TD, ours_TD = around(theirs_TD, theirs_TD), around(ours_TD, theirs_TD)
    return {
        "texts": len(texts),
        "cosine": float(F.cosine_similarity(ours_TD, theirs_TD, dim=-1).mean()),
        "error": float((ours_TD - theirs_TD).square().mean() / theirs_TD.square().mean()),
    }


def around(states_TD: Tensor, known_TD: Tensor) -> Tensor:
    """States around the mean, and in units of the spread, of known ones."""
    return (states_TD - known_TD.mean(0)) / known_TD.std(0).clamp_min(1e-3)
