"""What all task models share: configuration, identity, saving and loading, and the frame of a training."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from m6rec import config as configuration
from m6rec import files
from m6rec.adapters import TaskAdapter, methods
from m6rec.adapters import load as load_adapter
from m6rec.config import Count, Natural, Positive
from m6rec.data.split import Split
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.fingerprint import Fingerprint, begin, changed, digest, rule_of
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import Model
from m6rec.foundation.states import CacheConfig, StateCache, StatesConfig
from m6rec.foundation.stores import Store
from m6rec.project import CONFIG, TRAINING, config_at, require_saved, save_config
from m6rec.tasks import probe
from m6rec.tasks import task as tasks
from m6rec.tasks.task import Readout, Task
from m6rec.training import CHECKPOINT, TrainConfig, TrainingHistory

if TYPE_CHECKING:
    from m6rec.evaluation.report import Table

Progress = Callable[[int, int], None]
TrainingProgress = Callable[[int, int, float], None]
TrainingT = TypeVar("TrainingT")
ValidationT = TypeVar("ValidationT")
SettingsT = TypeVar("SettingsT")


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """What of the foundation is tuned, and how much.

    Attributes:
        method: A tuning method; none for that of the kind of task.
        depth: Layers that run ahead of time; none for those of the kind of task.
        keep: Kept tokens of a text; 0 keeps all.
        all_layers: Whether tuning reaches the lower layers too, as in the paper; the states are then this task's own.
        bidirectional: Whether region 1 sees all of itself, as in the paper; rows then hold one question each.
        num_prompts: Prompts of the methods that have them.
        adapter_rank: Width of the bottleneck of an adapter; 0 for the width of an attention head, as in the paper.
        lora_rank: Rank of LoRA's updates.
        lora_alpha: LoRA scales its updates by alpha / rank.
    """

    method: str | None = None
    depth: Natural | None = None
    keep: Natural = 1
    all_layers: bool = False
    bidirectional: bool = False
    num_prompts: Count = 8
    adapter_rank: Natural = 0
    lora_rank: Count = 8
    lora_alpha: Positive = 16.0

    def __post_init__(self) -> None:
        configuration.validate(self)

    def require_read(self, method: str) -> None:
        """Raises ConfigError where a size is given that a method doesn't take."""
        for name in ("num_prompts", "adapter_rank", "lora_rank", "lora_alpha"):
            if name in self.given() and name not in methods.named(method).sizes:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, but method {method!r} has none; omit it, or choose a method "
                    f"that has one ({', '.join(methods.reading(name))})"
                )

    def given(self) -> list[str]:
        """Names of the settings that differ from their defaults."""
        return [field.name for field in fields(TuningConfig) if getattr(self, field.name) != field.default]


@dataclass(frozen=True, kw_only=True)
class TaskModelConfig(TuningConfig):
    """The configuration of a task model; saved with the run.

    Attributes:
        task: A name of ``tasks.task.named``.
        domain: A name of ``domains.domain.named``.
        rule: What the log counts as positive, likewise.
        foundation: What ``foundation.checkpoint.load`` was given.
        data: Digest of the prepared dataset (``fingerprint.of_dataset``); "" where examples are made in memory.
        split: How the dataset is split; likewise.
    """

    task: str
    domain: str
    foundation: str
    data: str = ""
    split: str = ""
    rule: Mapping[str, Any] | None = None


_IDENTITY = {field.name for field in fields(TaskModelConfig)} - {field.name for field in fields(TuningConfig)}


