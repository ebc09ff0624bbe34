"""What a run of retrieval is: how items become vectors, how users do, and what item-item models add."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m6rec.data.examples import moments
from m6rec.data.split import TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import Model
from m6rec.foundation.states import StateCache, StatesConfig
from m6rec.retrieval.embeddings import Embeddings, Floats, Ints, user_vectors
from m6rec.retrieval.training import EmbeddingConfig, History, Questions, fit
from m6rec.tasks.retrieve import describe
from m6rec.types import Item

MAX_VALIDATED = 4_000
"""Likes of the validation part that epochs are chosen by; so many are drawn."""
Progress = Callable[[int, int], None]


def states_config(model: Model) -> StatesConfig:
    """What is kept of an item's text: the mean state of its tokens after all layers but the last."""
    return StatesConfig(depth=max(0, model.config.num_layers - 1), mean=True)


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
    """The likes of a part whose item the user had not met, each after the likes before it; ``MAX_VALIDATED`` drawn."""
    rows = {item: row for row, item in enumerate(split.log.items)}
    events = list(split.log.events)
    likes: dict[str, list[int]] = {}
    met: dict[str, set[int]] = {}
    asked: list[tuple[Ints, int]] = []
    for moment in moments(events):
        for position in moment.asked:
            event = events[position]
            if split.part[position] == part and event.item and domain.positive(event) and event.user in likes:
                if rows[event.item] not in met[event.user]:
                    asked.append((np.array(likes[event.user], np.int64), rows[event.item]))
        for event in (events[position] for position in moment.observed):
            positive = domain.feedback(event).positive if event.item else None
            if positive is not None:
                met.setdefault(event.user, set()).add(rows[event.item])
            if positive:
                likes.setdefault(event.user, []).append(rows[event.item])
    drawn = np.random.default_rng(seed).permutation(len(asked))[:MAX_VALIDATED].tolist()
    return Questions([asked[n][0] for n in drawn], np.array([asked[n][1] for n in drawn], np.int64))


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

    task: str = "retrieve"
    domain: str
    foundation: str
    data: str = ""
    split: str = ""
    rule: Mapping[str, Any] | None = None
