"""One score for every item, warm or cold: what its text says beside what item-item models say.

    score = w_text · ⟨user vector, item vector⟩ + Σ w_s · source_s(likes)

Each source is scaled so that its greatest score is 1, and gives 0 to an item that it doesn't know. The same code ranks
offline and online. The weights, and how fast each source forgets, are learned on held-out likes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m6rec import hooks
from m6rec.config import Count, Natural, NonNegative, Positive, Share, validate
from m6rec.errors import AssetError, ConfigError
from m6rec.evaluation.metrics import ranks
from m6rec.features.interactions import MAX_LIKES
from m6rec.retrieval import kernels
from m6rec.retrieval.sources import MEMORY, Arrays, Floats, Ints, Likes, Source

FoundT = TypeVar("FoundT", bound=Hashable)

FILE = "blend.safetensors"
TEXT = "text"
"""The weight of the product of vectors, beside those of the sources."""
FAINTEST = 1e-3
"""Where all scores of a source are fainter than this, they stay so."""
_MAX_SCORES = 1 << 24
FUSION = 10
"""So many places further down an item weighs half; chosen on dialogues (design/007)."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Fitted sources and what each weighs.

    Attributes:
        numbers: Row of each item that sources know, in order.
        arrays: What each source of ``hooks.SOURCES`` has learned, by its name.
        weights: Of each source and of ``TEXT``; they sum to 1.
    """

    numbers: dict[str, int]
    arrays: Mapping[str, Arrays]
    weights: Mapping[str, float]

    @property
    def text(self) -> float:
        """The weight of the product of vectors."""
        return self.weights[TEXT]

    def parts(self, liked: Sequence[str]) -> Floats:
        """Each source's scores of its items, [S, I], at most 1, by the ids of what a user liked, oldest first."""
        parts_SI = np.zeros((len(self.arrays), len(self.numbers)), np.float32)
        for part_1I, name in zip(parts_SI[:, None], self.arrays, strict=True):
            self._add(name, 1.0, [self._rows(liked)], part_1I)
        return parts_SI

    def scores(self, liked: Sequence[str]) -> Floats:
        """What the sources add to the score of each of their items, [I], at least 0; see ``parts``."""
        scores_I: Floats = self.scores_of_many([liked])[0]
        return scores_I

    def scores_of_many(self, likes: Sequence[Sequence[str]]) -> Floats:
        """The ``scores`` of each of several users, [U, I]."""
        scores_UI = np.zeros((len(likes), len(self.numbers)), np.float32)
        rows = [self._rows(liked) for liked in likes]
        for name in self.arrays:
            self._add(name, self.weights[name], rows, scores_UI)
        return scores_UI

    def _rows(self, liked: Sequence[str]) -> Ints:
        known = [self.numbers[item] for item in dict.fromkeys(reversed(liked)) if item in self.numbers]
        return np.array(known[:MAX_LIKES], np.int64)

    def _add(self, name: str, weight: float, likes: Sequence[Ints], scores_UI: Floats) -> None:
        """Adds a source's scores, the greatest of a user scaled to ``weight``, and none below 0."""
        if scores_UI.shape[1] and any(map(len, likes)):
            part_UI = np.asarray(_source(name).scores(self.arrays[name], likes), np.float32)
            scale_U = (weight / np.maximum(part_UI.max(1), FAINTEST)).astype(np.float32)
            kernels.add_scaled(part_UI, scale_U, scores_UI)

    def weighed(self, weights: Mapping[str, float]) -> Blend:
        """The same sources with other weights; those without one are left out."""
        arrays = {name: of_source for name, of_source in self.arrays.items() if name in weights}
        return replace(self, arrays=arrays, weights=weights)

    def strongest(self, liked: Sequence[str], count: int) -> dict[str, float]:
        """The ``count`` items of the greatest ``scores``, by id; none of 0."""
        score_I = self.scores(liked)
        rows = np.argpartition(-score_I, count)[:count] if count < len(score_I) else np.arange(len(score_I))
        rows = rows[score_I[rows] > 0]
        return {self._ids[row]: score for row, score in zip(rows.tolist(), score_I[rows].tolist(), strict=True)}

    @cached_property
    def _ids(self) -> list[str]:
        return list(self.numbers)

    def save(self, folder: Path) -> None:
        """Writes ``blend.safetensors``, whose header holds the ids and the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{FILE}.partial"
        arrays = {
            f"{name}.{key}": np.ascontiguousarray(array)
            for name, of_source in self.arrays.items()
            for key, array in of_source.items()
        }
        header = {"ids": json.dumps(self._ids), "weights": json.dumps(dict(self.weights))}
        save_file(arrays, str(partial), metadata=header)
        os.replace(partial, folder / FILE)


def default_weights(sources: Mapping[str, Source]) -> dict[str, float]:
    """Where none are learned: those of the sources beside a text of 1, scaled to a sum of 1."""
    weight = {name: source.weight for name, source in sources.items()} | {TEXT: 1.0}
    total = sum(weight.values())
    return {name: one / total for name, one in weight.items()}


def _source(name: str) -> Source:
    source: Source = hooks.SOURCES.find(name)
    return source


def load(folder: Path) -> Blend:
    """Reads what ``Blend.save`` wrote. Raises AssetError where the file is not readable."""
    try:
        with safe_open(folder / FILE, "np") as file:
            header = file.metadata() or {}
            ids, weights = json.loads(header["ids"]), json.loads(header["weights"])
            arrays: dict[str, dict[str, NDArray[np.generic]]] = {}
            for path in file.keys():  # noqa: SIM118
                name, _, key = path.rpartition(".")
                arrays.setdefault(name, {})[key] = file.get_tensor(path)
        if strange := arrays.keys() - weights.keys():
            raise ValueError(f"the source {min(strange)!r} has no weight")
        for name, of_source in arrays.items():
            if _source(name).scores(of_source, [np.zeros(0, np.int64)]).shape != (1, len(ids)):
                raise ValueError(f"{len(ids)} items, but {name} scores another number")
    except (SafetensorError, OSError, KeyError, IndexError, ValueError, ConfigError) as error:
        raise AssetError(f"{folder / FILE} holds no readable blend ({error}); tune the task again") from error
    in_order = {name: arrays[name] for name in weights if name in arrays}
    blend = Blend({item: number for number, item in enumerate(ids)}, in_order, weights)
    blend.scores(ids[:1])  # compiles what isn't yet, before the first request waits for it
    return blend


def fit(
    events: Iterable[tuple[str, str, bool]],
    vectors: Mapping[str, Floats] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    sources: Mapping[str, Source] | None = None,
) -> Blend:
    """Sources fitted on the training part's events, each user's in order of time, with the default weights.

    Args:
        events: User, item, and whether it was a like. Items without a like are unknown to all sources.
        vectors: Unit vectors of items by id, read from their texts, for sources that take them.
        progress: Called with (done, total) sources.
        sources: The sources by name; None for those of ``hooks.SOURCES``.
    """
    sources = hooks.SOURCES.all() if sources is None else sources
    counts: dict[str, int] = {}
    by_user: dict[str, dict[str, None]] = {}
    for user, item, liked in events:
        if liked and item not in by_user.setdefault(user, {}):
            by_user[user][item] = None
            counts[item] = counts.get(item, 0) + 1
    numbers = {item: number for number, item in enumerate(sorted(counts, key=lambda item: (-counts[item], item)))}
    sequences = [
        np.array([numbers[item] for item in [*liked][-MAX_LIKES:]], np.int64) for liked in by_user.values() if liked
    ]
    if vectors is None:
        vectors_IE = np.zeros((len(numbers), 0), np.float32)
    else:
        vectors_IE = np.stack([vectors[item] for item in numbers])
    likes = Likes(sequences=sequences, num_items=len(numbers), vectors_IE=vectors_IE)
    arrays: dict[str, Arrays] = {}
    for done, (name, source) in enumerate(sources.items()):
        progress(done, len(sources))
        if sequences:
            arrays[name] = source.fit(likes)
    progress(len(sources), len(sources))
    return Blend(numbers, arrays, default_weights(sources))


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Likes to be told from what was before them, among a whole catalogue.

    Attributes:
        liked: For each, the numbers of the items that its user had liked, oldest first.
        seen: … had had to do with, which are not recommended; never the target.
        target_Q: Number of the item that was liked.
        users_QE: User vectors.
        ids: Of the items, by number.
        items_IE: Item vectors.
    """

    liked: Sequence[Sequence[int] | Ints]
    seen: Sequence[Sequence[int] | Ints]
    target_Q: Ints
    users_QE: Floats
    ids: Sequence[str]
    items_IE: Floats

    def rows(self, blend: Blend) -> tuple[Ints, Ints]:
        """(numbers of the items that the blend's sources know, their rows there)."""
        row_I = np.array([blend.numbers.get(item, -1) for item in self.ids], np.int64)
        known = np.flatnonzero(row_I >= 0)
        return known, row_I[known]

    def likes(self, question: int) -> list[str]:
        """Ids of what had been liked, as many of the latest as count."""
        return [self.ids[number] for number in self.liked[question][-MAX_LIKES:]]

    def parts(self, blend: Blend) -> Iterator[Floats]:
        """Of each question the score of every item by each part alone, [S + 1, I]: the sources, then the vectors."""
        known, rows = self.rows(blend)
        for number in range(len(self.target_Q)):
            parts_SI = np.zeros((len(blend.arrays) + 1, len(self.ids)), np.float32)
            parts_SI[:-1, known] = blend.parts(self.likes(number))[:, rows]
            parts_SI[-1] = self.items_IE @ self.users_QE[number]
            yield parts_SI

    def drawn(self, count: int) -> HeldOut:
        """These, or of more than ``count`` so many at random."""
        chosen = np.random.default_rng(0).permutation(len(self.target_Q))[:count].tolist()
        return replace(
            self,
            liked=[self.liked[number] for number in chosen],
            seen=[self.seen[number] for number in chosen],
            target_Q=self.target_Q[chosen],
            users_QE=self.users_QE[chosen],
        )


