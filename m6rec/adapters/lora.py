"""Low-rank updates of the linear maps (Hu et al., 2021), equal to peft's."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from m6rec.adapters.module import AdapterModule
from m6rec.foundation.model import Block, Model

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


class LowRank(nn.Module):
    """x A B of one linear map. B starts at zero, so a fresh one changes nothing."""

    def __init__(self, frozen: nn.Linear, rank: int, generator: Generator) -> None:
        super().__init__()
        bound = frozen.in_features**-0.5
        self.a_IR = nn.Parameter(torch.empty(frozen.in_features, rank).uniform_(-bound, bound, generator=generator))
        self.b_RO = nn.Parameter(torch.zeros(rank, frozen.out_features))

    def forward(self, x_BLI: Tensor) -> Tensor:
        """The unscaled update."""
        return x_BLI @ self.a_IR.to(x_BLI.dtype) @ self.b_RO.to(x_BLI.dtype)


class LoRA(AdapterModule):
    """W ← W + (alpha / rank)·B A for every linear map of the layers from ``first_layer`` on.

    Layers that share their weights have updates of their own.
    """

    def __init__(self, model: Model, first_layer: int, rank: int, alpha: float, generator: Generator) -> None:
        super().__init__()
        self.first_layer, self.scale = first_layer, alpha / rank
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: LowRank(_linear(model.block(layer), name), rank, generator) for name in LINEARS})
            for layer in range(first_layer, model.config.num_layers)
        )

    def linear(self, layer: int, name: str, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        if layer < self.first_layer:
            return y_BLD
        added_BLD: Tensor = self._at(layer, name)(x_BLD)
        return y_BLD + self.scale * added_BLD

    def merged(self, model: Model) -> dict[str, Tensor]:
        """See ``AdapterModule``."""
        weights = {}
        for layer in range(self.first_layer, model.config.num_layers):
            block = model.block(layer)
            for name in LINEARS:
                part, frozen_OI = self._at(layer, name), _linear(block, name).weight
                update_OI = self.scale * (part.a_IR @ part.b_RO).T
                weights[f"layers.{layer}.{name}_proj.weight"] = (frozen_OI.float() + update_OI).to(frozen_OI.dtype)
        return weights

    def _at(self, layer: int, name: str) -> LowRank:
        parts = self.layers[layer - self.first_layer]
        assert isinstance(parts, nn.ModuleDict)
        part = parts[name]
        assert isinstance(part, LowRank)
        return part


def _linear(block: Block, name: str) -> nn.Linear:
    linear = getattr(block, f"{name}_proj")
    assert isinstance(linear, nn.Linear)
    return linear
