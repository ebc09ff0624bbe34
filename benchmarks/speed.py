"""How fast texts come: beside transformers on the same words, and many at once.

A user of 50 behaviours and the start of an explanation. Ours goes on from the user's states, of which the upper layers
have read keys and values before (``history known``) or read them now (``first request``); transformers reads the whole
history as text with each request, as it has no states. Both take the likeliest token, on the same weights and cores.

Then many texts in one engine at once, one more joining with a long prompt: how evenly they get on, by the time between
two tokens of a text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.latency import NUM_EVENTS, timed
from benchmarks.setup import Claims, Setup
from m6rec.foundation.checkpoint import Foundation, locate
from m6rec.foundation.generate import Engine, Prompt, Sampling
from m6rec.foundation.model import Known
from m6rec.tasks import task as tasks
from m6rec.tuned import Tuned
from m6rec.types import Item, Segment, User

NUM_TOKENS = 64
NUM_STREAMS = 16
NUM_LATE_TOKENS = 1_500
"""Of the prompt that joins late."""


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    _, like, made, past = setup.recommender()
    log, times = made.split.log, 3 if setup.quick else 20
    items = dict(log.items)
    people = [one for one in log.users if len(past.history(one)) >= NUM_EVENTS][:NUM_STREAMS]
    contexts = [tasks.context(like.task, past, User(one), made.domain, items)[-NUM_EVENTS:] for one in people]
    prompts = [_prompt(item, made.domain.item(item)) for item in list(items.values())[:NUM_STREAMS]]
    foundation, encode = like.foundation, like.foundation.tokenizer.encode
    engine = Engine(foundation, like.cache.config.depth)
    like.cache.fetch(segment.text for context in contexts for segment in context)  # as those of a busy service are
    knowns = [_read(engine, like, context) for context in contexts]
    asked = encode(prompts)

    def ours(number: int, known: Known, most: int) -> None:
        engine.generate([Prompt(asked[number], known)], Sampling(max_tokens=most))

    results: dict[str, dict[str, float]] = {
        "ours, first token, history known": timed(lambda: ours(0, knowns[0], 1), times),
        "ours, first token, first request of a user": timed(
            lambda: ours(0, _read(engine, like, contexts[0]), 1), times
        ),
        "ours, one text": _rate([_run(engine, [Prompt(asked[0], knowns[0])])]),
        f"ours, {NUM_STREAMS} texts": _rate(
            [_run(engine, [Prompt(*pair) for pair in zip(asked, knowns, strict=True)])]
        ),
    }
    whole = [" ".join(s.text for s in context) + " " + text for context, text in zip(contexts, prompts, strict=True)]
    results |= _transformers(foundation, encode(whole), 2 if setup.quick else 5)
    late = encode([" ".join(whole) * 2])[0][:NUM_LATE_TOKENS]
    streams = _streams(engine, [Prompt(*pair) for pair in zip(asked, knowns, strict=True)], Prompt(late))
    first, theirs = "ours, first token, history known", "transformers, first token"
    one, many = "one text", f"{NUM_STREAMS} texts"
    claims: Claims = [
        ("first token: times sooner than transformers.generate", _p50(results, theirs) / _p50(results, first), ">=", 3),
        (
            "one text: tokens a second as a multiple of transformers.generate's",
            results[f"ours, {one}"]["tokens_a_second"] / results[f"transformers, {one}"]["tokens_a_second"],
            ">=",
            1,
        ),
        (
            f"{many}: tokens a second as a multiple of transformers.generate's",
            results[f"ours, {many}"]["tokens_a_second"] / results[f"transformers, {many}"]["tokens_a_second"],
            ">=",
            1,
        ),
        (f"{many}: tokens of the slowest as a share of the fastest's", streams["slowest_share"], ">=", 0.9),
        (
            f"{many}: longest wait for a token, a long prompt joining, as a multiple of the usual",
            streams["longest_wait_ms"] / streams["usual_wait_ms"],
            "<=",
            10,
        ),
    ]
    sizes = {"history_tokens": len(encode(whole)[0]) - len(asked[0]), "prompt_tokens": len(asked[0])}
    return {"depth": like.cache.config.depth, **sizes, "results": results, "streams": streams}, claims


def _prompt(item: Item, words: str) -> str:
    return f"The user is now recommended {words}. The user would like it because"


def _read(engine: Engine, like: Tuned, context: Sequence[Segment]) -> Known:
    states = like.cache.fetch(segment.text for segment in context)
    spans = [states.places[segment.text] for segment in context]
    tokens = [place for first, count in spans for place in range(first, first + count)]
    return engine.read(states.tokens_TD[torch.tensor(tokens)])


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


def _rate(runs: Sequence[tuple[int, float]]) -> dict[str, float]:
    tokens, seconds = (sum(column) for column in zip(*runs, strict=True))
    return {"tokens": tokens, "tokens_a_second": tokens / seconds}


def _streams(engine: Engine, prompts: Sequence[Prompt], late: Prompt) -> dict[str, float]:
    """How evenly texts written at once get on; one with a long prompt joins after a quarter of their tokens."""
    streams = [engine.add(prompt, Sampling(max_tokens=NUM_TOKENS)) for prompt in prompts]
    waits_ms: list[float] = []
    joined, begun, late_ms = None, 0.0, 0.0
    slowest_share = 1.0
    while engine.active:
        if joined is None and len(waits_ms) == NUM_TOKENS // 4:
            joined, begun = engine.add(late, Sampling(max_tokens=1)), time.perf_counter()
        start = time.perf_counter()
        engine.step()
        waits_ms.append(1_000 * (time.perf_counter() - start))
        if joined is not None and joined.result is not None and not late_ms:
            late_ms = 1_000 * (time.perf_counter() - begun)
        chosen = [beam.num_chosen for stream in streams for beam in stream.beams]
        if chosen:
            slowest_share = min(slowest_share, min(chosen) / max(chosen))
    return {
        "first_token_ms": waits_ms[0],
        "usual_wait_ms": float(np.median(waits_ms)),
        "longest_wait_ms": max(waits_ms),
        "slowest_share": slowest_share,
        "late_first_token_ms": late_ms,
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

    def write(ids: torch.Tensor, mask: torch.Tensor, count: int) -> None:
        options = {"min_new_tokens": count, "max_new_tokens": count, "do_sample": False, "pad_token_id": 0}
        model.generate(ids, attention_mask=mask, **options)

    def rate(ids: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
        spent = {count: timed(lambda count=count: write(ids, mask, count), 1)["p50_ms"] for count in (1, NUM_TOKENS)}
        tokens = len(ids) * (NUM_TOKENS - 1)
        return {"tokens": tokens, "tokens_a_second": 1_000 * tokens / (spent[NUM_TOKENS] - spent[1])}

    everything = torch.ones_like(alone)
    return {
        "transformers, first token": timed(lambda: write(alone, everything, 1), times),
        "transformers, one text": rate(alone, everything),
        f"transformers, {len(asked)} texts": rate(ids, mask),
    }
