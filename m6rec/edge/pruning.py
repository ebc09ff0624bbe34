"""Fewer neurons and heads in the upper layers, and weights that become zero while others learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from m6rec.edge.recipe import Recipe
from m6rec.foundation.config import ModelConfig
from m6rec.foundation.model import Block, Model
from m6rec.readouts import ScoreModel
from m6rec.text.batch import Example

SAMPLE = 40
"""Rows by which neurons and heads are judged."""
PRUNED_BY = 0.7
"""The share of a training after which a pruning has reached its target."""
NEURONS = 32
"""Neurons are kept in multiples of this, the blocks of ``edge.export``."""

Kept = list[Tensor]
"""Of each upper layer what is kept, in order."""


def upper_parts(teacher: ScoreModel, recipe: Recipe, rows: Sequence[Example]) -> tuple[ModelConfig, Kept, Kept]:
    """(the upper layers' configuration, their neurons, their groups of heads): those that add most.

    A part adds its mean magnitude times the length of the weights that it goes out by.
    """
    model, depth = teacher.foundation.model, teacher.cache.config.depth
    c = model.config
    groups = max(1, round(recipe.upper_heads * c.num_kv_heads))
    neurons = min(c.ffn_width, max(NEURONS, round(recipe.upper_neurons * c.ffn_width / NEURONS) * NEURONS))
    grouped = c.num_heads // c.num_kv_heads
    config = replace(
        c,
        num_layers=c.num_layers - depth,
        windows=c.windows[depth:],
        ffn_width=neurons,
        num_heads=groups * grouped,
        num_kv_heads=groups,
        removed_heads=c.num_heads - groups * grouped,
    )
    upper = [block for block in model.layers[depth:] if isinstance(block, Block)]
    everything = [torch.arange(c.ffn_width)] * len(upper), [torch.arange(c.num_kv_heads)] * len(upper)
    if (neurons, groups) == (c.ffn_width, c.num_kv_heads):
        return config, *everything
    sums: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sums[module] = sums.get(module, torch.zeros(())) + inputs[0].detach().float().abs().flatten(0, -2).sum(0)

    linears = [linear for block in upper for linear in (block.down_proj, block.o_proj)]
    hooks = [linear.register_forward_pre_hook(note) for linear in linears]
    try:
        teacher.scores(rows[:SAMPLE])
    finally:
        for hook in hooks:
            hook.remove()
    added = {linear: sums[linear].cpu() * linear.weight.float().norm(dim=0).cpu() for linear in linears}
    of_groups = [added[block.o_proj].view(c.num_kv_heads, -1).sum(1) for block in upper]
    return (
        config,
        [added[block.down_proj].topk(neurons).indices.sort().values for block in upper],
        [of_group.topk(groups).indices.sort().values for of_group in of_groups],
    )


def copy_upper(old: Model, new: Model, depth: int, neurons: Kept, groups: Kept) -> None:
    """Copies what is kept of the upper layers, in fp32."""
    c = old.config
    for layer, (kept, of_groups) in enumerate(zip(neurons, groups, strict=True)):

        def within(count: int, of_groups: Tensor = of_groups) -> Tensor:
            """Rows of the groups that are kept, where each has ``count``."""
            return (of_groups[:, None] * count + torch.arange(count)).flatten()

        heads, keys = within(c.num_heads // c.num_kv_heads * c.head_width), within(c.head_width)
        rows = {"q_proj": heads, "k_proj": keys, "v_proj": keys, "gate_proj": kept, "up_proj": kept}
        columns = {"o_proj": heads, "down_proj": kept}
        state = {}
        for name, weight in old.layers[depth + layer].state_dict().items():
            part = name.split(".")[0]
            weight = weight.float().cpu()
            weight = weight[rows[part]] if part in rows else weight
            state[name] = weight[:, columns[part]] if part in columns and weight.ndim == 2 else weight
        new.layers[layer].load_state_dict(state)
    new.norm.load_state_dict({name: weight.float() for name, weight in old.norm.state_dict().items()})


class _Sparse(nn.Module):
    """Shows a weight without its smallest numbers; these go on learning and may come back while more are taken out."""

    def __init__(self, level: list[float]) -> None:
        super().__init__()
        self._level = level

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as it is used."""
        count = int(self._level[0] * weight.numel())
        if not count:
            return weight
        threshold = weight.detach().abs().flatten().kthvalue(count).values
        return weight * (weight.detach().abs() > threshold)


@contextmanager
def pruning(module: nn.Module, sparsity: float) -> Iterator[Callable[[float], None]]:
    """A block in which the matrices of linear maps lose weights as training goes on, and after which these are zero.

    Yields the schedule for ``train.fit``: s (1 - (1 - t)³) of the weights at time t (Zhu and Gupta, 2017, equation 1).
    """
    level = [0.0]
    linears = [linear for linear in module.modules() if isinstance(linear, nn.Linear)] if sparsity else []
    for linear in linears:
        parametrize.register_parametrization(linear, "weight", _Sparse(level))

    def schedule(done: float) -> None:
        level[0] = sparsity * (1 - (1 - min(1.0, done / PRUNED_BY)) ** 3)

    yield schedule
    for linear in linears:
        parametrize.remove_parametrizations(linear, "weight")
