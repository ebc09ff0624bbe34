"""Foundations on disk: a Hugging Face folder, a hub id, a GGUF file or one of our named assets → ``Model``."""

from __future__ import annotations

import glob
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from m6rec import assets, files
from m6rec.errors import AssetError, ConfigError
from m6rec.files import new_folder
from m6rec.fingerprint import changed, digest, of_file
from m6rec.foundation.config import ModelConfig
from m6rec.foundation.model import Model
from m6rec.text.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
AUTO = "auto"
"""The faster of ``DTYPES`` on the device, see ``fastest``."""


@dataclass(frozen=True)
class Foundation:
    """A model with its tokenizer; ``source`` is what the user named."""

    model: Model
    tokenizer: Tokenizer
    source: str


def load(
    source: str = assets.DEFAULT_FOUNDATION,
    *,
    dtype: str = AUTO,
    device: str = "cpu",
    accept_licence: bool = False,
) -> Foundation:
    """Loads a foundation.

    Args:
        source: A name of ``m6rec assets list``, a folder with config.json and safetensors, a .gguf file, or a
            hub id such as ``HuggingFaceTB/SmolLM2-135M``.
        dtype: "float32", "bfloat16", or "auto" for the faster of them on the device.
        device: "cpu", "cuda", "cuda:1", …
        accept_licence: Needed once for assets under a licence with terms of use.

    Raises:
        AssetError: Nothing loadable stands behind ``source``.
        ConfigError: The model's family, the dtype or the device is not supported.
    """
    if dtype not in (AUTO, *DTYPES):
        raise ConfigError(f"dtype {dtype!r} is not supported; choose one of {', '.join((AUTO, *DTYPES))}")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device {device!r} is unknown; give cpu, cuda, cuda:1, …") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} was asked for, but no CUDA device is visible; use --device cpu")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r} was asked for, but there are {torch.cuda.device_count()}, from cuda:0")
    folder = locate(source, accept_licence=accept_licence)
    config = _read_config(folder)
    with torch.device("meta"):
        model = Model(config)
    try:
        model.load_state_dict(_rename(_read_weights(folder), config, folder), assign=True)
    except RuntimeError as error:
        raise AssetError(f"the weights in {folder} don't have the shapes of its config.json: {error}") from error
    model.requires_grad_(False)
    tokenizer = Tokenizer.open(folder)
    model.id = _id(folder, config)
    return Foundation(
        model.to(device=device, dtype=fastest(place) if dtype == AUTO else DTYPES[dtype]), tokenizer, source
    )


def fastest(device: torch.device) -> torch.dtype:
    """The type in which a device multiplies fastest: bfloat16 where it has instructions for it.

    A processor without them emulates it: one with AVX2 alone makes 8 GFLOP/s of bfloat16 and 60 of float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    x86 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    arm = platform.machine() in ("arm64", "aarch64") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if x86 or arm else torch.float32


def model_config_of(source: str) -> ModelConfig:
    """The shape of a foundation, whose weights are not read. Raises as ``load``."""
    return _read_config(locate(source))


def locate(source: str, *, accept_licence: bool = False) -> Path:
    """The local folder of a foundation, fetched and converted where needed. Raises as ``load``."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.suffix == ".gguf":
        if not path.is_file():
            raise AssetError(f"no GGUF file at {path}; check the path")
        return _converted(path)
    if source in assets.names():
        folder = assets.get(source, accept_licence=accept_licence)
        return _converted(next(folder.glob("*.gguf")))
    if source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return _from_hub(source)
    raise AssetError(
        f"no foundation {source!r}: it is neither a folder here, nor a .gguf file, nor one of "
        f"{', '.join(assets.names())}. Give --foundation one of these, or a hub id such as HuggingFaceTB/SmolLM2-135M."
    )


