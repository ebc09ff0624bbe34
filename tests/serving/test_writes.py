"""Events, items and users over HTTP: what is taken, how it is read, what is told of it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from m6rec.serving.api.app import create_app
from m6rec.serving.settings import Settings
from m6rec.types import Item
from tests import running
from tests.fake import FakeBackend

EVENT = {"user": "u0", "item": "i1", "time": 1_600_000_000}


@pytest.fixture
def served():
    backend = FakeBackend()
    with TestClient(create_app(backend, Settings()), "http://127.0.0.1", raise_server_exceptions=False) as http:
        yield backend, http


def post(http, *events, **headers):
    return http.post("/v1/events", json={"events": list(events)}, headers=headers)


def refusal(answer) -> str:
    assert answer.status_code == 422, answer.text
    return answer.json()["error"]["message"]


# Events


def test_an_event_keeps_all_that_is_told_of_it(served):
    backend, http = served
    context = {"weather": "rain", "device": "phone", "hour": 9, "new": True, "none": None}
    told = {"kind": "view", "impression": "page 1", "text": "so", "id": "e1", "context": context, "value": 2.5}
    assert post(http, {**EVENT, **told}).json() == {"accepted": 1, "repeated": 0, "unknown": []}
    event = backend.events[-1]
    assert event.context == (("device", "phone"), ("hour", 9), ("new", 1), ("weather", "rain"))
    assert (event.kind, event.impression, event.text, event.id, event.value) == ("view", "page 1", "so", "e1", 2.5)


def test_a_missing_value_means_that_it_happened(served):
    backend, http = served
    post(http, EVENT, {**EVENT, "time": 5, "value": None}, {**EVENT, "time": 6, "value": 0})
    assert [event.value for event in backend.events] == [None, None, 0]


def test_a_search_has_no_item_and_everything_else_has(served):
    backend, http = served
    assert post(http, {"user": "u0", "time": 5, "kind": "search", "text": "boots"}).status_code == 201
    assert backend.events[-1].item == ""
    for wrong in ({"kind": "view", "text": "boots"}, {"kind": "search"}, {"item": ""}):
        assert "has no item" in refusal(post(http, {"user": "u0", "time": 5, **wrong}))


def test_an_event_that_is_sent_again_counts_once(served):
    backend, http = served
    answers = [post(http, {**EVENT, "id": "e1"}).json() for _ in range(6)]
    assert [answer["accepted"] for answer in answers] == [1, 0, 0, 0, 0, 0]
    assert [answer["repeated"] for answer in answers] == [0, 1, 1, 1, 1, 1]
    assert len(backend.events) == 1


def test_a_write_with_an_idempotency_key_counts_once(served):
    backend, http = served
    events = [EVENT, {**EVENT, "id": "own"}, EVENT]
    for accepted in (3, 0):
        answer = post(http, *events, **{"Idempotency-Key": "k 1"})
        assert (answer.status_code, answer.json()["accepted"]) == (201, accepted)
    assert [event.id for event in backend.events] == ["k 1/0", "own", "k 1/2"]
    assert post(http, EVENT, **{"Idempotency-Key": "k 2"}).json()["accepted"] == 1
    assert "Idempotency-Key" in refusal(post(http, EVENT, **{"Idempotency-Key": "k" * 129}))


def test_events_of_unknown_items_are_named_and_the_others_kept(served):
    backend, http = served
    answer = post(http, EVENT, {**EVENT, "item": "i99"})
    assert (answer.status_code, answer.json()) == (201, {"accepted": 1, "repeated": 0, "unknown": ["i99"]})
    assert [event.item for event in backend.events] == ["i1"]
    answer = post(http, {**EVENT, "item": "i99"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found")


@pytest.mark.parametrize(
    "time",
    [
        1_600_000_000,
        1_600_000_000.0,
        1_600_000_000.75,
        1_600_000_000_000,
        1_600_000_000_123,
        1_600_000_000_123.5,
        1_600_000_000_123_456,
        1_600_000_000_123_456_789,
        "2020-09-13T12:26:40Z",
        "2020-09-13T12:26:40.123Z",
        "2020-09-13 12:26:40",
        "2020-09-13T14:26:40+02:00",
        " 2020-09-13T12:26:40+00:00 ",
        "20200913T122640Z",
    ],
)
def test_times_are_read_in_seconds_their_parts_and_iso(served, time):
    backend, http = served
    assert post(http, {**EVENT, "time": time}).status_code == 201
    assert backend.events[-1].time == 1_600_000_000


@pytest.mark.parametrize(
    "time",
    [-1, True, None, "", "yesterday", "13/09/2020", "1600000000", [1], "1969-12-31", "9999-01-01", 1e300, 10**40],
)
def test_what_is_no_time_is_told_in_a_sentence(served, time):
    said = refusal(post(served[1], {**EVENT, "time": time}))
    assert said.startswith("events[0].time is ")
    assert "seconds" in said
    assert "ISO 8601" in said


# One set of limits


@pytest.mark.parametrize(
    ("given", "kept"),
    [(" u1 ", "u1"), ("007", "007"), ("e\u0301", "é"), ("u\u3000", "u"), ("x" * 200, "x" * 200), ("a b", "a b")],
)
def test_ids_are_trimmed_and_composed_as_in_a_log(served, given, kept):
    backend, http = served
    item = {"id": given, "title": "New"}
    assert http.post("/v1/items", json={"items": [item]}).status_code == 200
    assert kept in backend.items
    assert http.post("/v1/rank", json={"user": given, "items": [given]}).json()["unknown"] == []
    assert backend.asked[0].user == kept
    assert http.delete(f"/v1/items/{kept}").status_code == 200


@pytest.mark.parametrize(
    "given", ["", "   ", "\u3000", "a\0b", "a\nb", "\x85b\x7f", "x" * 201, "x" * 251, 7, None, True]
)
def test_what_is_no_id_is_refused_wherever_it_stands(served, given):
    _, http = served
    said = [
        refusal(post(http, {**EVENT, "user": given})),
        refusal(http.post("/v1/items", json={"items": [{"id": given, "title": "x"}]})),
        refusal(http.post("/v1/rank", json={"items": [given]})),
        refusal(http.post("/v1/explain", json={"user": "u0", "item": given})),
        refusal(http.post("/v1/recommend", json={"filters": {"exclude": [given]}})),
    ]
    assert [one.split(" ", 1)[0] for one in said] == [
        "events[0].user", "items[0].id", "items[0]", "item", "filters.exclude[0]",
    ]  # fmt: skip
    assert all(len(one) < 120 and ";" not in one[:-60] for one in said), said


def test_an_id_in_a_path_has_the_same_limits(served):
    _, http = served
    for method, path in (("DELETE", "/v1/items/"), ("GET", "/v1/users/"), ("DELETE", "/v1/users/")):
        assert "201 characters" in refusal(http.request(method, path + "x" * 201))
        assert "control character" in refusal(http.request(method, path + "a%00b"))
        assert "blank" in refusal(http.request(method, path + "%20"))


def test_details_are_read_as_a_table_s_cells(served):
    backend, http = served
    details = {"new": True, "old": False, "none": None, "empty": "", "actors": ["A", None, 3, 4.0], " year ": 1999}
    item = {"id": "x", "title": "  New ", "details": {**details, "price": 1.5}}
    assert http.post("/v1/items", json={"items": [item]}).status_code == 200
    read: dict[str, str | int | float] = {"new": 1, "old": 0, "actors": "A, 3, 4", "year": 1999, "price": 1.5}
    assert backend.items["x"] == Item("x", "New", (), read)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"title": "   "}, "items[0].title is blank"),
        ({"title": ""}, "items[0].title is blank"),
        ({"title": None}, "items[0].title is null"),
        ({"title": "x" * 2001}, "items[0].title is a text of 2001 characters; it must have at most 2000 characters"),
        ({"details": None}, "items[0].details must be an object"),
        ({"details": []}, "items[0].details must be an object"),
        ({"details": {"a": {"b": 1}}}, "items[0].details holds an object, or a list of lists or decimals, under 'a'"),
        ({"details": {"a": [[1]]}}, "items[0].details holds an object, or a list of lists or decimals, under 'a'"),
        ({"details": {"a": 1e17}}, "items[0].details holds a number under 'a' beyond 2^53"),
        ({"details": {"a": "x" * 20_001}}, "items[0].details holds 20001 characters under 'a'"),
        ({"details": {str(n): n for n in range(33)}}, "items[0].details has 33 names; 32 are allowed"),
        ({"details": {"x" * 65: 1}}, "items[0].details has a name that is blank"),
        ({"details": {" ": 1}}, "items[0].details has a name that is blank"),
        ({"categories": ["c"] * 33}, "items[0].categories is a list of 33; it must have at most 32 items"),
        ({"categories": ["c" * 201]}, "items[0].categories holds 201 characters in one"),
        ({"colour": "red"}, "items[0].colour is not a field"),
        ({"id": 1, "title": 2}, "items[0].id is the number 1; it must be a valid string (1 more is wrong)"),
    ],
)
def test_what_is_wrong_with_an_item_is_told_in_a_sentence(served, wrong, said):
    item = {"id": "x", "title": "New", **wrong}
    assert refusal(served[1].post("/v1/items", json={"items": [item]})).startswith(said)


# Users


def test_a_user_is_put_told_and_erased(served):
    backend, http = served
    answer = http.put("/v1/users/a%2Fb", json={"details": {"age": 34, "city": "Lyon"}})
    assert answer.status_code == 200
    post(http, {**EVENT, "user": "a/b", "context": {"device": "phone"}, "id": "e1"})
    found = http.get("/v1/users/a%2Fb").json()
    assert (found["id"], found["details"]) == ("a/b", {"age": 34, "city": "Lyon"})
    assert found["events"] == [
        {
            "user": "a/b", "item": "i1", "time": EVENT["time"], "value": None, "text": "", "kind": "", "impression": "",
            "context": {"device": "phone"}, "id": "e1",
        }
    ]  # fmt: skip
    assert http.delete("/v1/users/a%2Fb").json() == {"erased": True}
    assert http.delete("/v1/users/a%2Fb").json() == {"erased": False}
    assert http.get("/v1/users/a%2Fb").status_code == 404
    assert not any(event.user == "a/b" for event in backend.events)


def test_a_new_or_nameless_user_is_answered_with_a_history_that_leaves_no_trace(served):
    backend, http = served
    history = [{"item": "i3", "kind": "view"}, {"kind": "search", "text": "boots", "time": "2020-09-13"}]
    for user in ({}, {"user": ""}, {"user": "never seen"}):
        body = {**user, "items": ["i5", "i2", "i99"], "history": history}
        answer = http.post("/v1/rank", json=body).json()
        assert [row["item"]["id"] for row in answer["items"]] == ["i2", "i5"]
        assert answer["unknown"] == ["i99"]
        assert [(one.item, one.kind, one.text) for one in backend.asked[0].history] == [
            ("i3", "view", ""),
            ("", "search", "boots"),
        ]
        assert http.post("/v1/recommend", json={**user, "history": history}).status_code == 200
        assert http.post("/v1/retrieve", json=user).status_code == 200
    assert backend.events == []
    assert "1000" in refusal(http.post("/v1/recommend", json={"history": [{"item": "i1"}] * 1001}))


# Writes beside reads


def test_an_upsert_holds_up_neither_events_nor_reads():
    backend = FakeBackend()
    begun, go = threading.Event(), threading.Event()

    def upsert(items):
        begun.set()
        assert go.wait(20)

    backend.upsert = upsert
    with running.service(backend) as url, running.http(url) as http, ThreadPoolExecutor(1) as pool:
        written = pool.submit(http.post, "/v1/items", json={"items": [{"id": "x", "title": "New"}]})
        assert begun.wait(10)
        assert post(http, EVENT).status_code == 201
        assert http.post("/v1/rank", json={"items": ["i1"]}).status_code == 200
        assert not written.done()
        go.set()
        assert written.result(10).status_code == 200


def test_a_request_that_waits_for_the_model_s_lock_keeps_its_deadline():
    class Locked(FakeBackend):
        lock = threading.RLock()
        turn = lock

    backend = Locked()
    with running.service(backend, deadline_s=0.2) as url, running.http(url) as http:
        with backend.lock:  # as a write holds it
            for path, body in (("/v1/rank", {"items": ["i1"]}), ("/v1/rerank", {"query": "a", "documents": ["b"]})):
                answer = http.post(path, json=body)
                assert (answer.status_code, answer.json()["error"]["type"]) == (503, "deadline")
        assert http.post("/v1/rank", json={"items": ["i1"]}).status_code == 200
    assert backend.batches == [1], "what was refused was never done"
