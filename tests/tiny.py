"""Small things with the shape of real ones, made in memory: no network, no files but those asked for."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import Parameter

from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.config import ModelConfig, RopeConfig
from m6rec.foundation.model import Model
from m6rec.readouts import EmbedModel, ScoreModel, TaskModelConfig
from m6rec.text.tokenizer import Tokenizer
from m6rec.types import Item

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB = 300

Tunings = tuple[EmbedModel, ScoreModel]
"""Models of retrieval and ranking, as ``Recommender`` takes them."""
MERGES = ("Ġt", "th", "he", "in", "er", "Ġa", "Ġm", "es", "on", "Ġs")


def fast_tokenizer() -> tokenizers.Tokenizer:
    """A byte-level BPE with ten merges and three control tokens, like SmolLM2's but small."""
    vocab = {piece: i for i, piece in enumerate((*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    for piece in MERGES:
        vocab[piece] = len(vocab)
    fast = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[(piece[0], piece[1]) for piece in MERGES]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(list(SPECIAL))
    return fast


def model(
    *,
    num_layers: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    blocks: tuple[int, ...] = (),
    window: int | None = None,
) -> Model:
    """A random Llama of width 32 with two query heads a key head.

    ``blocks`` says which weights the layers share, ``window`` how far every other layer sees.
    """
    rope = RopeConfig(theta=1e4)
    config = ModelConfig(
        family="llama",
        vocab_size=VOCAB,
        width=32,
        ffn_width=64,
        num_layers=num_layers,
        num_heads=4,
        num_kv_heads=2,
        head_width=8,
        activation="silu",
        norm_eps=1e-5,
        rope=rope,
        local_rope=rope,
        windows=tuple(window if layer % 2 else None for layer in range(num_layers)),
        attention_scale=8**-0.5,
        blocks=blocks,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Model(config)
    made.id = f"tiny-{num_layers}-{seed}" + "".join(map(str, blocks))
    return made.to(dtype)


def foundation(*, num_layers: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32) -> Foundation:
    """``model`` with its tokenizer."""
    return Foundation(model(num_layers=num_layers, seed=seed, dtype=dtype), Tokenizer(fast_tokenizer()), "tiny")


_SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_GEMMA_ROPES = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]

# Sliding windows are shorter than the texts of the tests.
HF_CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "llama-biased": lambda: transformers.LlamaConfig(**_SHAPE, attention_bias=True),
    "llama-llama3": lambda: transformers.LlamaConfig(**_SHAPE, rope_parameters=_LLAMA3),
    "llama-linear": lambda: transformers.LlamaConfig(
        **_SHAPE, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    ),
    "qwen2": lambda: transformers.Qwen2Config(**_SHAPE),
    "qwen2-sliding": lambda: transformers.Qwen2Config(
        **_SHAPE, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "qwen3": lambda: transformers.Qwen3Config(**_SHAPE, head_dim=16, tie_word_embeddings=True),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_SHAPE,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=5,
        layer_types=_SLIDING,
        rope_parameters=_GEMMA_ROPES,
    ),
}


def hf_folder(name: str, folder: Path, *, seed: int = 0) -> transformers.PreTrainedModel:
    """Writes the random model ``HF_CONFIGS[name]`` as a Hugging Face folder with a tokenizer, and returns it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        theirs = transformers.AutoModelForCausalLM.from_config(HF_CONFIGS[name](), attn_implementation="eager")
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.ndim == 1:  # gains and biases, which start as ones and zeros
                    parameter.add_(0.3 * torch.randn(parameter.shape))
    theirs.save_pretrained(folder)
    fast_tokenizer().save(str(folder / "tokenizer.json"))
    return theirs.eval()


def as_if_trained(parameters: Iterable[Parameter], *, seed: int = 0, scale: float = 0.05) -> None:
    """Moves fresh parameters, so that nothing is left at the value that does nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator).to(parameter.device))


def ids(*shape: int, seed: int = 0) -> Tensor:
    """Random token ids, control tokens left out."""
    return torch.randint(len(SPECIAL), VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def retrieval(foundation: Foundation, items: Sequence[Item], domain: str, **options: Any) -> EmbedModel:
    """A model of retrieval that nothing was learned for."""
    config = TaskModelConfig(task="retrieve", domain=domain, foundation="tiny")
    return EmbedModel.create(config, foundation, **options).whiten(items)
