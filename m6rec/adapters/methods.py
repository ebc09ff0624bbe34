"""Tuning methods: what of the foundation's layers a task changes, and whether prompts and options go with it.

A method is a value that is found by its name in ``hooks.METHODS``; one of a package is used in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Generator

from m6rec import hooks
from m6rec.adapters.adapter import Adapters
from m6rec.adapters.blocks import Blocks
from m6rec.adapters.lora import LoRA
from m6rec.adapters.module import AdapterModule
from m6rec.foundation.model import Model

if TYPE_CHECKING:
    from m6rec.adapters.task_adapter import TaskAdapterConfig


def _nothing(config: TaskAdapterConfig, model: Model, generator: Generator) -> AdapterModule:
    return AdapterModule()


def _adapters(config: TaskAdapterConfig, model: Model, generator: Generator) -> AdapterModule:
    return Adapters(model, config.first_layer, config.adapter_rank, generator)


def _lora(config: TaskAdapterConfig, model: Model, generator: Generator) -> AdapterModule:
    return LoRA(model, config.first_layer, config.lora_rank, config.lora_alpha, generator)


def _blocks(config: TaskAdapterConfig, model: Model, generator: Generator) -> AdapterModule:
    return Blocks(model, config.first_layer)


@dataclass(frozen=True, kw_only=True)
class Method:
    """What a method is composed of.

    Attributes:
        module: Makes what it does to the layers; by default it leaves them alone.
        prompts: Whether it has prompts.
        options: Whether the last prompts are the rows of the softmax; else a linear head is.
        slots: Whether it trains the segment embeddings.
        reads: Sizes of ``TaskAdapterConfig`` that ``module`` takes; one that it doesn't take can't be set.
    """

    module: Callable[[TaskAdapterConfig, Model, Generator], AdapterModule] = _nothing
    prompts: bool = False
    options: bool = False
    slots: bool = True
    reads: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[str, ...]:
        """Sizes of ``TaskAdapterConfig`` that it takes."""
        return ("num_prompts", *self.reads) if self.prompts else self.reads


PROMPT = Method(prompts=True)
OPTION = Method(prompts=True, options=True)
ADAPTER = Method(module=_adapters, reads=("adapter_rank",))
OPTION_ADAPTER = Method(module=_adapters, prompts=True, options=True, reads=("adapter_rank",))
LORA = Method(module=_lora, reads=("lora_rank", "lora_alpha"))
HEAD = Method(slots=False)
UPPER = FULL = Method(module=_blocks)


def reading(size: str) -> list[str]:
    """Names of the methods that take a size of ``TaskAdapterConfig``."""
    found = {name: named(name) for name in hooks.METHODS.names()}
    return [name for name, one in found.items() if size in one.sizes]


def named(name: str) -> Method:
    """The method of a name of ``hooks.METHODS``, or of a path ``package.module:NAME``.

    Raises:
        ConfigError: There is no such method.
    """
    return hooks.METHODS.find_kind(name, Method)