def save(model: Model, raw_config: Mapping[str, object], tokenizer_json: Path, folder: Path) -> None:
    """Writes a foundation as a new Hugging Face folder (config.json, model.safetensors, tokenizer.json), atomically.

    Raises:
        ConfigError: The folder exists.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists already; give a new folder, or remove it first")
    with new_folder(folder) as partial:
        names = {ours: theirs for theirs, ours in _names(model.config).items()}
        tensors = {names[name]: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        (partial / "config.json").write_text(json.dumps(dict(raw_config), indent=1))
        shutil.copyfile(tokenizer_json, partial / "tokenizer.json")


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=["*.safetensors", "*.json"]))
    except Exception as error:
        raise AssetError(
            f"could not fetch {source!r} from the model hub ({type(error).__name__}). "
            "Connect to a network that reaches it, or give --foundation a local folder, or one of "
            f"{', '.join(assets.names())}."
        ) from error


def _read_config(folder: Path) -> ModelConfig:
    try:
        return ModelConfig.from_hf(json.loads((folder / "config.json").read_text()))
    except KeyError as error:
        raise AssetError(f"{folder / 'config.json'} lacks {error}; give a Hugging Face model folder") from error
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise AssetError(
            f"{folder} holds no readable config.json ({error}); give a Hugging Face model folder"
        ) from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise AssetError(f"{folder} holds no .safetensors file; convert the weights first (we never unpickle)")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise AssetError(f"{file} is damaged ({error}); delete it and fetch it again") from error
    return tensors


def _names(config: ModelConfig) -> dict[str, str]:
    """Their parameter names → ours; what they don't know has the same name in both."""
    names = {"model.norm.weight": "norm.weight"}
    if config.reader is None:
        names["model.embed_tokens.weight"] = "embed_tokens.weight"
    else:
        names |= {f"reader.{theirs}": f"reader.{ours}" for theirs, ours in _names(config.reader).items()}
        names["widen.bias"] = "widen.bias"
    if config.narrow:
        names["widen.weight"] = "widen.weight"
    elif not config.tied:
        names["lm_head.weight"] = "lm_head.weight"
    attention = ["q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"]
    if config.qkv_bias:
        attention += ["q_proj.bias", "k_proj.bias", "v_proj.bias"] + ["o_proj.bias"] * (config.family == "llama")
    if config.has_qk_norm:
        attention += ["q_norm.weight", "k_norm.weight"]
    norms = {"input_layernorm": "input_layernorm", "post_attention_layernorm": "ffn_layernorm"}
    if config.is_gemma:
        norms |= {
            "post_attention_layernorm": "attention_out_layernorm",
            "pre_feedforward_layernorm": "ffn_layernorm",
            "post_feedforward_layernorm": "ffn_out_layernorm",
        }
    for i in range(config.num_blocks):
        theirs, ours = f"model.layers.{i}", f"layers.{i}"
        names |= {f"{theirs}.self_attn.{name}": f"{ours}.{name}" for name in attention}
        names |= {
            f"{theirs}.mlp.{name}.weight": f"{ours}.{name}.weight" for name in ("gate_proj", "up_proj", "down_proj")
        }
        names |= {f"{theirs}.{name}.weight": f"{ours}.{mine}.weight" for name, mine in norms.items()}
    return names


def _rename(tensors: Mapping[str, Tensor], config: ModelConfig, folder: Path) -> dict[str, Tensor]:
    # Gemma 3 checkpoints with a vision tower keep the text model under one more prefix.
    tensors = {name.removeprefix("language_model."): tensor for name, tensor in tensors.items()}
    names = _names(config)
    missing = sorted(names.keys() - tensors.keys())
    if missing:
        raise AssetError(
            f"{folder} lacks {len(missing)} weights, the first is {missing[0]}; it is not a whole checkpoint"
        )
    unknown = sorted(name for name in tensors.keys() - names.keys() if _matters(name))
    if unknown:
        raise ConfigError(
            f"{folder} has {len(unknown)} weights that we don't know of a {config.family} model, "
            f"the first is {unknown[0]}; quantised checkpoints and biases of the feed-forward half are not supported"
        )
    return {ours: tensors[theirs] for theirs, ours in names.items()}


def _matters(name: str) -> bool:
    """Whether leaving a weight out would change the text model: not so for tables that can be computed anew."""
    return name.startswith("model.layers.") and not name.endswith("rotary_emb.inv_freq")


def _id(folder: Path, config: ModelConfig) -> str:
    """The digest of all that determines a state: weights, tokenizer.json, and what is read of config.json."""
    weights = _digest(sorted(folder.glob("*.safetensors")), folder / ".m6rec-digest.json")
    return digest([weights, of_file(folder / "tokenizer.json"), changed(config)])


def _digest(large: Sequence[Path], note: Path) -> str:
    """The digest of large files, remembered in a note where that can be written, until one of them changes."""
    stats = [file.stat() for file in large]
    # The time of the last change of an inode can't be set, so a file that is put in the place of another is seen.
    stamp = [
        [file.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        for file, stat in zip(large, stats, strict=True)
    ]
    try:
        known = json.loads(note.read_text())
        if known["stamp"] == stamp:
            return str(known["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = digest([of_file(file) for file in large])
    if os.access(note.parent, os.W_OK):
        files.write(note, json.dumps({"stamp": stamp, "digest": found}))
    return found


def _converted(gguf: Path) -> Path:
    """The safetensors folder of a GGUF file, dequantised once to bf16-exact fp32 and kept beside it.

    Its name has the digest of the file, so one that is replaced is converted anew; the conversion of the old one goes.
    """
    source = of_file(gguf)
    folder = gguf.with_name(f"{gguf.stem}.{source}.safetensors.d")
    if folder.is_dir():
        return folder
    import transformers

    transformers.logging.set_verbosity_error()
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    except Exception as error:
        raise AssetError(
            f"could not read {gguf} as a GGUF model ({error}); supported: Llama, Qwen2/3, Gemma3"
        ) from error
    raw = {name: value for name, value in theirs.config.to_dict().items() if name != "quantization_config"}
    tied = bool(raw.get("tie_word_embeddings"))
    tensors = {n: t.contiguous() for n, t in theirs.state_dict().items() if not (tied and n == "lm_head.weight")}
    try:
        with new_folder(folder) as partial:
            save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
            (partial / "config.json").write_text(json.dumps(raw, indent=1, default=str))
            tokenizer.backend_tokenizer.save(str(partial / "tokenizer.json"))
    except ConfigError:  # another process has converted the same file meanwhile
        return folder
    for old in gguf.parent.glob(f"{glob.escape(gguf.stem)}.{'[0-9a-f]' * len(source)}.safetensors.d"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder
