"""The whole language model in one file: Llama, Qwen2, Qwen3 and Gemma3-text.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m6rec.errors import ConfigError

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3_text")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding of one kind of layer; ``scaling`` is "default", "linear" or "llama3"."""

    theta: float
    scaling: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a foundation, in the field names of its Hugging Face ``config.json``, shortened.

    Attributes:
        end_ids: The tokens that end a text.
        blocks: Which set of weights each layer runs, from 0; empty where each has its own.
        embed_width: Of a factorised token embedding, which is widened to ``width``; 0 where it has that width.
        reader: The shape of a smaller model whose states, widened, stand in place of embeddings (``edge.shrink``).
        removed_heads: Heads that the layers had more before they were pruned; adapters stay as wide as they were.
    """

    family: str
    vocab_size: int
    width: int
    ffn_width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    activation: str
    norm_eps: float
    rope: RopeConfig
    local_rope: RopeConfig
    windows: tuple[int | None, ...]
    qkv_bias: bool = False
    tied: bool = True
    attention_scale: float
    end_ids: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    embed_width: int = 0
    reader: ModelConfig | None = None
    removed_heads: int = 0

    def block(self, layer: int) -> int:
        """The set of weights that a layer runs."""
        return self.blocks[layer] if self.blocks else layer

    @property
    def num_blocks(self) -> int:
        """Sets of weights."""
        return max(self.blocks) + 1 if self.blocks else self.num_layers

    @property
    def narrow(self) -> int:
        """The width of what is widened to hidden states before the first layer; 0 where nothing is."""
        return self.reader.width if self.reader is not None else self.embed_width

    @property
    def is_gemma(self) -> bool:
        """Whether norms are (1 + w), doubled around each half, and embeddings scaled by sqrt(D)."""
        return self.family == "gemma3_text"

    @property
    def has_qk_norm(self) -> bool:
        """Whether queries and keys are normalised per head before rotation."""
        return self.family in ("qwen3", "gemma3_text")

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Reads a Hugging Face configuration, of transformers 4 or 5.

        Raises:
            ConfigError: The family, its rotary variant or an option of it is not supported.
        """
        if raw.get("model_type") == "gemma3":
            raw = {"eos_token_id": raw.get("eos_token_id"), **raw.get("text_config", raw)}
        family = str(raw.get("model_type"))
        if family not in FAMILIES:
            raise ConfigError(f"model_type {family!r} is not supported; choose a model of {', '.join(FAMILIES)}")
        if raw.get("final_logit_softcapping") or raw.get("attn_logit_softcapping"):
            raise ConfigError("logit soft-capping (Gemma 2) is not supported; choose a Gemma 3 model")
        num_layers, num_heads = int(raw["num_hidden_layers"]), int(raw["num_attention_heads"])
        head_width = int(raw.get("head_dim") or raw["hidden_size"] // num_heads)
        activation = str(raw.get("hidden_activation") or raw.get("hidden_act") or "silu")
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation {activation!r} is not supported; known: {', '.join(ACTIVATIONS)}")
        rope, local_rope = _ropes(raw)
        end = raw.get("eos_token_id")
        return cls(
            family=family,
            vocab_size=int(raw["vocab_size"]),
            width=int(raw["hidden_size"]),
            ffn_width=int(raw["intermediate_size"]),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=int(raw.get("num_key_value_heads") or num_heads),
            head_width=head_width,
            activation=activation,
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            rope=rope,
            local_rope=local_rope,
            windows=_windows(raw, family, num_layers),
            qkv_bias=bool(raw.get("attention_bias", False)) or family == "qwen2",
            tied=bool(raw.get("tie_word_embeddings", family == "gemma3_text")),
            attention_scale=float(raw.get("query_pre_attn_scalar") or head_width) ** -0.5
            if family == "gemma3_text"
            else head_width**-0.5,
            end_ids=tuple(end) if isinstance(end, list) else () if end is None else (int(end),),
            blocks=tuple(map(int, raw.get("m6rec_blocks", ()))),
            embed_width=int(raw.get("m6rec_embed_width", 0)),
            reader=cls.from_hf(raw["m6rec_reader"]) if "m6rec_reader" in raw else None,
            removed_heads=int(raw.get("m6rec_removed_heads", 0)),
        )

    def to_hf(self) -> dict[str, Any]:
        """What ``from_hf`` reads. What Hugging Face has no name for is named ``m6rec_…``."""
        ropes = [
            {
                "rope_type": rope.scaling,
                "rope_theta": rope.theta,
                "factor": rope.factor,
                "low_freq_factor": rope.low_freq_factor,
                "high_freq_factor": rope.high_freq_factor,
                "original_max_position_embeddings": rope.original_length,
            }
            for rope in (self.rope, self.local_rope)
        ]
        window = next(filter(None, self.windows), None)
        return {
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "intermediate_size": self.ffn_width,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_width,
            "hidden_act": self.activation,
            "rms_norm_eps": self.norm_eps,
            "rope_parameters": {"full_attention": ropes[0], "sliding_attention": ropes[1]}
            if self.is_gemma
            else ropes[0],
            "sliding_window": window,
            "use_sliding_window": window is not None,
            "layer_types": ["full_attention" if of is None else "sliding_attention" for of in self.windows],
            "attention_bias": self.qkv_bias,
            "tie_word_embeddings": self.tied,
            "query_pre_attn_scalar": round(self.attention_scale**-2, 6),
            "eos_token_id": list(self.end_ids),
            "m6rec_blocks": list(self.blocks),
            "m6rec_embed_width": self.embed_width,
            "m6rec_removed_heads": self.removed_heads,
            **({"m6rec_reader": self.reader.to_hf()} if self.reader is not None else {}),
        }


def _ropes(raw: Mapping[str, Any]) -> tuple[RopeConfig, RopeConfig]:
    """(rope of full-attention layers, rope of sliding-window layers)."""

    def read(parameters: Mapping[str, Any], theta: float) -> RopeConfig:
        scaling = str(parameters.get("rope_type", parameters.get("type", "default")))
        if scaling not in ("default", "linear", "llama3"):
            raise ConfigError(f"rope scaling {scaling!r} is not supported; known: default, linear, llama3")
        return RopeConfig(
            theta=float(parameters.get("rope_theta", theta)),
            scaling=scaling,
            factor=float(parameters.get("factor", 1.0)),
            low_freq_factor=float(parameters.get("low_freq_factor", 1.0)),
            high_freq_factor=float(parameters.get("high_freq_factor", 4.0)),
            original_length=int(parameters.get("original_max_position_embeddings", 8192)),
        )

    gemma = str(raw.get("model_type")).startswith("gemma3")
    theta = float(raw.get("rope_theta") or (1e6 if gemma else 1e4))
    parameters = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if "full_attention" in parameters:
        return read(parameters["full_attention"], theta), read(parameters["sliding_attention"], 1e4)
    rope = read(parameters, theta)
    return rope, RopeConfig(theta=float(raw.get("rope_local_base_freq", 1e4))) if gemma else rope


def _windows(raw: Mapping[str, Any], family: str, num_layers: int) -> tuple[int | None, ...]:
    """The attention window of each layer in tokens; None sees everything."""
    window = raw.get("sliding_window")
    if window is None or family == "llama" or (family != "gemma3_text" and not raw.get("use_sliding_window")):
        return (None,) * num_layers
    kinds = raw.get("layer_types")
    if kinds is None and family == "gemma3_text":
        pattern = int(raw.get("sliding_window_pattern", 6))
        kinds = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(num_layers)]
    elif kinds is None:
        first = int(raw.get("max_window_layers", 0))
        kinds = ["full_attention" if i < first else "sliding_attention" for i in range(num_layers)]
    return tuple(int(window) if kind == "sliding_attention" else None for kind in kinds)


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


