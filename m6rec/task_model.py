"""A task model: examples → cached states → upper layers → loss or predictions.

Training, evaluation and serving share it and its state cache, so there is one path from an example to its prediction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from m6rec.adapters import METHODS, AdapterRouter, TaskAdapter, TaskAdapterConfig
from m6rec.adapters import create as create_adapter
from m6rec.adapters import load as load_adapter
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.features.interactions import EVENT_FEATURES, FEATURES
from m6rec.fingerprint import Fingerprint, changed, rule_of
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import CachedQuery, KVCache, Model
from m6rec.foundation.states import StateCache, States, StatesConfig
from m6rec.foundation.stores import Store
from m6rec.project import config_at, require_saved, save_config
from m6rec.retrieval.blend import FILE, Blend
from m6rec.retrieval.blend import load as load_blend
from m6rec.tasks import probe
from m6rec.tasks import task as tasks
from m6rec.tasks.task import Task
from m6rec.tasks.writing import TextTask
from m6rec.text.batch import Batch, Example, pack, pad, size
from m6rec.types import Item

TEMPERATURE = 0.07
EMBED_WIDTH = 128
UPPER_LAYERS = 1
"""Default number of online layers: a second gains .0012 AUC and doubles latency (design/002-one-cache.md)."""
GATED_BY = ("item_count", "user_count")
"""Features that gate the contribution of the text to a score."""
INFERENCE_TOKENS = 2048
"""Padded tokens of an inference batch on a CPU."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class TaskModelConfig:
    """The configuration of a task model; saved with the run.

    Attributes:
        task: A name of ``tasks.task.named``.
        domain: A name of ``domains.domain.named``.
        rule: What the log counts as positive, likewise.
        foundation: What ``foundation.checkpoint.load`` was given.
        data: Digest of the prepared dataset (``fingerprint.of_dataset``); "" where examples are made in memory.
        split: How the dataset is split; likewise.
        method: A tuning method.
        depth: Layers that run ahead of time; None for all but the last ``UPPER_LAYERS``.
        keep: Kept tokens of a segment; 0 keeps all.
        all_layers: Whether tuning reaches the lower layers too, as in the paper; the states are then this task's own.
        bidirectional: Whether region 1 sees all of itself, as in the paper; rows then hold one question each.
    """

    task: str
    domain: str
    foundation: str
    data: str = ""
    split: str = ""
    method: str = "option-adapter"
    depth: int | None = None
    keep: int = 1
    all_layers: bool = False
    bidirectional: bool = False
    rule: Mapping[str, Any] | None = None


