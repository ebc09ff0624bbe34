"""What a tuning does to the layers of a foundation; by default nothing."""

from __future__ import annotations

from torch import Tensor, nn

from m6rec.errors import ConfigError
from m6rec.foundation.model import Block, Layer, Model


class AdapterModule(nn.Module):
    """A ``AdapterHook`` that leaves everything as it is; the methods below override the hook they need."""

    def block(self, layer: int, frozen: Block) -> Layer:
        """See ``AdapterHook``."""
        return frozen

    def linear(self, layer: int, name: str, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        return y_BLD

    def ffn(self, layer: int, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        return y_BLD

    def merged(self, model: Model) -> dict[str, Tensor]:
        """The weights that differ under this change, by their names in the state dict of ``model.unshared()``.

        Raises:
            ConfigError: No weights of that shape do what the change does.
        """
        raise ConfigError("it changes no weight of the foundation; keep using it beside the model")
