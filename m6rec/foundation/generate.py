"""Generation: texts that go on from a user's context, many at a time, over the split of the one cache.

Region 1, the user, is the states of cached segments; the upper layers read them once, and its keys and values are known
from then on (``Engine.read``). Region 2, the prompt and what is generated, runs causally: through the lower layers on
its own, with positions from 0, through the upper layers after the context, whose positions it goes on from. So each new
token costs one pass of one row, and no user's history runs through the lower layers again. Without a context, or at
depth 0 with all tokens kept, this is the whole model's ordinary attention (M6-Rec, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from m6rec.errors import ConfigError
from m6rec.foundation.attention import CachedQuery, KVCache
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.likelihood import Prompted
from m6rec.text.constraints import Constraint
from m6rec.text.tokenizer import TextStream

STEP_TOKENS = 256
"""Tokens of one step, so that a long prompt, read in parts, doesn't hold up the texts that are being written."""


FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen, and when a text ends.

    Attributes:
        max_tokens: Tokens of a text at most; memory for so many is set aside.
        temperature: Of the softmax that tokens are drawn from; 0 takes the likeliest.
        top_p: Draws from the likeliest tokens that together are so probable (Holtzman et al., 2020).
        beams: Texts that beam search goes on with; the one of the highest mean log-probability a token is the result.
        repetition_penalty: Logits of tokens that region 2 holds already are divided by it, or multiplied where negative
            (CTRL, Keskar et al., 2019).
        no_repeat_ngram: So many tokens in a row never come twice in region 2; 0 lets them.
        stops: Strings that a text ends before.
        stop_ids: Tokens that end a text, beside the foundation's own.
        seed: Of the draws; the texts of one ``Engine.begin`` count on from it, so that one prompt can have several.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 1
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    stops: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("beams", 1), ("no_repeat_ngram", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature is {self.temperature}; give 0 for the likeliest token, or more to draw")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(f"repetition_penalty is {self.repetition_penalty}; give 1 for none, or more")
        if self.beams > 1 and self.temperature:
            raise ConfigError(f"{self.beams} beams don't draw, but temperature is {self.temperature}; set one of them")
        if not all(self.stops):
            raise ConfigError("an empty string would stop every text; leave it out of stops")


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a text goes on from.

    Attributes:
        ids: Region 2 so far. ``Tokenizer.encode`` reads control tokens in a text as words; what else stands here is the
            caller's own.
        known: Region 1, from ``Engine.read`` or ``Model.forward_cached``; empty for none.
    """

    ids: Sequence[int]
    known: KVCache = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """A text.

    Attributes:
        text: Without stop strings or half characters.
        ids: Its tokens, without the one that ended it.
        log_probability: Of all its tokens and of the one that ended it, in nats: the model's, after any repetition
            penalty. What it may not or is not likely to choose takes its share all the same.
        finish_reason: "stop" at an end token, "length" at the token limit, "cancelled" when given up.
    """

    text: str
    ids: tuple[int, ...]
    log_probability: float
    finish_reason: FinishReason


class Engine:
    """Writes texts, all of them one token a step; they come and go between any two steps. For one thread at a time.

    All tokens of a step are rows of the same products, without padding; attention goes text by text.

    Args:
        foundation: The model and its tokenizer.
        depth: Where the model is split.
        adapter: A tuning of the foundation.
        slot_D: What is added to the states of region 2 at the split: its segment embedding (M6-Rec, section 3.3).
    """

    def __init__(
        self, foundation: Foundation, depth: int, *, adapter: Prompted | None = None, slot_D: Tensor | None = None
    ) -> None:
        layers = foundation.model.config.num_layers
        if not 0 <= depth <= layers:
            raise ConfigError(f"depth is {depth}, but the foundation has {layers} layers; give 0 to {layers}")
        self._foundation, self._depth, self._adapter, self._slot_D = foundation, depth, adapter, slot_D
        self._streams: list[Stream] = []

    @property
    def active(self) -> tuple[Stream, ...]:
        """The texts that aren't done."""
        return tuple(self._streams)

    @property
    def num_bytes(self) -> int:
        """What the keys and values of those texts take."""
        return sum(beam.cache.num_bytes for stream in self._streams for beam in stream.beams)

    @torch.no_grad()
    def read(self, new_ND: Tensor, known: KVCache = ()) -> KVCache:
        """Keys and values of a causal context, for any number of prompts.

        Args:
            new_ND: States of the tokens that it has grown by; the tuning's prompts go before the first.
            known: Of the context before.
        """
        model = self._foundation.model
        if not known and self._adapter is not None:
            new_ND = torch.cat([self._adapter.prompts_PD.to(model.dtype), new_ND.to(model.dtype)])
        turn = CachedQuery(known, new_ND, new_ND.new_empty(0, 1, model.config.width))
        return model.forward_cached([turn], self._depth, hook=self._adapter)[1][0]

    def add(self, prompt: Prompt, sampling: Sampling, constraint: Constraint[Any] | None = None) -> Stream:
        """Begins a text, which the next step goes on with.

        Raises:
            ConfigError: The prompt is empty, or an id or a combination of options is not possible.
        """
        model = self._foundation.model
        if not prompt.known and self._adapter is not None:
            nothing_ND = torch.empty(0, model.config.width, dtype=model.dtype, device=model.device)
            prompt = replace(prompt, known=self.read(nothing_ND))
        stream = Stream(self._foundation, self._depth, prompt, sampling, constraint)
        self._streams.append(stream)
        return stream

    def begin(
        self, prompts: Sequence[Prompt], sampling: Sampling, constraints: Sequence[Constraint[Any]] = ()
    ) -> list[Stream]:
        """``add`` for each prompt, with seeds that count on, and a constraint each or none at all."""
        seeded = (replace(sampling, seed=sampling.seed + number) for number in range(len(prompts)))
        none: list[Constraint[Any] | None] = [None] * len(prompts)
        return [self.add(*one) for one in zip(prompts, seeded, constraints or none, strict=True)]

    def cancel(self, stream: Stream) -> None:
        """Ends a text, if it isn't done, and frees its memory."""
        if stream.result is None:
            stream.end()
            self._streams.remove(stream)

    @torch.no_grad()
    def step(self) -> None:
        """Adds a token to every active text whose prompt is read, and reads on in the others."""
        beams = [beam for stream in self._streams for beam in stream.beams]
        if not beams:
            return
        counts, left = [], STEP_TOKENS
        for beam in beams:
            counts.append(min(len(beam.ids) - beam.cache.length, max(1, left)))
            left -= counts[-1]
        logits = iter(self._logits(beams, counts))
        for stream in self._streams:
            logits_BV = [next(logits) for _ in stream.beams]
            if all(beam.cache.length == len(beam.ids) for beam in stream.beams):
                stream.advance(logits_BV)
        self._streams = [stream for stream in self._streams if stream.result is None]

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, constraints: Sequence[Constraint[Any]] = ()
    ) -> list[Generated]:
        """Writes a text for each prompt, together with those active already; see ``begin``."""
        streams = self.begin(prompts, sampling, constraints)
        results = []
        for stream in streams:
            while stream.result is None:
                self.step()
            results.append(stream.result)
        return results

    def _logits(self, beams: Sequence[_Beam], counts: Sequence[int]) -> Tensor:
        """Reads so many further tokens of each beam, all in one row; logits_BV after the last of each."""
        model, depth = self._foundation.model, self._depth
        ids = [token for beam, n in zip(beams, counts, strict=True) for token in beam.ids[beam.cache.length :][:n]]
        hidden_1TD = model.embed(torch.tensor([ids], device=model.device))
        starts = [beam.cache.length for beam in beams]
        hidden_1TD = self._run(hidden_1TD, beams, starts, counts, range(depth))
        if self._slot_D is not None:
            hidden_1TD = hidden_1TD + self._slot_D.to(model.dtype)
        starts = [beam.cache.num_context + beam.cache.length for beam in beams]
        # Kept in fp32 from here on, as in ``Model.upper``.
        hidden_1TD = self._run(hidden_1TD.float(), beams, starts, counts, range(depth, model.config.num_layers))
        for beam, count in zip(beams, counts, strict=True):
            beam.cache.length += count
        last_B = torch.tensor(counts, device=model.device).cumsum(0) - 1
        return model.logits(model.finish(hidden_1TD[0, last_B])).float().cpu()

    def _run(
        self, hidden_1TD: Tensor, beams: Sequence[_Beam], starts: Sequence[int], counts: Sequence[int], layers: range
    ) -> Tensor:
        model = self._foundation.model
        spans = [torch.arange(start, start + n) for start, n in zip(starts, counts, strict=True)]
        positions_1T = torch.cat(spans)[None].to(model.device)
        parts = [(beam.cache, start, n) for beam, start, n in zip(beams, starts, counts, strict=True)]
        for layer in layers:
            attention = _Growing(parts, layer)
            hidden_1TD = model.run(hidden_1TD, positions_1T, attention, first=layer, last=layer + 1, hook=self._adapter)
        return hidden_1TD


