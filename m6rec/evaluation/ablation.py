"""What reading brings to a ranking task: its numbers alone, its text alone, both, and both where no text is told.

All rows are of the same runs. A score is the logit of the numbers (the base) and what reading adds to it, so each can
be looked at alone; and where the mean state stands for every text, what is left is what positions and numbers bring.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from m6rec.data.split import Split
from m6rec.evaluation.metrics import auc, bootstrap_difference
from m6rec.evaluation.report import Row, Table

COUNTS = (0, 3, 10)
"""Where the numbers of earlier events are cut."""
BASE_ALONE, TEXT, MEAN_STATE = "base alone", "text alone", "text replaced by the mean state"

Floats = NDArray[np.floating]


def by_count(
    title: str,
    split: Split,
    events: NDArray[np.int64],
    cuts: Sequence[int],
    found: Mapping[str, Sequence[Floats]],
    validate: Callable[[Floats, NDArray[np.bool_]], float | None],
    compare: Callable[[NDArray[np.bool_]], str] = lambda asked: "",
) -> list[Table]:
    """A measure by how many events of the user, and of the item, there had been before the question.

    Args:
        title: What is measured.
        split: The split.
        events: Position of each question in the log.
        cuts: Where the numbers of earlier events are cut.
        found: What each method answered, one array a seed; ours first.
        validate: From answers and which of the questions to the measure of these; None where they have none.
        compare: From which of the questions to what the note says of them.
    """
    tables = []
    for whose, chosen in _buckets(split, events, cuts).items():
        first = next(iter(found.values()))[0]
        judged = {word: asked for word, asked in chosen.items() if asked.any() and validate(first, asked) is not None}
        if not judged:
            continue
        rows = tuple(
            Row(
                method=method,
                metrics={
                    word: tuple(value for answers in by_seed if (value := validate(answers, asked)) is not None)
                    for word, asked in judged.items()
                },
            )
            for method, by_seed in found.items()
        )
        named = f"{title} by the number of the {whose}'s earlier events"
        told = {word: compare(asked) for word, asked in judged.items()}
        note = ". ".join(f"{word}: {words}" for word, words in told.items() if words)
        tables.append(Table(title=named, metric=next(iter(judged)), rows=rows, ours=next(iter(found)), note=note))
    return tables


def _buckets(split: Split, events: NDArray[np.int64], cuts: Sequence[int]) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Which questions belong to each span of the number of earlier events, by whose they are."""
    log, spans = split.log, [(low + 1, high) for low, high in itertools.pairwise(cuts)]
    words = ("0", *(f"{low}-{high}" if low < high else f"{low}" for low, high in spans), f">{cuts[-1]}")
    found = {}
    for whose in ("user", "item"):
        counts: dict[str, int] = {}
        earlier_E = np.zeros(len(split.part), np.int64)
        for at, event in enumerate(log.events):
            key = event.user if whose == "user" else event.item
            earlier_E[at] = counts.get(key, 0)
            counts[key] = earlier_E[at] + 1
        bucket_Q = np.searchsorted(cuts, earlier_E[events])  # 0: none, then up to each of the cuts
        found[whose] = {f"{word} (n={(bucket_Q == n).sum()})": bucket_Q == n for n, word in enumerate(words)}
    return found


def reading_tables(
    split: Split, labels: NDArray[np.int64], events: NDArray[np.int64], found: Mapping[str, Sequence[Floats]]
) -> list[Table]:
    """AUC by how often item and user had been met; the notes say what reading adds (paired bootstrap over users).

    Args:
        split: The split.
        labels: 0 or 1 a question.
        events: Position of each question in the log.
        found: Scores [Q] as ``ablations`` names them, the whole first.
    """
    users = np.unique(split.log.table.codes("user")[events], return_inverse=True)[1]
    whole, *rest = found
    base = BASE_ALONE if BASE_ALONE in rest else MEAN_STATE
    ours, without = (np.mean(found[name], 0) for name in (whole, base))

    def validate(scores: Floats, asked: NDArray[np.bool_]) -> float | None:
        return auc(labels[asked], scores[asked]) if len(set(labels[asked].tolist())) == 2 else None

    def added(asked: NDArray[np.bool_]) -> str:
        gap = bootstrap_difference(labels[asked], ours[asked], without[asked], users[asked])
        return f"{gap.value:+.4f} over {base}, 95 % [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.3f}"

    return by_count("AUC", split, events, COUNTS, found, validate, added)