class Attention(Protocol):
    """An attention pattern: mixes values by queries and keys, rotated already.

    Attributes:
        skip: How many tokens, from the first, are only looked at: a block makes no query and no output for them.
    """

    @property
    def skip(self) -> int:
        """See the attributes."""

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int | None, scale: float) -> Tensor:
        """Returns the mixed values, as ``q_BHTK``."""


@dataclass(frozen=True)
class Dense:
    """Attention over rows of tokens: causal where ``mask_BLL`` is None, else True where a query may look.

    ``skip`` needs a mask, of the queries that there are.
    """

    positions_BL: Tensor
    mask_BLL: Tensor | None = None
    skip: int = 0

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int | None, scale: float) -> Tensor:
        """See ``Attention``."""
        grouped = q_BHTK.shape[1] != k_BGTK.shape[1]
        length = q_BHTK.shape[2]
        if self.mask_BLL is None and (window is None or window >= length):
            return F.scaled_dot_product_attention(
                q_BHTK, k_BGTK, v_BGTK, is_causal=True, scale=scale, enable_gqa=grouped
            )
        mask_BLL = self.mask_BLL
        if mask_BLL is None:
            mask_BLL = torch.ones(length, length, dtype=torch.bool, device=q_BHTK.device).tril()[None]
        if window is not None:
            distance_BLL = self.positions_BL[:, self.skip :, None] - self.positions_BL[:, None, :]
            mask_BLL = mask_BLL & (distance_BLL.abs() < window)
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGTK, v_BGTK, attn_mask=mask_BLL[:, None], scale=scale, enable_gqa=grouped
        )


