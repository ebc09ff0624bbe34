"""The base of a score: what the numbers of a question say by themselves, to which reading adds its own.

The numbers come first, as in boosting: the base is fitted alone and then fixed, and the language model learns what is
left of the loss. So what reading adds is its own, and can be told.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from m6rec.adapters.features import FeatureEncoder

OPEN = 0.0
"""Logit of a fresh gate."""


class Base(nn.Module):
    """F numbers of a question → logits of its C classes, and the gate of what is read of it.

    The gate is σ(w·x + b), where x are the numbers of ``gate_columns``: how often the item was met, and how much is
    known of the user. So text may count more where the numbers know little.

    Args:
        num_features: F.
        num_classes: C.
        gate_columns: Which of the numbers open the gate.
        generator: Source of the initial values.
    """

    def __init__(
        self, num_features: int, num_classes: int, gate_columns: tuple[int, ...], generator: Generator
    ) -> None:
        super().__init__()
        self.network = FeatureEncoder(num_features, num_classes, generator, gain=1.0).requires_grad_(False)
        self.gate_columns = list(gate_columns)
        self.gate_weight_G = nn.Parameter(torch.zeros(len(gate_columns)))
        self.gate_bias = nn.Parameter(torch.full((), OPEN))

    def forward(self, features_BF: Tensor) -> Tensor:
        """logits_BC of the numbers alone, in fp32."""
        logits_BC: Tensor = self.network(features_BF[None])[0]
        return logits_BC

    def gate(self, features_BF: Tensor) -> Tensor:
        """gate_B1, from 0 to 1, by which the logits of what is read are multiplied."""
        known_BG = self.network.normed(features_BF)[:, self.gate_columns]
        return torch.sigmoid((known_BG * self.gate_weight_G).sum(-1, keepdim=True) + self.gate_bias)
