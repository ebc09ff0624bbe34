"""The shape of a foundation: Llama, Qwen2, Qwen3 and Gemma3-text, read from their Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

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
