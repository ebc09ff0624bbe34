"""One pretrained language model as the foundation of a whole recommender."""

import importlib
from typing import Any

_HOMES = {
    "Device": "m6rec.device",
    "Domain": "m6rec.domains.domain",
    "Event": "m6rec.types",
    "Item": "m6rec.types",
    "M6RecError": "m6rec.errors",
    "InteractionStore": "m6rec.features.interactions",
    "Recommender": "m6rec.serving.recommender",
    "StateCache": "m6rec.foundation.states",
    "Task": "m6rec.tasks.task",
    "TrainConfig": "m6rec.training",
    "TaskModelConfig": "m6rec.readouts",
    "ScoreModel": "m6rec.readouts",
    "EmbedModel": "m6rec.readouts",
    "GenerateModel": "m6rec.readouts",
    "User": "m6rec.types",
}
# Loaded on first use, so that reading a log does not load torch.
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'm6rec' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from m6rec.errors import missing

        raise missing(error, f"m6rec.{name}") or error from error


def __dir__() -> list[str]:
    return __all__
