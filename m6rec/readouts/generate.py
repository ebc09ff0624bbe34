"""The readout of tasks of texts: drafts → log-probabilities of their targets, or texts.

Region 1 comes from a cache of states; region 2 runs through the lower layers on its own, and through the upper ones,
which are tuned, after the user. ``loss`` and ``nats`` read all tokens of a text in one pass, ``write`` one after
another (``foundation.generate``); both see the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from m6rec.adapters import TaskAdapter, TaskAdapterConfig
from m6rec.adapters import create as create_adapter
from m6rec.data.split import TEST, VALID, Split
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.evaluation.metrics import perplexity, words
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.attention import KVCache
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.generate import Engine, Generated, Prompt, Sampling
from m6rec.foundation.likelihood import log_probabilities
from m6rec.foundation.states import StateCache, States
from m6rec.readouts.model import AdapterModel, Progress, TaskModelConfig, TrainingProgress
from m6rec.tasks.examples import task_drafts
from m6rec.tasks.task import Task
from m6rec.text.batch import flat, pack
from m6rec.text.constraints import Constraint
from m6rec.training import TrainConfig, TrainingHistory, fit
from m6rec.types import SLOTS, Draft, Segment

TOGETHER = 32
"""Texts that are written at once."""
CANDIDATE = SLOTS.index("candidate")
COMPARED = Sampling(max_tokens=64, stops=("\n",))
"""Sampling of the texts that are compared."""

Drafts = Sequence[Draft]


class GenerateModel(AdapterModel[Drafts, Drafts]):
    """A task of texts. LoRA of twelve layers learns review sentences best (design/006-texts-with-evidence.md)."""

    readout = "generate"
    METHOD = "lora"
    UPPER_LAYERS = 12

    def __init__(
        self,
        config: TaskModelConfig,
        foundation: Foundation,
        adapter: TaskAdapter,
        cache: StateCache,
        seed: int | None = None,
    ) -> None:
        super().__init__(config, foundation, adapter, cache, seed)
        self._kept: dict[tuple[str, str], Tensor] = {}
        self._kept_bytes = 0

    @classmethod
    def _adapter(cls, config: TaskModelConfig, foundation: Foundation, seed: int) -> TaskAdapter:
        if config.bidirectional:
            raise ConfigError(f"bidirectional does not apply to text task {config.task!r}; leave it False")
        made = TaskAdapterConfig(
            method=config.method or cls.METHOD,
            first_layer=cls._first_layer(config, foundation.model),
            num_classes=0,
            num_prompts=config.num_prompts,
            adapter_rank=config.adapter_rank,
            lora_rank=config.lora_rank,
            lora_alpha=config.lora_alpha,
        )
        return create_adapter(made, foundation.model, seed=seed)

    def untuned(self) -> Self:
        """The foundation as a writer of the same task over the same split: what a tuning is measured against."""
        config = replace(self.config, method="adapter")  # which, fresh, changes nothing and has no prompts
        return self.create(config, self.foundation, cache=self.cache)

    @staticmethod
    def examples(task: Task, split: Split, domain: Domain) -> Mapping[int, Drafts]:
        """See ``TaskModel``."""
        return task_drafts(task, split, domain)

    def texts(self, examples: Mapping[int, Drafts]) -> Iterator[str]:
        """See ``TaskModel``."""
        return (segment.text for drafts in examples.values() for draft in drafts for segment in draft.context)

    def _train(
        self, training: Drafts, validation: Drafts, config: TrainConfig, folder: Path | None, progress: TrainingProgress
    ) -> TrainingHistory:
        """The epoch of the least perplexity is kept."""
        if config.pairwise:
            raise ConfigError(f"pairwise is {config.pairwise}, but task {self.task.name!r} has no scores; leave it 0")
        groups = self.batches(training, config.batch_tokens)
        return fit(
            self.adapter,
            [[training[number] for number in group] for group in groups],
            self.loss,
            config,
            validate=lambda: -perplexity(*self.nats(validation)),
            folder=folder,
            progress=progress,
        )

    @classmethod
    def tables(
        cls,
        models: Sequence[Self],
        split: Split,
        examples: Mapping[int, Drafts],
        *,
        num_written: int = 0,
        progress: Progress = lambda done, total: None,
    ) -> tuple[Table, ...]:
        """A table of validation and one of test, beside the untuned foundation; see ``TaskModel``.

        Of the test part ``num_written`` texts, spread over it, are written and compared with what users wrote. "nats a
        token" decides: the mean log-probability, of which perplexity is exp(−it).
        """
        methods = {models[0].title: list(models), "untuned": [models[0].untuned()]}
        tables = []
        for part, title in ((VALID, "validation"), (TEST, "test")):
            chosen = examples[part]
            count = min(num_written, len(chosen)) if part == TEST else 0
            written = [chosen[place] for place in np.linspace(0, len(chosen) - 1, count).astype(int)]
            rows = [
                Row.of(method, [model.metrics(chosen, written, progress) for model in by_seed])
                for method, by_seed in methods.items()
            ]
            note = f"{len(chosen)} texts, each after its user's past."
            if written:
                note += f" {len(written)} of them were written, the likeliest token each time."
            tables.append(
                Table(title=f"Texts, {title}", metric="nats a token", rows=tuple(rows), ours=models[0].title, note=note)
            )
        return tuple(tables)

    def metrics(
        self, drafts: Drafts, written: Drafts, progress: Progress = lambda done, total: None
    ) -> dict[str, float]:
        """Likelihood of all these texts, and likeness of some to what is written in their place."""
        nats, counts = self.nats(drafts, progress)
        metrics = {"nats a token": float(nats.sum() / counts.sum()), "perplexity": perplexity(nats, counts)}
        if not written:
            return metrics
        texts = [one.text.strip() for one in self.write(written, COMPARED)]
        targets = [draft.target.strip() for draft in written]
        return metrics | {
            "BLEU-1": words.bleu(texts, targets, 1),
            "BLEU-4": words.bleu(texts, targets, 4),
            "ROUGE-1": words.rouge(texts, targets, "1"),
            "ROUGE-2": words.rouge(texts, targets, "2"),
            "USR": words.unique_sentence_ratio(texts),
        }

    def loss(self, drafts: Drafts) -> Tensor:
        """Mean surprise, in nats, of the tokens of the targets and of their ends; differentiable.

        Raises:
            ConfigError: A draft has no prompt, or the foundation no token that ends a text.
        """
        return -torch.cat(self._target_nats(drafts)).mean()

    @torch.no_grad()
    def nats(
        self, drafts: Drafts, progress: Progress = lambda done, total: None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(log-probability of each target with its end, in nats; its number of tokens, the end included).

        Raises:
            ConfigError: See ``loss``.
        """
        nats, counts = np.zeros(len(drafts)), np.zeros(len(drafts), np.int64)
        done = 0
        for group in self.batches(drafts, self.cache.limits.batch_tokens):
            for number, nats_T in zip(group, self._target_nats([drafts[number] for number in group]), strict=True):
                nats[number], counts[number] = nats_T.sum().item(), len(nats_T)
            done += len(group)
            progress(done, len(drafts))
        return nats, counts

    def batches(self, drafts: Drafts, most: int) -> list[list[int]]:
        """Numbers of the drafts of each pass: alike in length, and ``most`` padded tokens at most or a single draft."""
        states, texts = self._fetch(drafts), self._encode(drafts)
        sizes = [
            (sum(states.length(segment.text) for segment in draft.context), len(ids))
            for draft, (ids, _) in zip(drafts, texts, strict=True)
        ]
        return pack(sizes, most)

    def write(self, drafts: Drafts, sampling: Sampling, constraints: Sequence[Constraint[Any]] = ()) -> list[Generated]:
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
    def prompts(self, engine: Engine, drafts: Drafts) -> list[Prompt]:
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

    def _fetch(self, drafts: Drafts) -> States:
        return self.cache.fetch(segment.text for draft in drafts for segment in draft.context)

    def _context(self, draft: Draft, states: States) -> Tensor:
        """states_ND of region 1, segment embeddings added."""
        device = self.foundation.model.device
        tokens, slots, _ = (torch.from_numpy(array).to(device) for array in flat(draft.context, states.places))
        return states.tokens_TD[tokens] + self.adapter.slots_SD[slots].to(self.foundation.model.dtype)

    def _encode(self, drafts: Drafts) -> list[tuple[list[int], int]]:
        """(tokens of prompt and target, how many are the prompt's); the two are read apart, as in generation."""
        encode = self.foundation.tokenizer.encode
        prompts, targets = encode([draft.prompt for draft in drafts]), encode([draft.target for draft in drafts])
        if not all(prompts):
            raise ConfigError("a prompt without a token can't be gone on from; give it a text")
        return [(prompt + target, len(prompt)) for prompt, target in zip(prompts, targets, strict=True)]

    def _target_nats(self, drafts: Drafts) -> list[Tensor]:
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

    def _lower(self, drafts: Drafts, ids: Sequence[list[int]]) -> list[Tensor]:
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
        if self.cache.config.depth and self._kept_bytes + hidden_LD.nbytes <= self.cache.limits.training_bytes:
            self._kept[key] = hidden_LD.clone()  # not a view of the whole batch
            self._kept_bytes += hidden_LD.nbytes