class TaskModel(ABC, Generic[TrainingT, ValidationT, SettingsT]):
    """A task on a foundation: its trained parameters, and everything needed to tune, use and measure them.

    What differs between readouts is in the classes below it: loss, inference, validation metric, tables.

    Attributes:
        readout: Of its tasks.
        config: What it was made from.
        foundation: What reads the texts.
        cache: Where their states come from.
        seed: That of the initial values; None where they were loaded.
        task: The task.
        domain: The domain.

    Raises:
        ConfigError: The task has another readout.
    """

    readout: ClassVar[Readout]

    def __init__(
        self, config: TaskModelConfig, foundation: Foundation, cache: StateCache, seed: int | None = None
    ) -> None:
        self.config, self.foundation, self.cache, self.seed = config, foundation, cache, seed
        self.task: Task = self._task(config)
        self.domain: Domain = domains.named(config.domain, config.rule)

    @classmethod
    def _task(cls, config: TaskModelConfig) -> Task:
        """The task, whose readout is this one."""
        task = tasks.named(config.task)
        if task.readout != cls.readout:
            raise ConfigError(
                f"task {config.task!r} has readout {task.readout!r}, but {cls.readout!r} is wanted; "
                f"such tasks are {', '.join(tasks.names(cls.readout))}"
            )
        return task

    @classmethod
    @abstractmethod
    def create(
        cls,
        config: TaskModelConfig,
        foundation: Foundation,
        store: Path | Store | None = None,
        *,
        cache: StateCache | None = None,
        seed: int = 0,
    ) -> Self:
        """A new task model, for which nothing was learned.

        Args:
            config: The task and how to tune it.
            foundation: The model to tune.
            store: Where the states are kept, a folder or a store; None keeps them in memory.
            cache: A cache of the same split to share instead of one at ``store``.
            seed: Fixes the initial values.

        Raises:
            ConfigError: The configuration is contradictory or doesn't fit the foundation or the readout.
        """

    @classmethod
    def load(
        cls,
        folder: Path,
        foundation: Foundation,
        cache: StateCache | None = None,
        store: Path | Store | None = None,
        *,
        exit_after: int | None = None,
    ) -> Self:
        """Reads what ``save`` wrote.

        Args:
            folder: The run.
            foundation: The model that it was tuned on.
            cache: A cache of the same split to share; else one is opened at ``store``.
            store: See ``cache``.
            exit_after: Upper layers to run, for models that score; all by default.

        Raises:
            AssetError: The folder is not a run.
            ConfigError: It was tuned on another foundation, with other words or features, or can't exit there.
        """
        config = read_config(folder)
        cls._task(config)  # before its parameters are looked for
        made = cls._read(folder, config, foundation, cls.cache_of(config, foundation, cache, store), exit_after)
        require_saved(folder, made.fingerprint())
        return made

    @classmethod
    @abstractmethod
    def _read(
        cls, folder: Path, config: TaskModelConfig, foundation: Foundation, cache: StateCache, exit_after: int | None
    ) -> Self:
        """A model with the parameters of a folder."""

    @classmethod
    @abstractmethod
    def states_config(cls, config: TaskModelConfig, model: Model) -> StatesConfig:
        """What is kept of a text."""

    @classmethod
    def cache_of(
        cls,
        config: TaskModelConfig,
        foundation: Foundation,
        shared: StateCache | None,
        store: Path | Store | None,
        limits: CacheConfig = CacheConfig(),
    ) -> StateCache:
        """``shared`` if it keeps what this model reads, else a cache at ``store``."""
        states = cls.states_config(config, foundation.model)
        if shared is not None and shared.config == states:
            return shared
        return StateCache(foundation, states, store, limits=limits)

    @staticmethod
    @abstractmethod
    def examples(task: Task, split: Split, domain: Domain) -> Any:
        """The examples of a split, by part; checked for leaks.

        Raises:
            DataError: A part has none, or the split leaks.
        """

    @abstractmethod
    def texts(self, examples: Any) -> Iterable[str]:
        """Every text of ``examples`` that the cache keeps a state of, with repetitions."""

    def tune(
        self,
        training: TrainingT,
        validation: ValidationT,
        config: SettingsT,
        *,
        folder: Path | None = None,
        progress: TrainingProgress = lambda step, total, loss: None,
    ) -> TrainingHistory:
        """Trains the parameters in place and keeps those of the epoch that is best on validation.

        Args:
            training: Examples of the training part.
            validation: Of the validation part.
            config: How to train.
            folder: The run, where checkpoint, log and result go. What was begun there is resumed, what is finished
                there is read; another run is refused (``fingerprint.begin``).
            progress: Called after each step with (step, steps, loss).

        Raises:
            ConfigError: The folder holds another run, or a setting doesn't fit the task.
        """
        if folder is not None:
            made = replace(self.fingerprint(), training=changed(config), examples=digest([training, validation]))
            begin(folder, made, results=(CHECKPOINT, CONFIG))
            if not (folder / CONFIG).exists():
                files.write(folder / TRAINING, json.dumps(configuration.to_tables(config), indent=1) + "\n")
        history = self._train(training, validation, config, folder, progress)
        if folder is not None and not (folder / CONFIG).exists():
            self.save(folder)
        return history

    @abstractmethod
    def _train(
        self,
        training: TrainingT,
        validation: ValidationT,
        config: SettingsT,
        folder: Path | None,
        progress: TrainingProgress,
    ) -> TrainingHistory:
        """See ``tune``."""

    @classmethod
    @abstractmethod
    def tables(
        cls,
        models: Sequence[Self],
        split: Split,
        examples: Any,
        *,
        num_written: int = 0,
        progress: Progress = lambda done, total: None,
    ) -> tuple[Table, ...]:
        """The rows of a report: the models on the test part, beside what they are compared with.

        Args:
            models: Of one task, one a seed.
            split: The split.
            examples: Of ``examples``.
            num_written: Texts to write and compare, for models that generate.
            progress: Told of the examples read.
        """

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is called in a table."""

    @property
    def facts(self) -> dict[str, object]:
        """What there is to say of its parameters."""
        return {}

    def digest(self) -> str:
        """A short digest of what determines its predictions: foundation, states and parameters."""
        model = self.foundation.model
        return digest([f"{model.id}|{model.dtype}|{self.cache.config}", self._digest()])

    @abstractmethod
    def _digest(self) -> str:
        """A digest of the parameters."""

    def fingerprint(self) -> Fingerprint:
        """What it is made from, but for the training: configuration, wording and features of this code, foundation."""
        initial = "" if self.seed is None else f" seed {self.seed}"
        return Fingerprint(
            data=self.config.data,
            split=self.config.split,
            domain=self.config.domain,
            rule=rule_of(self.config.rule),
            task=self.config.task,
            wording=probe.wording(self.task, self.domain),
            features=probe.features() if self.task.uses_features else "",
            foundation=self.foundation.model.id,
            tuning=changed(self.config, without=_IDENTITY) + initial,
        )

    def save(self, folder: Path) -> None:
        """Writes parameters, fingerprint, and finally the configuration, which marks the run as finished."""
        self._write(folder)
        save_config(self.config, self.fingerprint(), folder)

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Writes the parameters."""


