"""Trainable prompts: vectors that stand before a context as if they were tokens (Lester et al., 2021)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from m6rec.errors import ConfigError
from m6rec.foundation.model import Model

READ_SPREAD = 0.1
"""… where the foundation has no such table; about that of SmolLM2's."""


class Prompts(nn.Module):
    """P prompts in the units of the embedding table, whose spread they start with.

    Args:
        model: The foundation.
        num_prompts: P.
        generator: Source of the initial values.
        options_CD: Rows that the last C prompts start from, such as the embeddings of the answer words.
    """

    def __init__(self, model: Model, num_prompts: int, generator: Generator, options_CD: Tensor | None = None) -> None:
        super().__init__()
        width = model.config.width
        spread = READ_SPREAD if model.config.narrow else float(model.embed_tokens.weight.float().std())
        weight_PD = torch.randn(num_prompts, width, generator=generator) * spread
        if options_CD is not None:
            count = options_CD.shape[0]
            if options_CD.ndim != 2 or options_CD.shape[1] != width or count > num_prompts:
                raise ConfigError(
                    f"options have shape {tuple(options_CD.shape)}; needed are at most {num_prompts} rows "
                    f"(num_prompts) of the model's width {width}"
                )
            weight_PD[num_prompts - count :] = options_CD.detach().float().cpu()
        self.weight_PD = nn.Parameter(weight_PD)
        self.scale = width**0.5 if model.config.is_gemma else 1.0

    def tokens(self) -> Tensor:
        """prompts_PD, scaled as the model scales its token embeddings."""
        return self.weight_PD * self.scale

    def rows(self, count: int) -> Tensor:
        """The last ``count`` prompts as rows of a softmax, unscaled like a tied output embedding."""
        return self.weight_PD[-count:]
