import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from m6rec.domains import domain as domains
from m6rec.errors import AssetError, ConfigError
from m6rec.evaluation.metrics import auc, base_rates, cross_entropy, perplexity
from m6rec.readouts import GenerateModel, ScoreModel, TaskModelConfig
from m6rec.readouts.scoring import class_metric, fit_numbers
from m6rec.tasks import task as tasks
from m6rec.tasks import writing
from m6rec.tasks.task import Task, build_examples
from m6rec.training import CHECKPOINT, TrainConfig, fit
from m6rec.types import Event, Item, Segment, User
from tests import tiny
from tests.readouts import test_score

ROOT = Path(__file__).parents[1]
GENERIC = domains.named("generic")
ITEMS = {str(n): Item(str(n), "ab"[n % 2]) for n in range(8)}


def sorts(num_classes, *, graded):
    """A task whose answer stands in the item's text: one of any number of classes."""
    return Task(
        name=f"sorts of {num_classes}",
        readout="score",
        profile=lambda user, domain: (),
        event_text=lambda event, item, domain: Segment(item.id, "history"),
        candidate=lambda item, domain: (Segment(f"{'abcdefg'[int(item.id) % num_classes] * 3}", "candidate"),),
        label=lambda event, domain: int(event.item) % num_classes,
        num_classes=num_classes,
        options=tuple(" abcdefg"[n + 1] for n in range(num_classes)),
        grades=tuple(n / (num_classes - 1) for n in range(num_classes)) if graded else (),
    )


TWO, THREE, FIVE, THREE_GRADES = (
    sorts(2, graded=False),
    sorts(3, graded=False),
    sorts(5, graded=False),
    sorts(3, graded=True),
)
SIGNED = Task(
    name="signed",
    readout="score",
    profile=lambda user, domain: (),
    event_text=lambda event, item, domain: Segment(("+" if domain.positive(event) else "-") + item.title, "history"),
    candidate=lambda item, domain: (Segment("?" + item.title, "candidate"),),
    label=lambda event, domain: int(domain.positive(event)),
    num_classes=2,
    options=(" no", " yes"),
)
"""As terse as the tiny model is dull, and without numbers: what is learned is learned from the text."""


def board(task, seed, num_users):
    """Rows of a checkerboard: half the users like the items of one colour, half those of the other.

    Neither user nor item tells the answer, only the two together, which a user's history reveals.
    """
    rng = np.random.default_rng(seed)
    events = [
        Event(f"{seed}-{user}", str(item), time, (user + item) % 2)
        for time in range(8)
        for user, item in enumerate(rng.integers(8, size=num_users).tolist())
    ]
    users = {event.user: User(event.user) for event in events}
    rows, _ = build_examples(tasks.named(task), events, users, ITEMS, GENERIC, np.ones(len(events), bool))
    return [row.only(row.visible > 0) for row in rows if row.visible.any()]


def tune_board(task, method, *, folder=None, progress=lambda step, total, loss: None, num_users=60, **options):
    """(the tuned task, its history)."""
    config = TaskModelConfig(task=task, domain="generic", foundation="tiny", method=method)
    tuned = ScoreModel.create(config, tiny.foundation())
    options = {"epochs": 4, "learning_rate": 5e-3, "average": 0.9, **options}
    history = tuned.tune(
        board(task, 0, num_users),
        board(task, 1, 20),
        TrainConfig(**options),
        folder=folder,
        progress=progress,
    )
    return tuned, history


@pytest.mark.parametrize(
    ("task", "method"),
    [("tests.test_training:SIGNED", "upper"), ("tests.test_training:SIGNED", "lora")],
)
def test_a_checkerboard_is_learned(task, method):
    _, history = tune_board(task, method, batch_tokens=60)
    assert max(history.validation_scores) > 0.97  # the AUC of users that training never saw
    assert np.mean(history.losses[-5:]) < 0.3 < 0.5 < np.mean(history.losses[:3])


