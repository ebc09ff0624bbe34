"""One task's tuning of a foundation: created, applied, counted, merged, saved and loaded, whatever the method."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from m6rec.adapters import methods
from m6rec.adapters.base import Base
from m6rec.adapters.features import FeatureEncoder
from m6rec.adapters.prompt import Prompts
from m6rec.errors import AssetError, ConfigError
from m6rec.foundation.model import Block, Layer, Model
from m6rec.types import SLOTS

WEIGHTS, CARD = "tuning.safetensors", "card.json"


@dataclass(frozen=True, kw_only=True)
class TaskAdapterConfig:
    """How a task tunes the foundation.

    Attributes:
        method: A name of ``hooks.METHODS``.
        first_layer: Layers from here on are tuned. 0 tunes all, as the paper does; the depth of the split tunes the
            upper layers only, so that all tasks share one cache of lower states.
        num_classes: Answers that ``score`` tells apart; 0 for tasks that generate.
        num_prompts: Prompts of the methods that have them.
        adapter_rank: Width of the bottleneck of an adapter; 0 for the width of an attention head, as in the paper.
        lora_rank: Rank of LoRA's updates.
        lora_alpha: LoRA scales its updates by alpha / rank.
        num_features: Numbers of a question, from which its ``base`` is made; 0 for tasks without.
        gate_columns: Which of these numbers gate what is read (``Base``).
        num_event_features: Numbers a behaviour that ``encode_events`` takes; 0 for tasks without.
    """

    method: str
    first_layer: int
    num_classes: int = 2
    num_prompts: int = 8
    adapter_rank: int = 0
    lora_rank: int = 8
    lora_alpha: float = 16.0
    num_features: int = 0
    gate_columns: tuple[int, ...] = ()
    num_event_features: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gate_columns", tuple(self.gate_columns))  # JSON knows lists only
        options = methods.named(self.method).options
        sizes = {"first_layer": 0, "num_classes": 0, "num_prompts": 1, "adapter_rank": 0, "lora_rank": 1}
        for name, least in sizes.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.num_classes == 1:
            raise ConfigError("num_classes is 1; give 2 or more, or 0 for a task without classes")
        if options and self.num_classes > self.num_prompts:
            raise ConfigError(
                f"method {self.method!r} uses the last {self.num_classes} prompts (num_classes) as options, "
                f"but num_prompts is {self.num_prompts}; give at least {self.num_classes}"
            )
        if self.method == "full" and self.first_layer:
            raise ConfigError(f"method 'full' tunes every layer, but first_layer is {self.first_layer}; choose 'upper'")
        if self.method == "upper" and not self.first_layer:
            raise ConfigError("method 'upper' needs the first layer to tune, but first_layer is 0; choose 'full'")


class TaskAdapter(nn.Module):
    """The parameters of one task, and the ``AdapterHook`` through which the foundation's layers see them.

    Parameters are fp32 and are cast to the type of the hidden states where they are used.

    Attributes:
        config: What it was made from.
        foundation: Id of the model that it belongs to.
        slots_SD: Segment embeddings in the order of ``types.SLOTS``, which the caller adds to the states of the
            upper layers (section 3.3); zero at first.
    """

    def __init__(
        self, config: TaskAdapterConfig, model: Model, generator: Generator, options_CD: Tensor | None = None
    ) -> None:
        super().__init__()
        method, width = methods.named(config.method), model.config.width
        if config.first_layer >= model.config.num_layers:
            raise ConfigError(
                f"first_layer is {config.first_layer}, but the foundation has {model.config.num_layers} layers, from 0"
            )
        if options_CD is not None and not method.options:
            raise ConfigError(f"method {config.method!r} has no option rows to start from given ones")
        self.config, self.foundation = config, model.id
        self.slots_SD = nn.Parameter(torch.zeros(len(SLOTS), width), requires_grad=method.slots)
        self.prompts = Prompts(model, config.num_prompts, generator, options_CD) if method.prompts else None
        self.module = method.module(config, model, generator)
        has_head = config.num_classes and not method.options
        self.head = _linear(width, config.num_classes, generator) if has_head else None
        has_base = config.num_features and config.num_classes
        self.base = Base(config.num_features, config.num_classes, config.gate_columns, generator) if has_base else None
        self.event_encoder = (
            FeatureEncoder(config.num_event_features, width, generator) if config.num_event_features else None
        )
        self.to(model.device)

    @property
    def prompts_PD(self) -> Tensor:
        """Prompts that the caller puts before the context; P is 0 in methods without prompts."""
        return self.slots_SD.new_empty(0, self.slots_SD.shape[1]) if self.prompts is None else self.prompts.tokens()

    def encode_events(self, event_features_BNG: Tensor) -> Tensor:
        """What the caller adds to the state of each behaviour's last token, added_BND in fp32; zero at first.

        Raises:
            ConfigError: The tuning was made with ``num_event_features=0``.
        """
        if self.event_encoder is None:
            raise ConfigError("this tuning takes no event features; make one with num_event_features")
        added_BND: Tensor = self.event_encoder(event_features_BNG)
        return added_BND

    def block(self, layer: int, frozen: Block) -> Layer:
        """See ``AdapterHook``."""
        return self.module.block(layer, frozen)

    def linear(self, layer: int, name: str, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        return self.module.linear(layer, name, x_BLD, y_BLD)

    def ffn(self, layer: int, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        return self.module.ffn(layer, x_BLD, y_BLD)

    def score(self, normed_BD: Tensor, features_BF: Tensor | None = None) -> Tensor:
        """Logits of the classes, logits_BC in fp32: those of the base, if there is one, and what reading adds.

        Raises:
            ConfigError: The tuning was made with ``num_classes=0``.
        """
        base_BC, text_BC = self.parts(normed_BD, features_BF)
        return base_BC + text_BC

    def parts(self, normed_BD: Tensor, features_BF: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(logits_BC of the base, or zeros; logits_BC that reading adds), see ``score``.

        The latter are W(normed), or its products with the option prompts, times the gate of the base.
        """
        if not self.config.num_classes:
            raise ConfigError("this tuning has no classes to score; it was made with num_classes=0")
        if self.head is not None:
            text_BC = self.head(normed_BD.float())
        else:
            assert self.prompts is not None
            text_BC = normed_BD.float() @ self.prompts.rows(self.config.num_classes).T
        if self.base is None:
            return torch.zeros_like(text_BC), text_BC
        assert features_BF is not None, "the base of a score takes numbers"
        return self.base(features_BF), self.base.gate(features_BF) * text_BC

    def num_trainable(self) -> int:
        """How many parameters are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def trainable_share(self, model: Model) -> float:
        """Trained parameters as a share of the foundation's."""
        return self.num_trainable() / model.num_parameters()

    def digest(self) -> str:
        """A short digest of configuration and parameters, for the keys of caches whose states they shape."""
        digest = hashlib.blake2b(json.dumps([asdict(self.config), self.foundation]).encode(), digest_size=8)
        for name, tensor in self.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def merge(self, model: Model) -> Model:
        """A foundation that has the change in its own weights and shares the others with ``model``.

        The heads and segment embeddings stay here; run the result without a delta and read it with ``score``.

        Raises:
            ConfigError: The method can't be merged, or ``model`` is another foundation.
        """
        _require_foundation(self.foundation, model)
        try:
            changed = self.module.merged(model)
        except ConfigError as error:
            raise ConfigError(f"method {self.config.method!r} can't be merged: {error}") from None
        merged = model.unshared()
        merged.load_state_dict({**merged.state_dict(), **{n: w.detach() for n, w in changed.items()}}, assign=True)
        merged.id = f"{model.id}+{self.digest()}"
        return merged.requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Writes ``adapter.safetensors``, which holds the card too, and ``card.json``, a copy of it to read."""
        card = {
            "config": asdict(self.config),
            "foundation": self.foundation,
            "parameters": self.num_trainable(),
            "m6rec": version("m6rec"),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tuning-", dir=folder) as partial:
            save_file(
                {name: tensor.contiguous() for name, tensor in self.state_dict().items()},
                Path(partial, WEIGHTS),
                metadata={"card": json.dumps(card)},
            )
            Path(partial, CARD).write_text(json.dumps(card, indent=1) + "\n")
            for name in (WEIGHTS, CARD):
                os.replace(Path(partial, name), folder / name)


def create(config: TaskAdapterConfig, model: Model, *, seed: int, options_CD: Tensor | None = None) -> TaskAdapter:
    """A fresh tuning, on the device of ``model``, which changes none of its hidden states.

    Args:
        config: The method and its sizes.
        model: The foundation.
        seed: Fixes every initial value.
        options_CD: What option rows start from, such as the embeddings of the answer words.

    Raises:
        ConfigError: The configuration doesn't fit the model.
    """
    return TaskAdapter(config, model, Generator().manual_seed(seed), options_CD)


def load(folder: Path, model: Model) -> TaskAdapter:
    """Reads what ``TaskAdapter.save`` wrote.

    Raises:
        AssetError: The folder holds no readable tuning.
        ConfigError: It was made for another foundation than ``model``.
    """
    file = folder / WEIGHTS
    try:
        with safe_open(file, framework="pt") as stored:
            card = json.loads((stored.metadata() or {})["card"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
        config, foundation = TaskAdapterConfig(**card["config"]), str(card["foundation"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise AssetError(
            f"{file} is not an adapter that this m6rec can read ({error}); give the folder of a run, or tune it again"
        ) from error
    _require_foundation(foundation, model)
    adapter = create(config, model, seed=0)
    try:
        adapter.load_state_dict(tensors)
    except RuntimeError as error:
        raise AssetError(f"{file} has other parameters than this m6rec's adapters; tune again ({error})") from error
    return adapter


def _require_foundation(foundation: str, model: Model) -> None:
    if model.id != foundation:
        raise ConfigError(
            f"the tuning belongs to foundation {foundation}, but the model given is {model.id}; "
            "load the foundation it was made for, or tune again"
        )


def _linear(inputs: int, outputs: int, generator: Generator) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    nn.init.normal_(linear.weight, std=inputs**-0.5, generator=generator)
    nn.init.zeros_(linear.bias)
    return linear
