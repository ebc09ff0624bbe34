"""How long it takes to rank, beside the alternatives on the same weights and texts.

One user with 50 behaviours, 100 and 1 000 candidates. Every method reads the same words:

- ours: the service's own path, statistics and all, with segment states in memory (``Recommender.rank``);
- … model only: the upper layers, with and without the user's keys and values at hand (``KVCachePool.predict``);
- full prompts: transformers, each candidate behind the whole history, batched;
- cross-encoder: sentence-transformers on the same weights, with a fresh head;
- prefix reuse: transformers, keys and values of the history computed once a request and shared by all candidates;
- … history known: the same, with those keys and values at hand before the request;
- llama.cpp: its server on the GGUF file, with the history in its prompt cache, a request a candidate; left out where
  neither ``LLAMA_SERVER`` nor the search path names a ``llama-server``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import typer
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.setup import Claims, Setup
from m6rec.data.log import Log
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.checkpoint import Foundation, locate
from m6rec.readouts import ScoreModel
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.serving.recommender import Recommender
from m6rec.tasks.task import ask
from m6rec.text.batch import Example
from m6rec.types import Event, User
from tests import running

NUM_EVENTS = 50


def timed(run: Callable[[], Any], times: int) -> dict[str, float]:
    """Milliseconds of a call, after a first that is not counted where there are several."""
    if times > 1:
        run()
    spent = [1_000 * _once(run) for _ in range(times)]
    return {"p50_ms": float(np.median(spent)), "p99_ms": float(np.quantile(spent, 0.99)), "times": times}


def _once(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    quick = setup.quick
    recommender, like, made, interactions = setup.recommender()
    log = made.split.log
    items = list(log.items.values())
    user = lived(recommender, interactions, log)
    times = 30 if quick else 200
    rows = {n: ask(like.task, interactions, User(user), items[:n], made.domain, dict(log.items)) for n in (100, 1_000)}
    results = served(recommender, like, user, rows, [item.id for item in items], lambda run: timed(run, times))
    results |= _rivals(like.foundation, rows[100], 4 if quick else 100, 3)
    ours = results["ours, 100 candidates"]["p50_ms"]
    claims: Claims = [
        ("100 candidates: times faster than full prompts", results["full prompts"]["p50_ms"] / ours, ">=", 3_000),
        ("100 candidates: times faster than prefix reuse", results["prefix reuse"]["p50_ms"] / ours, ">=", 200),
        ("1 000 candidates: p50 in ms", results["ours, 1000 candidates"]["p50_ms"], "<=", 60),
    ]
    return {"results": results}, claims


def lived(recommender: Recommender, interactions: InteractionStore, log: Log) -> str:
    """Id of a new user to whom the service ascribes the first ``NUM_EVENTS`` behaviours of another."""
    user = "bench"
    life = next(interactions.history(one) for one in log.users if len(interactions.history(one)) >= NUM_EVENTS)[
        :NUM_EVENTS
    ]
    recommender.ingest([Event(user, event.item, event.time, event.value) for event in life])
    return user


def served(
    recommender: Recommender,
    like: ScoreModel,
    user: str,
    rows: Mapping[int, Example],
    ids: Sequence[str],
    clock: Callable[[Callable[[], Any]], dict[str, float]],
) -> dict[str, dict[str, float]]:
    """Times of ours by ``clock``, for as many of the first candidates as each row asks about."""
    results = {}
    for count, row in rows.items():
        known = KVCachePool(like)
        for name, run in (
            ("ours", lambda count=count: recommender.rank(user, ids[:count])),
            ("ours, model only", lambda row=row, turns=known: turns.predict([(user, row)])),
            ("ours, model only, first request of a user", lambda row=row: KVCachePool(like).predict([(user, row)])),
        ):
            results[f"{name}, {count} candidates"] = clock(run)
    return results


class Unsplit:
    """The unsplit model in transformers, asked the first candidates of a row, each behind the whole history.

    Args:
        foundation: Whose weights and device.
        row: The question.
        count: Candidates that are asked.
        prompts: That make a batch.
        suffixes: Candidates that make a batch behind a history that was read.
    """

    def __init__(self, foundation: Foundation, row: Any, *, count: int, prompts: int, suffixes: int) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(locate(foundation.source), dtype=foundation.model.dtype)
        self._model.eval().to(foundation.model.device)
        self._sizes = prompts, suffixes
        encode = foundation.tokenizer.encode
        self.history = encode([" ".join(segment.text for segment in row.context)])[0]
        self.asked = encode([" " + " ".join(segment.text for segment in block) for block in row.candidates[:count]])

    @torch.no_grad()
    def full(self) -> None:
        """Reads every candidate with the history."""
        size = self._sizes[0]
        for first in range(0, len(self.asked), size):
            ids = self._padded([self.history + one for one in self.asked[first : first + size]])
            self._model(ids, logits_to_keep=1)

    @torch.no_grad()
    def prefix(self) -> DynamicCache:
        """Reads the history."""
        cache = DynamicCache(config=self._model.config)
        self._model(self._padded([self.history]), past_key_values=cache, logits_to_keep=1)
        return cache

    @torch.no_grad()
    def suffixes(self, cache: DynamicCache) -> None:
        """Reads every candidate behind a history that was read."""
        size = self._sizes[1]
        for first in range(0, len(self.asked), size):
            ids = self._padded(self.asked[first : first + size])
            own = DynamicCache(config=self._model.config)
            for layer, known in enumerate(cache.layers):
                keys, values = (t.expand(len(ids), -1, -1, -1) for t in (known.keys, known.values))
                own.update(keys, values, layer)
            self._model(ids, past_key_values=own, logits_to_keep=1)

    def _padded(self, rows: list[list[int]]) -> torch.Tensor:
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for number, tokens in enumerate(rows):
            ids[number, : len(tokens)] = torch.tensor(tokens)
        return ids.to(self._model.device)


def _rivals(foundation: Foundation, row: Any, num_prompts: int, times: int) -> dict[str, dict[str, float]]:
    """Times of the unsplit model in transformers for the row's 100 candidates; full prompts on ``num_prompts``."""
    some = Unsplit(foundation, row, count=num_prompts, prompts=4, suffixes=25)
    every = Unsplit(foundation, row, count=len(row.candidates), prompts=4, suffixes=25)
    known = every.prefix()
    result = {
        **_cross_encoder(foundation, row, num_prompts),
        **_llama_cpp(foundation, [some.history + one for one in some.asked], times),
        "prefix reuse": timed(lambda: every.suffixes(every.prefix()), times),
        "prefix reuse, history known": timed(lambda: every.suffixes(known), times),
        "full prompts": timed(some.full, 1),
    }
    for name, one in result.items():
        one["tokens_of_history"] = len(every.history)
        if num_prompts < len(every.asked) and "prefix" not in name:  # the quick form: said so, and scaled
            one["measured_prompts"] = num_prompts
            for key in ("p50_ms", "p99_ms"):
                one[key] *= len(every.asked) / num_prompts
    return result


