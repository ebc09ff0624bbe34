"""What tuning and ranking cost in energy: processor time, as measured, times rated power.

The rating is of a core of a server's processor under load and of its memory, not of the machine's cooling, network or
making. Nothing here reads a power meter. Measured on likes of MovieLens-100k:

- states: the lower layers over a part of the texts, scaled to all of them by their number of tokens;
- a task: a part of an epoch of tuning, scaled to the epochs of the demo by its questions;
- 1 000 rankings: a user with 50 behaviours known, 100 candidates each, by the service's own path;
- … with full prompts: one candidate behind the whole history through all layers, times the candidates;
- a model of its own: a step of tuning every layer on all tokens, for a window of questions (``benchmarks.joint``),
  times the windows. Its states are its own, so they are built again for each task.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks import sets
from benchmarks.joint import QUESTIONS, windows
from benchmarks.latency import NUM_EVENTS
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.checkpoint import load
from m6rec.foundation.states import StateCache
from m6rec.quickstart import RANKING
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.readouts.scoring import fit_numbers
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.tasks.examples import task_examples
from m6rec.tasks.task import ask, named, texts
from m6rec.text.batch import pack, pad, size
from m6rec.training import TrainConfig, fit

WATTS = 3.9
"""Of a core: 500 W of 128 cores, an AMD EPYC 9755 as its maker rates it; a virtual machine does not tell its model."""
MEMORY_WATTS = 0.375
"""Of a GiB of memory, as codecarbon takes it."""
NUM_ITEMS, NUM_RANKINGS, NUM_WINDOWS, NUM_CANDIDATES = 120, 200, 2, 100
TASKS = (1, 3, 10)


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    torch.set_num_threads(1)  # time of the processor is then time of a core
    made = sets.movielens_100k()
    foundation, log = load(DEFAULT_FOUNDATION), made.split.log
    questions = task_examples(named("like"), made.split, made.domain)
    config = TaskModelConfig(task="like", domain="movielens", foundation=DEFAULT_FOUNDATION)
    one = ScoreModel.create(config, foundation, assets.home() / "states")
    every = list(dict.fromkeys(texts([row for part in (TRAIN, VALID, TEST) for row in questions.rows[part]])))
    encode = foundation.tokenizer.encode

    def tokens(of: list[str]) -> int:
        return sum(map(len, encode(of)))

    # The sentence of an item begins with a capital, so its first letter is left out.
    titles = [made.domain.item(item)[1:] for item in list(log.items.values())[: NUM_ITEMS // (4 if setup.quick else 1)]]
    part = [text for text in every if any(title in text for title in titles)]
    fresh = StateCache(foundation, one.cache.config)
    states_s = _seconds(lambda: fresh.fetch(part)) * tokens(every) / tokens(part)

    states = one.cache.fetch(texts(questions.rows[TRAIN]))
    base_s = _seconds(lambda: fit_numbers(one.adapter, questions.rows[TRAIN], questions.rows[VALID]))
    groups = pack([size(row, states.length) for row in questions.rows[TRAIN]], TrainConfig.batch_tokens)
    groups = groups[:: 16 if setup.quick else 4]
    batches = [pad([questions.rows[TRAIN][number] for number in group], states.places) for group in groups]
    share = sum(len(questions.rows[TRAIN][n].labels) for group in groups for n in group) / len(questions.labels(TRAIN))
    epoch_s = _seconds(lambda: fit(one.adapter, batches, lambda b: one.loss(b, states), TrainConfig(epochs=1))) / share

    interactions = InteractionStore(log.items, made.domain.feedback).update_all(log.events)
    user = next(user for user in log.users.values() if len(interactions.history(user.id)) >= NUM_EVENTS)
    row = ask(one.task, interactions, user, list(log.items.values())[:NUM_CANDIDATES], made.domain, dict(log.items))
    begun = len(row.context) - NUM_EVENTS
    row = replace(
        row, context=row.context[begun:], visible=row.visible - begun, event_features=row.event_features[-NUM_EVENTS:]
    )
    turns = KVCachePool(one)
    turns.predict([("user", row)])
    ranking_s = _seconds(lambda: [turns.predict([("user", row)]) for _ in range(NUM_RANKINGS)]) / NUM_RANKINGS

    whole = " ".join(segment.text for segment in (*row.context, *row.candidates[0]))
    ids = torch.tensor([encode([whole])[0]])
    model = foundation.model
    with torch.no_grad():
        prompt_s = _seconds(lambda: model.finish(model.lower(ids, model.config.num_layers)))

    own = ScoreModel.create(replace(config, depth=0, keep=0, all_layers=True), foundation)
    long = [of_user for of_user in questions.rows[TRAIN] if len(of_user.labels) >= 2 * QUESTIONS]
    held = [windows(of_user)[1] for of_user in long[: 1 if setup.quick else NUM_WINDOWS]]
    read = own.cache.fetch(texts(held))
    step_s = _seconds(lambda: [own.loss(pad([window], read.places), read).backward() for window in held])
    asked = sum(len(window.labels) for window in held)
    own_epoch_s = step_s * len(questions.labels(TRAIN)) / asked

    memory_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    watts = WATTS + MEMORY_WATTS * memory_gib

    def wh(seconds: float) -> tuple[float, ...]:
        return (seconds * watts / 3600,)

    task_s, own_task_s = base_s + RANKING.epochs * epoch_s, base_s + RANKING.epochs * own_epoch_s
    pieces = {
        "states of all texts, once for all tasks": states_s,
        "a task tuned on the foundation": task_s,
        "a task with a model of its own": own_task_s,
        "1 000 rankings of 100 candidates": 1000 * ranking_s,
        "1 000 rankings, full prompts": 1000 * NUM_CANDIDATES * prompt_s,
    }
    rows = tuple(
        Row(method=name, metrics={"Wh": wh(seconds), "core seconds": (seconds,)}) for name, seconds in pieces.items()
    )
    note = (
        f"{watts:.1f} W: {WATTS} a core, {MEMORY_WATTS} a GiB of memory, of which {memory_gib:.1f} are used. A model "
        f"of its own is scaled from {asked} questions, full prompts from one of {ids.shape[1]} tokens."
    )
    tables = [Table(title="Energy", metric="Wh", rows=rows, note=note)]
    many = {
        "one foundation": {f"{n} tasks": wh(states_s + n * task_s) for n in TASKS},
        "a model a task": {f"{n} tasks": wh(n * (states_s + own_task_s)) for n in TASKS},
    }
    tables.append(
        Table(
            title="Energy in Wh to have N tasks ready",
            metric=f"{TASKS[0]} tasks",
            rows=tuple(Row(method=name, metrics=values) for name, values in many.items()),
            note="States and tuning. A model a task has every layer tuned, so that its states serve no other.",
        )
    )
    facts = {
        "watts": watts,
        "watts_a_core": WATTS,
        "memory_gib": memory_gib,
        "threads": 1,
        "processors": os.cpu_count(),
    }
    return {"tables": tuple(tables), **facts}, []


def _seconds(run: Callable[[], Any]) -> float:
    """Of the processor; other programs take none of it."""
    start = time.process_time()
    run()
    return time.process_time() - start
