"""The tree of settings: what the dataclasses of the rooms come to, under the names of the command line and of TOML.

It holds no setting that a room below defines; a new field of ``TrainConfig`` is a new leaf here by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.config import Natural, validate
from m6rec.edge.recipe import Recipe
from m6rec.foundation.states import CacheConfig
from m6rec.quickstart import RANKING, QuestionLimits
from m6rec.readouts import TuningConfig
from m6rec.retrieval.training import EmbeddingConfig
from m6rec.scale.planning import Assumptions, Machine
from m6rec.serving.recommender import ServingLimits
from m6rec.serving.settings import Settings
from m6rec.tasks.task import Readout
from m6rec.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class FoundationSection:
    """The language model.

    Attributes:
        name: Asset name, folder, .gguf file or hub id; what a run was tuned on is read for that run, whatever this is.
        device: cpu, cuda, cuda:1, …
        dtype: float32, bfloat16, or auto for the faster one on this processor.
    """

    name: str = DEFAULT_FOUNDATION
    device: str = "cpu"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class StatesSection:
    """The cache of texts' states.

    Attributes:
        store: A folder, or the redis:// URL of a shared server; "" for the one of $M6REC_HOME.
        cache: What a process takes.
    """

    store: str = ""
    cache: CacheConfig = CacheConfig()

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class AdapterSection:
    """Tasks whose parameters are an adapter.

    Attributes:
        adapter: What is tuned.
        training: How.
    """

    adapter: TuningConfig = TuningConfig()
    training: TrainConfig = TrainConfig(min_steps=100)


@dataclass(frozen=True, kw_only=True)
class RetrievalSection:
    """The retrieval task.

    Attributes:
        training: Vectors, sources and their weights.
    """

    training: EmbeddingConfig = field(default_factory=EmbeddingConfig)


@dataclass(frozen=True, kw_only=True)
class InitSection:
    """What ``m6rec init`` does in its own way.

    Attributes:
        ranking: In place of ``ranking.training``: ranking's base is fitted before, and what reading adds comes soon.
        questions: How many are read.
    """

    ranking: TrainConfig = RANKING
    questions: QuestionLimits = QuestionLimits()


@dataclass(frozen=True, kw_only=True)
class ServingSection:
    """The service.

    Attributes:
        journal: Where events go in place of the project's store: a folder, or the URL of a durable server.
        threads: Threads of the model; 0 for the number of cores minus one.
        http: Where it listens, who may call it, and what it takes on.
        limits: What answers may take.
    """

    journal: str = ""
    threads: Natural = 0
    http: Settings = Settings()
    limits: ServingLimits = ServingLimits()

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class PlanSection:
    """What ``m6rec plan`` plans for.

    Attributes:
        load: What the load is taken to be like.
        machine: What it is served by.
    """

    load: Assumptions = Assumptions()
    machine: Machine = Machine()


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings.

    Attributes:
        foundation: The language model.
        states: The cache of texts' states.
        ranking: Tasks that score.
        retrieval: The task that embeds.
        text: Tasks that generate.
        init: What ``m6rec init`` does in its own way.
        serving: The service.
        shrink: The small model that ``m6rec shrink`` makes.
        plan: What ``m6rec plan`` plans for.
    """

    foundation: FoundationSection = FoundationSection()
    states: StatesSection = StatesSection()
    ranking: AdapterSection = AdapterSection()
    retrieval: RetrievalSection = field(default_factory=RetrievalSection)
    text: AdapterSection = AdapterSection()
    init: InitSection = InitSection()
    serving: ServingSection = ServingSection()
    shrink: Recipe = Recipe()
    plan: PlanSection = PlanSection()

    def of(self, readout: Readout) -> Any:
        """The section of the tasks of a readout; ``training`` is what ``TaskModel.tune`` takes."""
        return getattr(self, SECTIONS[readout])

    def tuning(self, readout: Readout) -> TuningConfig:
        """What of the foundation such tasks tune."""
        section = self.of(readout)
        return section.adapter if isinstance(section, AdapterSection) else TuningConfig()


SECTIONS: dict[Readout, str] = {"score": "ranking", "embed": "retrieval", "generate": "text"}
"""The section of the tasks of each readout."""


def made_with(config: Any, training: dict[str, Any], readout: Readout) -> dict[str, Any]:
    """What a run was made with, as tables of the tree.

    Args:
        config: Its ``TaskModelConfig``.
        training: Its ``training.json``.
        readout: Of its task.
    """
    section: dict[str, Any] = {"training": training}
    if readout != "embed":
        section["adapter"] = {one.name: getattr(config, one.name) for one in fields(TuningConfig)}
    return {"foundation": {"name": config.foundation}, SECTIONS[readout]: section}