class Stream:
    """A text in the making; ``Engine.add`` begins one.

    Attributes:
        result: The text, once it is done.
        beams: What beam search goes on with, the likeliest first; one for other searches, none at the end.
    """

    def __init__(
        self,
        foundation: Foundation,
        depth: int,
        prompt: Prompt,
        sampling: Sampling,
        constraint: Constraint[Any] | None,
    ) -> None:
        config, tokenizer = foundation.model.config, foundation.tokenizer
        unknown = [token for token in (*prompt.ids, *sampling.stop_ids) if not 0 <= token < config.vocab_size]
        if unknown:
            raise ConfigError(f"the foundation has no token {unknown[0]}; ids are 0 to {config.vocab_size - 1}")
        if not prompt.ids:
            raise ConfigError("a prompt without a token can't be gone on from; give it a text")
        self._ends = sorted({*config.end_ids, *sampling.stop_ids})
        if constraint is not None and sampling.no_repeat_ngram:
            raise ConfigError("no_repeat_ngram may forbid what a constraint demands; set it to 0")
        # Besides control tokens, the rows that a foundation has beyond its tokenizer's words.
        unsaid = {*tokenizer.control_ids, *range(tokenizer.vocab_size, config.vocab_size)} - set(self._ends)
        self._never = torch.tensor(sorted(unsaid), dtype=torch.long)
        self._sampling, self._constraint = sampling, constraint
        self._generator = Generator().manual_seed(sampling.seed)
        self._num_prompt = len(prompt.ids)
        self._num_taken = 0
        self._done: list[tuple[float, Generated]] = []
        cache = _Cache(prompt.known, depth, config.num_layers, len(prompt.ids) + sampling.max_tokens)
        text = TextStream(tokenizer, prompt.ids, sampling.stops)
        start = None if constraint is None else constraint.start
        self.beams = [_Beam(cache, list(prompt.ids), text, start)]
        self.result: Generated | None = None

    def take(self) -> str:
        """The text that has come since the last call and will stay; beam search gives all of it at its end."""
        if self.result is not None:
            text = self.result.text
        else:
            text = self.beams[0].text.safe if self._sampling.beams == 1 else ""
        fresh, self._num_taken = text[self._num_taken :], len(text)
        return fresh

    def advance(self, logits_BV: Sequence[Tensor]) -> None:
        """Goes on with the likeliest tokens after each beam; called by the engine."""
        chosen = [
            (beam.log_probability + nats, beam, token)
            for beam, logits_V in zip(self.beams, logits_BV, strict=True)
            for token, nats in self._choose(beam, logits_V)
        ]
        chosen.sort(key=lambda choice: -choice[0])
        width, beams = self._sampling.beams, list[_Beam]()
        for rank, (log_probability, parent, token) in enumerate(chosen):
            beam, reason = self._grow(parent, token, log_probability)
            if reason is None:
                if any(beam.cache is other.cache for other in beams):
                    beam.cache = beam.cache.copy()
                beams.append(beam)
            elif rank < width:
                self._done.append((beam.mean, self._generated(beam, reason)))
            if len(beams) == width:
                break
        self.beams = beams
        self._done = sorted(self._done, key=lambda done: -done[0])[:width]
        if not beams or (len(self._done) == width and beams[0].mean <= self._done[-1][0]):
            self.end(self._done[0][1])

    def end(self, result: Generated | None = None) -> None:
        """Is done with the given text, or else with what there is, and frees the memory; called by the engine."""
        self.result = result or self._generated(self.beams[0], "cancelled")
        self.beams = []

    def _generated(self, beam: _Beam, reason: FinishReason) -> Generated:
        # Where a text is cut off, its last characters may be the first ones of a stop string.
        text = beam.text.text if reason == "stop" else beam.text.safe
        return Generated(text, tuple(beam.ids[self._num_prompt :]), beam.log_probability, reason)

    def _grow(self, parent: _Beam, token: int, log_probability: float) -> tuple[_Beam, FinishReason | None]:
        """``parent`` with one more token, and why it is done, if it is."""
        beam = replace(parent, num_chosen=parent.num_chosen + 1, log_probability=log_probability)
        if token in self._ends:
            return beam, "stop"
        beam.ids, beam.text = [*parent.ids, token], copy(parent.text)
        beam.text.add(token)
        whole = beam.text.stopped
        if self._constraint is not None:
            beam.state = self._constraint.advance(parent.state, token)
            whole = whole or not len(self._constraint.allowed(beam.state))
        if whole:
            return beam, "stop"
        return beam, "length" if beam.num_chosen == self._sampling.max_tokens else None

    def _choose(self, beam: _Beam, logits_V: Tensor) -> list[tuple[int, float]]:
        """Tokens to go on with after a beam, and their log-probabilities: as many as are needed."""
        sampling, constraint = self._sampling, self._constraint
        if sampling.repetition_penalty != 1:
            seen = torch.tensor(sorted(set(beam.ids)))
            penalty = sampling.repetition_penalty
            logits_V[seen] = torch.where(logits_V[seen] > 0, logits_V[seen] / penalty, logits_V[seen] * penalty)
        nats_A = logits_V.log_softmax(-1)
        nats_A[self._never] = -math.inf
        if sampling.no_repeat_ngram:
            nats_A[_repeating(beam.ids, sampling.no_repeat_ngram)] = -math.inf
        allowed_A = None
        if constraint is not None:
            ends = self._ends if constraint.may_end(beam.state) else []
            allowed_A = torch.tensor([*constraint.allowed(beam.state).tolist(), *ends])
            nats_A = nats_A[allowed_A]
        if sampling.beams > 1:
            # As many may end here, and as many go on.
            places = nats_A.topk(min(2 * sampling.beams, len(nats_A))).indices
        elif sampling.temperature:
            places = _draw((nats_A / sampling.temperature).softmax(-1), sampling.top_p, self._generator)
        else:
            places = nats_A.argmax(keepdim=True)
        tokens = places if allowed_A is None else allowed_A[places]
        return list(zip(tokens.tolist(), nats_A[places].tolist(), strict=True))