@pytest.mark.parametrize("name", ["TWO", "THREE", "FIVE", "THREE_GRADES"])
def test_a_task_of_any_number_of_classes_is_learned(name):
    tuned, history = tune_board(f"tests.test_training:{name}", "option-adapter", epochs=3, batch_tokens=60)
    rows = board(f"tests.test_training:{name}", 2, 20)
    labels = np.concatenate([row.labels for row in rows])
    probabilities = tuned.probabilities(rows)
    assert probabilities.shape == (len(labels), tuned.task.num_classes)
    base = base_rates(labels, tuned.task.num_classes)
    assert cross_entropy(labels, probabilities) < 0.7 * cross_entropy(
        labels, np.broadcast_to(base, probabilities.shape)
    )
    assert len(history.validation_scores) == 3
    if tuned.task.grades:
        assert np.corrcoef(tuned.scores(rows), np.array(tuned.task.grades)[labels])[0, 1] > 0.5
    elif name != "TWO":
        with pytest.raises(ConfigError, match="without an order"):
            tuned.scores(rows)


def test_numbers_are_fitted_first_and_stay_as_they_are_while_text_is_read():
    rows, names = test_score.ROWS["like"], ("gate_weight_G", "gate_bias")
    alone, tuned = test_score.make(used=False), test_score.make(used=False)
    history = fit_numbers(alone.adapter, rows, rows, TrainConfig(epochs=60, learning_rate=0.01))
    assert history.losses[-1] < 0.5 * history.losses[0]
    alone = test_score.make(used=False)
    fit_numbers(alone.adapter, rows, rows)
    tuned.tune(rows, rows, TrainConfig(epochs=2))
    expected, found = alone.adapter.base.state_dict(), tuned.adapter.base.state_dict()
    assert {name for name in expected if not torch.equal(expected[name], found[name])} <= set(names)
    assert found["gate_bias"] != expected["gate_bias"]


def test_where_there_are_no_numbers_nothing_is_fitted():
    assert fit_numbers(test_score.make("ctr").adapter, test_score.ROWS["ctr"], test_score.ROWS["ctr"]) is None


def test_a_validation_of_one_class_is_judged_by_its_loss():
    labels, certain = np.zeros(4, int), np.tile([0.9, 0.1], (4, 1))
    users = np.arange(4)
    assert class_metric(labels, certain, users, np.array([0.5, 0.5])) == pytest.approx(np.log(0.9))


def test_an_epoch_worse_than_the_base_rates_is_judged_worse():
    labels, users, base = np.array([0, 0, 0, 1]), np.arange(4), np.array([0.75, 0.25])
    fair = np.array([[0.9, 0.1], [0.9, 0.1], [0.8, 0.2], [0.5, 0.5]])
    wild = np.array([[0.01, 0.99], [0.01, 0.99], [0.01, 0.99], [0.001, 0.999]])
    assert class_metric(labels, fair, users, base) == 1.0
    assert class_metric(labels, wild, users, base) < 0


def test_a_small_log_is_trained_for_as_many_steps_as_are_asked_for():
    _, short = tune_board("like", "head", epochs=1, num_users=4)
    _, long = tune_board("like", "head", epochs=1, num_users=4, min_steps=20)
    assert len(short.losses) < 20 <= len(long.losses) < 20 + len(short.losses)


def test_batches_hold_as_many_tokens_as_are_asked_for():
    steps = [len(tune_board("like", "head", epochs=1, batch_tokens=most)[1].losses) for most in (60, 240, 10_000)]
    assert steps[0] > 3 * steps[1] > 3 * steps[2] == 3


def test_a_checkerboard_is_learned_from_pairs_alone():
    tuned, history = tune_board("tests.test_training:SIGNED", "upper", pairwise=1.0, batch_tokens=60)
    rows = [row for row in board("tests.test_training:SIGNED", 1, 20) if len(set(row.labels.tolist())) == 2]
    within = [auc(row.labels, tuned.scores([row])) for row in rows]
    assert max(history.validation_scores) == pytest.approx(np.mean(within))
    assert np.mean(within) > 0.97


def test_pairs_are_of_scores():
    with pytest.raises(ConfigError, match=r"pairwise is 0.5, but task 'rating' doesn't tell two classes apart"):
        tune_board("rating", "upper", pairwise=0.5)
    with pytest.raises(ConfigError, match=r"pairwise is 0.5, but task 'habit' has no scores; leave it 0"):
        tune_diaries(pairwise=0.5)


HABIT = Task(
    name="habit",
    readout="generate",
    profile=lambda user, domain: (),
    event_text=lambda event, item, domain: Segment(event.text, "history"),
    texts=lambda event, item, domain: ((":", event.text),),
)
"""A user writes the same each time, which only the past can tell."""


