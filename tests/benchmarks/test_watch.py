"""A training that is watched goes as if it were not, and is judged by what it would keep."""

import torch
from torch import nn

from benchmarks.memory import Held
from benchmarks.methods import steps
from benchmarks.watch import POINTS, Watch
from m6rec.training import TrainConfig, fit

BATCHES = [torch.full((2, 3), float(number)) for number in range(15)]


def trained(config: TrainConfig, *, watched: bool) -> tuple[nn.Module, list[float], Watch]:
    """A map that learns to give 1, and is judged by its weights."""
    torch.manual_seed(0)
    module = nn.Linear(3, 1)

    def validate() -> float:
        return -module.weight.abs().sum().item()

    watch = Watch(module, config, validate, Held(()), lambda *done: None)
    with watch:
        history = fit(
            module,
            BATCHES,
            lambda x_BD: (module(x_BD) - 1).square().mean(),
            config,
            validate=validate,
            progress=watch if watched else lambda *done: None,
        )
    return module, history.validation_scores, watch


def test_it_judges_at_the_ends_of_epochs_what_fit_judges():
    for config in (TrainConfig(epochs=2, average=0.5), TrainConfig(epochs=2), TrainConfig(epochs=2, average=0)):
        _, validation_scores, watch = trained(config, watched=True)
        assert [step for step, _ in watch.curve] == [3 * number for number in range(1, POINTS + 1)]
        curve = dict(watch.curve)
        assert [curve[15], curve[30]] == validation_scores


def test_watching_changes_nothing():
    config = TrainConfig(epochs=2)
    (seen, *_), (alone, *_) = (trained(config, watched=watched) for watched in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(seen.parameters(), alone.parameters(), strict=True))


def test_steps_are_those_to_what_all_reach():
    curves = [(1, 0.1), (2, 0.5), (3, 0.4)], [(1, 0.5), (2, 0.9), (3, 0.9)], [(1, 0.2), (2, 0.4), (3, 0.7)]
    assert steps(curves) == [2, 1, 3]