def _draw(p_A: Tensor, top_p: float, generator: Generator) -> Tensor:
    """The place of one token, drawn from the fewest that together have at least the probability ``top_p``."""
    if top_p == 1:
        return torch.multinomial(p_A, 1, generator=generator)
    # All that are rarer than this weigh less than 1 - top_p together, so they needn't be sorted.
    likely = (p_A >= (1 - top_p) / len(p_A)).nonzero()[:, 0]
    sorted_p, order = p_A[likely].sort(descending=True)
    sorted_p[sorted_p.cumsum(0) - sorted_p >= top_p] = 0
    return likely[order[torch.multinomial(sorted_p, 1, generator=generator)]]


def _repeating(ids: Sequence[int], size: int) -> list[int]:
    """Tokens with which the last ``size`` of a text would be there already."""
    last = ids[len(ids) - size + 1 :]
    return [ids[i + size - 1] for i in range(len(ids) - size + 1) if ids[i : i + size - 1] == last]


@dataclass(eq=False)
class _Beam:
    """One beginning of a text: region 2 so far, what it reads as, where its constraint stands, what it weighs."""

    cache: _Cache
    ids: list[int]
    text: TextStream
    state: Any
    num_chosen: int = 0
    log_probability: float = 0.0

    @property
    def mean(self) -> float:
        """Log-probability a chosen token."""
        return self.log_probability / self.num_chosen


