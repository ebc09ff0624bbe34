"""The readout of tasks with classes: examples → cached states → upper layers → loss, or a score for each candidate.

Training, evaluation and serving share it and its state cache, so there is one path from an example to its prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from m6rec.adapters import AdapterRouter, TaskAdapter, TaskAdapterConfig, methods
from m6rec.adapters import create as create_adapter
from m6rec.adapters import load as load_adapter
from m6rec.data.split import TEST, Split
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.evaluation.ablation import BASE_ALONE, MEAN_STATE, TEXT, reading_tables
from m6rec.evaluation.metrics import base_rates
from m6rec.evaluation.report import Table
from m6rec.features.interactions import EVENT_FEATURES, FEATURES
from m6rec.foundation.attention import KVCache
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.states import StateCache, States
from m6rec.readouts.model import AdapterModel, Progress, TaskModelConfig, TrainingProgress
from m6rec.readouts.scoring import BASE, class_metric, fit_numbers, pair_loss
from m6rec.readouts.upper import UpperPass, tensor
from m6rec.tasks import task as tasks
from m6rec.tasks.examples import TaskExamples, task_examples
from m6rec.tasks.task import Task
from m6rec.text.batch import Batch, Example, pack, pad, size
from m6rec.training import TrainConfig, TrainingHistory, fit

GATED_BY = ("item_count", "user_count")
"""Features that gate the contribution of the text to a score."""
Floats = NDArray[np.floating]
Rows = Sequence[Example]


class ScoreModel(AdapterModel[Rows, Rows]):
    """A task with classes.

    A second upper layer gains .0012 AUC and doubles latency (design/002-one-cache.md).

    Attributes:
        end: The layer before which it is left.

    Args:
        exit_after: Upper layers that run; those above are left out and the readout takes what is there.
        seed: That of the initial values; None where they were loaded.

    Raises:
        ConfigError: There are not so many upper layers, or the task has no classes.
    """

    readout = "score"
    METHOD = "option-adapter"
    UPPER_LAYERS = 1

    def __init__(
        self,
        config: TaskModelConfig,
        foundation: Foundation,
        adapter: TaskAdapter,
        cache: StateCache,
        seed: int | None = None,
        *,
        exit_after: int | None = None,
    ) -> None:
        super().__init__(config, foundation, adapter, cache, seed)
        self.exit_after = exit_after
        upper = foundation.model.config.num_layers - cache.config.depth
        if exit_after is not None and not 1 <= exit_after <= upper:
            raise ConfigError(f"can't exit after {exit_after} upper layers: the run has {upper}; give 1 to {upper}")
        self.end = cache.config.depth + (upper if exit_after is None else exit_after)

    @classmethod
    def _adapter(cls, config: TaskModelConfig, foundation: Foundation, seed: int) -> TaskAdapter:
        task, model, method = cls._task(config), foundation.model, config.method or cls.METHOD
        return create_adapter(
            TaskAdapterConfig(
                method=method,
                first_layer=cls._first_layer(config, model),
                num_prompts=config.num_prompts,
                adapter_rank=config.adapter_rank,
                lora_rank=config.lora_rank,
                lora_alpha=config.lora_alpha,
                num_classes=task.num_classes,
                num_features=len(FEATURES) if task.uses_features else 0,
                gate_columns=tuple(map(FEATURES.index, GATED_BY)) if task.uses_features else (),
                num_event_features=len(EVENT_FEATURES) if task.uses_features else 0,
            ),
            model,
            seed=seed,
            options_CD=_options(task, method, foundation),
        )

    @classmethod
    def _read(
        cls, folder: Path, config: TaskModelConfig, foundation: Foundation, cache: StateCache, exit_after: int | None
    ) -> Self:
        return cls(config, foundation, load_adapter(folder, foundation.model), cache, exit_after=exit_after)

    def _digest(self) -> str:
        return f"{self.end}|{self.adapter.digest()}"

    @staticmethod
    def examples(task: Task, split: Split, domain: Domain) -> TaskExamples:
        """See ``TaskModel``."""
        return task_examples(task, split, domain)

    def texts(self, examples: TaskExamples) -> Iterator[str]:
        """See ``TaskModel``."""
        return (text for rows in examples.rows.values() for text in tasks.texts(rows))

    def rows(self, rows: Rows) -> Rows:
        """Examples as ``read`` takes them: one per timestamp if region 1 is bidirectional."""
        return [moment for row in rows for moment in row.by_timestamp()] if self.config.bidirectional else rows

    def read(self, batch: Batch, states: States) -> Tensor:
        """normed_BCD of padded rows; see ``UpperPass.read``."""
        return self.upper.read(batch, states, AdapterRouter.of_one(self.adapter, len(batch.length_B)))

    @property
    def upper(self) -> UpperPass:
        """The forward pass that makes of cached states what is scored."""
        return UpperPass(
            model=self.foundation.model,
            depth=self.cache.config.depth,
            end=self.end,
            bidirectional=self.config.bidirectional,
        )

    def predict_cached(
        self, asked: Sequence[tuple[KVCache, Example]]
    ) -> tuple[list[NDArray[np.float64]], list[KVCache]]:
        """``scores`` with a KV cache of each user's context (``Model.forward_cached``).

        Args:
            asked: Of each user the KV cache, () at first, and an example whose context holds what is not cached.

        Returns:
            (predictions of each example, new KV caches).

        Raises:
            ConfigError: Region 1 sees all of itself, so that what comes changes it.
        """
        if self.config.bidirectional:
            raise ConfigError("a bidirectional context changes as it grows and can't be read in turns")
        states = self.cache.fetch(tasks.texts([row for _, row in asked]))
        with torch.no_grad():
            normed_QD, kept = self.upper.read_cached(asked, states, self.adapter)
        answers = self._predictions(normed_QD, [row for _, row in asked])
        return np.split(answers, np.cumsum([len(row.candidates) for _, row in asked])[:-1]), kept

    def loss(self, batch: Batch, states: States, *, pairwise: float = 0.0) -> Tensor:
        """Mean cross-entropy of the labelled queries.

        Args:
            batch: Padded rows with answers.
            states: A table that holds all their texts.
            pairwise: Share of ``pair_loss`` in the loss.
        """
        valid_BC = tensor(batch.valid_BC & (batch.labels_BC >= 0), self.foundation.model.device)
        labels_Q = tensor(batch.labels_BC, self.foundation.model.device)[valid_BC]
        normed_QD = self.read(batch, states)[valid_BC]
        features_QF = tensor(batch.features_BCF, self.foundation.model.device)[valid_BC]
        logits_QC = self.adapter.score(normed_QD, features_QF)
        loss = F.cross_entropy(logits_QC, labels_Q)
        if not pairwise:
            return loss
        score_Q = logits_QC[:, 1] - logits_QC[:, 0]
        return loss.lerp(pair_loss(score_Q, labels_Q == 1, valid_BC.nonzero()[:, 0]), pairwise)

    def scores(self, rows: Rows, progress: Progress = lambda done, total: None) -> NDArray[np.float64]:
        """The expected grade of every query: for two classes, the probability of the second ("yes").

        Raises:
            ConfigError: Its classes have no order.
        """
        return self.probabilities(rows, progress) @ self._grades()

    def probabilities(self, rows: Rows, progress: Progress = lambda done, total: None) -> NDArray[np.float64]:
        """Class probabilities, float64 [Q, C]."""
        base_QC, text_QC = self.logits(rows, progress)
        return _softmax(base_QC + text_QC)

    @torch.no_grad()
    def logits(
        self, rows: Rows, progress: Progress = lambda done, total: None, *, mean_state: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(logits_QC of the base, logits_QC of the text) of every query, row after row (``TaskAdapter.parts``).

        Args:
            rows: The questions.
            progress: Told of the questions read.
            mean_state: Whether every text's states are replaced by the mean of them all, so that nothing is read. The
                numbers stay as they are.
        """
        hidden_QD = self._hidden(rows, progress, mean_state=mean_state)
        return self.adapter.parts(hidden_QD, self._features(rows))

    def _grades(self) -> NDArray[np.float64]:
        """The grade of each class, float64 [C]. Raises ConfigError if classes have no order."""
        if not self.task.worth:
            raise ConfigError(
                f"task {self.task.name!r} has {self.task.num_classes} classes without an order, so it scores no item; "
                "use probabilities, or give the task grades"
            )
        return np.array(self.task.worth)

    def _train(
        self, training: Rows, validation: Rows, config: TrainConfig, folder: Path | None, progress: TrainingProgress
    ) -> TrainingHistory:
        """A row holds a user's whole life, so one forward pass trains on all of its questions."""
        if config.pairwise and self.task.num_classes != 2:
            raise ConfigError(
                f"pairwise is {config.pairwise}, but task {self.task.name!r} doesn't tell two classes apart; leave it 0"
            )
        states = self.cache.fetch([*tasks.texts(training), *tasks.texts(validation)])
        fit_numbers(self.adapter, training, validation, folder=folder / BASE if folder else None)
        training = self.rows(training)
        groups = pack([size(row, states.length) for row in training], config.batch_tokens)
        batches = [pad([training[number] for number in group], states.places) for group in groups]
        labels = np.concatenate([row.labels for row in validation])
        users = np.repeat(np.arange(len(validation)), [len(row.candidates) for row in validation])
        base_C = base_rates(np.concatenate([row.labels for row in training]), self.task.num_classes)
        return fit(
            self.adapter,
            batches,
            lambda batch: self.loss(batch, states, pairwise=config.pairwise),
            config,
            validate=lambda: class_metric(labels, self.probabilities(validation), users, base_C, config.pairwise),
            folder=folder,
            progress=progress,
        )

    @classmethod
    def tables(
        cls,
        models: Sequence[Self],
        split: Split,
        examples: TaskExamples,
        *,
        num_written: int = 0,
        progress: Progress = lambda done, total: None,
    ) -> tuple[Table, ...]:
        """Beside the peers, whatever the number of classes, and of two what reading adds; see ``TaskModel``."""
        from m6rec.evaluation.ranking import class_table, ranking_table, reliability_table

        first, labels = models[0], examples.labels(TEST)
        found = ablations(first.title, models, examples.rows[TEST], progress)
        if first.task.num_classes > 2 or len(set(labels.tolist())) < 2:
            return (class_table(examples, first.task, found),)
        scores = {part: [of_seed[:, 1] for of_seed in by_seed] for part, by_seed in found.items()}
        return (
            ranking_table(split, examples, first.domain, scores),
            reliability_table(labels, scores[first.title]),
            *reading_tables(split, labels, examples.events(TEST), scores),
        )

    @torch.no_grad()
    def _predictions(self, hidden_QD: Tensor, rows: Rows) -> NDArray[np.float64]:
        """Scores [Q] from hidden states."""
        return _softmax(self.adapter.score(hidden_QD, self._features(rows))) @ self._grades()

    def _features(self, rows: Rows) -> Tensor:
        """features_QF of all queries."""
        return tensor(np.concatenate([row.features for row in rows]), self.foundation.model.device)

    def _hidden(self, rows: Rows, progress: Progress, *, mean_state: bool = False) -> Tensor:
        """normed_QD of all queries; see ``logits``."""
        rows = self.rows(rows)
        states = self.cache.fetch(tasks.texts(rows))
        if mean_state:
            mean_1D = states.tokens_TD.float().mean(0, keepdim=True).to(states.tokens_TD.dtype)
            states = replace(states, tokens_TD=mean_1D.expand_as(states.tokens_TD))
        batch_tokens = self.cache.limits.batch_tokens * self.foundation.model.at_once
        return self.upper.read_all(rows, states, self.adapter, batch_tokens, progress)


