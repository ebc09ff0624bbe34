"""The one training loop: AdamW, warm-up and decay, averaging, early stopping, exact resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from m6rec.adapters import TaskAdapter
from m6rec.errors import AssetError, ConfigError
from m6rec.fingerprint import begin, changed, digest
from m6rec.metrics import auc, base_rates, cross_entropy, ndcg, perplexity, ranks, uauc
from m6rec.project import CONFIG
from m6rec.task_model import ItemBlocks, TaskModel
from m6rec.tasks.task import texts
from m6rec.text.batch import Batch, Example, pack, pad, regroup, size
from m6rec.text_model import TextModel
from m6rec.types import Draft, Item

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

BatchT = TypeVar("BatchT")
CHECKPOINT = "checkpoint.safetensors"
TRAINING_TOKENS = 1_024
"""Padded tokens of one training batch, kept ones of rows: small, for many steps an epoch; a longer life is a batch."""
RETRIEVAL_TOKENS = 1_200
"""… of one of retrieval, whose users are each other's negatives."""
MAX_SCORES = 1 << 24
"""Scores of questions and items that are held at once."""
BASE_QUESTIONS = 512
"""Questions of a batch of the base."""
BASE = "base"
"""Where a run keeps the training of its base."""
AVERAGE, BEST, FIRST, SECOND = "average/", "best/", "first/", "second/"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a tuning is trained.

    Attributes:
        epochs: Passes over the batches.
        min_steps: Steps that a small log is trained for at least, by more epochs.
        learning_rate: The peak, after the warm-up; it falls to 2 % of itself along a cosine.
        warmup_steps: Steps of linear rise, at most a tenth of all.
        weight_decay: On matrices only, as usual.
        accumulate: Batches to an optimiser step.
        batch_tokens: Padded tokens of a batch, of which a GPU takes many at once; 0 for as few as cores like.
        clip: Greatest norm of a gradient.
        average: Decay of the running mean of the weights, which is what is kept; 0 keeps the last weights.
        patience: Epochs without a better validation before it stops; 0 never stops early.
        checkpoint_steps: Steps between two checkpoints.
        seed: Fixes the order of batches.
        pairwise: Weight of the pairwise loss over a user's own items (``task_model.pair_loss``), as in JRC (Sheng et
            al., 2023); the rest is cross-entropy. The validation metric mixes AUC and UAUC with the same weights. The
            higher it is, the less calibrated scores are, and the less comparable between users.
    """

    epochs: int = 3
    min_steps: int = 0
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    accumulate: int = 1
    batch_tokens: int = 0
    clip: float = 1.0
    average: float = 0.99
    patience: int = 0
    checkpoint_steps: int = 100
    seed: int = 0
    pairwise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.batch_tokens < 0:
            raise ConfigError(f"batch_tokens is {self.batch_tokens}; give 0 for the usual number, or more")
        if not 0 < self.learning_rate < 1 or not 0 <= self.average < 1 or self.clip <= 0:
            raise ConfigError(
                f"learning_rate {self.learning_rate} must be in (0, 1), average {self.average} in [0, 1), "
                f"clip {self.clip} above 0"
            )
        if not 0 <= self.pairwise <= 1:
            raise ConfigError(f"pairwise is {self.pairwise}; it is a share of the loss, from 0 to 1")


BASE_TRAINING = TrainConfig(epochs=12, learning_rate=1e-3, patience=3)
"""How the base of a score is fitted."""


@dataclass
class TrainingHistory:
    """How a training went.

    Attributes:
        losses: One a step.
        validation_scores: What ``validate`` said, one an epoch; empty without it.
        best_epoch: The epoch, from 0, whose weights were kept.
    """

    losses: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_epoch: int = 0


def fit(
    module: nn.Module,
    batches: Sequence[BatchT] | Callable[[int], Sequence[BatchT]],
    loss: Callable[[BatchT], Tensor],
    config: TrainConfig,
    *,
    validate: Callable[[], float] | None = None,
    folder: Path | None = None,
    schedule: Callable[[float], None] = lambda done: None,
    progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> TrainingHistory:
    """Trains the parameters of ``module`` that require gradients, in place.

    Args:
        module: A tuning, or several in a ``ModuleList`` to train tasks together.
        batches: Seen once an epoch, in an order that the seed and the epoch fix; or those of each epoch, by its number
            from 0, as many in each.
        loss: Mean loss of a batch.
        config: How to train.
        validate: A validation measure, greater is better, of the averaged weights; picks the epoch that is kept.
        folder: Where the checkpoint and the TensorBoard log go. A run that was killed goes on from its checkpoint
            with the same losses as if it had not been; a finished one is not trained again.
        schedule: Called before each step with the share of all steps that is done, and with 1 at the end.
        progress: Called after each step.

    Returns:
        Its history. ``module`` holds the weights of the best epoch, or of the last without ``validate``.

    Raises:
        ConfigError: The folder holds a checkpoint of another configuration, or the loss is no longer finite.
        AssetError: The checkpoint can't be read.
    """
    of_epoch = batches if callable(batches) else lambda epoch: batches
    now = of_epoch(0)
    run = _Run(module, config, len(now), folder)
    history = run.history
    writer = SummaryWriter(str(folder / "log"), purge_step=len(history.losses)) if folder else None
    while run.epoch < run.num_epochs and not run.stopped:
        now = of_epoch(run.epoch) if run.epoch else now
        order = np.random.default_rng([config.seed, run.epoch]).permutation(len(now))
        while run.place < len(order):
            schedule(len(history.losses) / run.num_steps)
            numbers = order[run.place : run.place + config.accumulate]
            total = 0.0
            for number in numbers:
                value = loss(now[number]) / len(numbers)
                torch.autograd.backward(value)
                total += value.item()
            if not math.isfinite(total):
                raise ConfigError(
                    f"the loss is {total} at step {len(history.losses) + 1} of {run.num_steps}: the training diverged; "
                    f"lower learning_rate ({config.learning_rate}) or clip ({config.clip})"
                )
            rate = run.step()
            history.losses.append(total)
            run.place += len(numbers)
            if writer:
                writer.add_scalar("loss", total, len(history.losses))
                writer.add_scalar("learning_rate", rate, len(history.losses))
            if len(history.losses) % config.checkpoint_steps == 0:
                run.save()
            progress(len(history.losses), run.num_steps, total)
        with run.averaged():
            score = validate() if validate else float(run.epoch)
            if validate:
                history.validation_scores.append(score)
                if writer:
                    writer.add_scalar("validation", score, len(history.losses))
            run.keep_if_best(score)
        run.epoch, run.place = run.epoch + 1, 0
        run.stopped = bool(config.patience) and run.epoch - 1 - history.best_epoch >= config.patience
        run.save()
    if writer:
        writer.close()
    schedule(1.0)
    run.load_best()
    return history


class _Run:
    """Everything that a training would need to go on after a kill: weights, moments, mean, place."""

    def __init__(self, module: nn.Module, config: TrainConfig, num_batches: int, folder: Path | None) -> None:
        self.config, self.folder = config, folder
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.per_epoch = math.ceil(num_batches / config.accumulate)
        self.num_epochs = max(config.epochs, math.ceil(config.min_steps / max(1, self.per_epoch)))
        self.num_steps = self.num_epochs * self.per_epoch
        self.history = TrainingHistory()
        self.epoch = self.place = 0
        self.stopped = False
        self.best_score = -math.inf
        decayed = [p for p in self.parameters.values() if p.ndim > 1]
        plain = [p for p in self.parameters.values() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )
        for p in self.parameters.values():  # made now rather than at the first step, so that they can be loaded
            self.optimizer.state[p] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
        self.mean = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.best = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._load()

    def step(self) -> float:
        """One optimiser step from the gradients gathered; returns the learning rate used."""
        done, config = len(self.history.losses), self.config
        warmup = max(1, min(config.warmup_steps, self.num_steps // 10))
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done / max(1, self.num_steps)))
        rate = config.learning_rate * min(1.0, (done + 1) / warmup) * decay
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(self.parameters.values(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(config.average, (done + 1) / (done + 10)) if config.average else 0.0
        with torch.no_grad():
            for name, p in self.parameters.items():
                self.mean[name].lerp_(p, 1 - decay)
        return rate

    def averaged(self) -> _Swapped:
        """A block in which the module holds the averaged weights."""
        return _Swapped(self.parameters, self.mean)

    def keep_if_best(self, score: float) -> None:
        """Remembers the averaged weights where they are the best so far."""
        if score > self.best_score:
            self.best_score, self.history.best_epoch = score, self.epoch
            self.best = {name: p.clone() for name, p in self.mean.items()}

    def load_best(self) -> None:
        """Puts the best weights into the module."""
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(self.best[name])

    def save(self) -> None:
        """Writes the checkpoint, atomically."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for name, p in self.parameters.items():
            state = self.optimizer.state[p]
            tensors |= {
                name: p.detach(),
                AVERAGE + name: self.mean[name],
                BEST + name: self.best[name],
                FIRST + name: state["exp_avg"],
                SECOND + name: state["exp_avg_sq"],
            }
        note = {
            "config": asdict(self.config),
            "steps_per_epoch": self.per_epoch,
            "history": asdict(self.history),
            "epoch": self.epoch,
            "place": self.place,
            "stopped": self.stopped,
            "best_score": self.best_score,
        }
        partial = self.folder / f".{CHECKPOINT}.partial"
        save_file({n: t.contiguous() for n, t in tensors.items()}, partial, metadata={"note": json.dumps(note)})
        os.replace(partial, self.folder / CHECKPOINT)

    def _load(self) -> None:
        path = self.folder / CHECKPOINT if self.folder else None
        if path is None or not path.is_file():
            return
        try:
            with safe_open(path, "pt") as file:
                note = json.loads(file.metadata()["note"])
                begun = TrainConfig(**note["config"])  # settings newer than the checkpoint had their defaults
                history = TrainingHistory(**note["history"])
                shapes = {name: file.get_slice(name).get_shape() for name in file.keys() if "/" not in name}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise AssetError(f"{path} is not a readable checkpoint ({error}); delete it to start anew") from error
        ours = {name: list(p.shape) for name, p in self.parameters.items()}
        if begun != self.config or note["steps_per_epoch"] != self.per_epoch or shapes != ours:
            raise ConfigError(
                f"{path} belongs to a run with another configuration, method or data; continue with the same, give "
                "another folder, or delete it to start anew"
            )
        tensors = load_file(path)
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(tensors[name])
                self.mean[name].copy_(tensors[AVERAGE + name])
                self.best[name].copy_(tensors[BEST + name])
                self.optimizer.state[p]["step"].fill_(len(note["history"]["losses"]))
                self.optimizer.state[p]["exp_avg"].copy_(tensors[FIRST + name])
                self.optimizer.state[p]["exp_avg_sq"].copy_(tensors[SECOND + name])
        self.history = history
        self.epoch, self.place = note["epoch"], note["place"]
        self.stopped, self.best_score = note["stopped"], note["best_score"]


