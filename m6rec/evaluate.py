"""Ours and the classical models on one split: the same questions, the same past, the same measures.

Every method sees, at each question, all events before it. Classical models are fitted on the training part, tuned on
validation with one number of trials each, and read the user's history up to the question as their input, so users who
are new in the test part are served by all alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m6rec import baselines
from m6rec.data import leakage
from m6rec.data.examples import num_known, repeats, time_groups
from m6rec.data.negatives import Negatives
from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.errors import DataError
from m6rec.features.interactions import FEATURES, MAX_LIKES, InteractionStore
from m6rec.foundation.generate import Sampling
from m6rec.metrics import (
    auc,
    base_rates,
    bootstrap_difference,
    calibration_error,
    cross_entropy,
    gauc,
    hit_rate,
    log_loss,
    mrr,
    ndcg,
    perplexity,
    uauc,
    words,
)
from m6rec.report import Row, Table
from m6rec.retrieval import blend as blending
from m6rec.retrieval.blend import Blend, HeldOut, ranked, weigh
from m6rec.retrieval.embeddings import user_vectors
from m6rec.retrieval.model import NUM_MOST_LIKED, RetrievalModel
from m6rec.retrieval.sources import sparse_rows
from m6rec.task_model import Progress
from m6rec.tasks import writing
from m6rec.tasks.task import Task, build_examples
from m6rec.tasks.writing import TextTask
from m6rec.text.batch import Example
from m6rec.text_model import TextModel, untuned
from m6rec.types import Draft, Event

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
PARTS = (TRAIN, VALID, TEST)
RETRIEVAL_CUT = 10
SAY_WHAT = "say what is positive (m6rec prepare … --positive 'value>=4', or --implicit)"
WRITING = Sampling(max_tokens=64, stops=("\n",))
"""Sampling of the texts that are compared."""


@dataclass(frozen=True, eq=False)
class Retriever:
    """The retrieval model of one run.

    Attributes:
        users_QE: User vectors of the test rows.
        items_IE: Item vectors in the order of the log.
        blend: Of the run, if it has any.
    """

    users_QE: NDArray[np.float32]
    items_IE: NDArray[np.float32]
    blend: Blend | None = None


@dataclass(frozen=True, eq=False)
class TaskExamples:
    """Examples of a whole split, point in time.

    Attributes:
        rows: The rows of each part, TRAIN, VALID and TEST.
        interactions: State after the last event.
        negatives: How negatives were drawn; None where the log has its own.
    """

    rows: Mapping[int, list[Example]]
    interactions: InteractionStore
    negatives: Negatives | None = None

    def labels(self, part: int) -> Ints:
        """Classes or item numbers, in the order of scores."""
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


def fit_sources(
    split: Split,
    domain: Domain,
    *parts: int,
    items_IE: NDArray[np.float32] | None = None,
    progress: Progress = lambda done, total: None,
) -> Blend:
    """Candidate sources fitted on the training part, or on these parts, with the default weights.

    Args:
        split: The split.
        domain: Tells likes.
        parts: Of the split; without, the training part.
        items_IE: Item vectors in the order of the log, for sources that take them.
        progress: Called with (done, total) sources.
    """
    chosen = np.isin(split.part, parts or (TRAIN,)).tolist()
    events = (event for event, is_in in zip(split.log.events, chosen, strict=True) if is_in and event.item)
    vectors = None if items_IE is None else dict(zip(split.log.items, items_IE, strict=True))
    return blending.fit(((event.user, event.item, domain.positive(event)) for event in events), vectors, progress)


def fit_blend(
    split: Split,
    questions: TaskExamples,
    domain: Domain,
    users_QE: NDArray[np.float32],
    items_IE: NDArray[np.float32],
    progress: Progress = lambda done, total: None,
) -> Blend:
    """Candidate sources fitted on the training part, with weights learned on the validation part.

    Args:
        split: The split.
        questions: Of a retrieval task.
        domain: The domain.
        users_QE: User vectors of the validation rows.
        items_IE: Item vectors in the order of the log.
        progress: Called with (done, total) sources.
    """
    blend = fit_sources(split, domain, items_IE=items_IE, progress=progress)
    return weigh(blend, _held_out(split, questions, domain, VALID, users_QE, items_IE))


def retriever_of(
    model: RetrievalModel, split: Split, questions: TaskExamples, domain: Domain, part: int = TEST
) -> Retriever:
    """What a run retrieves by for the questions of a part; each user is what they had liked by then.

    Who had liked nothing is one who likes what most had by then, as in the service.
    """
    items_IE = model.item_vectors(list(split.log.items.values()))
    liked, _ = _histories(split, domain, questions.events(part), most_liked=NUM_MOST_LIKED)
    likes = [np.array(rows[-MAX_LIKES:], np.int64) for rows in liked]
    return Retriever(user_vectors(items_IE, likes, model.embeddings.decay), items_IE, model.blend)


def task_examples(task: Task, split: Split, domain: Domain) -> TaskExamples:
    """Builds the examples of all events in one pass over the log.

    Args:
        task: The task.
        split: The split.
        domain: The domain.

    Raises:
        DataError: A part has no question, so nothing could be tuned or measured on it.
    """
    log = split.log
    every = np.ones(len(log.events), np.bool_)
    negatives = negatives_of(task, split, domain)
    rows, interactions = build_examples(task, log.events, log.users, log.items, domain, every, negatives)
    # A service recommends what a user hasn't met, so retrieval is measured on that; it learns from repeats as well.
    repeated = np.zeros(len(log.events), np.bool_)
    if task.readout == "embed":
        repeated[[*repeats(log.events, lambda event: domain.feedback(event).positive is not None)]] = True
    by_part: dict[int, list[Example]] = {}
    for part in PARTS:
        chosen = (split.part == part) & ~(repeated & (part != TRAIN))
        kept = [(row, chosen[row.events]) for row in rows]
        by_part[part] = [row.only(keep) for row, keep in kept if keep.any()]
    _require_all(task.name, by_part, f", or {SAY_WHAT}")
    return TaskExamples(by_part, interactions, negatives)


def negatives_of(task: Task, split: Split, domain: Domain) -> Negatives | None:
    """The negative sampling of a task, if the training part has only positive events.

    Raises:
        DataError: The training part has no positive event.
    """
    if task.readout != "score" or task.num_classes != 2:
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


def task_drafts(task: TextTask, split: Split, domain: Domain) -> dict[int, list[Draft]]:
    """Builds the drafts of all events by part, in one pass over the log.

    Raises:
        DataError: A part has no draft, or the split leaks (``data.leakage``).
    """
    log = split.log
    leakage.check(split, allowed=leakage.PROTOCOL)
    every = np.ones(len(log.events), np.bool_)
    drafts = writing.build_drafts(task, log.events, log.users, log.items, domain, every)
    by_part = {part: [draft for draft in drafts if split.part[draft.event] == part] for part in PARTS}
    _require_all(task.name, by_part)
    return by_part


def _require_all(task: str, by_part: Mapping[int, Sequence[object]], remedy: str = "") -> None:
    """Raises DataError if a part is empty."""
    for part, name in zip(PARTS, ("training", "validation", "test"), strict=True):
        if not by_part[part]:
            raise DataError(
                f"the {name} part has no event that {task!r} asks about; give a larger part or another split{remedy}"
            )


def seen_before(split: Split, domain: Domain, questions: TaskExamples, part: int) -> csr_matrix:
    """What the user of each question has met by then, [questions, items]; retrieval leaves it out."""
    return _matrices(split, domain, questions.events(part))[1]


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


def check_future(
    task: Task,
    split: Split,
    domain: Domain,
    users: Collection[str],
    *,
    fit: Callable[[Split, Domain], Blend] | None = None,
    num_moments: int = 3,
) -> None:
    """Fails where a question of some users knows what comes after it; slow, as all is laid out again and again.

    Args:
        task: The task.
        split: The split.
        domain: The domain.
        users: Whose questions to compare.
        fit: Fits the sources of the task, if it has any, which the future must not reach either.
        num_moments: How many moments among their held-out events the future is changed from.

    Raises:
        DataError: A question changed with its future, or the users have no held-out event.
    """
    log = split.log

    def lay(events: Sequence[Event]) -> dict[int, object]:
        cut = Split(replace(log, events=tuple(events)), split.part[: len(events)])
        wanted = np.array([event.user in users for event in events])
        rows, _ = build_examples(task, events, log.users, log.items, domain, wanted)
        told = {int(row.events[n]): _told(row, n) for row in rows for n in range(len(row.events))}
        if fit is None:
            return dict(told)
        blend, (liked, _) = fit(cut, domain), _histories(cut, domain, np.array([*told], np.int64))
        ids = list(log.items)
        scores = (blend.scores([ids[number] for number in likes]).tobytes() for likes in liked)
        return {
            at: (*words, list(blend.numbers), score) for (at, words), score in zip(told.items(), scores, strict=True)
        }

    held_out = [at for at in np.flatnonzero(split.part != TRAIN).tolist() if log.events[at].user in users]
    if not held_out:
        raise DataError(f"none of the {len(users)} users has an event in validation or test; name others")
    chosen = np.linspace(0, len(held_out) - 1, num_moments).astype(np.int64)
    leakage.fail(leakage.future(log.events, lay, [held_out[at] for at in chosen]))


def _told(row: Example, number: int) -> tuple[object, ...]:
    """The whole input of a query: texts, features and event features."""
    seen = max(0, row.visible[number] - row.num_profile)
    numbers = row.features[number], row.event_features[:seen]
    return row.question(number), *(of.tobytes() for of in numbers)


def ranking_metrics(labels: Ints, scores: Floats, users: Ints, *, probabilities: bool) -> dict[str, float]:
    """AUC; GAUC and UAUC where a user has both labels; log loss and calibration error of probabilities."""
    metrics = {"AUC": auc(labels, scores)}
    if len(np.unique(np.stack([users, labels]), axis=1).T) > len(np.unique(users)):
        metrics |= {"GAUC": gauc(labels, scores, users), "UAUC": uauc(labels, scores, users)}
    if probabilities:
        metrics |= {"log loss": log_loss(labels, scores), "ECE": calibration_error(labels, scores)}
    return metrics


def ranking_table(
    split: Split,
    questions: TaskExamples,
    domain: Domain,
    ours: Mapping[str, Sequence[Floats]],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    progress: Callable[[str], None] = lambda name: None,
) -> Table:
    """Like-ranking on the test part.

    Args:
        split: The split.
        questions: Of a ranking task.
        domain: The domain.
        ours: Our methods' test scores, one array a seed; the first method is "ours" in the verdict.
        seeds: For the baselines that draw at random.
        progress: Told what is being fitted.
    """
    labels, users = questions.labels(TEST), _users(split, questions.events(TEST))
    rows: list[Row] = []
    rivals: list[tuple[float, str, Floats]] = []

    def add(name: str, by_seed: Sequence[Floats], *, probabilities: bool, rival: bool = True) -> None:
        measured = [ranking_metrics(labels, scores, users, probabilities=probabilities) for scores in by_seed]
        rows.append(_row(name, measured))
        if rival:
            rivals.append((rows[-1].mean("AUC"), name, np.mean(by_seed, 0)))

    for name, by_seed in ours.items():
        add(name, by_seed, probabilities=True, rival=False)
    column = {name: number for number, name in enumerate(FEATURES)}
    features = questions.features(TEST).astype(np.float64)
    for name, statistic in (("popularity", "item_count"), ("item mean", "item_share"), ("user mean", "user_share")):
        add(name, [features[:, column[statistic]]], probabilities=False)
    fit = _likes_matrix(split, domain)
    valid, test = (_matrices(split, domain, questions.events(part))[0] for part in (VALID, TEST))
    valid_items, test_items = questions.items(VALID), questions.items(TEST)
    for name, factory in _BASELINES.items():
        if name == "popularity":
            continue
        progress(name)

        def validate(model: baselines.Baseline) -> float:
            return auc(questions.labels(VALID), baselines.pair_scores(model, valid, valid_items), undefined=0.5)

        model = baselines.tune(factory, baselines.GRIDS[factory.__name__], fit, validate).model
        add(name, [baselines.pair_scores(model, test, test_items)], probabilities=False)
    progress("LightGBM")
    of_part = [side(part) for part in (TRAIN, VALID) for side in (questions.features, questions.labels)]
    tuned = baselines.fit_lightgbm(*of_part, seed=seeds[0])
    others = [baselines.fit_lightgbm(*of_part, settings=tuned.chosen, seed=seed) for seed in seeds[1:]]
    forests = [forest.model(questions.features(TEST)) for forest in (tuned, *others)]
    add("LightGBM, same statistics", forests, probabilities=True)
    progress("MLP")
    networks = [
        baselines.fit_mlp(questions.features(TRAIN), questions.labels(TRAIN), seed=s)(questions.features(TEST))
        for s in seeds
    ]
    add("MLP, same statistics", networks, probabilities=True)
    _, rival, rival_scores = max(rivals, key=lambda entry: entry[0])
    gap = bootstrap_difference(labels, np.mean(next(iter(ours.values())), 0), rival_scores, users)
    trials = baselines.NUM_TRIALS
    note = (
        f"{len(labels)} test questions of {len(set(users.tolist()))} users. {trials} trials on validation for each "
        "tuned baseline; popularity and the means are kept up to date to the moment of each question. "
        f"Paired bootstrap over users, seeds averaged, against {rival}: {gap.value:+.4f} AUC, "
        f"95 % [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.3f}. {_of_negatives(questions)}"
    )
    return Table(title="Like-ranking", metric="AUC", rows=tuple(rows), ours=next(iter(ours)), note=note)


def class_table(
    questions: TaskExamples,
    task: Task,
    ours: Mapping[str, Sequence[Floats]],
    *,
    seeds: Sequence[int] = (0, 1, 2),
) -> Table:
    """A task of any number of classes on the test part.

    Args:
        questions: Of the task.
        task: The task.
        ours: Our methods' test probabilities [Q, C], one array a seed.
        seeds: For the baseline that draws at random.
    """
    labels, known = questions.labels(TEST), questions.labels(TRAIN)
    grades = np.array(task.worth)

    def metrics(p_QC: Floats) -> dict[str, float]:
        found = {"log loss": cross_entropy(labels, p_QC), "accuracy": float((p_QC.argmax(1) == labels).mean())}
        if len(grades):
            found["RMSE"] = float(np.sqrt(((p_QC @ grades - grades[labels]) ** 2).mean()))
        return found

    rows = [_row(name, [metrics(p_QC) for p_QC in by_seed]) for name, by_seed in ours.items()]
    rates_C = base_rates(known, task.num_classes)
    rows.append(_row("base rates", [metrics(np.broadcast_to(rates_C, (len(labels), len(rates_C))))]))
    if task.uses_features and len(np.unique(known)) > 1:
        networks = [
            baselines.fit_mlp_classes(questions.features(TRAIN), known, task.num_classes, seed=s) for s in seeds
        ]
        rows.append(_row("MLP, same statistics", [metrics(network(questions.features(TEST))) for network in networks]))
    note = f"{len(labels)} test questions, {task.num_classes} classes. {_of_negatives(questions)}"
    return Table(title=f"Classes of {task.name}", metric="log loss", rows=tuple(rows), ours=next(iter(ours)), note=note)


def _of_negatives(questions: TaskExamples) -> str:
    return f"Negatives: {questions.negatives.describe()}." if questions.negatives else ""


def retrieval_tables(
    split: Split,
    questions: TaskExamples,
    domain: Domain,
    ours: Mapping[str, Sequence[Retriever]],
    *,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[Table, ...]:
    """Retrieval of each liked test item among the whole catalogue, items already seen left out.

    Args:
        split: The split.
        questions: Of a retrieval task.
        domain: The domain.
        ours: Our methods, one retriever a seed.
        progress: Told what is being fitted.

    Returns:
        A table for all items and, where there are any, one for items without an event in the training part.
    """
    positions = questions.events(TEST)
    targets = questions.labels(TEST)
    histories, seen = _matrices(split, domain, positions)
    found = {
        name: [retrieval_ranks(split, questions, domain, one) for one in by_seed] for name, by_seed in ours.items()
    }
    valid_positions, valid_targets = questions.events(VALID), questions.labels(VALID)
    valid_histories, valid_seen = _matrices(split, domain, valid_positions)

    def validate(model: baselines.Baseline) -> float:
        return ndcg(baselines.target_ranks(model, valid_histories, valid_targets, valid_seen), RETRIEVAL_CUT)

    fit = _likes_matrix(split, domain)
    for name, factory in _BASELINES.items():
        progress(name)
        model = baselines.tune(factory, baselines.GRIDS[factory.__name__], fit, validate).model
        found[name] = [baselines.target_ranks(model, histories, targets, seen)]
    known = {event.item for event, part in zip(split.log.events, split.part.tolist(), strict=True) if part == TRAIN}
    unseen = np.array([item not in known for item in split.log.items])[targets]
    tables = []
    for title, chosen in (("all items", np.ones(len(targets), np.bool_)), ("items unseen in training", unseen)):
        if not chosen.any():
            continue
        rows = [_row(name, [_retrieval_metrics(r[chosen]) for r in by_seed]) for name, by_seed in found.items()]
        note = (
            f"{int(chosen.sum())} positive test events whose item the user had not met before, full ranking over "
            f"{len(split.log.items)} items."
        )
        tables.append(
            Table(title=f"Retrieval, {title}", metric="NDCG@10", rows=tuple(rows), ours=next(iter(ours)), note=note)
        )
    return tuple(tables)


def text_tables(
    writers: Sequence[TextModel],
    drafts: Mapping[int, Sequence[Draft]],
    *,
    num_written: int = 200,
    progress: Progress = lambda done, total: None,
) -> tuple[Table, ...]:
    """Text generation on validation and test, compared with the untuned foundation.

    Args:
        writers: The tuned task, one a seed.
        drafts: Of ``task_drafts``.
        num_written: Test texts that are written, spread over the part, and compared with what users wrote; 0 for none.
        progress: Told of the drafts read, method after method.

    Returns:
        A table a part. "nats a token" decides: the mean log-probability, of which perplexity is exp(−it).
    """
    first = writers[0]
    name = f"m6rec {first.config.method}"
    methods = {name: list(writers), "untuned": [untuned(first)]}
    tables = []
    for part, title in ((VALID, "validation"), (TEST, "test")):
        chosen = drafts[part]
        count = min(num_written, len(chosen)) if part == TEST else 0
        written = [chosen[place] for place in np.linspace(0, len(chosen) - 1, count).astype(int)]
        rows = []
        for method, by_seed in methods.items():
            measured = [_text_metrics(writer, chosen, written, progress) for writer in by_seed]
            rows.append(_row(method, measured))
        note = f"{len(chosen)} texts, each after its user's past."
        if written:
            note += f" {len(written)} of them were written, the likeliest token each time."
        tables.append(Table(title=f"Texts, {title}", metric="nats a token", rows=tuple(rows), ours=name, note=note))
    return tuple(tables)


def _text_metrics(
    writer: TextModel, drafts: Sequence[Draft], written: Sequence[Draft], progress: Progress
) -> dict[str, float]:
    nats, counts = writer.nats(drafts, progress)
    metrics = {"nats a token": float(nats.sum() / counts.sum()), "perplexity": perplexity(nats, counts)}
    if not written:
        return metrics
    texts = [one.text.strip() for one in writer.write(written, WRITING)]
    targets = [draft.target.strip() for draft in written]
    return metrics | {
        "BLEU-1": words.bleu(texts, targets, 1),
        "BLEU-4": words.bleu(texts, targets, 4),
        "ROUGE-1": words.rouge(texts, targets, "1"),
        "ROUGE-2": words.rouge(texts, targets, "2"),
        "USR": words.unique_sentence_ratio(texts),
    }


_BASELINES: Mapping[str, Callable[..., baselines.Baseline]] = {
    "popularity": baselines.Popularity,
    "item-kNN": baselines.ItemKNN,
    "EASE": baselines.EASEBaseline,
    "matrix factorisation": baselines.MatrixFactorisation,
}


def retrieval_ranks(split: Split, questions: TaskExamples, domain: Domain, retriever: Retriever) -> Floats:
    """Rank of each liked test item among all items that its user had not seen before, from 1: float64 [Q]."""
    held_out = _held_out(split, questions, domain, TEST, retriever.users_QE, retriever.items_IE)
    return ranked(retriever.blend, held_out)


def _held_out(
    split: Split,
    questions: TaskExamples,
    domain: Domain,
    part: int,
    users_QE: NDArray[np.float32],
    items_IE: NDArray[np.float32],
) -> HeldOut:
    liked, seen = _histories(split, domain, questions.events(part), most_liked=NUM_MOST_LIKED)
    return HeldOut(
        liked=liked,
        seen=seen,
        target_Q=questions.labels(part),
        users_QE=users_QE,
        ids=list(split.log.items),
        items_IE=items_IE,
    )


def _retrieval_metrics(ranks_Q: Floats) -> dict[str, float]:
    return {
        "NDCG@10": ndcg(ranks_Q, RETRIEVAL_CUT),
        "HitRate@10": hit_rate(ranks_Q, RETRIEVAL_CUT),
        "MRR@10": mrr(ranks_Q, RETRIEVAL_CUT),
        "HitRate@100": hit_rate(ranks_Q, 100),
    }


def _row(name: str, by_seed: Sequence[Mapping[str, float]]) -> Row:
    return Row(method=name, metrics={key: tuple(metrics[key] for metrics in by_seed) for key in by_seed[0]})


def _users(split: Split, positions: Ints) -> Ints:
    numbers: Ints = np.unique(split.log.table.codes("user")[positions], return_inverse=True)[1]
    return numbers


def _likes_matrix(split: Split, domain: Domain) -> csr_matrix:
    """Who liked what in the training part, [users, items]."""
    from scipy.sparse import csr_matrix

    numbers = {item: number for number, item in enumerate(split.log.items)}
    liked = [
        (position, event)
        for position, (event, part) in enumerate(zip(split.log.events, split.part.tolist(), strict=True))
        if part == TRAIN and event.item and domain.positive(event)
    ]
    if not liked:
        raise DataError(f"the training part has no positive event, so nothing can be compared on it; {SAY_WHAT}")
    users, items = _users(split, np.array([p for p, _ in liked])), np.array([numbers[e.item] for _, e in liked])
    shape = (int(users.max()) + 1, len(split.log.items))
    matrix = csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)
    matrix.data[:] = 1.0
    return matrix


def _before(
    split: Split, domain: Domain, positions: Ints, most_liked: int = 0
) -> Iterator[tuple[int, list[int], list[int]]]:
    """Just before each of the events, as the log goes: (its place, items that its user liked, and judged).

    In place of the likes of a user without any stand so many of the ``most_liked`` items, the most liked last.
    """
    events, numbers = list(split.log.events), {item: number for number, item in enumerate(split.log.items)}
    wanted: dict[int, list[int]] = {}
    for place, position in enumerate(positions.tolist()):
        wanted.setdefault(position, []).append(place)
    liked: dict[str, list[int]] = {}
    seen: dict[str, list[int]] = {}
    likes = Counter[int]()
    for group in time_groups(events):
        for position in group.queries:
            user = events[position].user
            for place in wanted.get(position, ()):
                most = [number for number, _ in likes.most_common(most_liked)][::-1] if user not in liked else []
                yield place, liked.get(user, most), seen.get(user, [])
        for event in (events[position] for position in group.events):
            positive = domain.feedback(event).positive if event.item else None
            if positive:
                liked.setdefault(event.user, []).append(numbers[event.item])
            if event.item:
                likes[numbers[event.item]] += bool(positive)
            if positive is not None:
                seen.setdefault(event.user, []).append(numbers[event.item])


def _histories(
    split: Split, domain: Domain, positions: Ints, most_liked: int = 0
) -> tuple[list[list[int]], list[list[int]]]:
    """(likes before each event, oldest first; everything seen before it), as numbers of items; see ``_before``."""
    liked_Q: list[list[int]] = [[] for _ in positions]
    seen_Q: list[list[int]] = [[] for _ in positions]
    for place, liked, seen in _before(split, domain, positions, most_liked):
        liked_Q[place], seen_Q[place] = liked[:], seen[:]
    return liked_Q, seen_Q


def _matrices(split: Split, domain: Domain, positions: Ints) -> tuple[csr_matrix, csr_matrix]:
    """``_histories`` as 1 where an item is in one, each [len(positions), items]."""

    def matrix(lists: Sequence[Sequence[int]]) -> csr_matrix:
        rows = [np.unique(np.array(row, np.int64)) for row in lists]
        return sparse_rows([(row, np.ones(len(row))) for row in rows], len(split.log.items))

    liked, seen = _histories(split, domain, positions)
    return matrix(liked), matrix(seen)