def ablations(
    name: str, runs: Sequence[ScoreModel], rows: Rows, progress: Progress = lambda done, total: None
) -> dict[str, list[Floats]]:
    """Probabilities [Q, C] of what the runs know, whole and in parts, one array a run.

    Args:
        name: Of the whole.
        runs: A ranking task, one run a seed.
        rows: The questions.
        progress: Told of the questions read.

    Returns:
        By ``name``, ``BASE_ALONE``, ``TEXT`` (the logits that reading adds to the base, by themselves) and
        ``MEAN_STATE``; of a task without a base only the first and the last.
    """
    found: dict[str, list[Floats]] = {}
    for run in runs:
        base_QC, text_QC = run.logits(rows, progress)
        _, untold_QC = run.logits(rows, progress, mean_state=True)
        parts = {name: base_QC + text_QC, BASE_ALONE: base_QC, TEXT: text_QC, MEAN_STATE: base_QC + untold_QC}
        if run.adapter.base is None:
            del parts[BASE_ALONE], parts[TEXT]
        for part, logits_QC in parts.items():
            found.setdefault(part, []).append(logits_QC.softmax(-1).double().cpu().numpy())
    return found


def _options(task: Task, method: str, foundation: Foundation) -> Tensor | None:
    """Embeddings of the option words, if the method has option rows and the foundation an embedding table."""
    if not methods.named(method).options or not task.options or foundation.model.config.narrow:
        return None
    ids = foundation.tokenizer.encode(task.options)
    table = foundation.model.embed_tokens.weight.float()
    return torch.stack([table[row].mean(0) for row in ids])


def _softmax(logits_QC: Tensor) -> NDArray[np.float64]:
    """Probabilities, float64 [Q, C]."""
    probabilities_QC: NDArray[np.float64] = logits_QC.softmax(-1).double().cpu().numpy()
    return probabilities_QC
