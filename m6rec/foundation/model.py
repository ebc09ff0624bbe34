"""The language model: Llama, Qwen2, Qwen3 and Gemma3-text.

A forward pass is ``embed`` → ``run`` over a range of layers → ``finish``. Everything that makes the
recommender is a choice of layers and of an attention pattern:

- ``run(…, Dense(…))`` is an ordinary pass over rows of tokens, causal or with a region mask;
- ``lower`` runs layers [0, depth) on segments that know nothing of each other, and keeps some tokens;
- ``upper`` runs layers [depth, L) on a user's context and many candidates, each of which sees the
  context before it and itself (M6-Rec, section 3.3, "multi-segment late interaction").

Weights stay frozen. What a tuning method adds comes in through a ``AdapterHook``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m6rec.errors import ConfigError
from m6rec.foundation.attention import Attention, CachedAttention, CachedQuery, Dense, KVCache, SharedContext
from m6rec.foundation.config import ACTIVATIONS, ModelConfig, RopeConfig


class AdapterHook(Protocol):
    """What a tuning method adds to frozen layers; every hook may return its input unchanged."""

    def block(self, layer: int, frozen: Block) -> Layer:
        """What to run as layer ``layer``."""

    def linear(self, layer: int, name: str, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """The output of the linear map ``name`` (q, k, v, o, gate, up, down), given its input and output."""

    def ffn(self, layer: int, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """The output of the feed-forward half, given its normalised input and its output."""


class Layer(Protocol):
    """Anything that can be called as a ``Block``."""

    def __call__(
        self,
        layer: int,
        hidden_BLD: Tensor,
        rotation: tuple[Tensor, Tensor],
        attention: Attention,
        hook: AdapterHook | None,
    ) -> Tensor:
        """Returns the next hidden_BLD."""


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in fp32; Gemma stores its gain as an offset from one."""

    def __init__(self, width: int, eps: float, offset: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width) if offset else torch.ones(width))
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """``x`` scaled to a root mean square of one over its last axis, times the gain; by default of its type."""
        dtype = dtype or self.weight.dtype
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        normed = x * torch.rsqrt(length.square() / x.shape[-1] + self.eps)
        if self.offset:
            return (normed * (self.offset + self.weight.float())).to(dtype)
        return normed.to(dtype) * self.weight