def _cross_encoder(foundation: Foundation, row: Any, num_prompts: int) -> dict[str, dict[str, float]]:
    """The same weights with a fresh head of one class, on pairs of the whole history and a candidate."""
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(
        str(locate(foundation.source)),
        num_labels=1,
        model_kwargs={"dtype": foundation.model.dtype},
        config_kwargs={"pad_token_id": 0},
        device="cpu",
    )
    encoder.tokenizer.pad_token = encoder.tokenizer.convert_ids_to_tokens(0)  # the converted folder names none
    history = " ".join(segment.text for segment in row.context)
    pairs = [(history, " ".join(s.text for s in block)) for block in row.candidates[:num_prompts]]
    return {"cross-encoder": timed(lambda: encoder.predict(pairs, batch_size=4, show_progress_bar=False), 1)}


def _llama_cpp(foundation: Foundation, prompts: list[list[int]], times: int) -> dict[str, dict[str, float]]:
    """The same weights as they are in the GGUF file, 4 bits each; read are the log-probabilities of the next token."""
    program = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    weights = locate(foundation.source).with_suffix("").with_suffix(".gguf")
    if program is None or not weights.is_file():
        typer.echo("  llama.cpp is left out: no llama-server, or the foundation is no GGUF file", err=True)
        return {}

    def score(client: httpx.Client, prompt: list[int]) -> float:
        asked = {"prompt": prompt, "n_predict": 1, "n_probs": 2, "temperature": 0, "cache_prompt": True}
        answer = client.post("/completion", json=asked).raise_for_status().json()
        return float(answer["completion_probabilities"][0]["logprob"])

    with _llama_server(program, weights, max(map(len, prompts)) + 1) as client:
        return {"llama.cpp, history known": timed(lambda: [score(client, prompt) for prompt in prompts], times)}


@contextmanager
def _llama_server(program: str, weights: Path, num_tokens: int) -> Iterator[httpx.Client]:
    """A client of a server that has loaded the weights, and holds one prompt of so many tokens."""
    port = running.free_port()
    words = ["--host", "127.0.0.1", "--port", f"{port}", "--parallel", "1", "--ctx-size", f"{num_tokens}"]
    threads = ["--threads", f"{torch.get_num_threads()}"]
    server = subprocess.Popen([program, "--model", str(weights), *words, *threads], stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            while not _is_ready(client):
                if server.poll() is not None:
                    raise RuntimeError(f"{program} ended with {server.returncode} before it served")
                time.sleep(0.1)
            yield client
    finally:
        server.kill()
        server.wait()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False
