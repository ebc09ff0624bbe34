"""Rows of questions → padded arrays of token positions: everything about a batch but the states themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from m6rec.types import SLOTS, Question, Segment

Ints = NDArray[np.int64]
_SLOT = {slot: number for number, slot in enumerate(SLOTS)}


@dataclass(frozen=True, eq=False)
class Example:
    """All questions of one user, laid out for one forward pass (one pass, all targets).

    The context grows by a segment an event, and question c sees the first ``visible[c]`` segments of it: what had
    happened by then. A question of ``ask`` is a row with one question.

    Attributes:
        context: Facts and behaviours, oldest first.
        visible: int64 [C], segments of the context that each question sees.
        candidates: C blocks of segments.
        features: float32 [C, len(FEATURES)], or [C, 0] for tasks without.
        labels: int64 [C], classes.
        events: int64 [C], positions in the log; of a drawn negative that of the event it was drawn beside.
        items: int64 [C], the candidates' positions in the catalogue; [0] where no one asks for them.
        event_features: float32 [H, len(EVENT_FEATURES)] of the last H segments of the context, the events; [0, 0] for
            tasks without.
    """

    context: tuple[Segment, ...]
    visible: NDArray[np.int64]
    candidates: tuple[tuple[Segment, ...], ...]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    events: NDArray[np.int64]
    event_features: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    items: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def only(self, keep: NDArray[np.bool_]) -> Example:
        """This row with some of its questions; ``keep`` is bool [C], not all False."""
        blocks = tuple(block for block, kept in zip(self.candidates, keep, strict=True) if kept)
        visible = self.visible[keep]
        end = visible.max()
        return Example(
            self.context[:end],
            visible,
            blocks,
            self.features[keep],
            self.labels[keep],
            self.events[keep],
            self.event_features[: max(0, end - self.num_profile)],
            self.items[keep] if len(self.items) else self.items,
        )

    @property
    def num_profile(self) -> int:
        """Segments of the context before the first that has a trace."""
        return len(self.context) - len(self.event_features)

    def by_timestamp(self) -> list[Example]:
        """A row for each moment at which something is asked, the earliest first."""
        return [self.only(self.visible == visible) for visible in np.unique(self.visible)]

    def question(self, number: int) -> Question:
        """One of the questions by itself."""
        return Question(self.context[: self.visible[number]], self.candidates[number])


@dataclass(frozen=True, eq=False)
class Batch:
    """B users, each with a context of N tokens and C blocks of M tokens, padded at the right.

    Attributes:
        context_BN: Positions in the table of states; padding points at 0 and is never seen.
        context_slot_BN: Position in ``SLOTS`` of each token's segment.
        length_B: Valid context tokens.
        block_BCM: As ``context_BN``, for the candidates.
        block_slot_BCM: As ``context_slot_BN``.
        visible_BC: Context tokens that each candidate sees.
        last_BC: Where the last valid token of each block is, which readouts read.
        features_BCF: Numbers of user and candidate; 0 in rows without, F is 0 where no row has any.
        labels_BC: Classes; -1 where there is no candidate, or no answer.
        valid_BC: False where there is no candidate.
        event_features_BNG: Features of an event at the last token of its segment, else 0; G is 0 where no row has any.
        has_event_features_BN: Whether there are such numbers.
    """

    context_BN: Ints
    context_slot_BN: Ints
    length_B: Ints
    block_BCM: Ints
    block_slot_BCM: Ints
    visible_BC: Ints
    last_BC: Ints
    features_BCF: NDArray[np.float32]
    labels_BC: Ints
    valid_BC: NDArray[np.bool_]
    event_features_BNG: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    has_event_features_BN: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))


def pad(rows: Sequence[Example], places: Mapping[str, tuple[int, int]]) -> Batch:
    """Pads rows to one batch.

    Args:
        rows: At least one.
        places: Where each text's kept tokens are in the table of states: the first, and how many.
    """
    contexts = [flat(row.context, places) for row in rows]
    blocks = [flat([segment for block in row.candidates for segment in block], places) for row in rows]
    # Of every block, where its tokens end within those of the row; the first ends where the row begins.
    ends = [ends[np.cumsum([0, *map(len, row.candidates)])] for row, (_, _, ends) in zip(rows, blocks, strict=True)]
    batch, count = len(rows), max(len(row.candidates) for row in rows)
    size = max(int(np.diff(of_row).max(initial=0)) for of_row in ends)
    length = max(len(tokens) for tokens, _, _ in contexts)
    result = Batch(
        np.zeros((batch, length), np.int64),
        np.zeros((batch, length), np.int64),
        np.array([len(tokens) for tokens, _, _ in contexts]),
        np.zeros((batch, count, size), np.int64),
        np.zeros((batch, count, size), np.int64),
        np.zeros((batch, count), np.int64),
        np.zeros((batch, count), np.int64),
        np.zeros((batch, count, max(row.features.shape[1] for row in rows)), np.float32),
        np.full((batch, count), -1),
        np.zeros((batch, count), np.bool_),
        np.zeros((batch, length, max(row.event_features.shape[1] for row in rows)), np.float32),
        np.zeros((batch, length), np.bool_),
    )
    for b, (row, (tokens, slots, context_ends)) in enumerate(zip(rows, contexts, strict=True)):
        result.context_BN[b, : len(tokens)], result.context_slot_BN[b, : len(tokens)] = tokens, slots
        if len(row.event_features):
            last = context_ends[1 + row.num_profile :] - 1
            result.event_features_BNG[b, last], result.has_event_features_BN[b, last] = row.event_features, True
        many = len(row.candidates)
        result.visible_BC[b, :many] = context_ends[row.visible]
        result.features_BCF[b, :many, : row.features.shape[1]] = row.features
        result.labels_BC[b, :many] = row.labels
        result.valid_BC[b, :many] = True
        tokens, slots, _ = blocks[b]
        lengths = np.diff(ends[b])
        block = np.repeat(np.arange(many), lengths)
        within = np.arange(len(tokens)) - np.repeat(ends[b][:-1], lengths)
        result.block_BCM[b, block, within], result.block_slot_BCM[b, block, within] = tokens, slots
        result.last_BC[b, :many] = lengths - 1
    return result


def flat(segments: Sequence[Segment], places: Mapping[str, tuple[int, int]]) -> tuple[Ints, Ints, Ints]:
    """(token positions, their slots, how many tokens the first s segments have, for s = 0, 1, …)."""
    found = np.array([places[segment.text] for segment in segments], np.int64).reshape(len(segments), 2)
    first, lengths = found[:, 0], found[:, 1]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.arange(ends[-1]) + np.repeat(first - ends[:-1], lengths)
    slots = np.repeat(np.array([_SLOT[segment.slot] for segment in segments], np.int64), lengths)
    return tokens, slots, ends


def size(row: Example, length: Callable[[str], int]) -> tuple[int, int]:
    """(tokens of the context, tokens of the padded blocks), where ``length`` tells the tokens of a text."""
    blocks = [sum(length(segment.text) for segment in block) for block in row.candidates]
    return sum(length(segment.text) for segment in row.context), max(blocks) * len(blocks)


def pack(sizes: Sequence[tuple[int, int]], most: int) -> list[list[int]]:
    """Groups rows so that padding is small and no group, padded, has more than ``most`` tokens.

    Args:
        sizes: Of each row, by ``size``.
        most: Padded tokens of a group; a larger row is a group of its own.

    Returns:
        Positions in ``sizes``, shortest rows first.
    """
    order = sorted(range(len(sizes)), key=lambda number: sizes[number])
    groups: list[list[int]] = []
    for number in order:
        group = [*groups[-1], number] if groups else [number]
        padded = len(group) * (max(sizes[n][0] for n in group) + max(sizes[n][1] for n in group))
        if groups and padded <= most:
            groups[-1] = group
        else:
            groups.append([number])
    return groups
