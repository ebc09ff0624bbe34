"""What tuning holds in memory besides the weights, in bytes that are the same on any machine.

Autograd keeps tensors of the forward pass for the backward one; the training loop keeps some numbers for each that is
trained. What a library needs for a moment within one operation, and what is read ahead of time, is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

COPIES = 5
"""Of what is trained: gradients, two moments, the running mean and its best epoch (``m6rec.training``)."""
MIB = 2**20


class Held:
    """Counts, as a block in which a training runs, what autograd keeps for the backward pass of a step.

    A storage counts once, whatever is kept of it, and whole. ``weights`` don't count: they are there anyway.

    Attributes:
        peak: Bytes of the step that keeps most, so far.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._weights = {_storage(weight) for weight in weights}
        self._step: dict[int, int] = {}
        self.peak = 0
        self._hooks = saved_tensors_hooks(self._note, lambda tensor: tensor)

    def _note(self, tensor: Tensor) -> Tensor:
        # A place in memory can't be another tensor's before the backward pass, as the graph holds this one.
        place = _storage(tensor)
        if place not in self._weights:
            self._step[place] = tensor.untyped_storage().nbytes()
        return tensor

    def step(self) -> None:
        """Called after each step."""
        self.peak = max(self.peak, sum(self._step.values()))
        self._step.clear()

    def __enter__(self) -> Held:
        self._hooks.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hooks.__exit__(kind, error, at)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def of_state(parameters: Iterable[Tensor]) -> int:
    """Bytes of what the loop keeps for the parameters that are trained."""
    return COPIES * sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
