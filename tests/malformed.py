"""Requests that no client should send: every one must be answered with 4xx, in the shape of an error."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx

HISTORY: list[dict[str, Any]] = [
    {"item": "i3", "time": 1, "value": 2.0, "kind": "view", "impression": "p", "context": {"hour": 9}}
]
EVENT: dict[str, Any] = {**HISTORY[0], "user": "u0", "item": "i1", "text": "fine", "id": "e"}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}, {"role": "tool", "content": [{"type": "text", "text": "x"}]}]
}
CHAT |= {
    "user": "u0",
    "max_tokens": 9,
    "stop": ["x"],
    "n": 1,
    "seed": 1,
    "top_p": 0.5,
    "response_format": {"type": "text"},
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/recommend": {"user": "u0", "count": 3, "offset": 0, "calibration": 0.5, "filters": {"exclude": ["i1"]}},
    "/v1/retrieve": {"user": "u0", "count": 3},
    "/v1/rank": {"user": "u0", "items": ["i1", "i2"], "history": HISTORY},
    "/v1/explain": {"user": "u0", "item": "i1"},
    "/v1/create": {"user": "u0", "kind": "design", "category": "Drama", "count": 2, "catalogue": True},
    "/v1/events": {"events": [EVENT]},
    "/v1/items": {"items": [{"id": "i1", "title": "Film 1", "categories": ["Drama"], "details": {"n": [1, "a"]}}]},
    "/v1/rerank": {"query": "snow", "documents": ["boots", {"text": "sandals"}], "top_n": 1},
    "/v2/rerank": {"query": "snow", "documents": [{"title": "boots", "n": [1]}], "rank_fields": ["title"], "top_k": 1},
    "/v1/chat/completions": CHAT,
    "/v1/embeddings": {"input": ["boots"], "encoding_format": "float", "dimensions": 256},
}
WRONG = (
    None,
    [],
    {},
    [[]],
    True,
    -1,
    10**30,
    -(10**400),
    1.5,
    "",
    "x" * 5_000,
    float("nan"),
    float("inf"),
    "\ud800",
    [None],
)


def _places(value: object, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a body, as the keys that lead to it."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*at, key)
        yield from _places(child, (*at, key))


def _changed(body: Any, at: tuple[Any, ...], value: object) -> Any:
    """A copy of the body that holds ``value`` at a place; a value that fits there is not excluded."""
    if not at:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[at[0]] = _changed(body[at[0]], at[1:], value)
    return copy


def _torn(rng: random.Random, text: bytes) -> bytes:
    """Bytes that are JSON no more, or hardly."""
    cut = rng.randrange(len(text))
    return rng.choice((
        text[:cut],
        text[:cut] + bytes([rng.randrange(256)]) + text[cut:],
        text[:cut] + b"\xed\xa0\x80" + text[cut:],
        b"[" * rng.randrange(1, 20_000),
        b'{"a":' * rng.randrange(1, 5_000) + b"1",
        rng.randbytes(rng.randrange(200)),
        b"",
    ))  # fmt: skip


def requests(count: int, seed: int) -> Iterator[tuple[str, bytes, str]]:
    """(path, body, content type) of requests that are mostly malformed."""
    rng = random.Random(seed)
    for _ in range(count):
        path = rng.choice(list(BODIES))
        body = BODIES[path]
        kind = "application/json"
        match rng.randrange(5):
            case 0:
                sent = _torn(rng, json.dumps(body).encode())
            case 1:
                sent = json.dumps({**body, rng.choice(("x", "__class__", "user ")): rng.choice(WRONG)}).encode()
            case 2:
                gone = rng.choice(list(body))
                sent = json.dumps({key: value for key, value in body.items() if key != gone}).encode()
            case 3:
                sent = json.dumps(body).encode()
                kind = rng.choice(
                    ("text/plain", "application/xml", "multipart/form-data", "application/json; charset=é")
                )
            case _:
                sent = json.dumps(_changed(body, rng.choice(list(_places(body))), rng.choice(WRONG))).encode()
        yield path, sent, kind


def send(http: httpx.Client, count: int, seed: int = 0) -> Counter[int]:
    """Sends malformed requests and counts the statuses.

    Raises:
        AssertionError: One was answered with 5xx, or an error has another shape, or shows a stack trace.
    """
    statuses: Counter[int] = Counter()
    for path, body, kind in requests(count, seed):
        answer = http.post(path, content=body, headers={b"content-type": kind.encode()})
        statuses[answer.status_code] += 1
        assert answer.status_code < 500, (path, body, answer.text)
        if not answer.is_success:
            assert set(answer.json()) == {"error"}, (path, body, answer.text)
            assert set(answer.json()["error"]) == {"type", "message", "request_id"}, (path, body, answer.text)
            assert 'File "' not in answer.text, (path, body, answer.text)
    return statuses
