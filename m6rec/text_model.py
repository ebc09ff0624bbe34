"""One tuned task of texts on one foundation: drafts → log-probabilities of their targets, or texts.

The sibling of ``TaskModel`` for what is written. Region 1 comes from a cache of states; region 2 runs through the lower
layers on its own, and through the upper ones, which are tuned, after the user. ``loss`` and ``nats`` read all tokens of
a text in one pass, ``write`` one after another (``foundation.generate``); both see the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from m6rec.adapters import TaskAdapter, TaskAdapterConfig
from m6rec.adapters import create as create_adapter
from m6rec.adapters import load as load_adapter
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.fingerprint import Fingerprint
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.generate import Engine, Generated, Prompt, Sampling
from m6rec.foundation.likelihood import log_probabilities
from m6rec.foundation.model import KVCache
from m6rec.foundation.states import StateCache, States
from m6rec.foundation.stores import Store
from m6rec.project import config_at, require_saved, save_config
from m6rec.task_model import Progress, cache_of, fingerprint_of, first_layer, states_config
from m6rec.tasks import writing
from m6rec.tasks.writing import TextTask
from m6rec.text.batch import flat, pack
from m6rec.text.constraints import Constraint
from m6rec.types import SLOTS, Draft, Segment

UPPER_LAYERS = 12
"""Layers that see the user, and are tuned, by default (design/006-texts-with-evidence.md)."""
INFERENCE_TOKENS = 2048
"""Padded tokens of one pass of ``nats``, context and text."""
TOGETHER = 32
"""Texts that are written at once."""
KEPT_BYTES = 2 << 30
"""Lower states of texts that are kept from one epoch to the next; texts beyond are computed anew."""
CANDIDATE = SLOTS.index("candidate")


@dataclass(frozen=True, kw_only=True)
class TextModelConfig:
    """What is tuned to write, and how; saved with the run.

    Attributes:
        task: A name of ``tasks.writing.named``.
        domain: A name of ``domains.domain.named``.
        rule: What the log counts as positive, likewise.
        foundation: What ``foundation.checkpoint.load`` was given.
        data: Digest of the prepared dataset (``fingerprint.of_dataset``); "" where drafts are made in memory.
        split: How the dataset is split; likewise.
        method: A tuning method. The one that learns review sentences best (design/006).
        depth: Layers that run ahead of time; None for all but the last ``UPPER_LAYERS``.
        keep: Kept tokens of a segment of the context; 0 keeps all.
        all_layers: Whether tuning reaches the lower layers too, as in the paper; needs depth 0.
    """

    task: str
    domain: str
    foundation: str
    data: str = ""
    split: str = ""
    method: str = "lora"
    depth: int | None = None
    keep: int = 1
    all_layers: bool = False
    rule: Mapping[str, Any] | None = None


class TextModel:
    """A task's tuning together with everything needed to write with it.

    Attributes:
        config: What it was made from.
        task: The task.
        domain: The domain.
        adapter: The trained parameters.
        cache: Where states of contexts come from.
        seed: That of the initial values; None where they were loaded.
    """

    def __init__(
        self,
        config: TextModelConfig,
        foundation: Foundation,
        adapter: TaskAdapter,
        cache: StateCache,
        seed: int | None = None,
    ) -> None:
        self.config, self.foundation, self.adapter, self.cache = config, foundation, adapter, cache
        self.seed = seed
        self.task: TextTask = writing.named(config.task)
        self.domain: Domain = domains.named(config.domain, config.rule)
        self._kept: dict[tuple[str, str], Tensor] = {}
        self._kept_bytes = 0

    def digest(self) -> str:
        """A short digest of what makes its texts: foundation, split and tuning."""
        model = self.foundation.model
        whole = f"{model.id}|{model.dtype}|{self.cache.config}|{self.adapter.digest()}"
        return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()

    def fingerprint(self) -> Fingerprint:
        """What it is made from, but for the training."""
        return fingerprint_of(self.config, self.task, self.domain, self.foundation, self.seed)

    def save(self, folder: Path) -> None:
        """Writes the tuning, what it is made from, and at last its configuration."""
        self.adapter.save(folder)
        save_config(self.config, self.fingerprint(), folder)

    def loss(self, drafts: Sequence[Draft]) -> Tensor:
        """Mean surprise, in nats, of the tokens of the targets and of their ends; differentiable.

        Raises:
            ConfigError: A draft has no prompt, or the foundation no token that ends a text.
        """
        return -torch.cat(self._read(drafts)).mean()

    @torch.no_grad()
    def nats(
        self, drafts: Sequence[Draft], progress: Progress = lambda done, total: None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(log-probability of each target with its end, in nats; its number of tokens, the end included).

        Raises:
            ConfigError: See ``loss``.
        """
        nats, counts = np.zeros(len(drafts)), np.zeros(len(drafts), np.int64)
        done = 0
        for group in self.batches(drafts, INFERENCE_TOKENS):
            for number, nats_T in zip(group, self._read([drafts[number] for number in group]), strict=True):
                nats[number], counts[number] = nats_T.sum().item(), len(nats_T)
            done += len(group)
            progress(done, len(drafts))
        return nats, counts

    def batches(self, drafts: Sequence[Draft], most: int) -> list[list[int]]:
        """Numbers of the drafts of each pass: alike in length, and ``most`` padded tokens at most or a single draft."""
        states, texts = self._fetch(drafts), self._encode(drafts)
        sizes = [
            (sum(states.length(segment.text) for segment in draft.context), len(ids))
            for draft, (ids, _) in zip(drafts, texts, strict=True)
        ]
        return pack(sizes, most)

    def write(
        self, drafts: Sequence[Draft], sampling: Sampling, constraints: Sequence[Constraint[Any]] = ()
    ) -> list[Generated]:
        """Writes what follows each prompt, with a constraint each or none at all; targets are not looked at.

        Raises:
            ConfigError: A prompt is empty, or a combination of options is not possible.
        """
        engine, written = self.engine(), list[Generated]()
        for first in range(0, len(drafts), TOGETHER):
            part = slice(first, first + TOGETHER)
            written += engine.generate(self.prompts(engine, drafts[part]), sampling, constraints[part])
        return written

    def engine(self) -> Engine:
        """What writes; texts of any number of callers can be in it."""
        slot_D = self.adapter.slots_SD[CANDIDATE].detach().to(self.foundation.model.dtype)
        return Engine(self.foundation, self.cache.config.depth, adapter=self.adapter, slot_D=slot_D)

    @torch.no_grad()
    def prompts(self, engine: Engine, drafts: Sequence[Draft]) -> list[Prompt]:
        """What an engine of this writer goes on from; equal contexts are read once.

        Raises:
            ConfigError: A prompt is empty.
        """
        states, read = self._fetch(drafts), dict[tuple[Segment, ...], KVCache]()
        found = []
        for draft, (ids, first) in zip(drafts, self._encode(drafts), strict=True):
            if draft.context not in read:
                read[draft.context] = engine.read(self._context(draft, states))
            found.append(Prompt(ids[:first], read[draft.context]))
        return found

    def _fetch(self, drafts: Sequence[Draft]) -> States:
        return self.cache.fetch(segment.text for draft in drafts for segment in draft.context)

    def _context(self, draft: Draft, states: States) -> Tensor:
        """states_ND of region 1, segment embeddings added."""
        device = self.foundation.model.device
        tokens, slots, _ = (torch.from_numpy(array).to(device) for array in flat(draft.context, states.places))
        return states.tokens_TD[tokens] + self.adapter.slots_SD[slots].to(self.foundation.model.dtype)

    def _encode(self, drafts: Sequence[Draft]) -> list[tuple[list[int], int]]:
        """(tokens of prompt and target, how many are the prompt's); the two are read apart, as in generation."""
        encode = self.foundation.tokenizer.encode
        prompts, targets = encode([draft.prompt for draft in drafts]), encode([draft.target for draft in drafts])
        if not all(prompts):
            raise ConfigError("a prompt without a token can't be gone on from; give it a text")
        return [(prompt + target, len(prompt)) for prompt, target in zip(prompts, targets, strict=True)]

    def _read(self, drafts: Sequence[Draft]) -> list[Tensor]:
        """nats_T of each draft's target and end."""
        model, depth = self.foundation.model, self.cache.config.depth
        states, texts = self._fetch(drafts), self._encode(drafts)
        contexts = [torch.cat([self._prompts(), self._context(draft, states)]) for draft in drafts]
        lower = self._lower(drafts, [ids for ids, _ in texts])
        blocks = pad_sequence(lower, batch_first=True) + self.adapter.slots_SD[CANDIDATE].to(model.dtype)
        visible_B = torch.tensor([len(context) for context in contexts], device=model.device)
        normed_BMD = model.upper(
            pad_sequence(contexts, batch_first=True), blocks[:, None], visible_B[:, None], depth, hook=self.adapter
        )[:, 0]
        # The state of a token predicts the next one.
        normed = [normed_MD[first - 1 : len(ids)] for normed_MD, (ids, first) in zip(normed_BMD, texts, strict=True)]
        targets = [[*ids[first:], self._end()] for ids, first in texts]
        targets_T = torch.tensor([token for target in targets for token in target], device=model.device)
        nats_T = log_probabilities(model, torch.cat(normed), targets_T)
        return list(torch.split(nats_T, [len(target) for target in targets]))

    def _end(self) -> int:
        """The token that a target ends with."""
        ends = self.foundation.model.config.end_ids
        if not ends:
            raise ConfigError(
                f"foundation {self.config.foundation!r} has no token that ends a text, so it can't learn to end one; "
                "give another, or name one as eos_token_id in its config.json"
            )
        return ends[0]

    def _prompts(self) -> Tensor:
        return self.adapter.prompts_PD.to(self.foundation.model.dtype)

    def _lower(self, drafts: Sequence[Draft], ids: Sequence[list[int]]) -> list[Tensor]:
        """States of region 2 at the split. Nothing that is tuned has a part in them, so they may be kept."""
        model, depth = self.foundation.model, self.cache.config.depth
        keys = [(draft.prompt, draft.target) for draft in drafts]
        missing = [number for number, key in enumerate(keys) if key not in self._kept]
        found = {number: self._kept[key] for number, key in enumerate(keys) if key in self._kept}
        if missing:
            rows = [torch.tensor(ids[number], device=model.device) for number in missing]
            with torch.no_grad():
                hidden_BLD = model.lower(pad_sequence(rows, batch_first=True), depth)
            for number, row, hidden_LD in zip(missing, rows, hidden_BLD, strict=True):
                found[number] = hidden_LD[: len(row)]
                self._keep(keys[number], found[number])
        return [found[number] for number in range(len(drafts))]

    def _keep(self, key: tuple[str, str], hidden_LD: Tensor) -> None:
        if self.cache.config.depth and self._kept_bytes + hidden_LD.nbytes <= KEPT_BYTES:
            self._kept[key] = hidden_LD.clone()  # not a view of the whole batch
            self._kept_bytes += hidden_LD.nbytes


def create(
    config: TextModelConfig,
    foundation: Foundation,
    store: Path | Store | None = None,
    *,
    cache: StateCache | None = None,
    seed: int = 0,
) -> TextModel:
    """A fresh tuning of a task of texts.

    Args:
        config: The task and how to tune it.
        foundation: The model to tune.
        store: Where the states are kept, a folder or a store; None keeps them in memory.
        cache: A cache to share where it is of the same split, instead of one at ``store``.
        seed: Fixes the initial values.

    Raises:
        ConfigError: The configuration is contradictory or doesn't fit the foundation.
    """
    states = states_config(config.depth, config.keep, UPPER_LAYERS, foundation.model)
    first = first_layer(states.depth, config.all_layers)
    adapter = create_adapter(
        TaskAdapterConfig(method=config.method, first_layer=first, num_classes=0), foundation.model, seed=seed
    )
    return TextModel(config, foundation, adapter, cache_of(states, foundation, cache, store), seed)


def untuned(writer: TextModel) -> TextModel:
    """The foundation as a writer of the same task over the same split: what a tuning is measured against."""
    config = replace(writer.config, method="adapter")  # which, fresh, changes nothing and has no prompts
    return create(config, writer.foundation, cache=writer.cache)


def load(
    folder: Path, foundation: Foundation, cache: StateCache | None = None, store: Path | Store | None = None
) -> TextModel:
    """Reads what ``TextModel.save`` wrote.

    Args:
        folder: The run.
        foundation: The model that it was tuned on.
        cache: A cache to share where it is of the same split; else one is opened at ``store``.
        store: See ``cache``.

    Raises:
        AssetError: The folder is not a run.
        ConfigError: It was tuned on another foundation, or with other words.
    """
    config = read_config(folder)
    adapter = load_adapter(folder, foundation.model)
    states = states_config(config.depth, config.keep, UPPER_LAYERS, foundation.model)
    writer = TextModel(config, foundation, adapter, cache_of(states, foundation, cache, store))
    require_saved(folder, writer.fingerprint())
    return writer


def read_config(folder: Path) -> TextModelConfig:
    """The configuration of a saved run. Raises AssetError where the folder is not one."""
    return config_at(folder, TextModelConfig)
