"""Several tasks in one batch, each row with its own tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m6rec.adapters.task_adapter import TaskAdapter
from m6rec.errors import ConfigError
from m6rec.foundation.attention import Attention
from m6rec.foundation.model import AdapterHook, Block, Layer


class AdapterRouter:
    """A ``AdapterHook`` that gives row b of a batch the tuning ``adapters[task_B[b]]``.

    A batch of one task costs what that task costs. Otherwise prompts, adapters and LoRA work on the rows of their
    task, while a task with blocks of its own ("upper", "full") runs them on the whole batch and keeps its rows.

    Raises:
        ConfigError: The tunings belong to different foundations.
    """

    def __init__(self, adapters: Sequence[TaskAdapter], task_B: Tensor) -> None:
        foundations = sorted({adapter.foundation for adapter in adapters})
        if len(foundations) > 1:
            raise ConfigError(f"tunings of one batch must share a foundation; these belong to {', '.join(foundations)}")
        self._adapters, self._task_B = adapters, task_B
        if len(adapters) == 1:  # known without waiting for a GPU
            self._rows = {0: torch.arange(len(task_B), device=task_B.device)}
        else:
            self._rows = {task: (task_B == task).nonzero()[:, 0] for task in sorted(set(task_B.tolist()))}

    @classmethod
    def of_one(cls, adapter: TaskAdapter, num_rows: int) -> AdapterRouter:
        """The same adapter for every row of a batch."""
        return cls([adapter], torch.zeros(num_rows, dtype=torch.long, device=adapter.slots_SD.device))

    @property
    def prompts_BPD(self) -> Tensor:
        """The prompts of each row.

        Raises:
            ConfigError: The tasks have different numbers of prompts.
        """
        counts = {len(self._adapters[task].prompts_PD) for task in self._rows}
        if len(counts) > 1:
            raise ConfigError(f"tasks of one batch must have as many prompts each; these have {sorted(counts)}")
        return torch.stack([adapter.prompts_PD for adapter in self._adapters])[self._task_B]

    @property
    def slots_BSD(self) -> Tensor:
        """The segment embeddings of each row."""
        return torch.stack([adapter.slots_SD for adapter in self._adapters])[self._task_B]

    def encode_events(self, event_features_BNG: Tensor) -> Tensor:
        """Vectors to add to the last token of each event, added_BND in fp32; see ``TaskAdapter.encode_events``.

        They are 0 in rows of tasks without event features.
        """
        if len(self._rows) == 1 and (only := self._adapters[next(iter(self._rows))].event_encoder) is not None:
            return only(event_features_BNG)  # type: ignore[no-any-return]
        added_BND = event_features_BNG.new_zeros(*event_features_BNG.shape[:2], self._adapters[0].slots_SD.shape[-1])
        for task, rows in self._rows.items():
            encoder = self._adapters[task].event_encoder
            if encoder is not None:
                added_BND = added_BND.index_copy(0, rows, encoder(event_features_BNG[rows]))
        return added_BND

    def block(self, layer: int, frozen: Block) -> Layer:
        """See ``AdapterHook``."""
        blocks: dict[int, Layer] = {task: self._adapters[task].block(layer, frozen) for task in self._rows}
        if all(block is frozen for block in blocks.values()):
            return frozen
        if len(blocks) == 1:
            return next(iter(blocks.values()))
        return _Chosen(blocks, self._task_B)

    def linear(self, layer: int, name: str, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        return self._by_task(lambda adapter, x, y: adapter.linear(layer, name, x, y), x_BLD, y_BLD)

    def ffn(self, layer: int, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``AdapterHook``."""
        return self._by_task(lambda adapter, x, y: adapter.ffn(layer, x, y), x_BLD, y_BLD)

    def _by_task(self, hook: Callable[[TaskAdapter, Tensor, Tensor], Tensor], x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        if len(self._rows) == 1:
            return hook(self._adapters[next(iter(self._rows))], x_BLD, y_BLD)
        for task, rows in self._rows.items():
            y_BLD = y_BLD.index_copy(0, rows, hook(self._adapters[task], x_BLD[rows], y_BLD[rows]))
        return y_BLD


@dataclass(frozen=True)
class _Chosen:
    """Runs the block of every task and keeps, of each result, the rows of that task."""

    blocks: dict[int, Layer]
    task_B: Tensor

    def __call__(
        self,
        layer: int,
        hidden_BLD: Tensor,
        rotation: tuple[Tensor, Tensor],
        attention: Attention,
        hook: AdapterHook | None,
    ) -> Tensor:
        out_BLD = hidden_BLD[:, attention.skip :]
        for task, block in self.blocks.items():
            own_BLD = block(layer, hidden_BLD, rotation, attention, hook)
            out_BLD = torch.where((self.task_B == task)[:, None, None], own_BLD, out_BLD)
        return out_BLD