def ranked(blend: Blend | None, held_out: HeldOut) -> NDArray[np.floating]:
    """Rank of each target among the items not seen, from 1: by the blend, or without one by the vectors alone."""
    num_items = len(held_out.ids)
    if blend is not None:
        known, rows = held_out.rows(blend)
    step, found = max(1, _MAX_SCORES // num_items), []
    for start in range(0, len(held_out.target_Q), step):
        numbers = range(start, min(start + step, len(held_out.target_Q)))
        scores_QI = held_out.users_QE[start : start + step] @ held_out.items_IE.T
        seen_QI = np.zeros(scores_QI.shape, np.bool_)
        for place, number in enumerate(numbers):
            seen_QI[place, held_out.seen[number]] = True
            if blend is not None:
                scores_QI[place] *= np.float32(blend.text)
                scores_QI[place, known] += blend.scores(held_out.likes(number))[rows]
        found.append(ranks(scores_QI, held_out.target_Q[start : start + step], seen_QI))
    return np.concatenate(found)


@dataclass(frozen=True, kw_only=True)
class WeightConfig:
    """How weights are learned, and what a source remembers.

    Attributes:
        memories: What a like may weigh of the one after it, beside what each source is made with.
        memory_questions: Held-out likes by which it is chosen, at most; so many are drawn.
        prior: How much they are drawn to the default ones, in standard errors; see ``weigh``.
        min_questions: Fewer held-out likes are trusted less still, and choose no memory.
        max_questions: Of more, so many are drawn.
        rivals: Items that a part puts first in a question, which the target must get ahead of.
        softness: By how much of a blended score, of which 1 is the most, one item is surely ahead of another.
        least: A source that weighs less is left out.
    """

    memories: tuple[Share, ...] = (0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
    memory_questions: Count = 2_000
    prior: NonNegative = 2.0
    min_questions: Natural = 100
    max_questions: Count = 5_000
    rivals: Count = 50
    softness: Positive = 0.01
    least: Share = 0.02

    def __post_init__(self) -> None:
        validate(self)


def weigh(blend: Blend, held_out: HeldOut, config: WeightConfig = WeightConfig()) -> Blend:
    """The blend with the weights that put held-out likes furthest ahead, by a smooth form of their NDCG.

    First each source gets the memory by which it alone ranks them best, as tastes change on one log and not on
    another; the default is left for what is beyond one standard error.

    Weights leave the default ones only for what is beyond the noise of so many questions: to move by 1 costs ``prior``
    times the root of their number, where the gain of a question is 1 at most. So another seed, machine or number of
    threads hardly changes them.

    Args:
        blend: Fitted on what is before the questions, with the default weights.
        held_out: The questions; without one, the weights stay.
        config: How to learn.
    """
    if len(held_out.target_Q) >= config.min_questions:
        blend = _remembering(blend, held_out.drawn(config.memory_questions), config.memories)
    held_out = held_out.drawn(config.max_questions)
    gaps, starts, end = [], [], 0
    for number, parts_SI in enumerate(held_out.parts(blend)):
        parts_SI[:, held_out.seen[number]] = -np.inf
        gap_RS = _gaps(parts_SI, int(held_out.target_Q[number]), config.rivals)
        if len(gap_RS):
            gaps.append(gap_RS)
            starts.append(end)
            end += len(gap_RS)
    if not gaps:
        return blend
    names = [*blend.arrays, TEXT]
    default_S = np.array([blend.weights[name] for name in names])
    weight_S = _best_weights(np.concatenate(gaps), np.array(starts), default_S, config)
    kept = {
        name: weight
        for name, weight in zip(names, weight_S.tolist(), strict=True)
        if name == TEXT or weight >= config.least
    }
    total = sum(kept.values())
    return blend.weighed({name: weight / total for name, weight in kept.items()})


def _remembering(blend: Blend, held_out: HeldOut, memories: Sequence[float]) -> Blend:
    """The blend with the best memory of each source that has one; see ``weigh``."""
    arrays = dict(blend.arrays)
    for name, of_source in blend.arrays.items():
        if MEMORY not in of_source:
            continue
        made = of_source[MEMORY]
        tried = [made, *(np.full_like(made, memory) for memory in memories)]
        alone = [
            replace(blend, arrays={name: {**of_source, MEMORY: one}}, weights={name: 1.0, TEXT: 0.0}) for one in tried
        ]
        gain_MQ = 1 / np.log2(1 + np.stack([ranked(one, held_out) for one in alone]))
        best = int(gain_MQ.mean(1).argmax())
        more_Q = gain_MQ[best] - gain_MQ[0]
        if more_Q.mean() > more_Q.std() / len(more_Q) ** 0.5:
            arrays[name] = alone[best].arrays[name]
    return replace(blend, arrays=arrays)


def _gaps(parts_SI: Floats, target: int, count: int) -> Floats:
    """By how much each rival is ahead of the target in each part, [R, S]: those that a part puts first."""
    count = min(count, parts_SI.shape[1])
    rivals = np.unique(np.argpartition(-parts_SI, count - 1, 1)[:, :count])
    rivals = rivals[(rivals != target) & np.isfinite(parts_SI[-1, rivals])]
    return (parts_SI[:, rivals] - parts_SI[:, [target]]).T


def _best_weights(
    gap_RS: Floats, start_Q: Ints, default_S: NDArray[np.float64], config: WeightConfig
) -> NDArray[np.float64]:
    """Weights that sum to 1, of the greatest NDCG with a sigmoid in place of each step (Qin, Liu & Li, 2010, eq. 8).

    rank = 1 + Σ sigmoid(gap · weights / softness); the gain of a question is 1 / log2(1 + rank).
    """
    from scipy.optimize import minimize

    rivals_Q = np.diff(start_Q, append=len(gap_RS))
    prior = config.prior * (len(start_Q) + config.min_questions) ** 0.5

    def loss(logit_S: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight_S = np.exp(logit_S - logit_S.max())
        weight_S /= weight_S.sum()
        ahead_R = 1 / (1 + np.exp(np.clip(-gap_RS @ weight_S.astype(np.float32) / config.softness, -50, 50)))
        rank_Q = 1 + np.add.reduceat(ahead_R, start_Q)
        bits_Q = np.log2(1 + rank_Q)
        slope_Q = -1 / (bits_Q**2 * (1 + rank_Q) * np.log(2))
        away_S = weight_S - default_S
        slope_S = (
            ahead_R * (1 - ahead_R) / config.softness * np.repeat(slope_Q, rivals_Q)
        ) @ gap_RS - 2 * prior * away_S
        gain = float((1 / bits_Q).sum() - prior * away_S @ away_S)
        return -gain, -weight_S * (slope_S - weight_S @ slope_S)

    found = minimize(loss, np.log(default_S), jac=True, method="L-BFGS-B").x
    weight_S: NDArray[np.float64] = np.exp(found - found.max())
    weight_S /= weight_S.sum()
    return weight_S


def reciprocal_rank_fusion(orders: Sequence[Sequence[FoundT]]) -> list[FoundT]:
    """Several orders as one, by the sum of 1 / (``FUSION`` + place) (reciprocal rank fusion, Cormack et al., 2009).

    >>> reciprocal_rank_fusion(["abc", "cb", "bca"])
    ['b', 'c', 'a']
    """
    weights: dict[FoundT, float] = {}
    for order in orders:
        for place, item in enumerate(order):
            weights[item] = weights.get(item, 0.0) + 1 / (FUSION + place)
    return sorted(weights, key=lambda item: -weights[item])