class Block(nn.Module):
    """One Transformer layer. Its parameters carry the names of the Hugging Face checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, offset = config, 1.0 if config.is_gemma else 0.0
        self.config = config
        self.q_proj = nn.Linear(c.width, c.num_heads * c.head_width, bias=c.qkv_bias)
        self.k_proj = nn.Linear(c.width, c.num_kv_heads * c.head_width, bias=c.qkv_bias)
        self.v_proj = nn.Linear(c.width, c.num_kv_heads * c.head_width, bias=c.qkv_bias)
        o_bias = c.qkv_bias and c.family == "llama"
        self.o_proj = nn.Linear(c.num_heads * c.head_width, c.width, bias=o_bias)
        self.gate_proj = nn.Linear(c.width, c.ffn_width, bias=False)
        self.up_proj = nn.Linear(c.width, c.ffn_width, bias=False)
        self.down_proj = nn.Linear(c.ffn_width, c.width, bias=False)
        self.input_layernorm = RMSNorm(c.width, c.norm_eps, offset)
        # Gemma3 norms the output of each half too, and calls the norm before the FFN another name.
        self.ffn_layernorm = RMSNorm(c.width, c.norm_eps, offset)
        if c.is_gemma:
            self.attention_out_layernorm = RMSNorm(c.width, c.norm_eps, offset)
            self.ffn_out_layernorm = RMSNorm(c.width, c.norm_eps, offset)
        if c.has_qk_norm:
            self.q_norm = RMSNorm(c.head_width, c.norm_eps, offset)
            self.k_norm = RMSNorm(c.head_width, c.norm_eps, offset)

    def forward(
        self,
        layer: int,
        hidden_BLD: Tensor,
        rotation: tuple[Tensor, Tensor],
        attention: Attention,
        hook: AdapterHook | None,
    ) -> Tensor:
        """See ``Layer``; ``layer`` is this block's number, ``rotation`` the cosines and sines of the positions."""
        c = self.config
        skip = attention.skip
        x_BLD = self.input_layernorm(hidden_BLD)
        q_BHLK = self._heads(layer, "q", x_BLD[:, skip:], hook)
        k_BGLK = self._heads(layer, "k", x_BLD, hook)
        v_BGLK = self._heads(layer, "v", x_BLD, hook)
        if c.has_qk_norm:
            q_BHLK, k_BGLK = self.q_norm(q_BHLK), self.k_norm(k_BGLK)
        cos_BLK, sin_BLK = rotation
        q_BHLK = rotate(q_BHLK, cos_BLK[:, skip:], sin_BLK[:, skip:])
        k_BGLK = rotate(k_BGLK, cos_BLK, sin_BLK)
        mixed_BHLK = attention(q_BHLK, k_BGLK, v_BGLK, c.windows[layer], c.attention_scale)
        y_BLD = self._linear(layer, "o", mixed_BHLK.transpose(1, 2).flatten(2), hook)
        hidden_BLD = hidden_BLD[:, skip:] + (self.attention_out_layernorm(y_BLD) if c.is_gemma else y_BLD)
        x_BLD = self.ffn_layernorm(hidden_BLD)
        activation = ACTIVATIONS[c.activation]
        inner = activation(self._linear(layer, "gate", x_BLD, hook)) * self._linear(layer, "up", x_BLD, hook)
        y_BLD = self._linear(layer, "down", inner, hook)
        if hook is not None:
            y_BLD = hook.ffn(layer, x_BLD, y_BLD)
        return hidden_BLD + (self.ffn_out_layernorm(y_BLD) if c.is_gemma else y_BLD)

    def _linear(self, layer: int, name: str, x_BLD: Tensor, hook: AdapterHook | None) -> Tensor:
        y_BLD: Tensor = getattr(self, f"{name}_proj")(x_BLD)
        return y_BLD if hook is None else hook.linear(layer, name, x_BLD, y_BLD)

    def _heads(self, layer: int, name: str, x_BLD: Tensor, hook: AdapterHook | None) -> Tensor:
        y_BLD = self._linear(layer, name, x_BLD, hook)
        head_width = self.config.head_width
        return y_BLD.view(*y_BLD.shape[:2], y_BLD.shape[2] // head_width, head_width).transpose(1, 2)


def rotate(x_BHLK: Tensor, cos_BLK: Tensor, sin_BLK: Tensor) -> Tensor:
    """Rotary position embedding (Su et al., 2021), halves rotated against each other as in Llama."""
    first, second = x_BHLK.chunk(2, -1)
    turned = torch.cat([-second, first], -1)
    return x_BHLK * cos_BLK[:, None] + turned * sin_BLK[:, None]


def _frequencies(rope: RopeConfig, head_width: int, device: torch.device) -> Tensor:
    frequency = rope.theta ** -(torch.arange(0, head_width, 2, dtype=torch.float32, device=device) / head_width)
    if rope.scaling == "linear":
        return frequency / rope.factor
    if rope.scaling == "llama3":
        wavelength = 2 * math.pi / frequency
        low, high = rope.low_freq_factor, rope.high_freq_factor
        smooth = ((rope.original_length / wavelength - low) / (high - low)).clamp(0, 1)
        return (1 - smooth) * frequency / rope.factor + smooth * frequency
    return frequency


class Model(nn.Module):
    """A foundation. Parameters are frozen; dtype and device are those of its weights.

    Attributes:
        config: Its shape.
        id: A short digest of the weights' names and contents, part of every cache key.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.id = "untitled"
        offset = 1.0 if config.is_gemma else 0.0
        if config.reader is not None:
            self.reader = Model(config.reader)
        else:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.embed_width or config.width)
        if config.narrow:
            self.widen = nn.Linear(config.narrow, config.width, bias=config.reader is not None)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.norm = RMSNorm(config.width, config.norm_eps, offset)
        if not config.tied and not config.narrow:
            self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.requires_grad_(False)

    def block(self, layer: int) -> Block:
        """The weights that a layer runs."""
        block = self.layers[self.config.block(layer)]
        assert isinstance(block, Block)
        return block

    def unshared(self) -> Model:
        """The same model, of the same weights, where each layer has a block of its own."""
        with torch.device("meta"):
            unshared = Model(replace(self.config, blocks=()))
        rest = {name: weight for name, weight in self.state_dict().items() if not name.startswith("layers.")}
        blocks = {
            f"layers.{layer}.{name}": weight
            for layer in range(self.config.num_layers)
            for name, weight in self.block(layer).state_dict().items()
        }
        unshared.load_state_dict({**rest, **blocks}, assign=True)
        return unshared

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm.weight.device

    @property
    def at_once(self) -> int:
        """How many times as many tokens as cores its device takes at once: 8 on a GPU.

        That doubles the candidates and triples the segments an H100 reads a second; 32 adds nothing to it.
        """
        return 1 if self.device.type == "cpu" else 8

    @property
    def dtype(self) -> torch.dtype:
        """The type that hidden states are computed in."""
        return self.norm.weight.dtype

    @property
    def head_VD(self) -> Tensor:
        """The output embedding: a row a token, shared with the input where the model is tied.

        Raises:
            ConfigError: The model was shrunk to read, and has none.
        """
        if self.config.narrow:
            raise ConfigError("this foundation was shrunk and only reads; load the one that it was made from to write")
        weight: Tensor = self.embed_tokens.weight if self.config.tied else self.lm_head.weight
        return weight

    def num_parameters(self) -> int:
        """Parameters of the foundation, tied ones once."""
        return sum(p.numel() for p in self.parameters())

    def embed(self, ids_BL: Tensor, positions_BL: Tensor | None = None, mask_BLL: Tensor | None = None) -> Tensor:
        """Token ids → hidden_BLD before the first layer; a reader reads the rows as ``lower`` does."""
        if self.config.reader is not None:
            depth = self.config.reader.num_layers
            read_BLD = self.reader.lower(ids_BL, depth, positions_BL=positions_BL, mask_BLL=mask_BLL)
            widened_BLD: Tensor = self.widen(self.reader.finish(read_BLD))
            return widened_BLD
        hidden_BLD: Tensor = self.embed_tokens(ids_BL)
        if self.config.embed_width:
            hidden_BLD = self.widen(hidden_BLD)
        if self.config.is_gemma:
            # Rounded to the working type first, as the model was trained.
            hidden_BLD = hidden_BLD * torch.tensor(self.config.width**0.5, dtype=self.dtype, device=self.device)
        return hidden_BLD

    def run(
        self,
        hidden_BLD: Tensor,
        positions_BL: Tensor,
        attention: Attention,
        *,
        first: int = 0,
        last: int | None = None,
        hook: AdapterHook | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Runs layers [first, last) and returns their hidden_BLD, not yet normed; calls ``between`` after each."""
        c = self.config
        rotations: dict[RopeConfig, tuple[Tensor, Tensor]] = {}
        for layer in range(first, c.num_layers if last is None else last):
            rope = c.rope if c.windows[layer] is None else c.local_rope
            if rope not in rotations:
                angle_BLK = positions_BL[..., None].float() * _frequencies(rope, c.head_width, self.device)
                angle_BLK = torch.cat([angle_BLK, angle_BLK], -1)
                rotations[rope] = angle_BLK.cos().to(self.dtype), angle_BLK.sin().to(self.dtype)
            block = self.block(layer)
            chosen: Layer = block if hook is None else hook.block(layer, block)
            hidden_BLD = chosen(layer, hidden_BLD, rotations[rope], attention, hook)
            between()
        return hidden_BLD

    def finish(self, hidden_BLD: Tensor) -> Tensor:
        """The final norm: what readouts read."""
        normed_BLD: Tensor = self.norm(hidden_BLD, hidden_BLD.dtype)
        return normed_BLD

    def logits(self, normed_BLD: Tensor) -> Tensor:
        """Scores of all next tokens, logits_BLV, from ``finish``'s output."""
        return F.linear(normed_BLD.to(self.dtype), self.head_VD)

    def forward(self, ids_BL: Tensor, *, mask_BLL: Tensor | None = None, hook: AdapterHook | None = None) -> Tensor:
        """The unsplit model: logits_BLV under a causal mask, or under ``mask_BLL`` (True = may look)."""
        positions_BL = torch.arange(ids_BL.shape[1], device=ids_BL.device).expand_as(ids_BL)
        hidden_BLD = self.embed(ids_BL, positions_BL, mask_BLL)
        hidden_BLD = self.run(hidden_BLD, positions_BL, Dense(positions_BL, mask_BLL), hook=hook)
        return self.logits(self.finish(hidden_BLD))

    def lower(
        self,
        ids_BL: Tensor,
        depth: int,
        *,
        positions_BL: Tensor | None = None,
        mask_BLL: Tensor | None = None,
        hook: AdapterHook | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Layers [0, depth) on segments, each alone, causal, with positions from 0.

        Args:
            ids_BL: One segment a row, padded at the right; padding can't be seen from the left.
            depth: How many layers run ahead of time, 0 to ``num_layers``.
            positions_BL: Given with ``mask_BLL`` where a row holds a tree of segments (``text.prefixes``).
            mask_BLL: True where a token may look.
            hook: A tuning whose adapters reach the lower layers; the states are then its own.
            between: See ``run``.

        Returns:
            hidden_BLD, whose padded places mean nothing.
        """
        if positions_BL is None:
            positions_BL = torch.arange(ids_BL.shape[1], device=ids_BL.device).expand_as(ids_BL)
        hidden_BLD = self.embed(ids_BL, positions_BL, mask_BLL)
        attention = Dense(positions_BL, mask_BLL)
        return self.run(hidden_BLD, positions_BL, attention, last=depth, hook=hook, between=between)

    def upper(
        self,
        context_BND: Tensor,
        blocks_BCMD: Tensor,
        visible_BC: Tensor,
        depth: int,
        *,
        end: int | None = None,
        length_B: Tensor | None = None,
        hook: AdapterHook | None = None,
    ) -> Tensor:
        """Layers [depth, end) on a context and the candidates that share it.

        Args:
            context_BND: States of the user's segments, oldest first, padded at the right.
            blocks_BCMD: States of each candidate's segments, padded at the right.
            visible_BC: How many context tokens each candidate sees; its positions go on from there.
            depth: The split that the states were made with.
            end: Where to leave; None runs all layers.
            length_B: Given, the context is bidirectional within this many tokens; else it is causal.
            hook: A tuning.

        Returns:
            normed_BCMD, ready for a readout at each block's last valid token.
        """
        batch, count, size, width = blocks_BCMD.shape
        if not count:
            return blocks_BCMD
        num_context = context_BND.shape[1]
        device = context_BND.device
        context_positions = torch.arange(num_context, device=device).expand(batch, num_context)
        block_positions = (visible_BC[..., None] + torch.arange(size, device=device)).flatten(1)
        positions_BT = torch.cat([context_positions, block_positions], 1)
        # What the layers add up is kept in fp32, so that bf16 rounds only what each layer adds.
        hidden_BTD = torch.cat([context_BND, blocks_BCMD.flatten(1, 2)], 1).float()
        attention = SharedContext(positions_BT, visible_BC, num_context, size, length_B)
        end = self.config.num_layers if end is None else end
        if depth < end:
            hidden_BTD = self.run(hidden_BTD, positions_BT, attention, first=depth, last=end - 1, hook=hook)
            attention = replace(attention, skip=num_context)
            hidden_BTD = self.run(hidden_BTD, positions_BT, attention, first=end - 1, last=end, hook=hook)
        return self.finish(hidden_BTD[:, -count * size :]).view(batch, count, size, width)

    def forward_cached(
        self, queries: Sequence[CachedQuery], depth: int, *, end: int | None = None, hook: AdapterHook | None = None
    ) -> tuple[list[Tensor], list[KVCache]]:
        """``upper`` with a causal context, for users whose context has been read in part; no token of it is read twice.

        All tokens of all turns are rows of the same products, without padding.

        Args:
            queries: One a user.
            depth: The split that the states were made with.
            end: Where to leave; None runs all layers.
            hook: A tuning.

        Returns:
            Of each turn normed_CMD, and what its next turn takes as ``known``.
        """
        device = self.device
        counts = [query.blocks_CMD.shape[0] * query.blocks_CMD.shape[1] for query in queries]
        num_fresh, num_asked = sum(len(query.new_ND) for query in queries), sum(counts)
        states = [*(query.new_ND for query in queries), *(query.blocks_CMD.flatten(0, 1) for query in queries)]
        hidden_1TD = torch.cat(states)[None].float()
        positions = [torch.arange(query.num_cached, query.num_context, device=device) for query in queries]
        for query in queries:
            count, size, _ = query.blocks_CMD.shape
            positions.append((query.num_context + torch.arange(size, device=device)).repeat(count))
        positions_1T = torch.cat(positions)[None]
        layers: list[list[tuple[Tensor, Tensor]]] = []
        end = self.config.num_layers if end is None else end
        for layer in range(depth, end):
            last = layer == end - 1
            kept: list[tuple[Tensor, Tensor]] = []
            attention = CachedAttention(queries, layer - depth, kept, num_fresh if last else 0)
            hidden_1TD = self.run(hidden_1TD, positions_1T, attention, first=layer, last=layer + 1, hook=hook)
            layers.append(kept)
        normed_TD = self.finish(hidden_1TD[0, hidden_1TD.shape[1] - num_asked :])
        split = torch.split(normed_TD, counts)
        parts = [part.view(query.blocks_CMD.shape) for part, query in zip(split, queries, strict=True)]
        return parts, [tuple(kept[number] for kept in layers) for number in range(len(queries))]