class _Swapped:
    """Weights exchanged for others while the block runs."""

    def __init__(self, parameters: dict[str, nn.Parameter], others: dict[str, Tensor]) -> None:
        self._parameters, self._others = parameters, others

    def _copy(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in self._parameters.items():
                p.copy_(values[name])

    def __enter__(self) -> None:
        self._own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._copy(self._others)

    def __exit__(self, *error: object) -> None:
        self._copy(self._own)


def tune(
    tuned: TaskModel,
    training: Sequence[Example],
    validation: Sequence[Example],
    items: Sequence[Item],
    config: TrainConfig,
    *,
    folder: Path | None = None,
    seen: csr_matrix | None = None,
    log_q: bool = False,
    progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> TrainingHistory:
    """Trains a task on the rows of the training part and keeps the epoch that is best on validation.

    A row holds a user's whole life, so one forward pass trains on all of its questions.

    Args:
        tuned: The task; its tuning is trained in place.
        training: Rows of the training part.
        validation: Rows of the validation part.
        items: The catalogue, in the order of the log's items.
        config: How to train.
        folder: See ``fit``; the tuning is saved there at the end. It takes no other run, see ``fingerprint.begin``.
        seen: What each validation question's user has met, [questions, items], which retrieval is validated without.
        log_q: Whether InfoNCE is corrected by the logarithm of an item's share of the targets. It is not by default:
            what is popular is left to the item-item models.
        progress: See ``fit``.

    Raises:
        ConfigError: Pairs of scores are asked of a task without scores; and see ``fit``.
    """
    if config.pairwise and tuned.task.num_classes != 2:
        raise ConfigError(
            f"pairwise is {config.pairwise}, but task {tuned.task.name!r} doesn't tell two classes apart; leave it 0"
        )
    _begin(tuned, config, [training, validation, items, log_q], folder)
    states = tuned.cache.fetch([*texts(training), *texts(validation)])
    catalogue = None
    if tuned.task.readout == "embed":
        answers = np.concatenate([row.labels for row in training])
        share = (np.bincount(answers, minlength=len(items)) + 1.0) / (len(answers) + len(items))
        catalogue = ItemBlocks.of(tuned.task, tuned.domain, items, np.log(share).astype(np.float32) if log_q else None)
        states = tuned.cache.fetch([*texts(training), *catalogue.texts()])
        catalogue.bind(states)
    fit_numbers(tuned.adapter, training, validation, folder=folder / BASE if folder else None)
    training = tuned.rows(training)
    most = config.batch_tokens or (TRAINING_TOKENS if catalogue is None else RETRIEVAL_TOKENS)
    sizes = [size(row, states.length) for row in training]
    groups = pack(sizes, most)

    def batches(epoch: int) -> list[Batch]:
        # Users of a batch are each other's negatives in retrieval, so they are mixed anew for each epoch.
        of_epoch = groups if catalogue is None or not epoch else regroup(groups, sizes, seed=[config.seed, epoch])
        return [pad([training[number] for number in group], states.places) for group in of_epoch]

    labels = np.concatenate([row.labels for row in validation])
    if catalogue is None:
        users = np.repeat(np.arange(len(validation)), [len(row.candidates) for row in validation])
        base_C = base_rates(np.concatenate([row.labels for row in training]), tuned.task.num_classes)

    def validate() -> float:
        if catalogue is None:
            return class_metric(labels, tuned.probabilities(validation), users, base_C, config.pairwise)
        users_QE, items_IE = tuned.vectors(validation), tuned.item_vectors(items)  # sources take no part
        step = max(1, MAX_SCORES // len(items))
        chunks = [slice(first, first + step) for first in range(0, len(labels), step)]
        return ndcg(
            np.concatenate(
                [
                    ranks(users_QE[of] @ items_IE.T, labels[of], None if seen is None else seen[of].toarray() != 0)
                    for of in chunks
                ]
            ),
            10,
        )

    history = fit(
        tuned.adapter,
        batches,
        lambda batch: tuned.loss(batch, states, catalogue, pairwise=config.pairwise),
        config,
        validate=validate,
        folder=folder,
        progress=progress,
    )
    _end(tuned, folder)
    return history


def fit_numbers(
    adapter: TaskAdapter,
    training: Sequence[Example],
    validation: Sequence[Example],
    config: TrainConfig = BASE_TRAINING,
    *,
    folder: Path | None = None,
) -> TrainingHistory | None:
    """Fits what a tuning makes of numbers alone, before it reads: the base of its scores, and how traces are normed.

    Args:
        adapter: Fitted in place, if it takes numbers; the base is fixed from then on.
        training: Rows of the training part.
        validation: Rows that choose the epoch of the base.
        config: How the base is trained; it takes seconds.
        folder: See ``fit``.

    Returns:
        The history of the base; None where there is none.
    """
    if adapter.event_encoder is not None:
        adapter.event_encoder.fit(torch.from_numpy(np.concatenate([row.event_features for row in training])))
    base = adapter.base
    if base is None:
        return None
    network, device = base.network, adapter.slots_SD.device

    def of(rows: Sequence[Example]) -> tuple[Tensor, Tensor]:
        features_QF = torch.from_numpy(np.concatenate([row.features for row in rows]))
        return features_QF.to(device), torch.from_numpy(np.concatenate([row.labels for row in rows])).to(device)

    (features_QF, labels_Q), (signals_VF, answers_V) = of(training), of(validation)
    network.fit(features_QF)
    labels = answers_V.cpu().numpy()
    users = np.repeat(np.arange(len(validation)), [len(row.candidates) for row in validation])
    rates_C = base_rates(labels_Q.cpu().numpy(), adapter.config.num_classes)

    def batches(epoch: int) -> Sequence[Tensor]:
        order = np.random.default_rng([config.seed, epoch]).permutation(len(labels_Q))
        return torch.split(torch.from_numpy(order).to(device), BASE_QUESTIONS)

    def validate() -> float:
        with torch.no_grad():
            probabilities_VC = base(signals_VF).softmax(-1).double().cpu().numpy()
        return class_metric(labels, probabilities_VC, users, rates_C)

    network.requires_grad_(True)
    history = fit(
        network,
        batches,
        lambda chosen: F.cross_entropy(base(features_QF[chosen]), labels_Q[chosen]),
        config,
        validate=validate,
        folder=folder,
    )
    network.requires_grad_(False)
    return history


def class_metric(
    labels: NDArray[np.int64],
    probabilities_QC: NDArray[np.float64],
    users: NDArray[np.int64],
    base_C: NDArray[np.float64],
    pairwise: float = 0.0,
) -> float:
    """The validation metric of a task with classes; greater is better.

    Of two classes AUC, in the share ``pairwise`` UAUC; minus what the log loss is above that of the base rates, so that
    an epoch that is worse than knowing nothing isn't kept for its order. Of more, and where validation has one class
    only, minus the log loss.
    """
    loss = cross_entropy(labels, probabilities_QC)
    if probabilities_QC.shape[1] > 2 or len(np.unique(labels)) < 2:
        return -loss
    scores = probabilities_QC[:, 1]
    within = uauc(labels, scores, users) if pairwise else 0.0
    worse = max(0.0, loss - cross_entropy(labels, np.broadcast_to(base_C, probabilities_QC.shape)))
    return (1 - pairwise) * auc(labels, scores) + pairwise * within - (0.0 if pairwise else worse)


def _begin(task: TaskModel | TextModel, config: TrainConfig, examples: object, folder: Path | None) -> None:
    """Binds a run's folder to what is about to be trained. Raises ConfigError where it holds another run."""
    if folder is not None:
        made = replace(task.fingerprint(), training=changed(config), examples=digest(examples))
        begin(folder, made, results=(CHECKPOINT, CONFIG))


def _end(task: TaskModel | TextModel, folder: Path | None) -> None:
    """Saves what was trained, unless an earlier call did."""
    if folder is not None and not (folder / CONFIG).exists():
        task.save(folder)


def tune_texts(
    writer: TextModel,
    training: Sequence[Draft],
    validation: Sequence[Draft],
    config: TrainConfig,
    *,
    folder: Path | None = None,
    progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> TrainingHistory:
    """Trains a task of texts on the drafts of the training part and keeps the epoch of the least perplexity.

    Args:
        writer: The task; its tuning is trained in place.
        training: Drafts of the training part.
        validation: Drafts of the validation part; a judgement is minus their perplexity.
        config: How to train.
        folder: See ``tune``.
        progress: See ``fit``.

    Raises:
        ConfigError: Pairs of scores are asked of a task without scores; and see ``fit``.
    """
    if config.pairwise:
        raise ConfigError(f"pairwise is {config.pairwise}, but task {writer.task.name!r} has no scores; leave it 0")
    _begin(writer, config, [training, validation], folder)
    groups = writer.batches(training, config.batch_tokens or TRAINING_TOKENS)
    batches = [[training[number] for number in group] for group in groups]
    history = fit(
        writer.adapter,
        batches,
        writer.loss,
        config,
        validate=lambda: -perplexity(*writer.nats(validation)),
        folder=folder,
        progress=progress,
    )
    _end(writer, folder)
    return history
