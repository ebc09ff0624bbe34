"""Fine-tuning proper: trainable copies of whole blocks."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn
from torch.func import functional_call

from m6rec.adapters.module import AdapterModule
from m6rec.foundation.attention import Attention
from m6rec.foundation.model import AdapterHook, Block, Layer, Model


class Blocks(AdapterModule):
    """fp32 copies of the blocks of the layers from ``first_layer`` on, one for each also where layers share a block.

    Embeddings and final norm stay the foundation's.
    """

    def __init__(self, model: Model, first_layer: int) -> None:
        super().__init__()
        self.first_layer = first_layer
        layers = range(first_layer, model.config.num_layers)
        self.layers = nn.ModuleList(copy.deepcopy(model.block(layer)) for layer in layers).float().requires_grad_(True)

    def block(self, layer: int, frozen: Block) -> Layer:
        """See ``AdapterHook``."""
        return frozen if layer < self.first_layer else _Cast(self.layers[layer - self.first_layer])

    def merged(self, model: Model) -> dict[str, Tensor]:
        """See ``AdapterModule``."""
        return {
            f"layers.{self.first_layer + i}.{name}": weight.to(model.dtype)
            for i, block in enumerate(self.layers)
            for name, weight in block.state_dict().items()
        }


@dataclass(frozen=True)
class _Cast:
    """A block of fp32 masters, run in the type of the hidden states."""

    master: nn.Module

    def __call__(
        self,
        layer: int,
        hidden_BLD: Tensor,
        rotation: tuple[Tensor, Tensor],
        attention: Attention,
        hook: AdapterHook | None,
    ) -> Tensor:
        weights = {name: weight.to(hidden_BLD.dtype) for name, weight in self.master.named_parameters()}
        out_BLD: Tensor = functional_call(self.master, weights, (layer, hidden_BLD, rotation, attention, hook))
        return out_BLD
