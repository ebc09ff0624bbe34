"""The readout of retrieval: states of items' texts → vectors of items, new ones too, and of users.

One inner product compares them; item-item models and what they weigh beside it are a ``Blend``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from m6rec.data import leakage
from m6rec.data.split import TEST, Split
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.evaluation.report import Table
from m6rec.evaluation.retrieval import Retriever
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import Model
from m6rec.foundation.states import StateCache, StatesConfig
from m6rec.foundation.stores import Store
from m6rec.project import CONFIG
from m6rec.readouts.model import Progress, TaskModel, TaskModelConfig, TrainingProgress, require_no_exit
from m6rec.retrieval import blend as blending
from m6rec.retrieval import embeddings as embedding
from m6rec.retrieval.blend import Blend, weigh
from m6rec.retrieval.embeddings import Embeddings, Floats, user_vectors
from m6rec.retrieval.examples import LikeSequences, RetrievalExamples, RetrievalQueries, build_examples
from m6rec.retrieval.sources import Source
from m6rec.retrieval.training import EmbeddingConfig, fit
from m6rec.tasks.task import Task
from m6rec.training import TrainingHistory
from m6rec.types import Item


class EmbedModel(TaskModel[LikeSequences, RetrievalQueries, EmbeddingConfig]):
    """A retrieval task.

    Attributes:
        blend: Item-item models and what they weigh beside the vectors; None without.

    Args:
        embeddings: From states to vectors; None before ``whiten`` or ``tune``.
    """

    readout = "embed"

    def __init__(
        self,
        config: TaskModelConfig,
        foundation: Foundation,
        embeddings: Embeddings | None,
        cache: StateCache,
        blend: Blend | None = None,
    ) -> None:
        _require_none(config.given())
        super().__init__(config, foundation, cache)
        self._embeddings, self.blend = embeddings, blend

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
        """See ``TaskModel``; what is drawn is drawn in training, by its seed."""
        return cls(config, foundation, None, cls.cache_of(config, foundation, cache, store))

    @classmethod
    def _read(
        cls, folder: Path, config: TaskModelConfig, foundation: Foundation, cache: StateCache, exit_after: int | None
    ) -> Self:
        require_no_exit(config.task, exit_after)
        return cls(config, foundation, embedding.load(folder), cache, _blend_at(folder))

    @classmethod
    def states_config(cls, config: TaskModelConfig, model: Model) -> StatesConfig:
        """The mean state of a text's tokens after two thirds of the layers.

        It measures as the last layers' does, and costs two thirds (design/018).
        """
        return StatesConfig(depth=round(2 * model.config.num_layers / 3), mean=True)

    @staticmethod
    def examples(task: Task, split: Split, domain: Domain) -> RetrievalExamples:
        """See ``TaskModel``."""
        leakage.check(split, allowed=leakage.PROTOCOL)
        return build_examples(task, split, domain)

    def texts(self, examples: RetrievalExamples) -> Iterator[str]:
        """See ``TaskModel``."""
        return (self.text(item) for item in examples.items)

    def text(self, item: Item) -> str:
        """All that is read of an item."""
        return " ".join(segment.text for segment in self.task.candidate(item, self.domain))

    @property
    def embeddings(self) -> Embeddings:
        """From states to vectors. Raises ConfigError before there are any."""
        if self._embeddings is None:
            raise ConfigError("the retrieval model has no vectors yet; tune it, or whiten the states of a catalogue")
        return self._embeddings

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.embeddings.width

    @property
    def title(self) -> str:
        """See ``TaskModel``."""
        return "m6rec, item vectors"

    def whiten(self, items: Sequence[Item], config: EmbeddingConfig = EmbeddingConfig()) -> Self:
        """Makes vectors of the whitened states of a catalogue, without learning. Returns the model itself.

        Raises:
            DataError: There is no item.
        """
        self._embeddings = Embeddings.untrained(self.item_states(items), config.width, config.decay)
        return self

    def item_vectors(self, items: Sequence[Item], progress: Progress = lambda done, total: None) -> Floats:
        """Vectors of the items, float32 [I, ``width``], of unit length; each depends on its own item alone."""
        if not items:
            return np.zeros((0, self.width), np.float32)
        return self.embeddings.item_vectors([item.id for item in items], self.item_states(items, progress))

    def user_vector(self, liked_NE: Floats) -> Floats:
        """The vector of a user, float32 [``width``], from the vectors of what they liked, oldest first, each once."""
        vectors_1E = user_vectors(liked_NE, [np.arange(len(liked_NE))], self.embeddings.decay)
        return vectors_1E.reshape(-1)

    def retriever(self, examples: RetrievalExamples, part: int = TEST) -> Retriever:
        """What it retrieves by for the queries of a part; each user is what they had liked by then."""
        items_IE = self.item_vectors(examples.items)
        return Retriever(examples.queries[part].user_vectors(items_IE, self.embeddings.decay), items_IE, self.blend)

    def item_states(self, items: Sequence[Item], progress: Progress = lambda done, total: None) -> Floats:
        """One state of each item's text, float32 [I, D]."""
        texts = [self.text(item) for item in items]
        states = self.cache.fetch(texts, progress)
        states_ID: Floats = states.tokens_TD[[states.places[text][0] for text in texts]].float().cpu().numpy()
        return states_ID

    def _train(
        self,
        training: LikeSequences,
        validation: RetrievalQueries,
        config: EmbeddingConfig,
        folder: Path | None,
        progress: TrainingProgress,
    ) -> TrainingHistory:
        """As many epochs as are best by NDCG; then item-item models, weighed on validation."""
        if folder is not None and (folder / CONFIG).exists():
            self._embeddings, self.blend = embedding.load(folder), _blend_at(folder)
            return TrainingHistory()
        asked = validation.validation()
        self._embeddings, history = fit(
            training.ids,
            self.item_states(training.items),
            training.likes,
            config,
            validation=asked if len(asked.targets) else None,
            progress=progress,
        )
        items_IE = self.item_vectors(training.items)
        users_QE = validation.user_vectors(items_IE, self._embeddings.decay)
        sources = fit_sources(training, items_IE, sources=config.sources)
        self.blend = weigh(sources, validation.held_out(training.ids, users_QE, items_IE), config.weights)
        return history

    @classmethod
    def tables(
        cls,
        models: Sequence[Self],
        split: Split,
        examples: RetrievalExamples,
        *,
        num_written: int = 0,
        progress: Progress = lambda done, total: None,
    ) -> tuple[Table, ...]:
        """Full ranking of the catalogue; see ``TaskModel``."""
        from m6rec.evaluation.retrieval import retrieval_tables

        ours = {models[0].title: [model.retriever(examples) for model in models]}
        return retrieval_tables(split, examples, models[0].domain, ours)

    def _write(self, folder: Path) -> None:
        self.embeddings.save(folder)
        if self.blend is not None:
            self.blend.save(folder)

    def _digest(self) -> str:
        return self.embeddings.digest()


def fit_sources(
    likes: LikeSequences,
    items_IE: Floats | None = None,
    progress: Progress = lambda d, t: None,
    *,
    sources: Mapping[str, Source] | None = None,
) -> Blend:
    """Candidate sources fitted on who liked what, with the default weights.

    Args:
        likes: Of the training part.
        items_IE: Item vectors in the order of the catalogue, for sources that take them.
        progress: Called with (done, total) sources.
        sources: See ``blend.fit``.
    """
    ids = likes.ids
    events = ((str(user), ids[row], True) for user, rows in enumerate(likes.likes) for row in rows.tolist())
    vectors = None if items_IE is None else dict(zip(ids, items_IE, strict=True))
    return blending.fit(events, vectors, progress, sources=sources)


def _require_none(settings: Sequence[str]) -> None:
    if settings:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in settings)
        verb, them = ("does", "it") if len(settings) == 1 else ("do", "them")
        raise ConfigError(
            f"{names} {verb} not apply to a retrieval task; omit {them}, or tune a task that scores, such as like"
        )


def _blend_at(folder: Path) -> Blend | None:
    return blending.load(folder) if (folder / blending.FILE).exists() else None
