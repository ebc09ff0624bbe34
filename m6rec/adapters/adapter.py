"""Adapters parallel to the feed-forward halves (M6-Rec, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from m6rec.adapters.module import AdapterModule
from m6rec.errors import ConfigError
from m6rec.foundation.model import Model


class Adapter(nn.Module):
    """λ·[σ(Z W1 + b1) W2 + b2] of one layer. W2 starts at zero, so a fresh adapter changes nothing.

    The paper leaves σ open; we take ReLU.
    """

    def __init__(self, width: int, rank: int, generator: Generator) -> None:
        super().__init__()
        self.w1_DR = nn.Parameter(torch.randn(width, rank, generator=generator) * width**-0.5)
        self.b1_R = nn.Parameter(torch.zeros(rank))
        self.w2_RD = nn.Parameter(torch.zeros(rank, width))
        self.b2_D = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z_BLD: Tensor) -> Tensor:
        """What is added to FFN(Z)."""
        w1, b1, w2, b2, scale = (p.to(z_BLD.dtype) for p in (self.w1_DR, self.b1_R, self.w2_RD, self.b2_D, self.scale))
        return scale * (F.relu(z_BLD @ w1 + b1) @ w2 + b2)


class Adapters(AdapterModule):
    """One adapter in each layer from ``first_layer`` on, of a rank; 0 stands for d / heads."""

    def __init__(self, model: Model, first_layer: int, rank: int, generator: Generator) -> None:
        super().__init__()
        c = model.config
        self.first_layer = first_layer
        rank = rank or c.width // (c.num_heads + c.removed_heads)
        self.layers = nn.ModuleList(Adapter(c.width, rank, generator) for _ in range(first_layer, c.num_layers))

    def ffn(self, layer: int, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        if layer < self.first_layer:
            return y_BLD
        added_BLD: Tensor = self.layers[layer - self.first_layer](x_BLD)
        return y_BLD + added_BLD

    def merged(self, model: Model) -> dict[str, Tensor]:
        """Always raises: see ``AdapterModule``."""
        raise ConfigError("an adapter has a nonlinearity of its own, which no weight of the foundation can hold")
