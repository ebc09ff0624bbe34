"""What retrieval is tuned and measured on: the likes of the training part, and held-out likes with their past.

Point in time: a query knows nothing of its own timestamp (``data.examples``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m6rec.data.examples import require_parts, time_groups
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.features.interactions import MAX_LIKES
from m6rec.retrieval.blend import HeldOut
from m6rec.retrieval.embeddings import Floats, Ints, user_vectors
from m6rec.retrieval.training import Questions
from m6rec.tasks.task import Task
from m6rec.types import Item

NUM_MOST_LIKED = 50
"""Who liked nothing yet is taken for one who likes so many of the most liked items."""
MAX_VALIDATED = 4_000
"""Likes of the validation part that epochs are chosen by; so many are drawn."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrievalQueries:
    """Likes of a part whose item the user had not met, in the order of the log.

    Items are rows of the catalogue.

    Attributes:
        events: int64 [Q], positions in the log.
        targets: int64 [Q], the items that were liked.
        likes: What each user had liked by then, oldest first; may be empty.
        seen: What each user had given feedback on by then, which retrieval leaves out.
        most_liked: For a user without a like the items most liked by then, the most liked last; else empty.
    """

    events: Ints
    targets: Ints
    likes: Sequence[Ints]
    seen: Sequence[Ints]
    most_liked: Sequence[Ints]

    def only(self, numbers: Sequence[int]) -> RetrievalQueries:
        """Some of these, in the order given."""
        chosen = np.array(numbers, np.int64)
        lists = {name: [getattr(self, name)[n] for n in numbers] for name in ("likes", "seen", "most_liked")}
        return RetrievalQueries(events=self.events[chosen], targets=self.targets[chosen], **lists)

    def drawn(self, count: int, *, seed: int = 0) -> RetrievalQueries:
        """These, or of more than ``count`` so many at random."""
        chosen = np.random.default_rng(seed).permutation(len(self.targets))[:count]
        return self.only(sorted(chosen.tolist())) if len(chosen) < len(self.targets) else self

    def validation(self, *, seed: int = 0) -> Questions:
        """Those of users with a like, of which ``MAX_VALIDATED`` are drawn: what epochs are chosen by."""
        known = [number for number, liked in enumerate(self.likes) if len(liked)]
        drawn = [known[n] for n in np.random.default_rng(seed).permutation(len(known))[:MAX_VALIDATED].tolist()]
        return Questions([self.likes[number] for number in drawn], self.targets[drawn])

    def user_vectors(self, items_IE: Floats, decay: float) -> Floats:
        """float32 [Q, E]; who had liked nothing is one who likes what most had by then, as in the service."""
        return user_vectors(items_IE, [likes[-MAX_LIKES:] for likes in self._liked()], decay)

    def held_out(self, ids: Sequence[str], users_QE: Floats, items_IE: Floats) -> HeldOut:
        """These with the vectors of their users and of the items ``ids``."""
        return HeldOut(
            liked=self._liked(),
            seen=self.seen,
            target_Q=self.targets,
            users_QE=users_QE,
            ids=ids,
            items_IE=items_IE,
        )

    def _liked(self) -> list[Ints]:
        return [liked if len(liked) else most for liked, most in zip(self.likes, self.most_liked, strict=True)]


@dataclass(frozen=True, eq=False, kw_only=True)
class LikeSequences:
    """Who liked what.

    Attributes:
        items: The catalogue.
        likes: For each user the rows of what they liked, oldest first, each once.
    """

    items: Sequence[Item]
    likes: Sequence[Ints]

    @property
    def ids(self) -> list[str]:
        """Ids of the catalogue."""
        return [item.id for item in self.items]


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrievalExamples:
    """Examples of a whole split, point in time.

    Attributes:
        training: The likes of the training part.
        queries: Those of VALID and TEST.
    """

    training: LikeSequences
    queries: Mapping[int, RetrievalQueries]

    def __getitem__(self, part: int) -> Any:
        """What a part is tuned or measured on."""
        return self.training if part == TRAIN else self.queries[part]

    @property
    def items(self) -> Sequence[Item]:
        """The catalogue."""
        return self.training.items

    @property
    def ids(self) -> list[str]:
        """Ids of the catalogue."""
        return self.training.ids

    def drawn(self, most: Mapping[int, int], *, seed: int = 0) -> RetrievalExamples:
        """These, or of a part with more than ``most`` queries so many at random."""
        some = {part: of.drawn(most.get(part, len(of.targets)), seed=seed) for part, of in self.queries.items()}
        return replace(self, queries=some)