def diaries(seed, num_users):
    """Drafts of users who write "a" or "b" all their life; the first ones of each, who have no past, left out."""
    writes = np.random.default_rng(seed).integers(2, size=num_users)
    events = [
        Event(f"{seed}-{user}", "0", time, text="ab"[word]) for time in range(4) for user, word in enumerate(writes)
    ]
    users = {event.user: User(event.user) for event in events}
    drafts = writing.build_drafts(HABIT, events, users, ITEMS, GENERIC, np.ones(len(events), bool))
    return [draft for draft in drafts if draft.context]


def tune_diaries(*, folder=None, progress=lambda step, total, loss: None, method="upper", epochs=4, **options):
    """(the writer, its history)."""
    task = "tests.test_training:HABIT"
    config = TaskModelConfig(task=task, domain="generic", foundation="tiny", method=method, depth=2)
    writer = GenerateModel.create(config, can_end(tiny.foundation()))
    training = TrainConfig(epochs=epochs, learning_rate=5e-3, average=0.9, checkpoint_steps=3, **options)
    return writer, writer.tune(diaries(0, 60), diaries(1, 12), training, folder=folder, progress=progress)


def can_end(foundation):
    foundation.model.config = replace(foundation.model.config, end_ids=(0,))
    return foundation


@pytest.mark.parametrize("method", ["upper", "lora"])
def test_what_a_user_always_writes_is_learned_from_the_past(method):
    writer, history = tune_diaries(method=method, batch_tokens=60)
    drafts = diaries(1, 12)
    other = {draft.target: draft.context for draft in drafts}
    strange = [replace(draft, context=other["b" if draft.target == "a" else "a"]) for draft in drafts]
    own = perplexity(*writer.nats(drafts))
    assert max(history.validation_scores) == pytest.approx(-own)
    assert own < 1.3 < 2 < perplexity(*writer.nats(strange))
    assert np.mean(history.losses[-5:]) < 0.3 < 0.6 < np.mean(history.losses[:3])


def test_an_interrupted_tuning_of_texts_goes_on_exactly(tmp_path):
    options = {"epochs": 1, "batch_tokens": 60}

    def interrupt(step, total, loss):
        if step == 8:
            raise StoppedError

    with pytest.raises(StoppedError):
        tune_diaries(folder=tmp_path, progress=interrupt, **options)
    steps = []
    resumed, history = tune_diaries(folder=tmp_path, progress=lambda step, *_: steps.append(step), **options)
    assert steps[0] == 7
    whole, expected = tune_diaries(**options)
    assert history.losses == pytest.approx(expected.losses, rel=1e-4)  # lower states come from batches of other shapes
    again = GenerateModel.load(tmp_path, can_end(tiny.foundation()))
    drafts = diaries(1, 12)
    np.testing.assert_array_equal(again.nats(drafts)[0], resumed.nats(drafts)[0])
    np.testing.assert_allclose(again.nats(drafts)[0], whole.nats(drafts)[0], rtol=1e-3)


