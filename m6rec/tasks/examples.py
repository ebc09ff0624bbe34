"""The examples of a whole split, point in time and checked for leaks: rows of questions, or drafts of texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from m6rec.data import leakage
from m6rec.data.examples import SAY_WHAT, num_known, require_parts
from m6rec.data.negatives import Negatives
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.errors import DataError
from m6rec.tasks import writing
from m6rec.tasks.task import Task, build_examples
from m6rec.text.batch import Example
from m6rec.types import Draft

Ints = NDArray[np.int64]
PARTS = (TRAIN, VALID, TEST)


@dataclass(frozen=True, eq=False)
class TaskExamples:
    """Examples of a whole split, point in time.

    Attributes:
        rows: The rows of each part, TRAIN, VALID and TEST.
        negatives: How negatives were drawn; None where the log has its own.
    """

    rows: Mapping[int, list[Example]]
    negatives: Negatives | None = None

    def __getitem__(self, part: int) -> list[Example]:
        """The rows of a part."""
        return self.rows[part]

    def labels(self, part: int) -> Ints:
        """Classes, in the order of scores."""
        return np.concatenate([row.labels for row in self.rows[part]])

    def events(self, part: int) -> Ints:
        """Positions in the log, in the same order."""
        return np.concatenate([row.events for row in self.rows[part]])

    def items(self, part: int) -> Ints:
        """Positions of the candidates in the catalogue, in the same order."""
        return np.concatenate([row.items for row in self.rows[part]])

    def features(self, part: int) -> NDArray[np.float32]:
        """float32 [Q, len(FEATURES)], in the same order."""
        return np.concatenate([row.features for row in self.rows[part]])

    def drawn(self, most: Mapping[int, int], *, seed: int = 0) -> TaskExamples:
        """These, or of a part with more than ``most`` questions those of users drawn at random, about so many."""
        rows = dict(self.rows)
        for part, count in most.items():
            size_R = np.array([len(row.events) for row in rows[part]])
            order_R = np.random.default_rng(seed).permutation(len(size_R))
            kept_R = order_R[: np.searchsorted(np.cumsum(size_R[order_R]), count) + 1]
            rows[part] = [rows[part][number] for number in sorted(kept_R.tolist())]
        return replace(self, rows=rows)


def task_examples(task: Task, split: Split, domain: Domain) -> TaskExamples:
    """Builds the examples of all events in one pass over the log.

    Args:
        task: The task.
        split: The split.
        domain: The domain.

    Raises:
        DataError: A part has no question, so nothing could be tuned or measured on it; or a question could know its
            label (``check_leaks``).
    """
    log = split.log
    every = np.ones(len(log.events), np.bool_)
    negatives = negatives_of(task, split, domain)
    rows, _ = build_examples(task, log.events, log.users, log.items, domain, every, negatives)
    by_part: dict[int, list[Example]] = {}
    for part in PARTS:
        kept = [(row, (split.part == part)[row.events]) for row in rows]
        by_part[part] = [row.only(keep) for row, keep in kept if keep.any()]
    require_parts(task.name, by_part)
    made = TaskExamples(by_part, negatives)
    check_leaks(split, made)
    return made


def negatives_of(task: Task, split: Split, domain: Domain) -> Negatives | None:
    """The negative sampling of a task, if the training part has only positive events.

    Raises:
        DataError: The training part has no positive event.
    """
    if task.num_classes != 2:
        return None
    events = [event for event, part in zip(split.log.events, split.part.tolist(), strict=True) if part == TRAIN]
    answers = [task.label(event, domain) if event.item else None for event in events]
    found = set(answers)
    if 1 not in found:
        raise DataError(
            f"the training part has no event that {task.name!r} takes as positive, so there is nothing to learn; "
            f"{SAY_WHAT}"
        )
    if 0 in found:
        return None
    shown = {(event.user, event.impression) for event, answer in zip(events, answers, strict=True) if answer == 1}
    beside = (
        answer is None and event.impression and (event.user, event.impression) in shown
        for event, answer in zip(events, answers, strict=True)
    )
    return Negatives(source="impression") if any(beside) else task.negatives


def task_drafts(task: Task, split: Split, domain: Domain) -> dict[int, list[Draft]]:
    """Builds the drafts of all events by part, in one pass over the log.

    Raises:
        DataError: A part has no draft, or the split leaks (``data.leakage``).
    """
    log = split.log
    leakage.check(split, allowed=leakage.PROTOCOL)
    every = np.ones(len(log.events), np.bool_)
    drafts = writing.build_drafts(task, log.events, log.users, log.items, domain, every)
    by_part = {part: [draft for draft in drafts if split.part[draft.event] == part] for part in PARTS}
    require_parts(task.name, by_part)
    return by_part


def check_leaks(split: Split, questions: TaskExamples) -> None:
    """Raises DataError if a query could know its label.

    Raises:
        DataError: A question's context reaches its own event or later ones, or an event occurs twice in the log.
    """
    leakage.check(split, allowed=leakage.PROTOCOL)
    earlier = np.array(num_known(split.log.events))
    for rows in questions.rows.values():
        for row in rows:
            behaviours = np.array([0, *np.cumsum([segment.slot == "history" for segment in row.context])])
            if not np.array_equal(behaviours[row.visible], earlier[row.events]):
                raise DataError(f"a question of event {row.events[0]} or later sees more or less than its past")
