"""Tables of tasks with classes: ours and classical models on the same questions, with the same past."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from m6rec.data.split import TEST, TRAIN, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.evaluation import baselines, collaborative
from m6rec.evaluation.collaborative import users_of
from m6rec.evaluation.metrics import (
    auc,
    base_rates,
    bootstrap_difference,
    calibration_error,
    cross_entropy,
    gauc,
    log_loss,
    uauc,
)
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import FEATURES
from m6rec.retrieval.examples import queries
from m6rec.tasks.examples import TaskExamples
from m6rec.tasks.task import Task

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


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
    labels, users = questions.labels(TEST), users_of(split, questions.events(TEST))
    rows: list[Row] = []
    rivals: list[tuple[float, str, Floats]] = []

    def add(name: str, by_seed: Sequence[Floats], *, probabilities: bool, rival: bool = True) -> None:
        measured = [ranking_metrics(labels, scores, users, probabilities=probabilities) for scores in by_seed]
        rows.append(Row.of(name, measured))
        if rival:
            rivals.append((rows[-1].mean("AUC"), name, np.mean(by_seed, 0)))

    for name, by_seed in ours.items():
        add(name, by_seed, probabilities=True, rival=False)
    column = {name: number for number, name in enumerate(FEATURES)}
    features = questions.features(TEST).astype(np.float64)
    for name, statistic in (("popularity", "item_count"), ("item mean", "item_share"), ("user mean", "user_share")):
        add(name, [features[:, column[statistic]]], probabilities=False)
    likes = collaborative.likes_matrix(split, domain)
    valid, test = (
        collaborative.matrix(queries(split, domain, questions.events(part)).likes, len(split.log.items))
        for part in (VALID, TEST)
    )
    valid_items, test_items = questions.items(VALID), questions.items(TEST)
    for name in collaborative.MODELS:
        if name == "popularity":
            continue
        progress(name)

        def validate(model: baselines.Baseline) -> float:
            return auc(questions.labels(VALID), baselines.pair_scores(model, valid, valid_items), undefined=0.5)

        model = collaborative.tuned(name, likes, validate)
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


def reliability_table(labels: Ints, by_seed: Sequence[Floats]) -> Table:
    """What is predicted beside what happens, by tenth of the predictions; lines that lie on each other are calibrated.

    Args:
        labels: 0 or 1 a question.
        by_seed: Probabilities of 1, one array a seed.
    """
    predicted: dict[str, tuple[float, ...]] = {}
    observed: dict[str, tuple[float, ...]] = {}
    for tenth in range(min(10, len(labels))):
        bins = [np.array_split(np.argsort(scores, kind="stable"), min(10, len(labels)))[tenth] for scores in by_seed]
        name = f"{tenth + 1} (n={len(bins[0])})"
        predicted[name] = tuple(float(scores[chosen].mean()) for scores, chosen in zip(by_seed, bins, strict=True))
        observed[name] = tuple(float(labels[chosen].mean()) for chosen in bins)
    rows = (Row(method="predicted", metrics=predicted), Row(method="observed", metrics=observed))
    return Table(title="Reliability, by tenth of the predictions", metric=next(iter(predicted)), rows=rows)


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

    rows = [Row.of(name, [metrics(p_QC) for p_QC in by_seed]) for name, by_seed in ours.items()]
    rates_C = base_rates(known, task.num_classes)
    rows.append(Row.of("base rates", [metrics(np.broadcast_to(rates_C, (len(labels), len(rates_C))))]))
    if task.uses_features and len(np.unique(known)) > 1:
        networks = [
            baselines.fit_mlp_classes(questions.features(TRAIN), known, task.num_classes, seed=s) for s in seeds
        ]
        rows.append(
            Row.of("MLP, same statistics", [metrics(network(questions.features(TEST))) for network in networks])
        )
    note = f"{len(labels)} test questions, {task.num_classes} classes. {_of_negatives(questions)}"
    return Table(title=f"Classes of {task.name}", metric="log loss", rows=tuple(rows), ours=next(iter(ours)), note=note)


def _of_negatives(questions: TaskExamples) -> str:
    return f"Negatives: {questions.negatives.describe()}." if questions.negatives else ""
