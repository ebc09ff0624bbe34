"""A log in three parts: training, validation and test."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m6rec.data.log import Log
from m6rec.errors import ConfigError

TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Split:
    """A log with each event in the training, validation or test part.

    Attributes:
        log: The log.
        part: ``TRAIN``, ``VALID`` or ``TEST`` for each event; uint8, shape (events,).
    """

    log: Log
    part: NDArray[np.uint8]

    def indices(self, part: int) -> NDArray[np.int64]:
        """Positions in ``log.events`` of one part, ascending."""
        return np.flatnonzero(self.part == part)


def split_by_time(log: Log, *, valid: float = 0.1, test: float = 0.1) -> Split:
    """Splits at two moments for everyone: the last events are the test part, those before it the validation part.

    The parts are cut by position in the log, so their sizes are exact.

    Raises:
        ConfigError: The fractions aren't in [0, 1) or sum to 1 or more, or the log has no time.
    """
    train_size, test_start = _cuts(len(log.events), valid, test)
    if log.events and not log.events[-1].time:
        raise ConfigError(
            "The log has no time to split by; split by item or leave one out (--split item, --split leave-one-out)."
        )
    part = np.full(len(log.events), TRAIN, np.uint8)
    part[train_size:] = VALID
    part[test_start:] = TEST
    return Split(log, part)


def split_by_item(log: Log, *, valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Split:
    """Splits at random by item: all events of an item are in one part.

    Args:
        log: The log.
        valid: Fraction of the items in the validation part.
        test: Fraction of the items in the test part.
        seed: Picks the items.

    Raises:
        ConfigError: The fractions aren't in [0, 1) or sum to 1 or more.
    """
    part_of_item = np.append(_drawn(len(log.items), valid, test, seed), np.uint8(TRAIN))  # the last is of no item
    return Split(log, part_of_item[log.table.codes("item", log.items)])


def split_by_user(log: Log, *, valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Split:
    """Splits at random by user: all events of a user, such as a dialogue, are in one part.

    Raises:
        ConfigError: The fractions aren't in [0, 1) or sum to 1 or more.
    """
    return Split(log, _drawn(len(log.users), valid, test, seed)[log.table.codes("user", log.users)])


def leave_one_out(log: Log) -> Split:
    """Each user's last event is for the test, the last but one for validation; users of one or two only train."""
    users = log.table.codes("user")
    order = np.argsort(users, kind="stable")
    part = np.full(len(users), TRAIN, np.uint8)
    if len(users):
        ends = np.flatnonzero(np.diff(users[order], append=-1))
        enough = np.diff(ends, prepend=-1) >= 3
        part[order[ends[enough]]] = TEST
        part[order[ends[enough] - 1]] = VALID
    return Split(log, part)


def _drawn(size: int, valid: float, test: float, seed: int) -> NDArray[np.uint8]:
    """The part of each of so many things, at random."""
    train_size, test_start = _cuts(size, valid, test)
    shuffled = np.random.default_rng(seed).permutation(size)
    part = np.full(size, TRAIN, np.uint8)
    part[shuffled[train_size:]] = VALID
    part[shuffled[test_start:]] = TEST
    return part


def _cuts(size: int, valid: float, test: float) -> tuple[int, int]:
    """Where validation and test start among ``size`` things."""
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ConfigError(f"valid={valid} and test={test} have to be fractions from 0 that sum to less than 1.")
    test_start = size - round(size * test)
    return test_start - round(size * valid), test_start
