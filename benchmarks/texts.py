"""How fast texts come: beside transformers on the same words, and many at once.

A user of 50 behaviours and the beginning of an explanation. Ours is a tuned writer, option-adapter, whose tuning is
fresh, as speed doesn't depend on what was learned; the states of the user's segments are cached, as the history of a
user who has been served before is. ``first token`` has the upper layers read them with the request, as
``GenerateModel.write`` does; with ``history known`` their keys and values are at hand too. transformers reads the whole
history as text with each request, as it has no states. Both take the likeliest token, on the same weights and cores.

Then many texts in one engine at once, one more joining with a long prompt: how evenly they get on, by the time between
two tokens of a text. And as many conversations with ``m6rec serve`` at once, streamed, while another client asks for
recommendations again and again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np
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
NUM_LATE_TOKENS = 1_500
"""Of the prompt that joins late."""


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
    streams = _streams(engine, asked, Prompt(encode([" ".join(whole)])[0][:NUM_LATE_TOKENS]))
    people = [made.split.log.events[draft.event].user for draft in drafts]
    with TemporaryDirectory() as folder, setup.serving(Path(folder)) as (_, url, _):
        served = asyncio.run(_served(url, people, f"Can you recommend a {made.domain.noun}?"))
    rates = {
        name: results[f"ours, {name}"]["tokens_a_second"] / results[f"transformers, {name}"]["tokens_a_second"]
        for name in ("one text", f"{NUM_STREAMS} texts")
    }
    sooner = _p50(results, "transformers, first token") / _p50(results, "ours, first token")
    waited = streams["longest_wait_ms"] / streams["usual_wait_ms"]
    claims: Claims = [
        ("first token: times sooner than transformers.generate", sooner, ">=", 3),
        *((f"{name}: tokens a second over transformers.generate's", rate, ">=", 1) for name, rate in rates.items()),
        (
            f"{NUM_STREAMS} texts: tokens of the slowest as a share of the fastest's",
            streams["slowest_share"],
            ">=",
            0.9,
        ),
        (f"{NUM_STREAMS} texts: longest wait, a long prompt joining, over the usual", waited, "<=", 10),
        (f"{NUM_STREAMS} conversations at once: replies that came whole", served["whole"], ">=", NUM_STREAMS),
        (
            f"{NUM_STREAMS} conversations at once: slowest reply over the median",
            served["slowest_ms"] / served["p50_ms"],
            "<=",
            2,
        ),
        (
            f"{NUM_STREAMS} conversations at once: slowest recommendation beside them, as a share of their time",
            served["slowest_recommendation_ms"] / served["all_ms"],
            "<=",
            0.5,
        ),
    ]
    sizes = {"whole_tokens": len(encode(whole)[0]), "prompt_tokens": len(asked[0].ids)}
    return {
        "depth": writer.cache.config.depth,
        **sizes,
        "results": results,
        "streams": streams,
        "served": served,
    }, claims


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


async def _served(url: str, users: Sequence[str], question: str) -> dict[str, float]:
    """A conversation of each user at once, and recommendations for the first user until all have their reply."""
    async with aiohttp.ClientSession(url) as client:
        await _recommended(client, users[0])  # what a service that has just started does once
        start = time.perf_counter()
        talks = asyncio.gather(*(_reply(client, user, question) for user in users))
        beside = []
        while not talks.done():
            beside.append(await _recommended(client, users[0]))
        replies = await talks
        spent = time.perf_counter() - start
    first, whole = (1_000 * np.array(column) for column in zip(*replies, strict=True))
    return {
        "whole": float(np.isfinite(whole).sum()),
        "first_sentence_p50_ms": float(np.median(first)),
        "p50_ms": float(np.median(whole)),
        "slowest_ms": float(whole.max()),
        "all_ms": 1_000 * spent,
        "recommendations": len(beside),
        "slowest_recommendation_ms": 1_000 * max(beside),
    }


async def _reply(client: aiohttp.ClientSession, user: str, question: str) -> tuple[float, float]:
    """Seconds to the first words and to the end of a reply; infinite where it doesn't come whole."""
    start, first = time.perf_counter(), float("inf")
    body = {"messages": [{"role": "user", "content": question}], "user": user, "stream": True}
    async with client.post("/v1/chat/completions", json=body) as response:
        async for line in response.content:
            data = line.decode().removeprefix("data:").strip()
            if data == "[DONE]":
                return first, time.perf_counter() - start
            choices = json.loads(data).get("choices", []) if data.startswith("{") else []
            if any(choice["delta"].get("content") for choice in choices):
                first = min(first, time.perf_counter() - start)
    return first, float("inf")


async def _recommended(client: aiohttp.ClientSession, user: str) -> float:
    """Seconds of a recommendation."""
    start = time.perf_counter()
    async with client.post("/v1/recommend", json={"user": user}) as response:
        response.raise_for_status()
        await response.read()
    return time.perf_counter() - start


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


def _streams(engine: Engine, prompts: Sequence[Prompt], late: Prompt) -> dict[str, float]:
    """How evenly texts written at once get on; one with a long prompt joins after a quarter of their tokens."""
    start = time.perf_counter()
    streams = [engine.add(prompt, Sampling(max_tokens=NUM_TOKENS)) for prompt in prompts]
    ends: list[float] = []  # of each step, in seconds
    first_s = late_s = joined_s = 0.0
    joined, slowest_share = None, 1.0
    begun: dict[int, int] = {}  # tokens of each text when all had one
    while engine.active:
        if joined is None and len(ends) == NUM_TOKENS // 4:
            joined, joined_s = engine.add(late, Sampling(max_tokens=1)), time.perf_counter() - start
        engine.step()
        ends.append(time.perf_counter() - start)
        if joined is not None and joined.result is not None:
            late_s = late_s or ends[-1] - joined_s
        chosen = {number: beam.num_chosen for number, one in enumerate(streams) for beam in one.beams}
        if chosen and not begun and min(chosen.values()):
            begun, first_s = chosen, ends[-1]
        elif chosen and begun:
            gained = [count - begun[number] for number, count in chosen.items()]
            slowest_share = min(slowest_share, min(gained) / max(gained))
    waits_ms = 1_000 * np.diff(ends)
    return {
        "slowest_first_token_ms": 1_000 * first_s,
        "usual_wait_ms": float(np.median(waits_ms)),
        "longest_wait_ms": float(waits_ms.max()),
        "slowest_share": slowest_share,
        "late_first_token_ms": 1_000 * late_s,
    }


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