class _Cache:
    """Keys and values of a text: of region 2 in the lower layers, of both regions in the upper ones.

    Args:
        known: Of region 1.
        first: The first layer that sees region 1.
        num_layers: Of the model.
        room: Tokens that region 2 may come to.

    Attributes:
        num_context: Tokens of region 1.
        length: Tokens of region 2 that have been read.
    """

    def __init__(self, known: KVCache, first: int, num_layers: int, room: int) -> None:
        self.num_context = known[0][0].shape[1] if known else 0
        self.length = 0
        self._known, self._first, self._room = known, first, room
        self._layers_2GLK: list[Tensor | None] = [None] * num_layers

    @property
    def num_bytes(self) -> int:
        """What it takes, room included."""
        return sum(layer.nbytes for layer in self._layers_2GLK if layer is not None)

    def copy(self) -> _Cache:
        """The same, which can go on in another way."""
        other = copy(self)
        other._layers_2GLK = [None if layer is None else layer.clone() for layer in self._layers_2GLK]
        return other

    def extend(self, layer: int, past: int, kv_2GTK: Tensor) -> Tensor:
        """Adds those of the tokens after the first ``past`` of a layer, and returns all of the layer, kv_2GLK."""
        buffer = self._layers_2GLK[layer]
        if buffer is None:  # made now, since a tuning may choose the type of its layers
            _, groups, _, width = kv_2GTK.shape
            upper = layer >= self._first
            buffer = kv_2GTK.new_empty(2, groups, self._room + upper * self.num_context, width)
            if upper and self._known:
                for half, known_GNK in zip(buffer, self._known[layer - self._first], strict=True):
                    half[:, : self.num_context] = known_GNK
            self._layers_2GLK[layer] = buffer
        end = past + kv_2GTK.shape[2]
        buffer[:, :, past:end] = kv_2GTK
        return buffer[:, :, :end]