def build_examples(task: Task, split: Split, domain: Domain) -> RetrievalExamples:
    """Reads a log forward once.

    Args:
        task: Tells which events are targets.
        split: The split.
        domain: Tells likes.

    Raises:
        DataError: A part has no target, so nothing could be tuned or measured on it.
    """
    positions: dict[int, list[int]] = {VALID: [], TEST: []}
    for position, (event, part) in enumerate(zip(split.log.events, split.part.tolist(), strict=True)):
        if part in positions and event.item and task.label(event, domain) is not None:
            positions[part].append(position)
    every = queries(split, domain, np.array([*positions[VALID], *positions[TEST]], np.int64))
    new = [target not in seen for target, seen in zip(every.targets, every.seen, strict=True)]
    parts = {VALID: range(len(positions[VALID])), TEST: range(len(positions[VALID]), len(new))}
    asked = {part: [number for number in numbers if new[number]] for part, numbers in parts.items()}
    training = likes_of(split, domain)
    require_parts(task.name, {TRAIN: training.likes, **asked})
    return RetrievalExamples(training=training, queries={part: every.only(numbers) for part, numbers in asked.items()})


def likes_of(split: Split, domain: Domain, *parts: int) -> LikeSequences:
    """The likes of these parts; without, of the training part."""
    rows, chosen = {item: row for row, item in enumerate(split.log.items)}, np.isin(split.part, parts or (TRAIN,))
    likes: dict[str, dict[int, None]] = {}
    for event, is_in in zip(split.log.events, chosen.tolist(), strict=True):
        if is_in and event.item and domain.positive(event):
            likes.setdefault(event.user, {}).setdefault(rows[event.item])
    return LikeSequences(
        items=list(split.log.items.values()), likes=[np.array([*liked], np.int64) for liked in likes.values()]
    )


def queries(split: Split, domain: Domain, positions: Ints) -> RetrievalQueries:
    """What is known before each of these events, whose items are the targets; in the order given."""
    events, rows = list(split.log.events), {item: row for row, item in enumerate(split.log.items)}
    wanted: dict[int, list[int]] = {}
    for place, position in enumerate(positions.tolist()):
        wanted.setdefault(position, []).append(place)
    liked: dict[str, list[int]] = {}
    seen: dict[str, list[int]] = {}
    counts = Counter[int]()
    known: list[tuple[str, int, int, list[int]]] = [("", 0, 0, [])] * len(positions)
    for group in time_groups(events):
        for position in group.queries:
            user = events[position].user
            for place in wanted.get(position, ()):
                most = [] if user in liked else [row for row, _ in counts.most_common(NUM_MOST_LIKED)][::-1]
                known[place] = (user, len(liked.get(user, ())), len(seen.get(user, ())), most)
        for event in (events[position] for position in group.events):
            positive = domain.feedback(event).positive if event.item else None
            if event.item:
                counts[rows[event.item]] += bool(positive)
            if positive:
                liked.setdefault(event.user, []).append(rows[event.item])
            if positive is not None:
                seen.setdefault(event.user, []).append(rows[event.item])
    liked_by, seen_by = ({user: np.array(of, np.int64) for user, of in all_.items()} for all_ in (liked, seen))
    nothing = np.zeros(0, np.int64)
    return RetrievalQueries(
        events=positions,
        targets=np.array([rows.get(events[position].item, -1) for position in positions.tolist()], np.int64),
        likes=[liked_by.get(user, nothing)[:count] for user, count, _, _ in known],  # views of one array a user
        seen=[seen_by.get(user, nothing)[:count] for user, _, count, _ in known],
        most_liked=[np.array(most, np.int64) for *_, most in known],
    )