@dataclass(frozen=True)
class SharedContext:
    """Attention of N context tokens followed by C candidate blocks of M tokens, laid in one row.

    The context is causal, or bidirectional within ``length_B``. Candidate block c sees, causally, itself, and the first
    ``visible_BC[b, c]`` context tokens, or all of them where that is None (which leaves no room for windows); never
    another block. No key is copied per candidate: the scores against the context are one matrix product, those within a
    block another, and one softmax spans both. ``skip`` is 0, or N in the last layer, of whose context nobody reads the
    output.
    """

    positions_BT: Tensor
    visible_BC: Tensor | None
    num_context: int
    block_size: int
    length_B: Tensor | None = None
    skip: int = 0

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int | None, scale: float) -> Tensor:
        """See ``Attention``."""
        n, m = self.num_context, self.block_size
        mixed = []
        if n and not self.skip:
            context = Dense(self.positions_BT[:, :n], self._context_mask_BNN())
            mixed.append(context(q_BHTK[:, :, :n], k_BGTK[:, :, :n], v_BGTK[:, :, :n], window, scale))
        batch, heads, _, width = q_BHTK.shape
        groups = k_BGTK.shape[1]
        count = (k_BGTK.shape[2] - n) // m
        # R query heads share a key head.
        q_BGRCMK = (q_BHTK[:, :, n - self.skip :] * scale).reshape(batch, groups, heads // groups, count, m, width)
        k_BG1CMK = k_BGTK[:, :, n:].reshape(batch, groups, 1, count, m, width)
        v_BG1CMK = v_BGTK[:, :, n:].reshape(batch, groups, 1, count, m, width)
        rows = heads // groups * count * m
        past = q_BGRCMK.reshape(batch, groups, rows, width) @ k_BGTK[:, :, :n].transpose(-1, -2)
        past_BGRCMN = past.view(batch, groups, heads // groups, count, m, n)
        if self.visible_BC is not None:
            hidden_BCMN = self._hidden_BCMN(self.visible_BC, window)
            past_BGRCMN = past_BGRCMN.masked_fill(hidden_BCMN[:, None, None], -math.inf)
        if m == 1:  # a product and a sum are faster than many products of one row with one column
            own_BGRCMM = (q_BGRCMK * k_BG1CMK).sum(-1, keepdim=True)
        else:
            own_BGRCMM = q_BGRCMK @ k_BG1CMK.transpose(-1, -2)
            own_BGRCMM = own_BGRCMM.masked_fill(self._hidden_MM(q_BHTK.device, window), -math.inf)
        weights = torch.softmax(torch.cat([past_BGRCMN, own_BGRCMM], -1), -1)
        from_past = weights[..., :n].reshape(batch, groups, rows, n) @ v_BGTK[:, :, :n]
        from_own = weights[..., n:] * v_BG1CMK if m == 1 else weights[..., n:] @ v_BG1CMK
        mixed.append((from_past.view(q_BGRCMK.shape) + from_own).reshape(batch, heads, count * m, width))
        return torch.cat(mixed, 2)

    def _context_mask_BNN(self) -> Tensor | None:
        if self.length_B is None:
            return None
        valid_BN = torch.arange(self.num_context, device=self.length_B.device) < self.length_B[:, None]
        own = torch.eye(self.num_context, dtype=torch.bool, device=valid_BN.device)
        return valid_BN[:, None, :] | own

    def _hidden_BCMN(self, visible_BC: Tensor, window: int | None) -> Tensor:
        """True where a token of a block may not look at a context token; M is 1 where all tokens see alike."""
        index_N = torch.arange(self.num_context, device=visible_BC.device)
        hidden_BCMN = (index_N >= visible_BC[..., None])[:, :, None]
        if window is not None:
            position_BCM = self.positions_BT[:, self.num_context :].view(*visible_BC.shape, self.block_size)
            distance_BCMN = position_BCM[..., None] - self.positions_BT[:, None, None, : self.num_context]
            hidden_BCMN = hidden_BCMN | (distance_BCMN >= window)
        return hidden_BCMN

    def _hidden_MM(self, device: torch.device, window: int | None) -> Tensor:
        """True where a token of a block may not look at another of the same block."""
        hidden_MM = torch.ones(self.block_size, self.block_size, dtype=torch.bool, device=device)
        return hidden_MM.triu(1) if window is None else hidden_MM.triu(1) | hidden_MM.tril(-window)


KVCache = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of a context, (k_GNK, v_GNK) of each upper layer."""


@dataclass(frozen=True, eq=False)
class CachedQuery:
    """A user's part in ``Model.forward_cached``.

    Attributes:
        cache: Keys and values of the context so far; empty at first.
        new_ND: States of the context tokens since.
        blocks_CMD: States of the candidates' tokens, as many of each; every candidate sees the whole context. None are
            needed where only the context is to be read.
    """

    cache: KVCache
    new_ND: Tensor
    blocks_CMD: Tensor

    @property
    def num_cached(self) -> int:
        """Context tokens in the cache."""
        return self.cache[0][0].shape[1] if self.cache else 0

    @property
    def num_context(self) -> int:
        """Context tokens, cached and new."""
        return self.num_cached + len(self.new_ND)


@dataclass(frozen=True)
class _CachedAttention:
    """Attention of one layer over the fresh context tokens of all turns, then over the tokens of all candidates.

    Attributes:
        queries: In the order of the rows.
        layer: Counted from the first upper layer.
        kept: Takes each turn's keys and values of the whole context.
        skip: 0, or all fresh tokens in the last layer, where nobody reads their output.
    """

    queries: Sequence[CachedQuery]
    layer: int
    kept: list[tuple[Tensor, Tensor]]
    skip: int

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int | None, scale: float) -> Tensor:
        """See ``Attention``."""
        mixed, asked = [], []
        start, block = 0, sum(len(query.new_ND) for query in self.queries)
        for query in self.queries:
            end = start + len(query.new_ND)
            k, v = k_BGTK[:, :, start:end], v_BGTK[:, :, start:end]
            if query.cache:
                known_k, known_v = (part[None] for part in query.cache[self.layer])
                k, v = (known_k, known_v) if end == start else (torch.cat([known_k, k], 2), torch.cat([known_v, v], 2))
            self.kept.append((k[0].contiguous(), v[0].contiguous()))  # not views of what belongs to the whole pass
            total, device = query.num_context, q_BHTK.device
            if end > start and not self.skip:
                positions_1L = torch.arange(total, device=device)[None]
                mask_1NL = torch.ones(total, total, dtype=torch.bool, device=device).tril()[None, query.num_cached :]
                if window is not None:
                    mask_1NL = mask_1NL & (positions_1L[:, query.num_cached :, None] - positions_1L[:, None] < window)
                grouped = q_BHTK.shape[1] != k_BGTK.shape[1]
                q = q_BHTK[:, :, start:end]
                mixed.append(
                    F.scaled_dot_product_attention(
                        q, k, v, attn_mask=mask_1NL[:, None], scale=scale, enable_gqa=grouped
                    )
                )
            count, size, _ = query.blocks_CMD.shape
            block_end = block + count * size
            q = q_BHTK[:, :, block - self.skip : block_end - self.skip]
            own_k, own_v = (part[:, :, block:block_end] for part in (k_BGTK, v_BGTK))
            attention = self._candidates(query, window)
            asked.append(attention(q, torch.cat([k, own_k], 2), torch.cat([v, own_v], 2), window, scale))
            start, block = end, block_end
        return torch.cat([*mixed, *asked], 2)

    @staticmethod
    def _candidates(query: CachedQuery, window: int | None) -> SharedContext:
        count, size, _ = query.blocks_CMD.shape
        total, device = query.num_context, query.blocks_CMD.device
        own = (total + torch.arange(size, device=device)).repeat(count)
        positions_1T = torch.cat([torch.arange(total, device=device), own])[None]
        visible_1C = None
        if window is not None and window < total + size:
            visible_1C = torch.full((1, count), total, device=device)
        return SharedContext(positions_1T, visible_1C, total, size, skip=total)


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
            attention = _CachedAttention(queries, layer - depth, kept, num_fresh if last else 0)
            hidden_1TD = self.run(hidden_1TD, positions_1T, attention, first=layer, last=layer + 1, hook=hook)
            layers.append(kept)
        normed_TD = self.finish(hidden_1TD[0, hidden_1TD.shape[1] - num_asked :])
        split = torch.split(normed_TD, counts)
        parts = [part.view(query.blocks_CMD.shape) for part, query in zip(split, queries, strict=True)]
        return parts, [tuple(kept[number] for kept in layers) for number in range(len(queries))]
