"""What a run of retrieval is: how items become vectors, how users do, and what item-item models add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from m6rec.data.examples import time_groups
from m6rec.data.split import TRAIN, VALID, Split
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.fingerprint import Fingerprint, digest, rule_of
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import Model
from m6rec.foundation.states import StateCache, StatesConfig
from m6rec.foundation.stores import Store
from m6rec.project import config_at, require_saved, save_config
from m6rec.retrieval import blend as blending
from m6rec.retrieval import embeddings as embedding
from m6rec.retrieval.blend import Blend
from m6rec.retrieval.embeddings import Embeddings, Floats, Ints, user_vectors
from m6rec.retrieval.training import EmbeddingConfig, History, Questions, fit
from m6rec.tasks import probe
from m6rec.tasks import task as tasks
from m6rec.tasks.retrieve import describe
from m6rec.tasks.task import Task
from m6rec.types import Item

MAX_VALIDATED = 4_000
"""Likes of the validation part that epochs are chosen by; so many are drawn."""
NUM_MOST_LIKED = 50
"""Who liked nothing yet is taken for one who likes so many of the most liked items."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """What a run of retrieval is made from; saved with it.

    Attributes:
        task: A name of ``tasks.task.named``.
        domain: A name of ``domains.domain.named``.
        rule: What the log counts as positive, likewise.
        foundation: What ``foundation.checkpoint.load`` was given.
        data: Digest of the prepared dataset (``fingerprint.of_dataset``).
        split: How it is split; likewise.
    """

    domain: str
    foundation: str
    task: str = "retrieve"
    data: str = ""
    split: str = ""
    rule: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalModel:
    """Vectors of items, new ones too, and of users; one inner product compares them.

    Attributes:
        config: What it was made from.
        foundation: What reads the items' texts.
        cache: Where their states come from.
        embeddings: From states to vectors.
        blend: Item-item models and what they weigh beside the vectors; None without.
    """

    config: RetrievalConfig
    foundation: Foundation
    cache: StateCache
    embeddings: Embeddings
    blend: Blend | None = None

    @property
    def task(self) -> Task:
        """Its words and labels."""
        return tasks.named(self.config.task)

    @property
    def domain(self) -> Domain:
        """Which events are positive."""
        return domains.named(self.config.domain, self.config.rule)

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.embeddings.width

    def item_vectors(self, items: Sequence[Item], progress: Progress = lambda done, total: None) -> Floats:
        """Vectors of the items, float32 [I, ``width``], of unit length; each depends on its own item alone."""
        if not items:
            return np.zeros((0, self.width), np.float32)
        return self.embeddings.item_vectors([item.id for item in items], states_of(self.cache, items, progress))

    def user_vector(self, liked_NE: Floats) -> Floats:
        """The vector of a user, float32 [``width``], from the vectors of what they liked, oldest first, each once."""
        vectors_1E = user_vectors(liked_NE, [np.arange(len(liked_NE))], self.embeddings.decay)
        return vectors_1E.reshape(-1)

    def digest(self) -> str:
        """A short digest of what makes ``item_vectors``."""
        model = self.foundation.model
        read_by = f"{model.id}|{model.dtype}|{self.cache.config}"
        return digest([read_by, self.embeddings.digest()])

    def fingerprint(self) -> Fingerprint:
        """What it is made from, but for the training."""
        return Fingerprint(
            data=self.config.data,
            split=self.config.split,
            domain=self.config.domain,
            rule=rule_of(self.config.rule),
            task=self.config.task,
            wording=probe.wording(self.task, self.domain),
            foundation=self.foundation.model.id,
        )

    def save(self, folder: Path) -> None:
        """Writes the embeddings, the blend, what it is made from, and at last its configuration."""
        self.embeddings.save(folder)
        if self.blend is not None:
            self.blend.save(folder)
        save_config(self.config, self.fingerprint(), folder)


def create(
    config: RetrievalConfig,
    foundation: Foundation,
    items: Sequence[Item],
    store: Path | Store | None = None,
    *,
    cache: StateCache | None = None,
    training: EmbeddingConfig | None = None,
    progress: Progress = lambda done, total: None,
) -> RetrievalModel:
    """A model that nothing was learned for: vectors are the whitened states of a catalogue.

    Args:
        config: What it is made from.
        foundation: What reads the items' texts.
        items: The catalogue.
        store: Where states are kept, a folder or a store; None keeps them in memory.
        cache: A cache of the same split to share instead of one at ``store``.
        training: How it will be trained.
        progress: Called with (texts read, texts to read).

    Raises:
        DataError: There is no item.
    """
    cache = _cache_of(foundation, cache, store)
    training = training or EmbeddingConfig()
    states_ID = states_of(cache, items, progress)
    made = Embeddings.untrained(states_ID, training.width, training.decay)
    return RetrievalModel(config=config, foundation=foundation, cache=cache, embeddings=made)


def train(
    model: RetrievalModel,
    items: Sequence[Item],
    likes: Sequence[Ints],
    validation: Questions,
    training: EmbeddingConfig,
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> tuple[RetrievalModel, History]:
    """Trains a model's vectors, for as many epochs as are best on validation; see ``training.fit``.

    Args:
        model: Of ``create``.
        items: The catalogue.
        likes: Of ``likes_of``.
        validation: Of ``questions_of``; where it asks nothing, all epochs are made.
        training: How to train.
        progress: Called with (steps done, steps at most, loss).
    """
    ids, states_ID = [item.id for item in items], states_of(model.cache, items)
    asked = validation if len(validation.targets) else None
    found, history = fit(ids, states_ID, likes, training, validation=asked, progress=progress)
    return replace(model, embeddings=found), history


def load(
    folder: Path, foundation: Foundation, cache: StateCache | None = None, store: Path | Store | None = None
) -> RetrievalModel:
    """Reads what ``RetrievalModel.save`` wrote.

    Args:
        folder: The run.
        foundation: The model whose states it was trained on.
        cache: A cache of the same split to share; else one is opened at ``store``.
        store: See ``cache``.

    Raises:
        AssetError: The folder is not a run.
        ConfigError: It was tuned on another foundation, or with other words.
    """
    config = config_at(folder, RetrievalConfig)
    blend = blending.load(folder) if (folder / blending.FILE).exists() else None
    cache = _cache_of(foundation, cache, store)
    made = embedding.load(folder)
    model = RetrievalModel(config=config, foundation=foundation, cache=cache, embeddings=made, blend=blend)
    require_saved(folder, model.fingerprint())
    return model


def states_config(model: Model) -> StatesConfig:
    """What is kept of an item's text: the mean state of its tokens after two thirds of the layers.

    It measures as the last layers' does, and costs two thirds (design/018).
    """
    return StatesConfig(depth=round(2 * model.config.num_layers / 3), mean=True)


def states_of(cache: StateCache, items: Sequence[Item], progress: Progress = lambda done, total: None) -> Floats:
    """One state of each item's text, float32 [I, D], from a cache of ``states_config``."""
    texts = [describe(item) for item in items]
    states = cache.fetch(texts, progress)
    states_ID: Floats = states.tokens_TD[[states.places[text][0] for text in texts]].float().cpu().numpy()
    return states_ID


