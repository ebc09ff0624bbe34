"""A peer is a value; it is tuned under one budget, fitted again with each seed, and what it found is kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, distribution_to_json
from safetensors.numpy import load_file, save_file

Floats = NDArray[np.floating[Any]]
Settings = Mapping[str, Any]
Tell = Callable[[str], None]
DataT = TypeVar("DataT")
ModelT = TypeVar("ModelT")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What each peer of a table may spend on its tuning, all alike.

    Attributes:
        trials: Settings to try at most.
        seconds: Of processor time, so that a busy machine takes nothing from a peer; the pass that is running when
            they are over is the last.
        passes: Over the training events in one trial, at most.
        patience: A trial ends after so many passes without a better one.
        seeds: Those that a peer that draws at random is fitted again with.
    """

    trials: int = 20
    seconds: float = 100
    passes: int = 100
    patience: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)


RESULTS = Path("runs/bench/peers")
FULL = Budget()
QUICK = Budget(trials=2, seconds=5, passes=3, seeds=(0,))


def folder(name: str, budget: Budget) -> Path:
    """Where the peers of a part keep their results."""
    return RESULTS / ("quick" if budget == QUICK else "full") / name


@dataclass(frozen=True, kw_only=True)
class Peer(Generic[DataT, ModelT]):
    """A method that ours stands beside.

    Attributes:
        name: In tables.
        fit: From data, settings and a seed to the model after each pass; a closed form yields once.
        space: The settings to search; without any, there is one trial.
        first: The settings tried first, as published or in common use.
        draws: Whether a seed makes a difference.
        reads: Names of the numbers that it is told of a question, if any.
    """

    name: str
    fit: Callable[[DataT, Settings, int], Iterator[ModelT]]
    space: Mapping[str, BaseDistribution] = field(default_factory=dict)
    first: Settings = field(default_factory=dict)
    draws: bool = False
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The best of several trials on validation.

    Attributes:
        settings: Of the best trial.
        passes: After which it was best.
        value: Its value on validation.
        trials: Every trial: settings, passes and value.
        seconds: Of processor time.
    """

    settings: Settings
    passes: int
    value: float
    trials: tuple[tuple[Settings, int, float], ...]
    seconds: float


def tune(
    peer: Peer[DataT, ModelT],
    data: DataT,
    validate: Callable[[ModelT], float],
    budget: Budget,
    tell: Tell = lambda text: None,
) -> Chosen:
    """Searches the space of a peer by a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011; ``optuna``).

    Args:
        peer: The peer.
        data: What it is fitted on, without validation and test.
        validate: From a model to its value on validation; higher is better.
        budget: When to end.
        tell: Told of each trial.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    if peer.first:
        study.enqueue_trial(dict(peer.first))
    start = time.process_time()
    trials: list[tuple[Settings, int, float]] = []
    over = False
    while len(trials) < (budget.trials if peer.space else 1) and not over:
        trial = study.ask(dict(peer.space))
        best, best_pass = -np.inf, 1
        for number, model in enumerate(islice(peer.fit(data, trial.params, 0), budget.passes), 1):
            value = validate(model)
            if value > best:
                best, best_pass = value, number
            over = time.process_time() - start > budget.seconds
            if over or number - best_pass >= budget.patience:
                break
        study.tell(trial, best)
        trials.append((trial.params, best_pass, best))
        tell(f"{peer.name} {len(trials)}: {best:.4f} after {best_pass} of {number} passes, {_words(trial.params)}")
    settings, passes, value = max(trials, key=lambda tried: tried[2])
    seconds = round(time.process_time() - start, 1)
    return Chosen(settings=settings, passes=passes, value=value, trials=tuple(trials), seconds=seconds)


def fitted(peer: Peer[DataT, ModelT], data: DataT, chosen: Chosen, seed: int) -> ModelT:
    """The peer with the settings and the number of passes that were chosen."""
    return next(islice(peer.fit(data, chosen.settings, seed), chosen.passes - 1, None))


def measured(
    peer: Peer[DataT, ModelT],
    data: DataT,
    validate: Callable[[ModelT], float],
    final: Callable[[], DataT],
    answer: Callable[[ModelT], Floats],
    budget: Budget,
    folder: Path,
    events: NDArray[np.int64],
    tell: Tell = lambda text: None,
) -> list[Floats]:
    """Tunes a peer, fits it with each seed and answers the test questions; what an equal call kept is read instead.

    ``folder`` gets NAME.json, which tells all of the search, and NAME.safetensors, which holds "event", the position of
    each test question in the log, and "seed-N", the answers.

    Args:
        peer: The peer.
        data: What it is tuned on.
        validate: From a model to its value on validation.
        final: Makes what it is fitted on for the test.
        answer: From a model to a number for each test question.
        budget: Of the search.
        folder: Where results are kept.
        events: Position of each test question in the log.
        tell: Told of progress.
    """
    path = folder / f"{slug(peer.name)}.json"
    seeds = budget.seeds if peer.draws else (0,)
    asked = hashlib.sha256(events.tobytes()).hexdigest()[:16]
    space = {name: json.loads(distribution_to_json(one)) for name, one in peer.space.items()}
    known = {"budget": asdict(budget), "space": space, "first": peer.first, "questions": asked}
    key = json.loads(json.dumps(known | ({"reads": peer.reads} if peer.reads else {})))
    if path.is_file() and json.loads(path.read_text())["key"] == key:
        tell(f"{peer.name}: kept")
        tensors = load_file(path.with_suffix(".safetensors"))
        found: list[Floats] = [tensors[f"seed-{seed}"] for seed in seeds]
        return found
    chosen = tune(peer, data, validate, budget, tell)
    start = time.process_time()
    last = final()
    answers: list[Floats] = []
    for seed in seeds:
        answers.append(np.ascontiguousarray(answer(fitted(peer, last, chosen, seed)), np.float64))
        tell(f"{peer.name}: seed {seed} done")
    seconds = round(time.process_time() - start, 1)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{path.stem}.partial"
    tensors = {"event": events.astype(np.int64)} | {f"seed-{s}": a for s, a in zip(seeds, answers, strict=True)}
    save_file(tensors, partial)
    os.replace(partial, path.with_suffix(".safetensors"))
    told = {"peer": peer.name, "draws": peer.draws, "seeds": seeds, **asdict(chosen), "seconds_after": seconds}
    partial.write_text(json.dumps({**told, "key": key}, indent=1) + "\n")
    os.replace(partial, path)
    return answers


def slug(name: str) -> str:
    """A name as that of a file.

    >>> slug("item's and user's share")
    'items-and-users-share'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("'", "")).strip("-")


def _words(settings: Settings) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )
