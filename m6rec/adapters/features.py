"""The collaborative signal: numbers of a question → the base of its score, of a behaviour → a vector in its state.

CoLLM (Zhang et al., 2023) projects the factors of a classical model; ours are statistics that are up to date.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

WIDTH = 128
GAIN = 20.0
"""Upper states are some tens of times larger than a fresh projection; this brings the two to one scale."""
LEAST_ROWS = 16
"""Products of fewer rows are summed in another order; a row's last bits must not depend on its company."""


class FeatureEncoder(nn.Module):
    """F numbers → a vector, through two hidden layers; zero at first.

    ``fit`` sets the numbers' mean and spread from the training part, by which they are normed.

    Args:
        num_features: F.
        width: Numbers of the vector.
        generator: Source of the initial values.
        gain: By what the vector is multiplied.
    """

    def __init__(self, num_features: int, width: int, generator: Generator, gain: float = GAIN) -> None:
        super().__init__()
        self._gain = gain

        def random(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * (2 / rows) ** 0.5)

        self.w1_FR, self.b1_R = random(num_features, WIDTH), nn.Parameter(torch.zeros(WIDTH))
        self.w2_RR, self.b2_R = random(WIDTH, WIDTH), nn.Parameter(torch.zeros(WIDTH))
        self.w3_RD = nn.Parameter(torch.zeros(WIDTH, width))
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("spread_F", torch.ones(num_features))

    def fit(self, features_NF: Tensor) -> None:
        """Norms by the mean and spread of these, the signals of the training part, where there are two to spread."""
        if len(features_NF) < 2:
            return
        self.mean_F = features_NF.mean(0).to(self.w3_RD.device)
        self.spread_F = features_NF.std(0).clamp_min(1e-3).to(self.w3_RD.device)

    def normed(self, features_BCF: Tensor) -> Tensor:
        """By the mean and spread of ``fit``; B and C may be any number of dimensions."""
        return ((features_BCF - self.mean_F) / self.spread_F).clamp(-8, 8)

    def forward(self, features_BCF: Tensor) -> Tensor:
        """vectors_BCD."""
        normed_NF = self.normed(features_BCF).flatten(0, 1)
        count = normed_NF.shape[0]  # not len(), which would fix it where this is traced
        lacking = torch.sym_max(0, LEAST_ROWS - count)  # type: ignore[no-untyped-call]
        normed_NF = F.pad(normed_NF, (0, 0, 0, lacking))
        hidden_NR = (normed_NF @ self.w1_FR).add_(self.b1_R).relu_()
        hidden_NR = (hidden_NR @ self.w2_RR).add_(self.b2_R).relu_()
        added_ND = (hidden_NR @ self.w3_RD).mul_(self._gain)
        return added_ND[:count].view(*features_BCF.shape[:2], added_ND.shape[1])
