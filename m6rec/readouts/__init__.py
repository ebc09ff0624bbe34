"""Readouts: what is made of the foundation's states for a task. One class each, which holds all that differs.

``score`` (classes), ``embed`` (vectors that are compared) and ``generate`` (texts): their examples, loss, inference,
validation metric and the tables of a report. Whatever tunes, loads or measures a task goes through ``of``.
"""

from __future__ import annotations

from typing import Any

from m6rec.readouts.embed import EmbedModel
from m6rec.readouts.generate import GenerateModel
from m6rec.readouts.model import TaskModel, TaskModelConfig, TuningConfig, read_config, read_training
from m6rec.readouts.score import ScoreModel
from m6rec.tasks import task as tasks

__all__ = [
    "EmbedModel",
    "GenerateModel",
    "ScoreModel",
    "TaskModel",
    "TaskModelConfig",
    "TuningConfig",
    "of",
    "read_config",
    "read_training",
]

_CLASSES: tuple[type[TaskModel[Any, Any, Any]], ...] = (ScoreModel, EmbedModel, GenerateModel)
_READOUTS = {one.readout: one for one in _CLASSES}


def of(task: str) -> type[TaskModel[Any, Any, Any]]:
    """The readout of a task, by the name or path of the task.

    Raises:
        ConfigError: There is no such task.
    """
    return _READOUTS[tasks.named(task).readout]