@dataclass(frozen=True)
class _Growing:
    """Attention of one layer over the next tokens of several texts, in one row; each text sees itself alone.

    Attributes:
        parts: Of each text its cache, how many of its tokens the layer has seen, and how many come now.
        layer: The layer.
    """

    parts: Sequence[tuple[_Cache, int, int]]
    layer: int
    skip: int = 0

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int | None, scale: float) -> Tensor:
        """See ``Attention``."""
        _, heads, _, width = q_BHTK.shape
        kv_2GTK = torch.cat([k_BGTK, v_BGTK])
        groups, start, mixed = kv_2GTK.shape[1], 0, []
        for cache, past, count in self.parts:
            kv_2GLK = cache.extend(self.layer, past, kv_2GTK[:, :, start : start + count])
            # The query heads that share a key head are further rows of it, so that no key is repeated.
            q_1GRK = q_BHTK[:, :, start : start + count].reshape(1, groups, heads // groups * count, width)
            mask_RL = _mask(past, count, window, q_BHTK.device)
            if mask_RL is not None:
                mask_RL = mask_RL.repeat(heads // groups, 1)
            k_1GLK, v_1GLK = kv_2GLK[:1], kv_2GLK[1:]
            y_1GRK = F.scaled_dot_product_attention(q_1GRK, k_1GLK, v_1GLK, attn_mask=mask_RL, scale=scale)
            mixed.append(y_1GRK.reshape(1, heads, count, width))
            start += count
        return torch.cat(mixed, 2)


def _mask(past: int, count: int, window: int | None, device: torch.device) -> Tensor | None:
    """True where the ``count`` tokens after the first ``past`` may look; None for everywhere."""
    total = past + count
    if count == 1 and (window is None or window >= total):
        return None
    mask_TL = torch.ones(count, total, dtype=torch.bool, device=device).tril(past)
    return mask_TL if window is None else mask_TL.triu(past - window + 1)
