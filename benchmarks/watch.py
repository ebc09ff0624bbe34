"""How a training's quality rises and what it holds in memory, seen from outside of ``m6rec.training.fit``."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

import torch
from torch import Tensor, nn

from benchmarks.memory import Held
from m6rec.training import TrainConfig

POINTS = 10
"""Judgements of a training, at equal distances."""


class Watch(AbstractContextManager["Watch"]):
    """A block in which a training runs; called as its progress, it judges what ``fit`` would keep if it ended there.

    Args:
        module: What is trained.
        config: How.
        validate: A validation measure, greater is better.
        held: Counts memory.
        update: A progress that is told too.

    Attributes:
        curve: (steps, judgement), some ``POINTS`` times.
        seconds: Of the processor, that judging took.
    """

    def __init__(
        self,
        module: nn.Module,
        config: TrainConfig,
        validate: Callable[[], float],
        held: Held,
        update: Callable[[int, int, float], None],
    ) -> None:
        self.held, self.curve, self.seconds = held, list[tuple[int, float]](), 0.0
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._mean = _copied(self._parameters)
        self._config, self._judge, self._update = config, validate, update

    def __enter__(self) -> Watch:
        self.held.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.held.__exit__(kind, error, at)

    @torch.no_grad()
    def __call__(self, step: int, total: int, loss: float) -> None:
        """After a step."""
        self.held.step()
        decay = min(self._config.average, step / (step + 9)) if self._config.average else 0.0  # as in ``fit``
        for mean, p in zip(self._mean, self._parameters, strict=True):
            mean.lerp_(p, 1 - decay)
        if step * POINTS // total > (step - 1) * POINTS // total:
            began, own = time.process_time(), _copied(self._parameters)
            _put(self._mean, self._parameters)
            self.curve.append((step, self._judge()))
            _put(own, self._parameters)
            self.seconds += time.process_time() - began
        self._update(step, total, loss)


def _copied(tensors: list[nn.Parameter]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _put(values: list[Tensor], parameters: list[nn.Parameter]) -> None:
    for value, p in zip(values, parameters, strict=True):
        p.copy_(value)
