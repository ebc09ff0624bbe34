"""Each storage that a step keeps counts once and whole, weights never, and the greatest step is told."""

import torch
from torch import Tensor, nn

from benchmarks.memory import COPIES, Held, of_state
from m6rec.training import TrainConfig, fit

FLOAT = 4
WIDE, NARROW = 6, 2


def step(held: Held, x_BD: Tensor, weight_DD: Tensor) -> None:
    """A product, which keeps x for the weight, and a square, which keeps the product, twice."""
    y_BD = x_BD @ weight_DD
    torch.autograd.backward((y_BD * y_BD).sum())
    held.step()


def test_a_step_keeps_each_storage_once_and_no_weight():
    x_BD, weight_DD = torch.ones(WIDE, 3), nn.Parameter(torch.ones(3, 3))
    with Held([weight_DD]) as held:
        step(held, x_BD, weight_DD)
    assert held.peak == FLOAT * (x_BD.numel() + WIDE * 3)
    with Held([]) as held:
        step(held, x_BD.requires_grad_(), weight_DD)  # now the weight is needed too
    assert held.peak == FLOAT * (x_BD.numel() + WIDE * 3 + weight_DD.numel())


def test_what_is_frozen_keeps_nothing():
    with Held([]) as held:
        y_BD = torch.ones(WIDE, 3) @ torch.ones(3, 3)
        held.step()
    assert (held.peak, y_BD.shape) == (0, (WIDE, 3))


def test_the_peak_is_of_the_greatest_step_of_a_training():
    module = nn.Linear(3, 1, bias=False)
    batches = [torch.ones(size, 3) for size in (NARROW, WIDE)]
    with Held(module.parameters()) as held:
        fit(module, batches, lambda x_BD: module(x_BD).sum(), TrainConfig(), progress=lambda *done: held.step())
    assert held.peak == FLOAT * WIDE * 3


def test_the_state_is_of_what_is_trained_alone():
    module = nn.Linear(3, 2)
    module.weight.requires_grad_(requires_grad=False)
    assert of_state(module.parameters()) == COPIES * FLOAT * 2
