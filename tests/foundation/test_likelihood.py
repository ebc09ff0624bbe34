"""Likelihood: equal to a plain pass over one prompt at a time, batches inert, loss reaches the tuning."""

import numpy as np
import pytest
import torch

from m6rec.adapters import TaskAdapterConfig, create
from m6rec.foundation import likelihood
from m6rec.foundation.checkpoint import Foundation
from m6rec.text.batch import Example
from m6rec.types import Segment
from tests import tiny


def row(names: list[str], visible: list[int], candidates: list[str], answers: list[int]) -> Example:
    context = tuple(Segment(name, "history") for name in names)
    blocks = tuple((Segment(" also", "ask"), Segment(name, "candidate")) for name in candidates)
    count = len(candidates)
    return Example(
        context, np.array(visible), blocks, np.zeros((count, 0), np.float32), np.array(answers), np.arange(count)
    )


ROWS = [
    row(["A user likes", " this", ", the man"], [1, 2, 3], [" mat", " hat in the rain", " x"], [1, 0, 1]),
    row(["A user"], [1], [" a rather long title of a thing"], [0]),
]


@pytest.fixture
def foundation() -> Foundation:
    return tiny.foundation()


def plain(foundation: Foundation, row: Example, number: int) -> float:
    """The same by one unsplit pass over the whole prompt."""
    *before, title = row.question(number).context + row.candidates[number]
    prefix = [token for ids in foundation.tokenizer.encode([segment.text for segment in before]) for token in ids]
    target = foundation.tokenizer.encode([title.text])[0]
    logits = foundation.model(torch.tensor([prefix + target]))[0].log_softmax(-1)
    return float(np.mean([logits[len(prefix) + j - 1, token].item() for j, token in enumerate(target)]))


def test_a_score_is_the_mean_log_probability_of_the_whole_prompt(foundation):
    expected = [plain(foundation, row, number) for row in ROWS for number in range(len(row.candidates))]
    np.testing.assert_allclose(likelihood.scores(foundation, ROWS), expected, rtol=1e-4)


def test_padding_grouping_and_order_change_nothing(foundation, monkeypatch):
    together = likelihood.scores(foundation, ROWS)
    np.testing.assert_allclose(likelihood.scores(foundation, ROWS[::-1])[[1, 2, 3, 0]], together, rtol=1e-4)
    monkeypatch.setattr(likelihood, "BATCH_TOKENS", 1)
    monkeypatch.setattr(likelihood, "LOGIT_ROWS", 2)
    np.testing.assert_allclose(likelihood.scores(foundation, ROWS), together, rtol=1e-4)


def test_the_loss_is_that_of_the_liked_candidates(foundation):
    adapter = create(TaskAdapterConfig(method="adapter", first_layer=2, num_classes=0), foundation.model, seed=0)
    scores = likelihood.scores(foundation, ROWS)
    assert likelihood.loss(foundation, ROWS, adapter=adapter).item() == pytest.approx(
        -(scores[0] + scores[2]) / 2, rel=1e-4
    )
    assert likelihood.loss(foundation, ROWS[1:], adapter=adapter).item() == 0


@pytest.mark.parametrize("method", ["adapter", "option-adapter", "prompt"])
def test_fitting_a_tuning_lowers_the_loss(foundation, method):
    classes = 2 if method == "option-adapter" else 0
    adapter = create(TaskAdapterConfig(method=method, first_layer=0, num_classes=classes), foundation.model, seed=0)
    optimizer = torch.optim.AdamW([p for p in adapter.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        value = likelihood.loss(foundation, ROWS, adapter=adapter)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0] - 0.05
    assert likelihood.scores(foundation, ROWS, adapter=adapter)[0] > likelihood.scores(foundation, ROWS)[0]