class Line(nn.Module):
    """A model of four parameters, one frozen."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 1))
        self.bias = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def loss(self, batch):
        x_N2, y_N = batch
        return ((x_N2 @ self.weight)[:, 0] + self.bias * self.frozen - y_N).square().mean()


def batches(count=12, size=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, size, 2, generator=generator)
    y = 3 * x[..., 0] - x[..., 1] + 0.5 + 0.1 * torch.randn(count, size, generator=generator)
    return list(zip(x, y, strict=True))


CONFIG: dict[str, Any] = {"epochs": 4, "learning_rate": 0.1, "warmup_steps": 4, "checkpoint_steps": 5}


def fit_line(folder=None, *, data=None, line=None, **options):
    line, data = line or Line(), batches() if data is None else data
    keywords = {name: options.pop(name) for name in ("validate", "progress") if name in options}
    history = fit(line, data, line.loss, TrainConfig(**{**CONFIG, **options}), folder=folder, **keywords)
    return line, history


def state(line):
    return [parameter.tolist() for parameter in line.parameters()]


def test_loss_falls_and_frozen_parameters_stay():
    line, history = fit_line(epochs=20, average=0.5)
    assert len(history.losses) == 20 * 12
    assert np.mean(history.losses[-12:]) < 0.05 < 1 < np.mean(history.losses[:3])
    assert line.weight[:, 0].tolist() == pytest.approx([3, -1], abs=0.15)
    assert line.frozen.item() == 1


def test_same_seed_same_result_other_seed_other_order():
    first, again, other = fit_line(), fit_line(), fit_line(seed=1)
    assert first[1] == again[1]
    assert state(first[0]) == state(again[0])
    assert first[1].losses != other[1].losses


def test_learning_rate_rises_then_falls():
    """Seen in the size of the first steps, which Adam makes as long as the rate."""
    line, seen = Line(), [[0.0, 0.0]]
    config = TrainConfig(epochs=4, learning_rate=0.1, warmup_steps=4, average=0, weight_decay=0)
    fit(line, batches(), line.loss, config, progress=lambda *_: seen.append(line.weight[:, 0].tolist()))
    steps = np.abs(np.diff(seen, axis=0)).max(1)
    assert steps[0] == pytest.approx(0.1 / 4, rel=1e-3)
    assert steps[:4].tolist() == sorted(steps[:4])
    assert steps[-4:].max() < 0.02 * 0.1 + 0.003


def test_accumulated_batches_equal_larger_ones():
    small = batches()
    order = [np.random.default_rng([0, epoch]).permutation(12) for epoch in range(2)]
    line, seen = Line(), []
    config: dict[str, Any] = {"epochs": 2, "learning_rate": 0.1}
    history = fit(
        line, small, line.loss, TrainConfig(**config, accumulate=2), progress=lambda *now: seen.append(now[:2])
    )
    assert seen == [(step, 12) for step in range(1, 13)]
    # The same pairs as batches of double size, taken in their order.
    doubled = [
        tuple(torch.cat(parts) for parts in zip(small[a], small[b], strict=True))
        for epoch in order
        for a, b in epoch.reshape(-1, 2)
    ]
    other, steps = Line(), iter(doubled)
    expected = fit(other, [None] * 6, lambda _: other.loss(next(steps)), TrainConfig(**config))
    assert history.losses == pytest.approx(expected.losses, rel=1e-4)
    np.testing.assert_allclose(np.concatenate(state(line)[:1]), np.concatenate(state(other)[:1]), rtol=1e-4, atol=1e-6)


def test_a_remainder_of_batches_is_a_step_of_its_own():
    _, history = fit_line(data=batches(5), accumulate=2, epochs=2)
    assert len(history.losses) == 6


def test_the_best_epoch_is_kept_and_training_stops_early():
    line, judged, validation_scores = Line(), [], iter([0.1, 0.7, 0.6, 0.7, 0.9])

    def validate():
        judged.append(state(line))
        return next(validation_scores)

    _, history = fit_line(line=line, validate=validate, epochs=5, patience=2)
    assert history.validation_scores == [0.1, 0.7, 0.6, 0.7]  # no better for two epochs
    assert history.best_epoch == 1
    assert state(line) == judged[1]
    assert judged[1] != judged[3]


def test_without_patience_all_epochs_run():
    validation_scores = iter([0.9, 0.1, 0.1, 0.1])
    _, history = fit_line(validate=lambda: next(validation_scores))
    assert (len(history.validation_scores), history.best_epoch) == (4, 0)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_running_mean_is_what_is_kept(average):
    line, mean, last = Line(), np.zeros(2), None

    def follow(step, total, loss):
        nonlocal mean, last
        decay = min(average, step / (step + 9)) if average else 0.0
        last = line.weight[:, 0].tolist()
        mean = decay * mean + (1 - decay) * np.array(last)

    fit_line(line=line, average=average, progress=follow, epochs=1)
    assert line.weight[:, 0].tolist() == pytest.approx(mean.tolist(), rel=1e-5)
    assert (line.weight[:, 0].tolist() == last) == (average == 0)


def test_one_wild_batch_does_not_stop_the_rest():
    """Unclipped, its gradient stays in Adam's second moment and makes every later step tiny."""
    ordinary = batches()
    wild = [(x, y + 1e6 * (number == 3)) for number, (x, y) in enumerate(ordinary)]
    loss = {}
    for clip in (1.0, 1e9):
        line, _ = fit_line(data=wild, clip=clip, epochs=10)
        loss[clip] = np.mean([line.loss(batch).item() for batch in ordinary])
    assert loss[1.0] < 2 < 5 < loss[1e9]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    ("stop", "first"),
    [(3, 1), (10, 11), (17, 16), (24, 21), (48, 46)],
    ids=["before any checkpoint", "at a checkpoint", "in an epoch", "at an epoch's end", "at the end"],
)
def test_an_interrupted_run_goes_on_exactly(tmp_path, stop, first):
    """A checkpoint is written every 5 steps, and at the end of an epoch, which has 12."""

    def run(folder=None, progress=lambda *_: None):
        line = Line()
        _, history = fit_line(folder, line=line, progress=progress, validate=lambda: -line.weight.sum().item())
        return history, state(line)

    def interrupt(step, total, loss):
        if step == stop:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(tmp_path, interrupt)
    steps = []
    assert run(tmp_path, lambda step, *_: steps.append(step)) == run()
    assert steps[0] == first


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = fit_line(tmp_path)
    again = fit_line(tmp_path, progress=lambda *_: pytest.fail("trained again"))
    assert again[1] == first[1]
    assert state(again[0]) == state(first[0])


