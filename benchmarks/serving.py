"""How long it takes to rank, beside the alternatives on the same weights and texts: ``make bench-serving``.

One user with 50 behaviours, 100 and 1 000 candidates. Every method reads the same words:

- ours: the service's own path, statistics and all, with segment states in memory (``Recommender.rank``);
- full prompts: transformers, each candidate behind the whole history, batched;
- prefix reuse: transformers, keys and values of the history computed once a request and shared by all candidates;
- … history known: the same, with those keys and values at hand before the request.

The floor is the multiplications of our upper layers, counted by hand, over the matrix-product rate measured here.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import AutoModelForCausalLM, DynamicCache

from m6rec import assets, report
from m6rec.domains import prepared
from m6rec.foundation.checkpoint import Foundation, load, locate
from m6rec.foundation.model import ModelConfig
from m6rec.serving.recommender import Recommender
from m6rec.tasks.task import ask
from m6rec.text.past import Past
from m6rec.tuned import load as load_tuned
from m6rec.tuned import read_config
from m6rec.types import Event, User

NUM_EVENTS = 50
COMMAND = "make bench-serving"


def timed(run: Callable[[], Any], times: int) -> dict[str, float]:
    """Milliseconds of a call, after a first that is not counted where there are several."""
    if times > 1:
        run()
    spent = [1_000 * _once(run) for _ in range(times)]
    return {"p50_ms": float(np.median(spent)), "p99_ms": float(np.quantile(spent, 0.99)), "times": times}


def matmul_rate(width: int, inner: int, dtype: torch.dtype) -> float:
    """Multiply-adds of a matrix product, as FLOP a second, at the shape of the feed-forward half; best of 30."""
    x, w = torch.randn(1024, width).to(dtype), torch.randn(inner, width).to(dtype)
    best = min(_once(lambda: torch.nn.functional.linear(x, w)) for _ in range(30))
    return 2 * 1024 * width * inner / best


def _once(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def upper_flop(config: ModelConfig, num_layers: int, num_context: int, num_candidates: int) -> float:
    """FLOP of the upper layers for one request with one kept token a segment.

    A layer multiplies a token by q, o (D×HK), k, v (D×GK) and three feed-forward maps (D×F), and its attention by the
    context twice (HK each). In the last layer the context gives keys and values only. Adapters are left out (1 %).
    """
    c = config
    heads, groups = c.num_heads * c.head_width, c.num_kv_heads * c.head_width
    key_value = 2 * c.width * groups
    maps = 2 * c.width * heads + key_value + 3 * c.width * c.ffn_width
    attention = 2 * heads * num_context
    whole = (num_context + num_candidates) * (maps + attention)
    last = num_context * key_value + num_candidates * (maps + attention)
    return 2.0 * ((num_layers - 1) * whole + last)


def main(
    run: Annotated[Path, typer.Option(help="A run of the like task.")] = Path("runs/demo/like-0"),
    retrieve: Annotated[Path, typer.Option(help="A run of the retrieval task.")] = Path("runs/demo/retrieve-0"),
    data: Annotated[Path, typer.Option(help="The prepared log.")] = Path("runs/demo/data"),
) -> None:
    quick = bool(os.environ.get("QUICK"))
    out = Path("runs/bench" if quick else "benchmarks/results")
    made = prepared.load(data)
    foundation = load(read_config(run).foundation)
    like = load_tuned(run, foundation, cache_folder=assets.home() / "states")
    log, user = made.split.log, "bench"
    items = list(log.items.values())
    past = Past(log.items, made.domain.likes).observe_all(log.events)
    life = next(past.history(one) for one in log.users if len(past.history(one)) >= NUM_EVENTS)[:NUM_EVENTS]
    recommender = Recommender(load_tuned(retrieve, foundation, like.cache), like, log, past)
    recommender.observe([Event(user, event.item, event.time, event.value) for event in life])
    times = 30 if quick else 200
    rows = {n: ask(like.task, past, User(user), items[:n], made.domain, dict(log.items)) for n in (100, 1_000)}
    results: dict[str, dict[str, float]] = {}
    for count, row in rows.items():
        ids = [item.id for item in items[:count]]
        results[f"ours, {count} candidates"] = timed(lambda ids=ids: recommender.rank(user, ids), times)
        results[f"ours, model only, {count} candidates"] = timed(lambda row=row: like.scores([row]), times)
    results |= _rivals(foundation, rows[100], 4 if quick else 100, 3)
    config = foundation.model.config
    rate = matmul_rate(config.width, config.ffn_width, foundation.model.dtype)
    layers = config.num_layers - like.cache.config.depth
    num_context = NUM_EVENTS + len(like.tuning.prompts_PD)
    floor = {n: 1_000 * upper_flop(config, layers, num_context, n) / rate for n in rows}
    ours = results["ours, 100 candidates"]["p50_ms"]
    bare = results["ours, model only, 100 candidates"]["p50_ms"]

    def claim(name: str, value: float, relation: str, target: float) -> report.Claim:
        return report.Claim(name=name, value=value, relation=relation, target=target, command=COMMAND)

    claims = (
        claim("times faster than full prompts", results["full prompts"]["p50_ms"] / ours, ">=", 3_000),
        claim("times faster than prefix reuse", results["prefix reuse"]["p50_ms"] / ours, ">=", 200),
        claim("100 candidates, model only: times the floor", bare / floor[100], "<=", 1.5),
        claim("1 000 candidates: p50 in ms", results["ours, 1000 candidates"]["p50_ms"], "<=", 60),
    )
    facts = {**report.facts(), "seed": 0, "matmul_flop_a_second": rate, "upper_layers": layers}
    made_report = report.Report(title="Time to rank", claims=claims, facts=facts)
    value = {**json.loads(report.to_json(made_report)), "floor_ms": floor, "results": results}
    out.mkdir(parents=True, exist_ok=True)
    partial = out / ".serving.json.partial"
    partial.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(partial, out / "serving.json")
    typer.echo(json.dumps(value, indent=1))


def _rivals(foundation: Foundation, row: Any, num_prompts: int, times: int) -> dict[str, dict[str, float]]:
    """Times of the unsplit model in transformers for the row's 100 candidates; full prompts on ``num_prompts``."""
    model = AutoModelForCausalLM.from_pretrained(locate(foundation.source), dtype=foundation.model.dtype).eval()
    encode = foundation.tokenizer.encode
    history = encode([" ".join(segment.text for segment in row.context)])[0]
    asked = encode([" " + " ".join(segment.text for segment in block) for block in row.candidates])

    def padded(rows: list[list[int]]) -> torch.Tensor:
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for number, tokens in enumerate(rows):
            ids[number, : len(tokens)] = torch.tensor(tokens)
        return ids

    @torch.no_grad()
    def full() -> None:
        for first in range(0, num_prompts, 4):
            model(padded([history + one for one in asked[first : min(first + 4, num_prompts)]]), logits_to_keep=1)

    @torch.no_grad()
    def prefix() -> DynamicCache:
        cache = DynamicCache(config=model.config)
        model(torch.tensor([history]), past_key_values=cache, logits_to_keep=1)
        return cache

    @torch.no_grad()
    def suffixes(cache: DynamicCache) -> None:
        for first in range(0, len(asked), 25):
            ids = padded(asked[first : first + 25])
            own = DynamicCache(config=model.config)
            for layer, known in enumerate(cache.layers):
                keys, values = (t.expand(len(ids), -1, -1, -1) for t in (known.keys, known.values))
                own.update(keys, values, layer)
            model(ids, past_key_values=own, logits_to_keep=1)

    known = prefix()
    result = {
        "prefix reuse": timed(lambda: suffixes(prefix()), times),
        "prefix reuse, history known": timed(lambda: suffixes(known), times),
        "full prompts": timed(full, 1),
    }
    for one in result.values():
        one["tokens_of_history"] = len(history)
    if num_prompts < len(asked):  # the quick form: said so, and scaled
        result["full prompts"]["measured_prompts"] = num_prompts
        for key in ("p50_ms", "p99_ms"):
            result["full prompts"][key] *= len(asked) / num_prompts
    return result


if __name__ == "__main__":
    typer.run(main)