class AdapterModel(TaskModel[TrainingT, ValidationT, TrainConfig]):
    """A task model whose parameters are an adapter of the upper layers.

    Attributes:
        METHOD: The tuning method by default.
        UPPER_LAYERS: Layers that run online by default.
        adapter: The trained parameters.
    """

    METHOD: ClassVar[str]
    UPPER_LAYERS: ClassVar[int]

    def __init__(
        self,
        config: TaskModelConfig,
        foundation: Foundation,
        adapter: TaskAdapter,
        cache: StateCache,
        seed: int | None = None,
    ) -> None:
        super().__init__(config, foundation, cache, seed)
        self.adapter = adapter

    @classmethod
    def create(
        cls,
        config: TaskModelConfig,
        foundation: Foundation,
        store: Path | Store | None = None,
        *,
        cache: StateCache | None = None,
        seed: int = 0,
    ) -> Self:
        """See ``TaskModel``; hidden states are those of the foundation."""
        adapter = cls._adapter(config, foundation, seed)
        return cls(config, foundation, adapter, cls.cache_of(config, foundation, cache, store), seed)

    @classmethod
    @abstractmethod
    def _adapter(cls, config: TaskModelConfig, foundation: Foundation, seed: int) -> TaskAdapter:
        """A fresh adapter."""

    @classmethod
    def _first_layer(cls, config: TaskModelConfig, model: Model) -> int:
        """The first tuned layer. Raises ConfigError if tuning would reach below the split."""
        depth = cls.states_config(config, model).depth
        if config.all_layers and depth:
            raise ConfigError(
                f"all_layers with depth {depth}: training can't read cached states that it changes. Train with depth "
                "0, or tune the upper layers only"
            )
        return depth

    @property
    def method(self) -> str:
        """The tuning method."""
        return self.config.method or self.METHOD

    @property
    def title(self) -> str:
        """See ``TaskModel``."""
        return f"m6rec, {self.method}"

    @property
    def facts(self) -> dict[str, object]:
        """See ``TaskModel``."""
        return {
            "trained parameters": self.adapter.num_trainable(),
            "share of the foundation": self.adapter.trainable_share(self.foundation.model),
        }

    @classmethod
    def states_config(cls, config: TaskModelConfig, model: Model) -> StatesConfig:
        """The split at ``depth``; by default before the last ``UPPER_LAYERS``."""
        depth = max(0, model.config.num_layers - cls.UPPER_LAYERS) if config.depth is None else config.depth
        return StatesConfig(depth=depth, keep=config.keep)

    @classmethod
    def _read(
        cls, folder: Path, config: TaskModelConfig, foundation: Foundation, cache: StateCache, exit_after: int | None
    ) -> Self:
        require_no_exit(config.task, exit_after)
        return cls(config, foundation, load_adapter(folder, foundation.model), cache)

    def _write(self, folder: Path) -> None:
        self.adapter.save(folder)

    def _digest(self) -> str:
        return self.adapter.digest()


def read_config(folder: Path) -> TaskModelConfig:
    """The configuration of a saved run. Raises AssetError if the folder is not a run."""
    return config_at(folder, TaskModelConfig)


def read_training(folder: Path) -> dict[str, Any]:
    """How a run was trained, every setting. Raises ConfigError where an earlier m6rec didn't note it."""
    try:
        return dict(json.loads((folder / TRAINING).read_text()))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"how {folder} was trained can't be read ({error}); a run tuned now has {TRAINING}"
        ) from error


def require_no_exit(task: str, exit_after: int | None) -> None:
    """Raises ConfigError where a model that doesn't score is to leave early."""
    if exit_after is not None:
        raise ConfigError(f"--exit-after does not apply to task {task!r}, which doesn't score; omit it")
