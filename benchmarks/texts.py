"""How fast texts come, beside transformers on the same words, weights and cores.

A user of 50 behaviours and the beginning of an explanation. Ours is a writer whose tuning is fresh, as speed doesn't
depend on what was learned; the states of the user's segments are cached, as the history of a user who has been served
before is. ``first token`` has the upper layers read them with the request, as ``GenerateModel.write`` does; with
``history known`` their keys and values are at hand too. transformers reads the whole history as text with each request,
as it has no states. Both take the likeliest token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, StoppingCriteriaList

from benchmarks.latency import NUM_EVENTS, timed
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.data.log import Log
from m6rec.domains import prepared
from m6rec.features.interactions import InteractionStore
from m6rec.foundation import checkpoint
from m6rec.foundation.checkpoint import Foundation, locate
from m6rec.foundation.generate import Engine, Prompt, Sampling
from m6rec.readouts import GenerateModel, TaskModelConfig
from m6rec.tasks import explanations, writing
from m6rec.types import Draft

NUM_TOKENS = 64
NUM_STREAMS = 16


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made, foundation, times = prepared.load(setup.data), checkpoint.load(), 3 if setup.quick else 20
    config = TaskModelConfig(
        task="explain", domain=made.domain_name, foundation=foundation.source, method="option-adapter"
    )
    writer = GenerateModel.create(config, foundation, assets.home() / "states")
    drafts = _drafts(writer, made.split.log)
    engine = writer.engine()
    encode = foundation.tokenizer.encode
    asked = writer.prompts(engine, drafts)
    one = Sampling(max_tokens=1)
    results: dict[str, dict[str, float]] = {
        "ours, first token": timed(lambda: writer.write(drafts[:1], one), times),
        "ours, first token, history known": timed(lambda: engine.generate(asked[:1], one), times),
        "ours, one text": _rate(*_run(engine, asked[:1])),
        f"ours, {NUM_STREAMS} texts": _rate(*_run(engine, asked)),
    }
    whole = [" ".join([*(segment.text for segment in draft.context), draft.prompt]) for draft in drafts]
    results |= _transformers(foundation, encode(whole), 2 if setup.quick else 5)
    rates = {
        name: results[f"ours, {name}"]["tokens_a_second"] / results[f"transformers, {name}"]["tokens_a_second"]
        for name in ("one text", f"{NUM_STREAMS} texts")
    }
    sooner = _p50(results, "transformers, first token") / _p50(results, "ours, first token")
    claims: Claims = [
        ("first token: times sooner than transformers.generate", sooner, ">=", 3),
        *((f"{name}: tokens a second over transformers.generate's", rate, ">=", 1) for name, rate in rates.items()),
    ]
    sizes = {"whole_tokens": len(encode(whole)[0]), "prompt_tokens": len(asked[0].ids)}
    return {"depth": writer.cache.config.depth, **sizes, "results": results}, claims


def _drafts(writer: GenerateModel, log: Log) -> list[Draft]:
    """An explanation for each of so many users, each of another item."""
    interactions = InteractionStore(log.items, writer.domain.feedback).update_all(log.events)
    people = [log.users[user] for user in log.users if len(interactions.history(user)) >= NUM_EVENTS][:NUM_STREAMS]
    drafts = []
    for person, item in zip(people, log.items.values(), strict=False):
        history = interactions.history(person.id)[:NUM_EVENTS]
        prompt = explanations.prompt(item, writer.domain, "liked", "story")
        place = next(place for place, event in enumerate(log.events) if event.user == person.id)
        draft = writing.draft(writer.task, history, person, writer.domain, log.items, prompt)
        drafts.append(replace(draft, event=place))
    return drafts


def _p50(results: dict[str, dict[str, float]], name: str) -> float:
    return results[name]["p50_ms"]


def _run(engine: Engine, prompts: Sequence[Prompt]) -> tuple[int, float]:
    """(tokens after the first of each text, the seconds that they took)."""
    streams = [engine.add(prompt, Sampling(max_tokens=NUM_TOKENS)) for prompt in prompts]
    engine.step()
    start = time.perf_counter()
    while engine.active:
        engine.step()
    spent = time.perf_counter() - start
    texts = [stream.result for stream in streams]
    return sum(len(text.ids) - 1 for text in texts if text is not None), spent


def _rate(tokens: int, seconds: float) -> dict[str, float]:
    return {"tokens": tokens, "tokens_a_second": tokens / seconds}


@torch.no_grad()
def _transformers(foundation: Foundation, asked: Sequence[list[int]], times: int) -> dict[str, dict[str, float]]:
    """``generate`` of the unsplit model: the first prompt alone, and all of them padded at the left."""
    model = AutoModelForCausalLM.from_pretrained(locate(foundation.source), dtype=foundation.model.dtype).eval()
    longest = max(map(len, asked))
    ids = torch.zeros(len(asked), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(asked):
        ids[row, longest - len(tokens) :], mask[row, longest - len(tokens) :] = torch.tensor(tokens), 1
    alone = torch.tensor(asked[:1])

    def write(ids: torch.Tensor, mask: torch.Tensor, count: int) -> list[float]:
        """The moment of each token."""
        moments: list[float] = []

        def note(ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            moments.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool)

        options = {"min_new_tokens": count, "max_new_tokens": count, "do_sample": False, "pad_token_id": 0}
        model.generate(ids, attention_mask=mask, stopping_criteria=StoppingCriteriaList([note]), **options)
        return moments

    def rate(ids: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
        moments = write(ids, mask, NUM_TOKENS)
        return _rate(len(ids) * (len(moments) - 1), moments[-1] - moments[0])

    everything = torch.ones_like(alone)
    return {
        "transformers, first token": timed(lambda: write(alone, everything, 1), times),
        "transformers, one text": rate(alone, everything),
        f"transformers, {len(asked)} texts": rate(ids, mask),
    }