def likes_of(split: Split, domain: Domain) -> list[Ints]:
    """For each user of the training part the rows of what they liked there, oldest first, each once."""
    rows = {item: row for row, item in enumerate(split.log.items)}
    likes: dict[str, dict[int, None]] = {}
    for event, part in zip(split.log.events, split.part.tolist(), strict=True):
        if part == TRAIN and event.item and domain.positive(event):
            likes.setdefault(event.user, {}).setdefault(rows[event.item])
    return [np.array([*liked], np.int64) for liked in likes.values()]


def questions_of(split: Split, domain: Domain, part: int = VALID, *, seed: int = 0) -> Questions:
    """The likes of a part whose item the user had not met, each after those before it; ``MAX_VALIDATED`` are drawn."""
    rows = {item: row for row, item in enumerate(split.log.items)}
    events = list(split.log.events)
    likes: dict[str, list[int]] = {}
    met: dict[str, set[int]] = {}
    asked: list[tuple[Ints, int]] = []
    for group in time_groups(events):
        for position in group.queries:
            event = events[position]
            if split.part[position] != part or not event.item or not domain.positive(event):
                continue
            if event.user in likes and rows[event.item] not in met[event.user]:
                asked.append((np.array(likes[event.user], np.int64), rows[event.item]))
        for event in (events[position] for position in group.events):
            positive = domain.feedback(event).positive if event.item else None
            if positive is not None:
                met.setdefault(event.user, set()).add(rows[event.item])
            if positive:
                likes.setdefault(event.user, []).append(rows[event.item])
    drawn = np.random.default_rng(seed).permutation(len(asked))[:MAX_VALIDATED].tolist()
    return Questions([asked[n][0] for n in drawn], np.array([asked[n][1] for n in drawn], np.int64))


def _cache_of(foundation: Foundation, shared: StateCache | None, store: Path | Store | None) -> StateCache:
    """``shared`` where it keeps what is needed, else a cache at ``store``."""
    config = states_config(foundation.model)
    return StateCache(foundation, config, store) if shared is None or shared.config != config else shared