class TaskModel:
    """A task, its adapter, the foundation and the state cache.

    Attributes:
        config: What it was made from.
        task: The task.
        domain: The domain.
        adapter: The trained parameters.
        cache: Where states come from.
        blend: Candidate sources of a retrieval task and what they weigh beside the text; None without.
        end: The layer before which it is left.

    Args:
        exit_after: Upper layers that run; those above are left out and the readouts read what is there.
        seed: That of the initial values; None where they were loaded.

    Raises:
        ConfigError: There are not so many upper layers.
    """

    def __init__(
        self,
        config: TaskModelConfig,
        foundation: Foundation,
        adapter: TaskAdapter,
        cache: StateCache,
        blend: Blend | None = None,
        exit_after: int | None = None,
        seed: int | None = None,
    ) -> None:
        self.config, self.foundation, self.adapter, self.cache = config, foundation, adapter, cache
        self.blend, self.exit_after, self.seed = blend, exit_after, seed
        upper = foundation.model.config.num_layers - cache.config.depth
        if exit_after is not None and not 1 <= exit_after <= upper:
            raise ConfigError(f"can't exit after {exit_after} upper layers: the run has {upper}; give 1 to {upper}")
        self.end = cache.config.depth + (upper if exit_after is None else exit_after)
        self.task: Task = tasks.named(config.task)
        self.domain: Domain = domains.named(config.domain, config.rule)

    @property
    def width(self) -> int:
        """Dimension of ``vectors`` and ``item_vectors``."""
        return self.adapter.config.embed_width

    def digest(self) -> str:
        """A short digest of what determines ``item_vectors``: foundation, split layer and adapter."""
        model = self.foundation.model
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{model.id}|{model.dtype}|{self.cache.config}|{self.end}|{self.adapter.digest()}".encode())
        return digest.hexdigest()

    def fingerprint(self) -> Fingerprint:
        """The fingerprint, without training."""
        return fingerprint_of(self.config, self.task, self.domain, self.foundation, self.seed)

    def save(self, folder: Path) -> None:
        """Writes adapter, blend, fingerprint, and finally the configuration, which marks the run as finished."""
        self.adapter.save(folder)
        if self.blend is not None:
            self.blend.save(folder)
        save_config(self.config, self.fingerprint(), folder)

    def rows(self, rows: Sequence[Example]) -> Sequence[Example]:
        """Examples as ``read`` takes them: one per timestamp if region 1 is bidirectional."""
        return [moment for row in rows for moment in row.by_timestamp()] if self.config.bidirectional else rows

    def read(
        self, batch: Batch, states: States, others: Sequence[TaskModel] = (), task_B: Tensor | None = None
    ) -> Tensor:
        """Runs the upper layers.

        Args:
            batch: Padded rows.
            states: A table that holds all their texts.
            others: Further tasks, where the rows of a batch belong to several.
            task_B: For each row the number of its task: 0 is this one, 1 the first of ``others``, …

        Returns:
            normed_BCD at the last token of each candidate's block.
        """
        model = self.foundation.model
        device = model.device
        if task_B is None:
            task_B = torch.zeros(len(batch.length_B), dtype=torch.long, device=device)
        mixture = AdapterRouter([self.adapter, *(other.adapter for other in others)], task_B)
        prompts_BPD = mixture.prompts_BPD
        states_BND, blocks_BCMD = self._states(batch, states, mixture, len(task_B))
        context_BND = torch.cat([prompts_BPD, states_BND], 1)
        num_prompts = prompts_BPD.shape[1]
        length_B = None
        if self.config.bidirectional:
            past = batch.visible_BC == batch.length_B[:, None]
            assert past[batch.valid_BC].all(), "a question would see behind its moment; give Example.by_timestamp()"
            length_B = _tensor(batch.length_B, device) + num_prompts
        normed_BCMD = model.upper(
            context_BND,
            blocks_BCMD,
            _tensor(batch.visible_BC, device) + num_prompts,
            self.cache.config.depth,
            end=self.end,
            length_B=length_B,
            hook=mixture,
        )
        return _at(normed_BCMD, _tensor(batch.last_BC, device))

    def _states(self, batch: Batch, states: States, mixture: AdapterRouter, num_rows: int) -> tuple[Tensor, Tensor]:
        """(states_BND of contexts, blocks_BCMD of candidates), fp32, with segment embeddings and event features added.

        A sum in bf16 would turn the last bit of a product, which depends on the batch, into one of 256.
        """
        device = self.foundation.model.device
        slots_BSD = mixture.slots_BSD
        row_B = torch.arange(num_rows, device=device)

        def states_of(tokens: NDArray[np.int64], slots: NDArray[np.int64]) -> Tensor:
            owner = row_B.view(-1, *[1] * (tokens.ndim - 1))
            return states.tokens_TD[_tensor(tokens, device)] + slots_BSD[owner, _tensor(slots, device)]

        states_BND = states_of(batch.context_BN, batch.context_slot_BN)
        if batch.event_features_BNG.size:
            added_BND = mixture.encode_events(_tensor(batch.event_features_BNG, device))
            states_BND = states_BND + added_BND * _tensor(batch.has_event_features_BN, device)[..., None]
        return states_BND, states_of(batch.block_BCM, batch.block_slot_BCM)

    def predict_cached(
        self, asked: Sequence[tuple[KVCache, Example]]
    ) -> tuple[list[NDArray[np.floating]], list[KVCache]]:
        """``scores`` or ``vectors`` with a KV cache of each user's context (``Model.forward_cached``).

        Args:
            asked: Of each user the KV cache, () at first, and an example whose context holds what is not cached.

        Returns:
            (predictions of each example, new KV caches).

        Raises:
            ConfigError: Region 1 sees all of itself, so that what comes changes it.
        """
        if self.config.bidirectional:
            raise ConfigError("a bidirectional context changes as it grows and can't be read in turns")
        model = self.foundation.model
        states = self.cache.fetch(tasks.texts([row for _, row in asked]))
        mixture = AdapterRouter([self.adapter], torch.zeros(1, dtype=torch.long, device=model.device))
        turns, last = [], []
        with torch.no_grad():
            for known, row in asked:
                batch = pad([row], states.places)
                states_1ND, blocks_1CMD = self._states(batch, states, mixture, 1)
                new_ND = states_1ND[0]
                if not known:
                    new_ND = torch.cat([mixture.prompts_BPD[0], new_ND])
                turns.append(CachedQuery(known, new_ND, blocks_1CMD[0]))
                last.append(_tensor(batch.last_BC[0], model.device))
            read, kept = model.forward_cached(turns, self.cache.config.depth, end=self.end, hook=mixture)
            pairs = zip(read, last, strict=True)
            normed_QD = torch.cat([_at(normed_CMD, last_C) for normed_CMD, last_C in pairs])
        answers = self._predictions(normed_QD, [row for _, row in asked])
        return np.split(answers, np.cumsum([len(at) for at in last])[:-1]), kept

    def loss(self, batch: Batch, states: States, items: ItemBlocks | None = None, *, pairwise: float = 0.0) -> Tensor:
        """Mean loss of the labelled queries: cross-entropy, or InfoNCE with the positives of other users as negatives.

        A user's own other positives are masked. Item-item models take no part.

        Args:
            batch: Padded rows with answers.
            states: A table that holds all their texts.
            items: The catalogue, for tasks that embed.
            pairwise: Share of ``pair_loss`` in the loss of a score.
        """
        valid_BC = _tensor(batch.valid_BC & (batch.labels_BC >= 0), self.foundation.model.device)
        labels_Q = _tensor(batch.labels_BC, self.foundation.model.device)[valid_BC]
        normed_QD = self.read(batch, states)[valid_BC]
        if self.task.readout == "score":
            features_QF = _tensor(batch.features_BCF, self.foundation.model.device)[valid_BC]
            logits_QC = self.adapter.score(normed_QD, features_QF)
            loss = F.cross_entropy(logits_QC, labels_Q)
            if not pairwise:
                return loss
            score_Q = logits_QC[:, 1] - logits_QC[:, 0]
            pairs = pair_loss(score_Q, labels_Q == 1, valid_BC.nonzero()[:, 0])
            return loss.lerp(pairs, pairwise)
        assert items is not None
        targets_I, column_Q = torch.unique(labels_Q, return_inverse=True)
        row_Q = valid_BC.nonzero()[:, 0]
        own_BI = valid_BC.new_zeros(len(valid_BC), len(targets_I))
        own_BI[row_Q, column_Q] = True
        own_QI = own_BI[row_Q].scatter(1, column_Q[:, None], False)
        vectors_IE = self.adapter.embed(self.read(items.batch(targets_I.cpu().numpy()), states)[0], "item")
        logits_QI = self.adapter.embed(normed_QD, "user") @ vectors_IE.T / TEMPERATURE
        if items.log_share is not None:
            # A popular item is a negative more often than its share of the catalogue says (Yi et al., 2019).
            logits_QI = logits_QI - _tensor(items.log_share, logits_QI.device)[targets_I]
        return F.cross_entropy(logits_QI.masked_fill(own_QI, -torch.inf), column_Q)

    def scores(self, rows: Sequence[Example], progress: Progress = lambda done, total: None) -> NDArray[np.float64]:
        """The expected grade of every query: for two classes, the probability of the second ("yes").

        Raises:
            ConfigError: The task compares vectors, or its classes have no order.
        """
        return self.probabilities(rows, progress) @ self._grades()

    def probabilities(
        self, rows: Sequence[Example], progress: Progress = lambda done, total: None
    ) -> NDArray[np.float64]:
        """Class probabilities, float64 [Q, C].

        Raises:
            ConfigError: The task compares vectors and has no classes.
        """
        base_QC, text_QC = self.logits(rows, progress)
        return _softmax(base_QC + text_QC)

    @torch.no_grad()
    def logits(
        self, rows: Sequence[Example], progress: Progress = lambda done, total: None, *, mean_state: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(logits_QC of the base, logits_QC of the text) of every query, row after row (``TaskAdapter.parts``).

        Args:
            rows: The questions.
            progress: Told of the questions read.
            mean_state: Whether every text's states are replaced by the mean of them all, so that nothing is read. The
                numbers stay as they are.

        Raises:
            ConfigError: The task compares vectors and has no classes.
        """
        if self.task.readout != "score":
            raise ConfigError(f"task {self.task.name!r} compares vectors; use vectors and item_vectors")
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

    def vectors(self, rows: Sequence[Example], progress: Progress = lambda done, total: None) -> NDArray[np.float32]:
        """Unit user vectors, float32 [Q, ``width``]."""
        return self._predictions(self._hidden(rows, progress), rows).astype(np.float32)

    def item_vectors(self, items: Sequence[Item], progress: Progress = lambda done, total: None) -> NDArray[np.float32]:
        """Unit item vectors from text, float32 [I, ``width``]."""
        if not items:
            return np.zeros((0, self.width), np.float32)
        blocks = ItemBlocks.of(self.task, self.domain, items)
        states = self.cache.fetch(blocks.texts())
        blocks.bind(states)
        vectors = []
        with torch.no_grad():
            most = INFERENCE_TOKENS * self.foundation.model.at_once
            for first in range(0, len(items), most):
                numbers = np.arange(first, min(first + most, len(items)))
                normed_BCD = self.read(blocks.batch(numbers), states)
                vectors.append(self.adapter.embed(normed_BCD[0], "item").cpu().numpy())
                progress(int(numbers[-1]) + 1, len(items))
        return np.concatenate(vectors)

    @torch.no_grad()
    def _predictions(self, hidden_QD: Tensor, rows: Sequence[Example]) -> NDArray[np.floating]:
        """Predictions from hidden states: scores [Q], or user vectors [Q, E]."""
        if self.task.readout == "score":
            return _softmax(self.adapter.score(hidden_QD, self._features(rows))) @ self._grades()
        vectors_QE: NDArray[np.float32] = self.adapter.embed(hidden_QD, "user").cpu().numpy()
        return vectors_QE

    def _features(self, rows: Sequence[Example]) -> Tensor:
        """features_QF of all queries."""
        return _tensor(np.concatenate([row.features for row in rows]), self.foundation.model.device)

    def _hidden(self, rows: Sequence[Example], progress: Progress, *, mean_state: bool = False) -> Tensor:
        """normed_QD of all queries; see ``logits``."""
        rows = self.rows(rows)
        states = self.cache.fetch(tasks.texts(rows))
        if mean_state:
            mean_1D = states.tokens_TD.float().mean(0, keepdim=True).to(states.tokens_TD.dtype)
            states = replace(states, tokens_TD=mean_1D.expand_as(states.tokens_TD))
        parts: dict[int, Tensor] = {}
        groups = pack([size(row, states.length) for row in rows], INFERENCE_TOKENS * self.foundation.model.at_once)
        with torch.no_grad():
            for group in groups:
                batch = pad([rows[number] for number in group], states.places)
                normed_BCD = self.read(batch, states)
                for place, number in enumerate(group):
                    parts[number] = normed_BCD[place, : len(rows[number].candidates)]
                progress(len(parts), len(rows))
        return torch.cat([parts[number] for number in range(len(rows))])


def pair_loss(score_Q: Tensor, yes_Q: Tensor, user_Q: Tensor) -> Tensor:
    """RankNet loss (Burges et al., 2005) over pairs of a positive and a negative query of one user.

    Mean over the pairs of a user, then over users, as UAUC weighs them; 0 where no user has a pair.

    Args:
        score_Q: Log-odds of yes.
        yes_Q: Whether that is the answer.
        user_Q: Number of the user, from 0.
    """
    pairs_QQ = (user_Q[:, None] == user_Q) & yes_Q[:, None] & ~yes_Q
    loss_QQ = F.softplus(score_Q - score_Q[:, None]) * pairs_QQ
    sums_U = score_Q.new_zeros(2, int(user_Q.max()) + 1)
    sums_U = sums_U.index_add(1, user_Q, torch.stack([loss_QQ.sum(1), pairs_QQ.sum(1).to(loss_QQ)]))
    sums_U = sums_U[:, sums_U[1] > 0]
    return (sums_U[0] / sums_U[1]).sum() / max(1, sums_U.shape[1])


class ItemBlocks:
    """The items of the catalogue as blocks without context."""

    def __init__(self, rows: Sequence[Example], log_share: NDArray[np.float32] | None = None) -> None:
        self._rows = rows
        self.log_share = log_share
        self._all: Batch | None = None

    @classmethod
    def of(
        cls, task: Task, domain: Domain, items: Sequence[Item], log_share: NDArray[np.float32] | None = None
    ) -> ItemBlocks:
        """Verbalises the items; ``log_share`` [I] is the log frequency of each as a target."""
        none = np.zeros(1, np.int64)
        features = np.zeros((1, 0), np.float32)
        rows = [Example((), none, (task.candidate(item, domain),), features, none - 1, none - 1) for item in items]
        return cls(rows, log_share)

    def texts(self) -> list[str]:
        """All texts of the catalogue."""
        return list(tasks.texts(self._rows))

    def bind(self, states: States) -> None:
        """Resolves the catalogue's tokens in ``states``."""
        self._all = pad(self._rows, states.places)

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """One example without context, whose candidates are the given items."""
        assert self._all is not None, "bind() first"
        every = self._all
        count = len(numbers)
        return Batch(
            np.zeros((1, 0), np.int64),
            np.zeros((1, 0), np.int64),
            np.zeros(1, np.int64),
            every.block_BCM[None, numbers, 0],
            every.block_slot_BCM[None, numbers, 0],
            np.zeros((1, count), np.int64),
            every.last_BC[None, numbers, 0],
            np.zeros((1, count, 0), np.float32),
            np.full((1, count), -1),
            np.ones((1, count), np.bool_),
        )


def create(
    config: TaskModelConfig,
    foundation: Foundation,
    store: Path | Store | None = None,
    *,
    cache: StateCache | None = None,
    blend: Blend | None = None,
    seed: int = 0,
) -> TaskModel:
    """A new task model, whose hidden states are those of the foundation.

    Args:
        config: The task and how to tune it.
        foundation: The model to tune.
        store: Where the states are kept, a folder or a store; None keeps them in memory.
        cache: A cache of the same split to share instead of one at ``store``.
        blend: Candidate sources of a retrieval task, fitted on the training part.
        seed: Fixes the initial values.

    Raises:
        ConfigError: The configuration is contradictory or doesn't fit the foundation.
    """
    task = tasks.named(config.task)
    model = foundation.model
    states = states_config(config.depth, config.keep, UPPER_LAYERS, model)
    adapter = create_adapter(
        TaskAdapterConfig(
            method=config.method,
            first_layer=first_layer(states.depth, config.all_layers),
            num_classes=task.num_classes,
            embed_width=EMBED_WIDTH if task.readout == "embed" else 0,
            num_features=len(FEATURES) if task.uses_features else 0,
            gate_columns=tuple(map(FEATURES.index, GATED_BY)) if task.uses_features else (),
            num_event_features=len(EVENT_FEATURES) if task.uses_features else 0,
        ),
        model,
        seed=seed,
        options_CD=_options(task, config.method, foundation),
    )
    return TaskModel(config, foundation, adapter, cache_of(states, foundation, cache, store), blend, seed=seed)


def load(
    folder: Path,
    foundation: Foundation,
    cache: StateCache | None = None,
    store: Path | Store | None = None,
    *,
    exit_after: int | None = None,
) -> TaskModel:
    """Reads what ``TaskModel.save`` wrote.

    Args:
        folder: The run.
        foundation: The model that it was tuned on.
        cache: A cache of the same split to share; else one is opened at ``store``.
        store: See ``cache``.
        exit_after: Upper layers to run; all by default.

    Raises:
        AssetError: The folder is not a run.
        ConfigError: It was tuned on another foundation, with other words or features, or has fewer upper layers.
    """
    config = read_config(folder)
    adapter = load_adapter(folder, foundation.model)
    states = states_config(config.depth, config.keep, UPPER_LAYERS, foundation.model)
    blend = load_blend(folder) if (folder / FILE).exists() else None
    tuned = TaskModel(config, foundation, adapter, cache_of(states, foundation, cache, store), blend, exit_after)
    require_saved(folder, tuned.fingerprint())
    return tuned


def states_config(depth: int | None, keep: int, upper_layers: int, model: Model) -> StatesConfig:
    """The split at ``depth``; by default before the last ``upper_layers``."""
    return StatesConfig(depth=max(0, model.config.num_layers - upper_layers) if depth is None else depth, keep=keep)


def first_layer(depth: int, all_layers: bool) -> int:
    """The first tuned layer. Raises ConfigError if tuning would reach below the split."""
    if all_layers and depth:
        raise ConfigError(
            f"all_layers with depth {depth}: training can't read cached states that it changes. Train with depth 0, "
            "or tune the upper layers only"
        )
    return depth


def cache_of(
    states: StatesConfig, foundation: Foundation, shared: StateCache | None, store: Path | Store | None
) -> StateCache:
    """``shared`` if it has the same split, else a cache at ``store``."""
    return StateCache(foundation, states, store) if shared is None or shared.config != states else shared


def fingerprint_of(
    config: Any, task: Task | TextTask, domain: Domain, foundation: Foundation, seed: int | None
) -> Fingerprint:
    """The fingerprint of a task: configuration, wording and features of this code, foundation."""
    parts = ("task", "domain", "foundation", "data", "split", "rule")
    initial = "" if seed is None else f" seed {seed}"
    return Fingerprint(
        data=config.data,
        split=config.split,
        domain=config.domain,
        rule=rule_of(config.rule),
        task=config.task,
        wording=probe.wording(task, domain),
        features=probe.features() if isinstance(task, Task) and task.uses_features else "",
        foundation=foundation.model.id,
        tuning=changed(config, without=parts) + initial,
    )


def read_config(folder: Path) -> TaskModelConfig:
    """The configuration of a saved run. Raises AssetError if the folder is not a run."""
    return config_at(folder, TaskModelConfig)


def _options(task: Task, method: str, foundation: Foundation) -> Tensor | None:
    """Embeddings of the option words, if the method has option rows and the foundation an embedding table."""
    if not METHODS[method].options or not task.options or foundation.model.config.narrow:
        return None
    ids = foundation.tokenizer.encode(task.options)
    table = foundation.model.embed_tokens.weight.float()
    return torch.stack([table[row].mean(0) for row in ids])


def _softmax(logits_QC: Tensor) -> NDArray[np.float64]:
    """Probabilities, float64 [Q, C]."""
    probabilities_QC: NDArray[np.float64] = logits_QC.softmax(-1).double().cpu().numpy()
    return probabilities_QC


def _at(hidden_CMD: Tensor, place_C: Tensor) -> Tensor:
    """The state at one position of each block; C may be several dimensions."""
    if hidden_CMD.shape[-2] == 1:  # most blocks, and a fortieth of a request to gather
        return hidden_CMD.squeeze(-2)
    index_C1D = place_C[..., None, None].expand(*place_C.shape, 1, hidden_CMD.shape[-1])
    return hidden_CMD.gather(-2, index_C1D).squeeze(-2)


def _tensor(array: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
