import asyncio
import base64
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import hypothesis
import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient

from m6rec.errors import AssetError
from m6rec.serving.api import page
from m6rec.serving.api.app import create_app
from m6rec.serving.api.rate_limit import RateLimit
from m6rec.serving.journal import FileJournal
from m6rec.serving.settings import Settings, make_key
from tests import malformed, running
from tests.fake import FakeBackend

ROOT = Path(__file__).parents[2]
RANK = {"user": "u0", "items": ["i3", "i1", "i2"]}

RANKED_FIRST = {
    "item": {"id": "i1", "title": "Film 1", "categories": ["Drama"], "details": {"n": 1}},
    "score": 1 / 3,
}


@pytest.fixture(scope="module")
def backend():
    return FakeBackend()


@pytest.fixture(scope="module")
def http(backend):
    with TestClient(create_app(backend, Settings()), "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["item"]["id"] for row in answer.json()["items"]]


def problem(answer: Any, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


# Routes


def test_rank_gives_whole_items_by_falling_score(http):
    answer = http.post("/v1/rank", json=RANK)
    assert ids(answer) == ["i1", "i2", "i3"]
    first = answer.json()["items"][0]
    assert first == RANKED_FIRST
    assert "timings_ms" not in answer.json()


def test_recommend_filters_pages_and_tells_its_stages(http):
    body = {"user": "u0", "count": 2, "offset": 1, "filters": {"categories": ["Drama"], "exclude": ["i3"]}}
    assert ids(http.post("/v1/recommend", json=body)) == ["i5", "i7"]
    timings = http.post("/v1/recommend", json={**body, "timings": True}).json()["timings_ms"]
    assert set(timings) == {"queue", "retrieve", "rank"}


def test_retrieve_gives_so_many(http):
    assert ids(http.post("/v1/retrieve", json={"user": "u0", "count": 3})) == ["i0", "i1", "i2"]


def test_explain_gives_statements_with_their_evidence(http):
    answer = http.post("/v1/explain", json={"user": "u0", "item": "i1"})
    assert answer.status_code == 200
    told = answer.json()
    assert told["text"] == " ".join(one["text"] for one in told["reasons"])
    assert told["reasons"][0] == {
        "text": "81% of 123 people liked it.",
        "kind": "crowd",
        "evidence": {"liked": 100, "seen": 123},
        "source": "template",
        "rejection": "it babbles",
    }
    assert told["reasons"][1]["evidence"]["events"][0]["item"] == "i1"
    for body in ({"user": "u0", "item": "i99"}, {"user": "nobody", "item": "i1"}):
        assert problem(http.post("/v1/explain", json=body), 404)["type"] == "not_found"
    wrong: tuple[dict[str, object], ...]
    wrong = ({"user": "u0"}, {"user": "u0", "item": "i" * 201}, {"user": "u0", "item": "i1", "count": 3})
    for given in wrong:
        assert problem(http.post("/v1/explain", json=given), 422)["type"] == "invalid"


def test_the_catalogue_is_searched_and_an_item_told_with_its_likes(http):
    assert [one["id"] for one in http.get("/v1/items?query=film 1&count=2").json()["items"]] == ["i1", "i10"]
    assert [one["id"] for one in http.get("/v1/items?id=i3&id=gone&id=i2").json()["items"]] == ["i3", "i2"]
    assert http.get("/v1/items/i1").json() == {"item": RANKED_FIRST["item"], "num_likes": 7}
    assert "num_likes" not in http.get("/v1/items/i2").json()
    assert problem(http.get("/v1/items/i99"), 404)["type"] == "not_found"
    assert set(http.get("/v1/users?prefix=u&count=100").json()["users"]) >= {"u0", "u1", "u2"}
    for path in ("/v1/items?count=0", "/v1/items?query=" + "x" * 201, "/v1/items?limit=3", "/v1/users?count=101"):
        assert problem(http.get(path), 422)["type"] == "invalid"


def test_neighbours_are_those_of_an_id_or_of_a_draft(http, backend):
    assert ids(http.post("/v1/neighbours", json={"item": "i1", "count": 2})) == ["i0", "i2"]
    assert ids(http.post("/v1/neighbours", json={"item": "i0", "count": 2, "by": "behaviour"})) == ["i1", "i3"]
    draft = {"id": "new", "title": "New"}
    assert len(ids(http.post("/v1/neighbours", json={"item": draft}))) == 10
    assert "new" not in backend.items
    assert problem(http.post("/v1/neighbours", json={"item": "i99"}), 404)["type"] == "not_found"
    for body in ({}, {"item": 3}, {"item": {"id": "new"}}, {"item": "i1", "by": "luck"}, {"item": "i1", "count": 101}):
        assert problem(http.post("/v1/neighbours", json=body), 422)["type"] == "invalid"


def test_inspection_tells_the_texts_and_the_placement(http):
    body = {"user": "u0", "history": [{"item": "i3", "kind": "like"}], "filters": {"exclude": ["i1"]}}
    alone = http.post("/v1/inspect", json=body).json()
    assert alone == {
        "segments": [
            {"text": "Age 30.", "slot": "user", "cached": "memory"},
            {"text": "Liked i3.", "slot": "history", "cached": "absent"},
        ]
    }
    told = http.post("/v1/inspect", json={**body, "item": "i1"}).json()
    assert told["segments"][-1] == {"text": "Film 1", "slot": "candidate", "cached": "store"}
    assert told["placement"]["filtered_by"] == ["exclude"]
    assert told["placement"]["sources"] == [
        {"source": "text", "score": 0.25, "rank": 7},
        {"source": "ials", "score": 0.0},
    ]
    assert problem(http.post("/v1/inspect", json={"item": "i99"}), 404)["type"] == "not_found"


def test_create_gives_texts_and_why_others_were_refused(http):
    body = {"user": "u0", "kind": "design", "category": "Drama", "catalogue": True}
    answer = http.post("/v1/create", json=body)
    assert answer.status_code == 200
    assert answer.json() == {
        "texts": [{"text": "Film 2", "source": "model", "category": "Drama", "item": "i2", "rejected": ["it babbles"]}]
    }
    assert len(http.post("/v1/create", json={**body, "count": 3}).json()["texts"]) == 3
    copy = http.post("/v1/create", json={"user": "u0", "kind": "headline", "item": "i1"}).json()["texts"][0]
    assert (copy["item"], copy["source"]) == ("i1", "template")
    for change in ({"user": "nobody"}, {"kind": "headline", "item": "i99"}):
        assert problem(http.post("/v1/create", json={**body, **change}), 404)["type"] == "not_found"
    wrong: tuple[dict[str, object], ...]
    wrong = ({"kind": "poem"}, {"count": 0}, {"count": 11}, {"kind": "headline"}, {"item": "i1"}, {"words": 3})
    for other in wrong:
        assert problem(http.post("/v1/create", json={**body, **other}), 422)["type"] == "invalid"


def test_an_event_brings_a_user_into_being(http, backend):
    about = {"user": "u77", "item": "i1"}
    assert "u77" in problem(http.post("/v1/explain", json=about), 404)["message"]
    answer = http.post("/v1/events", json={"events": [{**about, "time": 5, "value": 4}]})
    assert (answer.status_code, answer.json()) == (201, {"accepted": 1, "repeated": 0, "unknown": []})
    assert http.post("/v1/explain", json=about).status_code == 200
    assert backend.events[-1].value == 4


def test_data_that_are_malformed_are_no_unknown_id(http):
    event = {"user": "u0", "item": "i1", "time": 5}
    wrong = problem(http.post("/v1/events", json={"events": [{**event, "text": "unwritable"}]}), 422)
    assert wrong["type"] == "invalid"
    unknown = problem(http.post("/v1/events", json={"events": [{**event, "item": "i99"}]}), 404)
    assert unknown["type"] == "not_found"


def test_items_come_and_go_even_with_slashes_in_their_ids(http):
    item = {"id": "a/b c", "title": "New", "categories": ["Noir"], "details": {"year": 1999, "price": 1.5, "by": "X"}}
    assert http.post("/v1/items", json={"items": [item]}).json() == {"written": 1}
    answer = http.post("/v1/rank", json={"user": "u0", "items": ["a/b c"]})
    assert answer.json()["items"][0]["item"] == item
    assert http.delete("/v1/items/a%2Fb%20c").json() == {"written": 1}
    problem(http.delete("/v1/items/a%2Fb%20c"), 404)
    problem(http.post("/v1/rank", json={"user": "u0", "items": ["a/b c"]}), 404)


def test_rerank_takes_the_requests_of_cohere_and_of_jina(http):
    documents = ["xyz", "snow", "so"]
    cohere = {"model": "rerank-v3.5", "query": "snow", "documents": documents, "top_n": 2}
    answer = http.post("/v1/rerank", json=cohere).json()
    assert [result["index"] for result in answer["results"]] == [1, 2]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == pytest.approx([4 / 5, 2 / 5])
    assert "document" not in answer["results"][0]
    assert {"id", "model", "meta"} <= set(answer)
    assert answer["usage"] == {"total_tokens": 13}
    jina = {"query": "snow", "documents": [{"text": text} for text in documents], "return_documents": True}
    results = http.post("/v1/rerank", json=jina).json()["results"]
    assert [result["document"]["text"] for result in results] == ["snow", "so", "xyz"]


def test_embeddings_are_the_same_as_numbers_and_as_base64(http):
    found = http.post("/v1/embeddings", json={"input": ["a", "bcd"], "model": "any"}).json()
    assert found["object"] == "list"
    assert found["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    packed = http.post("/v1/embeddings", json={"input": ["a", "bcd"], "encoding_format": "base64"}).json()
    for number, text in zip(found["data"], packed["data"], strict=True):
        vector = np.frombuffer(base64.b64decode(text["embedding"]), "<f4")
        np.testing.assert_array_equal(vector, np.float32(number["embedding"]))
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    alone = http.post("/v1/embeddings", json={"input": "bcd"}).json()
    assert alone["data"][0]["embedding"] == found["data"][1]["embedding"]


CHAT = {"messages": [{"role": "user", "content": "Anything?"}]}


def events(answer: httpx.Response) -> list[str]:
    """What the server-sent events of an answer hold."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = answer.text.split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines]


def test_chat_has_the_shape_of_openai_and_tells_its_items(http):
    answer = http.post("/v1/chat/completions", json=CHAT).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": 'How about "Film 0"?'}, "finish_reason": "stop"}
    ]
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert answer["m6rec"]["intent"] == "recommend"
    assert [row["item"]["id"] for row in answer["m6rec"]["items"]] == ["i0"]
    assert {"id", "created", "model"} <= set(answer)
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Any"}]}], "stop": "x", "n": 1}
    assert http.post("/v1/chat/completions", json=parts).status_code == 200


def test_a_streamed_chat_comes_in_events(http):
    body = {**CHAT, "stream": True}
    *chunks, last = events(http.post("/v1/chat/completions", json=body))
    assert last == "[DONE]"
    told = [json.loads(chunk) for chunk in chunks]
    assert {chunk["object"] for chunk in told} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in told}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in told]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "How about"}, {"content": ' "Film 0"?'}, {}]
    assert [chunk["choices"][0].get("finish_reason") for chunk in told] == [None, None, None, "stop"]
    assert told[-1]["m6rec"]["items"][0]["item"]["title"] == "Film 0"
    *_, usage, _ = events(http.post("/v1/chat/completions", json={**body, "stream_options": {"include_usage": True}}))
    assert json.loads(usage)["usage"]["total_tokens"] == 3
    assert json.loads(usage)["choices"] == []


def test_a_stream_that_fails_says_so_and_not_why(http, caplog):
    body = {"messages": [{"role": "user", "content": "break"}], "stream": True}
    with caplog.at_level(logging.INFO, "m6rec"):
        *_, last = events(http.post("/v1/chat/completions", json=body))
    assert json.loads(last)["error"]["type"] == "internal"
    assert "secret" not in last
    assert any(getattr(record, "facts", {}).get("error") == "RuntimeError" for record in caplog.records)


def test_metrics_count_by_route_and_not_by_path(http):
    http.get("/somewhere/secret-user")
    http.delete("/v1/items/secret-item")
    http.post("/v1/rank", json=RANK)
    text = http.get("/metrics").text
    assert "secret" not in text
    assert re.search(r'm6rec_requests_total\{route="/v1/rank",status="200"\} [1-9]', text)
    for name in ("request_seconds_bucket", "stage_seconds_bucket", "batch_size_bucket", "queue_depth"):
        assert f"m6rec_{name}" in text


def test_metrics_hold_the_statistics_of_the_cache():
    from m6rec.foundation.states import CacheStatistics

    statistics = CacheStatistics(hits=7, misses=3, entries=5, bytes=640, oldest_s=1.0, store_failures=2)
    with TestClient(create_app(FakeBackend(), Settings(), statistics=lambda: statistics), "http://localhost") as http:
        text = http.get("/metrics").text
    for line in ("hits_total 7.0", "misses_total 3.0", "bytes 640.0", "store_failures_total 2.0"):
        assert f"m6rec_cache_{line}" in text


# Errors


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 422),
        (b'{"user": "u0", "items": [NaN]}', 400),
        (b'{"user": "\\ud800", "items": ["i1"]}', 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b'{"user": 0, "items": ["i1"]}', 422),
        (b'{"user": "u0", "items": []}', 422),
        (b'{"user": "u0", "items": ["i1"], "itmes": 1}', 422),
        (b'{"user": "u0", "items": "i1"}', 422),
        (b'{"user": "u0", "items": ["i99"]}', 404),
        (json.dumps({"user": "u0", "items": ["i1"] * 1001}).encode(), 422),
        (json.dumps({"user": "u" * 201, "items": ["i1"]}).encode(), 422),
    ],
)
def test_bad_requests_are_told_what_is_wrong(http, body, status):
    error = problem(http.post("/v1/rank", content=body, headers={"content-type": "application/json"}), status)
    assert error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/recommend", {"user": "u0", "count": 0}),
        ("/v1/recommend", {"user": "u0", "count": 10**30}),
        ("/v1/recommend", {"user": "u0", "offset": -1}),
        ("/v1/recommend", {"user": "u0", "diversity": 1.5}),
        ("/v1/recommend", {"user": "u0", "filters": {"category": "x"}}),
        ("/v1/events", {"events": [{"user": "u0", "item": "i1", "time": True}]}),
    ],
)
def test_values_out_of_range_are_refused(http, path, body):
    assert problem(http.post(path, json=body), 422)["type"] == "invalid"


def test_there_is_one_shape_of_errors_also_where_there_is_no_route(http):
    assert problem(http.get("/nowhere"), 404)["type"] == "not_found"
    answer = http.get("/v1/rank")
    assert problem(answer, 405)["type"] == "method"
    assert answer.headers["allow"] == "POST"


def test_a_failing_store_is_503_and_a_failing_model_500_without_its_message(http, backend, caplog):
    full = {"events": [{"user": "u0", "item": "i1", "time": 1, "text": "disk full"}]}
    answer = http.post("/v1/events", json=full)
    assert problem(answer, 503)["type"] == "store"
    assert answer.headers["retry-after"]
    backend.broken = True
    try:
        with caplog.at_level(logging.INFO, "m6rec"):
            answer = http.post("/v1/rank", json=RANK)
    finally:
        backend.broken = False
    assert problem(answer, 500)["type"] == "internal"
    assert "secret" not in answer.text
    facts = caplog.records[-1].facts
    assert facts["error"] == "RuntimeError"
    assert any("fake.py" in line for line in facts["trace"])
    assert "secret of" not in json.dumps(facts["error"])


def test_malformed_requests_never_fail_the_service(http):
    statuses = malformed.send(http, 300, seed=1)
    assert sum(count for status, count in statuses.items() if status >= 400) > 200
    assert {400, 422} <= set(statuses)
    assert ids(http.post("/v1/rank", json=RANK))


# Contract


def test_the_contract_is_the_one_that_clients_were_built_for(http):
    golden = json.loads((ROOT / "tests" / "golden" / "openapi.json").read_text())
    assert http.get("/openapi.json").json() == golden


def test_every_example_of_the_contract_is_a_request_that_passes(http):
    document = http.get("/openapi.json").json()
    tried = 0
    for path, methods in document["paths"].items():
        body = methods.get("post", {}).get("requestBody")
        if body:
            name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            for example in document["components"]["schemas"][name]["examples"]:
                answer = http.post(path, json=example)
                assert answer.status_code != 422, (path, answer.text)
                tried += 1
    assert tried >= 7


def test_what_fits_the_contract_is_served_and_what_does_not_is_refused(tmp_path):
    key = make_key(tmp_path / "keys")
    app = create_app(FakeBackend(), Settings(keys=tmp_path / "keys"))
    schema = schemathesis.openapi.from_dict(json.loads((ROOT / "tests" / "golden" / "openapi.json").read_text()))
    schema.app = app
    seen = set()

    for found in schema.get_all_operations():
        operation = cast(Any, found).ok()

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=10,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def check(case):
            response = case.call(headers={"Authorization": f"Bearer {key}"})
            case.validate_response(response)
            seen.add(case.path)

        check()
    assert "/v1/recommend" in seen


# The page


def test_the_page_needs_no_key_and_a_strict_policy_holds_it(tmp_path, monkeypatch):
    make_key(tmp_path / "keys")
    with TestClient(create_app(FakeBackend(), Settings(keys=tmp_path / "keys"))) as http:
        monkeypatch.setattr(page, "FOLDER", tmp_path / "page")
        unbuilt = http.get("/")
        assert unbuilt.headers["content-type"].startswith("text/plain")
        assert "make web" in unbuilt.text
        problem(http.get("/page/main.js"), 404)
        (tmp_path / "page").mkdir()
        for name in ("index.html", "main.js"):
            (tmp_path / "page" / name).write_text(name)
        for path, kind in (("/", "text/html"), ("/page/main.js", "text/javascript")):
            answer = http.get(path)
            assert answer.headers["content-type"].startswith(kind)
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-encoding"] == "gzip"
            plain = http.get(path, headers={"Accept-Encoding": "identity"})
            assert (plain.content, "content-encoding" in plain.headers) == (answer.content, False)
            again = http.get(path, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["content-security-policy"] == answer.headers["content-security-policy"]
        (tmp_path / "page" / "main.js").write_text("newer")
        os.utime(tmp_path / "page" / "main.js", (1, 1))
        assert http.get("/page/main.js", headers={"If-None-Match": answer.headers["etag"]}).text == "newer"
        for path in ("/page/../keys", "/page/..%2Fkeys", "/page/%2E%2E/keys", "/page/index.html/..", "/page/", "/page"):
            assert http.get(path).status_code in (401, 404), path
        problem(http.get("/pages"), 401)
    with TestClient(create_app(FakeBackend(), Settings()), "http://evil.example") as http:
        problem(http.get("/"), 403)


# Keys


@pytest.fixture
def keyed(tmp_path):
    file = tmp_path / "keys"
    key = make_key(file)
    reloads = []
    app = create_app(FakeBackend(), Settings(keys=file), reload=lambda: reloads.append(1))
    with TestClient(app) as client:
        yield client, file, key, reloads


def test_without_its_key_nobody_gets_in(keyed):
    http, _, key, _ = keyed
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {key}"}, {"Authorization": key}):
        for method, path in (("POST", "/v1/rank"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nowhere")):
            answer = http.request(method, path, headers=headers)
            assert problem(answer, 401)["type"] == "unauthorised"
            assert answer.headers["www-authenticate"] == "Bearer"
    assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
    assert ids(http.post("/v1/rank", json=RANK, headers={"authorization": f"bearer {key}"}))


def test_each_key_has_a_rate_of_its_own():
    now = [100.0]
    limit = RateLimit(2.0, 3, lambda: now[0])
    assert [limit.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]
    assert limit.wait_s("b") == 0
    now[0] += 0.5  # one token
    assert [limit.wait_s("a") for _ in range(2)] == [0, 1]
    now[0] += 60  # a pause saves no more than a burst
    assert [limit.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]
    assert not any(RateLimit(0.0, 1).wait_s("a") for _ in range(1_000))


def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path):
    file = tmp_path / "keys"
    keys = [make_key(file, role="read") for _ in range(2)]
    with TestClient(create_app(FakeBackend(), Settings(keys=file, key_rate=0.001, key_burst=2))) as http:
        often, other = ({"Authorization": f"Bearer {key}"} for key in keys)
        assert [http.post("/v1/rank", json=RANK, headers=often).status_code for _ in range(2)] == [200, 200]
        refused = http.post("/v1/rank", json=RANK, headers=often)
        assert "0.001 requests a second" in problem(refused, 429)["message"]
        assert 900 < int(refused.headers["retry-after"]) <= 1_000
        assert ids(http.post("/v1/rank", json=RANK, headers=other))
        assert http.get("/readyz", headers=often).status_code == 200
        problem(http.post("/v1/rank", json=RANK, headers={"Authorization": "Bearer wrong"}), 401)


def test_reload_takes_in_new_keys_and_lets_the_old_ones_go(keyed):
    http, file, key, reloads = keyed
    file.unlink()
    fresh = make_key(file)
    old, new = ({"Authorization": f"Bearer {one}"} for one in (key, fresh))
    problem(http.post("/v1/rank", json=RANK, headers=new), 401)
    assert http.post("/v1/admin/reload", headers=old).status_code == 200
    assert reloads == [1]
    problem(http.post("/v1/rank", json=RANK, headers=old), 401)
    assert ids(http.post("/v1/rank", json=RANK, headers=new))


def test_without_keys_only_loopback_names_are_answered(http):
    for host in ("evil.example", "evil.example:8300", "192.168.0.3", "", "[", "localhost.evil.example"):
        assert problem(http.post("/v1/rank", json=RANK, headers={"host": host}), 403)["type"] == "forbidden"
    for host in ("127.0.0.1", "localhost:8300", "[::1]:8300"):
        assert ids(http.post("/v1/rank", json=RANK, headers={"host": host}))


def test_reload_needs_a_key_to_exist(http):
    assert "SIGHUP" in problem(http.post("/v1/admin/reload"), 403)["message"]


def test_a_failed_reload_says_why_and_changes_nothing(tmp_path):
    def fail():
        raise AssetError("runs/like-0 holds no tuned task")

    key = make_key(tmp_path / "keys")
    with TestClient(create_app(FakeBackend(), Settings(keys=tmp_path / "keys"), reload=fail)) as http:
        http.headers["Authorization"] = f"Bearer {key}"
        assert "no tuned task" in problem(http.post("/v1/admin/reload"), 409)["message"]
        assert ids(http.post("/v1/rank", json=RANK))


# Logs and request ids


def test_request_ids_are_kept_or_made_and_logs_hold_no_text_of_users(http, caplog):
    with caplog.at_level(logging.INFO, "m6rec"):
        answer = http.post(
            "/v1/explain", json={"user": "private-name", "item": "i1"}, headers={"X-Request-Id": "a.b-1"}
        )
        http.get("/v1/items/private-name")
    assert answer.headers["x-request-id"] == "a.b-1"
    facts = [record.facts for record in caplog.records if record.name.startswith("m6rec")]
    assert facts[0].items() >= {"request_id": "a.b-1", "method": "POST", "route": "/v1/explain", "status": 404}.items()
    assert facts[0]["ms"] > 0
    assert "private-name" not in json.dumps(facts)
    for bad in ("x" * 65, "a b", "a\tb", "ä"):
        made = http.get("/healthz", headers={"X-Request-Id": bad.encode()}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


# Load


@contextmanager
def busy(**options):
    """A service at work on a first ranking until ``backend.go`` is set: (backend, url, http, pool, that ranking)."""
    backend = FakeBackend()
    backend.go.clear()
    with running.service(backend, **options) as url, running.http(url) as http, ThreadPoolExecutor(8) as pool:
        first = pool.submit(http.post, "/v1/rank", json=RANK)
        assert backend.begun.acquire(timeout=10)
        yield backend, url, http, pool, first


def test_what_waits_is_ranked_together():
    with busy() as (backend, _, http, pool, first):
        others = [pool.submit(http.post, "/v1/rank", json=RANK) for _ in range(5)]
        until(lambda: depth(http) == 5)
        backend.go.set()
        assert all(ids(one.result(10)) == ["i1", "i2", "i3"] for one in (first, *others))
    assert backend.batches == [1, 5]


def test_overload_is_refused_quickly_and_what_was_accepted_is_answered():
    with busy(max_queue=4) as (backend, _, http, pool, first):
        waiting = [pool.submit(http.post, "/v1/recommend", json={"user": "u0"}) for _ in range(4)]
        until(lambda: depth(http) == 4)
        seconds = []
        for path in ("/v1/rank", "/v1/recommend", "/v1/retrieve") * 5:
            began = time.perf_counter()
            answer = http.post(path, content=b"not even JSON")
            seconds.append(time.perf_counter() - began)
            assert problem(answer, 429)["type"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
        assert http.get("/readyz").status_code == 200
        backend.go.set()
        assert ids(first.result(10))
        assert all(ids(one.result(10)) for one in waiting)
    assert sorted(seconds)[len(seconds) // 2] < 0.05


def test_answers_are_not_held_back_for_acknowledgements_of_packets():
    with running.service(FakeBackend()) as url, running.http(url) as http:
        seconds = []
        for _ in range(15):
            began = time.perf_counter()
            assert ids(http.post("/v1/rank", json=RANK))
            seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[7] < 0.03  # Nagle's algorithm costs 0.04


def test_a_client_that_leaves_makes_room_and_costs_nothing():
    with busy() as (backend, url, http, _, first):
        leaver = socket.create_connection(address(url))
        leaver.sendall(raw("/v1/rank", RANK))
        until(lambda: depth(http) == 1)
        leaver.close()
        until(lambda: depth(http) == 0)
        backend.go.set()
        assert ids(first.result(10))
        until(lambda: 'route="/v1/rank",status="499"} 1.0' in http.get("/metrics").text)
    assert backend.batches == [1]


def test_what_has_not_begun_by_its_deadline_is_refused_and_never_done():
    with busy(deadline_s=0.2) as (backend, _, http, _, first):
        answer = http.post("/v1/rank", json=RANK)
        assert problem(answer, 503)["type"] == "deadline"
        assert answer.headers["retry-after"]
        backend.go.set()
        assert ids(first.result(10)), "what has begun is answered, however late"
    assert backend.batches == [1]


def test_a_client_that_leaves_its_stream_ends_the_text():
    backend = FakeBackend()
    closed = threading.Event()

    def endless(chat):
        try:
            while True:
                yield "and "
        finally:
            closed.set()

    backend.chatting = endless
    with running.service(backend) as url, running.http(url) as http:
        with http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            next(answer.iter_lines())
            assert ids(http.post("/v1/rank", json=RANK)), "others are answered meanwhile"
        assert closed.wait(10)
        assert ids(http.post("/v1/rank", json=RANK))


def test_texts_beyond_those_that_may_wait_are_refused_and_ranking_is_not():
    backend = FakeBackend()
    hold, begun = threading.Event(), threading.Semaphore(0)

    def held(chat):
        begun.release()
        while not hold.is_set():
            yield ""
        return (yield from FakeBackend.chatting(backend, chat))

    backend.chatting = held
    with (
        running.service(backend, max_texts=2, max_queue=1, deadline_s=3.0) as url,
        running.http(url) as http,
        ThreadPoolExecutor(3) as pool,
    ):
        written = []
        for _ in range(2):
            written.append(pool.submit(http.post, "/v1/chat/completions", json=CHAT))
            assert begun.acquire(timeout=10)
        late = pool.submit(http.post, "/v1/chat/completions", json=CHAT)
        until(lambda: late.done() or http.post("/v1/explain", json={}).status_code == 429)
        assert ids(http.post("/v1/rank", json=RANK))
        assert problem(late.result(10), 503)["type"] == "deadline"
        hold.set()
        assert [one.result(10).status_code for one in written] == [200, 200]


def test_too_many_at_once_are_refused():
    backend = FakeBackend()
    backend.go.clear()
    with running.service(backend, max_concurrent=2) as url, running.http(url) as http, ThreadPoolExecutor(2) as pool:
        event = {"user": "u0", "item": "i1", "time": 1}
        rank = pool.submit(http.post, "/v1/rank", json=RANK)
        write = pool.submit(http.post, "/v1/events", json={"events": [event]})
        assert all(backend.begun.acquire(timeout=10) for _ in range(2))
        assert problem(http.post("/v1/retrieve", json={"user": "u0"}), 429)["type"] == "overloaded"
        assert http.get("/healthz").status_code == 200
        backend.go.set()
        assert ids(rank.result(10))
        assert write.result(10).status_code == 201


def test_a_client_that_does_not_read_its_answer_is_given_up():
    gate = create_app(FakeBackend(), Settings(deadline_s=0.2))
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""} if not sent else await asyncio.Future()

    async def send(message):
        sent.append(message)
        await asyncio.Future()

    scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": [(b"host", b"[::1]")]}
    asyncio.run(asyncio.wait_for(gate(scope, receive, send), 10))
    assert [message["type"] for message in sent] == ["http.response.start"]
    gate.service.work.close()


def test_long_and_slow_bodies_are_refused():
    with running.service(FakeBackend(), max_body_bytes=1000, deadline_s=0.3) as url, running.http(url) as http:
        problem(http.post("/v1/rank", content=b" " * 1001), 413)
        problem(http.post("/v1/rank", content=(b" " * 100 for _ in range(11))), 413)  # chunked: no length is told
        with socket.create_connection(address(url)) as slow:
            slow.sendall(b"POST /v1/rank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
            assert b"408" in slow.recv(1000).split(b"\r\n")[0]
        assert ids(http.post("/v1/rank", json=RANK))


def until(holds):
    """Waits until something holds."""
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to hold")


def address(url: str) -> tuple[str, int]:
    found = httpx.URL(url)
    assert found.port is not None
    return found.host, found.port


def raw(path: str, body: object) -> bytes:
    """A request as it goes over the wire."""
    content = json.dumps(body).encode()
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join((*lines, f"Content-Length: {len(content)}", "", "")).encode() + content


def depth(http) -> float:
    return float(re.search(r'm6rec_queue_depth\{queue="model"\} (\S+)', http.get("/metrics").text)[1])


# As a process


SERVE = """
from pathlib import Path
from m6rec.serving.api.server import log_to_stderr, serve
from m6rec.serving.journal import FileJournal
from m6rec.serving.settings import Settings
from tests.fake import FakeBackend
backend = FakeBackend({journal})
{more}
log_to_stderr()
serve(backend, Settings(port=0, drain_s={drain_s}){reload})
"""


def process(code):
    environment = {**os.environ, "PYTHONPATH": "."}
    return running.process([sys.executable, "-c", code], running.ROOT, environment)


def test_sigterm_answers_what_is_in_flight_and_exits_with_0(tmp_path):
    more = f"""
import threading, time
from pathlib import Path
backend.go.clear()
def let_go():
    while not Path({str(tmp_path / "go")!r}).exists():
        time.sleep(0.01)
    backend.go.set()
threading.Thread(target=let_go, daemon=True).start()
"""
    code = SERVE.format(journal=None, more=more, drain_s=0.5, reload="")
    with process(code) as (child, url, logged), running.http(url) as http, ThreadPoolExecutor(2) as pool:
        held = pool.submit(http.post, "/v1/rank", json=RANK)
        until(lambda: 'kind="rank"' in http.get("/metrics").text)
        child.send_signal(signal.SIGTERM)
        until(lambda: http.get("/readyz").status_code == 503)
        assert http.get("/healthz").status_code == 200
        late = pool.submit(http.post, "/v1/rank", json=RANK)  # one that was on its way while the balancer found out
        until(lambda: depth(http) == 1)
        time.sleep(0.6)  # the service has stopped to listen
        (tmp_path / "go").touch()
        assert ids(held.result(10)) == ids(late.result(10)) == ["i1", "i2", "i3"]
        assert child.wait(10) == 0
    lines = [json.loads(line) for line in logged]
    assert {"/v1/rank", "/readyz"} <= {line["route"] for line in lines}
    assert all({"time", "level", "event", "request_id", "status", "ms"} <= set(line) for line in lines)


def test_sighup_swaps_while_requests_go_on():
    more = "import time\ndef reload():\n    time.sleep(0.2)\n    backend.users.add('v1')"
    code = SERVE.format(journal=None, more=more, drain_s=0, reload=", reload=reload")
    with process(code) as (child, url, _), running.http(url) as http:
        child.send_signal(signal.SIGHUP)
        statuses = set()

        def swapped():
            statuses.add(http.post("/v1/rank", json=RANK).status_code)
            return http.post("/v1/explain", json={"user": "v1", "item": "i1"}).status_code == 200

        until(swapped)
        assert statuses == {200}
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0


def test_killed_while_events_are_posted_it_keeps_all_that_it_acknowledged(tmp_path):
    code = SERVE.format(journal=f"FileJournal(Path({str(tmp_path)!r}))", more="", drain_s=0, reload="")
    acknowledged = []

    def post(http, writer):
        for number in range(10_000):
            event = {"user": f"u{writer}", "item": "i1", "time": number}
            try:
                answer = http.post("/v1/events", json={"events": [event]})
            except httpx.HTTPError:
                return
            if answer.status_code == 201:
                acknowledged.append((f"u{writer}", number))

    for kill in range(2):
        with process(code) as (child, url, _), running.http(url) as http:
            writers = [threading.Thread(target=post, args=(http, 2 * kill + n)) for n in range(2)]
            for writer in writers:
                writer.start()
            enough = 20 * (kill + 1)
            until(lambda enough=enough: len(acknowledged) > enough)
            child.kill()
            for writer in writers:
                writer.join(20)
    journal = FileJournal(tmp_path)
    kept = [(event.user, event.time) for event in journal.replay()]
    journal.close()
    assert len(acknowledged) > 40
    assert set(acknowledged) <= set(kept)
    assert len(set(kept)) == len(kept)


# README


def test_the_commands_of_the_readme_work():
    text = (ROOT / "README.md").read_text().split("## Serve", 1)[1].split("\n## ", 1)[0]
    commands = re.findall(r"^curl (?:.*\\\n)*.*", text, re.MULTILINE)
    assert len(commands) >= 5
    backend = FakeBackend()
    backend.users.add("196")
    backend.items |= dict.fromkeys(("50", "172", "100"), backend.items["i1"])
    with running.service(backend) as url:
        for command in commands:
            local = command.replace("http://127.0.0.1:8300", url).replace("curl ", "curl -sS --fail-with-body ", 1)
            done = subprocess.run(["bash", "-c", local], capture_output=True, text=True, check=False)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
