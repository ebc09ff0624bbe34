"""The one training loop: AdamW, warm-up and decay, averaging, early stopping, exact resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from m6rec import config as configuration
from m6rec.config import Count, Natural, NonNegative, OpenShare, Positive, Range, Share
from m6rec.errors import AssetError, ConfigError

BatchT = TypeVar("BatchT")
CHECKPOINT = "checkpoint.safetensors"
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
        batch_tokens: Padded tokens of a batch; few, for many steps an epoch; a GPU takes many at once. A longer row is
            a batch of its own.
        clip: Greatest norm of a gradient.
        average: Decay of the running mean of the weights, which is what is kept; 0 keeps the last weights.
        patience: Epochs without a better validation before it stops; 0 never stops early.
        checkpoint_steps: Steps between two checkpoints.
        seed: Fixes the order of batches.
        pairwise: Weight of the pairwise loss over a user's own items (``readouts.scoring.pair_loss``), as in JRC
            (Sheng et al., 2023); the rest is cross-entropy. The validation metric mixes AUC and UAUC with the same
            weights. The higher it is, the less calibrated scores are, and the less comparable between users.
    """

    epochs: Count = 3
    min_steps: Natural = 0
    learning_rate: Annotated[float, Range(0, 1, above=True, below=True)] = 2e-3
    warmup_steps: Natural = 100
    weight_decay: NonNegative = 0.01
    accumulate: Count = 1
    batch_tokens: Count = 1_024
    clip: Positive = 1.0
    average: OpenShare = 0.99
    patience: Natural = 0
    checkpoint_steps: Count = 100
    seed: int = 0
    pairwise: Share = 0.0

    def __post_init__(self) -> None:
        configuration.validate(self)


@dataclass
class TrainingHistory:
    """How a training went.

    Attributes:
        losses: One a step, or one an epoch.
        validation_scores: The validation metric, one an epoch; empty without it.
        best_epoch: The number, from 0, of the score whose weights were kept.
    """

    losses: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """How far a training is, by its latest checkpoint.

    Attributes:
        step: Steps done.
        num_steps: … of so many; early stopping may end it before.
        saved: When the checkpoint was written, in seconds since 1970.
        eta_s: Seconds that the rest takes at the pace so far; None where it was begun more than once.
        history: What was measured.
    """

    step: int
    num_steps: int
    saved: float
    eta_s: float | None
    history: TrainingHistory

    @classmethod
    def read(cls, folder: Path) -> TrainingState | None:
        """That of the training in a folder; None where there is no readable checkpoint."""
        path = folder / CHECKPOINT
        try:
            with safe_open(path, "pt") as file:
                note = json.loads(file.metadata()["note"])
            saved = path.stat().st_mtime
            history, per_epoch = TrainingHistory(**note["history"]), int(note["steps_per_epoch"])
            num_steps = per_epoch * _num_epochs(TrainConfig(**note["config"]), per_epoch)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None
        step = len(history.losses)
        logs = list((folder / "log").glob("events.*"))
        eta_s = None
        if len(logs) == 1 and step:  # TensorBoard names a log by the second in which it was begun
            began = float(logs[0].name.split(".")[3])
            eta_s = (saved - began) / step * (num_steps - step)
        return cls(step=step, num_steps=num_steps, saved=saved, eta_s=eta_s, history=history)


def _num_epochs(config: TrainConfig, per_epoch: int) -> int:
    return max(config.epochs, math.ceil(config.min_steps / max(1, per_epoch)))


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
    from torch.utils.tensorboard import SummaryWriter  # here, as whoever only reads a model would wait for it

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
        self.num_epochs = _num_epochs(config, self.per_epoch)
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