KILLED = {
    "task": "like",
    "method": "option-adapter",
    "num_users": 30,
    "epochs": 3,
    "checkpoint_steps": 3,
    "batch_tokens": 60,
}


def die(step, total, loss):
    if step == 8:
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_and_run_again_it_loses_nothing(tmp_path):
    """SIGKILL in the middle of a tuning; the run that goes on has the losses of one that was never killed."""
    code = (
        "import sys; from pathlib import Path; from tests import test_training as t; "
        "t.tune_board(**t.KILLED, folder=Path(sys.argv[1]), progress=t.die)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / CHECKPOINT).is_file()
    steps = []
    resumed, history = tune_board(**KILLED, folder=tmp_path, progress=lambda step, *_: steps.append(step))
    assert steps[0] == 7
    whole, expected = tune_board(**KILLED)
    assert history == expected
    rows = board("like", 1, 20)
    np.testing.assert_array_equal(resumed.scores(rows), whole.scores(rows))
    np.testing.assert_array_equal(ScoreModel.load(tmp_path, tiny.foundation()).scores(rows), whole.scores(rows))


def test_a_checkpoint_from_before_a_setting_had_its_default(tmp_path):
    fit_line(tmp_path)
    path = tmp_path / CHECKPOINT
    with safe_open(path, "pt") as file:
        note, tensors = json.loads(file.metadata()["note"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del note["config"]["pairwise"]
    save_file(tensors, path, metadata={"note": json.dumps(note)})
    steps = []
    fit_line(tmp_path, progress=lambda step, *_: steps.append(step))
    assert not steps


def test_a_folder_belongs_to_one_configuration(tmp_path):
    fit_line(tmp_path)
    for options in ({"learning_rate": 0.2}, {"seed": 1}, {"epochs": 9}, {"data": batches(11)}):
        with pytest.raises(ConfigError, match="belongs to a run with another configuration, method or data"):
            fit_line(tmp_path, **options)
    other = nn.Linear(2, 1)
    with pytest.raises(ConfigError, match="another folder, or delete it to start anew"):
        fit(other, batches(), lambda batch: other(batch[0]).mean(), TrainConfig(**CONFIG), folder=tmp_path)


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path):
    fit_line(tmp_path)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    for spoilt in (whole[: len(whole) // 2], b"", b"{}"):
        (tmp_path / CHECKPOINT).write_bytes(spoilt)
        with pytest.raises(AssetError, match=r"not a readable checkpoint .*; delete it"):
            fit_line(tmp_path)


def test_a_training_that_diverges_says_so():
    line = nn.Linear(2, 1)
    with pytest.raises(ConfigError, match=r"the loss is nan at step 1 of .*lower learning_rate"):
        fit(line, batches(), lambda batch: line(batch[0]).mean() * float("nan"), TrainConfig(**CONFIG))


def test_a_tensorboard_log_is_written(tmp_path):
    fit_line(tmp_path, validate=lambda: 0.5)
    assert list((tmp_path / "log").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be an integer, at least 1"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"batch_tokens": 0}, "batch_tokens is 0; it must be an integer, at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be a number, above 0 and below 1"),
        ({"average": 1.0}, "average is 1.0; it must be a number, at least 0 and below 1"),
        ({"clip": 0.0}, "clip is 0.0; it must be a number, above 0"),
        ({"pairwise": 1.5}, "pairwise is 1.5; it must be a number, at least 0 and at most 1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options)


def test_a_schedule_hears_how_much_is_done():
    module, heard = nn.Linear(1, 1), []
    config = TrainConfig(epochs=2, accumulate=2)
    fit(module, [1.0, 2.0, 3.0], lambda x: module(torch.tensor([x])).square().sum(), config, schedule=heard.append)
    assert heard == [0, 1 / 4, 2 / 4, 3 / 4, 1]
