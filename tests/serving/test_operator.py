"""What those who run the service see and may do: roles, status, deployment, export, the audit of erasures."""

import contextlib
import json
import logging
import os
import time

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from m6rec.data import dataset, read, split
from m6rec.data.log import Log
from m6rec.domains.domain import named
from m6rec.errors import AssetError
from m6rec.evaluation import report
from m6rec.features.interactions import InteractionStore
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.serving.api.app import create_app
from m6rec.serving.api.traffic import NUM_FAULTS, NUM_TIMED, Traffic
from m6rec.serving.deployment import read_deployment
from m6rec.serving.project_files import REPORT_BYTES, ProjectFiles
from m6rec.serving.recommender import Recommender
from m6rec.serving.settings import Settings, make_key
from m6rec.training import TrainConfig, fit
from m6rec.types import Event, Item, User
from tests import tiny
from tests.fake import FakeBackend

ADMIN = {
    ("POST", "/v1/admin/reload"),
    ("DELETE", "/v1/users/{id}"),
    ("GET", "/v1/export/{kind}"),
}
WRITE = {("POST", "/v1/events"), ("POST", "/v1/items"), ("DELETE", "/v1/items/{id}"), ("PUT", "/v1/users/{id}")}
OPEN = {("GET", "/healthz"), ("GET", "/readyz")}
VALUES = {"{id}": "u0", "{kind}": "items", "{name}": "report.html"}


@pytest.fixture
def http():
    with TestClient(create_app(FakeBackend(), Settings()), "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def keyed(tmp_path):
    """(client of a service with keys, headers by role)."""
    file = tmp_path / "keys"
    headers = {
        role: {"Authorization": f"Bearer {make_key(file, f'of {role}', role)}"} for role in "read write admin".split()
    }
    app = create_app(FakeBackend(), Settings(keys=file), reload=lambda: None)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client, headers


# Roles


def test_each_route_of_the_contract_wants_its_role_and_tells_the_others(keyed):
    http, headers = keyed
    document = http.get("/openapi.json", headers=headers["read"]).json()
    seen = set()
    for pattern, methods in document["paths"].items():
        for verb, operation in methods.items():
            method, path = verb.upper(), pattern
            for name, value in VALUES.items():
                path = path.replace(name, value)
            route = method, pattern
            seen.add(route)
            if route in OPEN:
                assert "security" not in operation
                continue
            role = "admin" if route in ADMIN else "write" if route in WRITE else "read"
            assert operation["security"] == [{"HTTPBearer": [role]}]
            assert http.request(method, path).status_code == 401
            for given, rank in (("read", 0), ("write", 1), ("admin", 2)):
                answer = http.request(
                    method, path, headers=headers[given], json={} if method in ("POST", "PUT") else None
                )
                if rank < ("read", "write", "admin").index(role):
                    assert answer.status_code == 403, route
                    error = answer.json()["error"]
                    assert error["type"] == "forbidden"
                    assert f"role {role!r}" in error["message"]
                    assert f"yours has {given!r}" in error["message"]
                else:
                    assert answer.status_code not in (401, 403), route
    assert seen >= ADMIN | WRITE | OPEN


def test_a_refused_key_changes_nothing(keyed):
    http, headers = keyed
    assert http.delete("/v1/users/u0", headers=headers["write"]).status_code == 403
    assert http.get("/v1/users/u0", headers=headers["read"]).status_code == 200
    body = {"items": [{"id": "new", "title": "New"}]}
    assert http.post("/v1/items", json=body, headers=headers["read"]).status_code == 403
    assert http.get("/v1/items?id=new", headers=headers["read"]).json() == {"items": []}


def test_a_page_of_another_origin_can_write_nothing_without_a_preflight(http):
    body = json.dumps({"items": [{"id": "new", "title": "New"}]})
    for kind in ({"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {}):
        answer = http.post("/v1/items", content=body, headers={"Origin": "http://evil.example", **kind})
        assert answer.status_code == 422
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}
    answer = http.options("/v1/users/u0", headers=preflight)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert http.get("/v1/items?id=new").json() == {"items": []}


# Status


def test_status_tells_traffic_queues_freshness_and_tasks(http):
    for _ in range(3):
        http.post("/v1/rank", json={"user": "u0", "items": ["i1"]})
    http.post("/v1/rank", json={"user": "u0"})
    http.post("/v1/events", json={"events": [{"user": "u0", "item": "i1", "time": 5}]})
    told = http.get("/v1/status").json()
    traffic = {row["route"]: row for row in told["traffic"]}
    ranked = traffic["/v1/rank"]
    assert (ranked["requests"], ranked["refused"], ranked["failed"]) == (4, 1, 0)
    assert 0 < ranked["p50_ms"] <= ranked["p99_ms"]
    assert {row["queue"]: row["limit"] for row in told["queues"]} == {"model": 16, "events": 16, "items": 16}
    assert told["data"] == {
        "num_items": 20,
        "num_indexed": 20,
        "index_changed": 1_700_000_000.0,
        "num_users": 3,
        "num_events": 101,
        "num_new_events": 1,
        "events_changed": 1_700_000_001.0,
    }
    [task] = told["tasks"]
    assert (task["name"], task["done"], task["total"]) == ("read items", 1, 4)
    assert task["eta_s"] >= 0
    assert (told["role"], told["keys"], told["running"]) == ("admin", False, 1)
    assert "cache" not in told
    assert told["started"] <= told["now"]


def test_status_is_told_while_the_model_is_busy_and_names_the_keys_role(keyed):
    http, headers = keyed
    for role in headers:
        told = http.get("/v1/status", headers=headers[role]).json()
        assert (told["role"], told["keys"]) == (role, True)


def test_faults_are_told_by_request_id_without_what_users_wrote(http):
    http.post("/v1/explain", json={"user": "secret-user", "item": "i1"}, headers={"X-Request-Id": "a-1"})
    full = {"events": [{"user": "secret-user", "item": "i1", "time": 1, "text": "disk full"}]}
    http.post("/v1/events", json=full, headers={"X-Request-Id": "a-2"})
    told = http.get("/v1/status")
    assert "secret" not in told.text
    faults = told.json()["faults"]
    assert [(one["request_id"], one["status"], one["type"], one["route"]) for one in faults] == [
        ("a-2", 503, "store", "/v1/events"),
        ("a-1", 404, "not_found", "/v1/explain"),
    ]


def test_a_stream_that_breaks_is_a_failure(http):
    body = {"messages": [{"role": "user", "content": "break"}], "stream": True}
    http.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "s-1"})
    told = http.get("/v1/status").json()
    assert [(one["request_id"], one["type"]) for one in told["faults"]] == [("s-1", "internal")]
    assert next(row for row in told["traffic"] if row["route"] == "/v1/chat/completions")["failed"] == 1


def test_traffic_is_bounded_and_refusals_drive_no_failure_out():
    traffic = Traffic()
    traffic.add("/a", "GET", 500, 9.0, "broken", "internal")
    for number in range(NUM_TIMED + NUM_FAULTS):
        traffic.add("/a", "GET", 404, 0.001 * (number % 100 + 1), str(number), "not_found")
    [row] = traffic.routes()
    assert (row.requests, row.refused, row.failed) == (NUM_TIMED + NUM_FAULTS + 1, NUM_TIMED + NUM_FAULTS, 1)
    assert 50 <= row.p50_ms <= 51
    assert 99 <= row.p99_ms <= 100
    faults = traffic.faults()
    assert len(faults) == NUM_FAULTS + 1
    assert any(one.request_id == "broken" for one in faults)


# Erasure and export


def test_an_erasure_is_audited_without_the_id(keyed, caplog):
    http, headers = keyed
    with caplog.at_level(logging.INFO, "m6rec"):
        http.delete("/v1/users/u1", headers={**headers["admin"], "X-Request-Id": "erase-1"})
    [facts] = [record.facts for record in caplog.records if record.getMessage() == "erasure"]
    user = FakeBackend().pseudonym("u1")
    assert facts == {"request_id": "erase-1", "key": "of admin", "role": "admin", "erased": True, "user": user}
    assert not any("u1" in json.dumps(record.facts) for record in caplog.records if hasattr(record, "facts"))


def test_an_export_has_a_line_for_each_and_is_read_by_prepare(http, tmp_path):
    http.put("/v1/users/u0", json={"details": {"age": 34, "user": "clash"}})
    event = {"user": "u0", "item": "i1", "time": 1_700_000_000, "value": 4, "context": {"device": "tv"}}
    search = {"user": "u0", "kind": "search", "text": "comedy", "time": 1_700_000_001}
    http.post("/v1/events", json={"events": [event, search]})
    files = []
    for kind in ("events", "items", "users"):
        answer = http.get(f"/v1/export/{kind}")
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert f'filename="{kind}.jsonl"' in answer.headers["content-disposition"]
        files.append(tmp_path / f"{kind}.jsonl")
        files[-1].write_text(answer.text)
    log = read.read(*files)
    assert [(one.user, one.item, one.value, one.context) for one in log.events if one.item] == [
        ("u0", "i1", 4.0, (("device", "tv"),))
    ]
    assert [(one.kind, one.text) for one in log.events if not one.item] == [("search", "comedy")]
    assert log.items["i1"] == Item("i1", "Film 1", ("Drama",), {"n": 1})
    assert log.users["u0"].details == {"age": 34, "detail_user": "clash"}
    assert http.get("/v1/export/keys").status_code == 422


# A recommender's own


ITEMS = {f"i{n}": Item(f"i{n}", f"Film {n} ({1980 + n})", ("Drama",)) for n in range(12)}
EVENTS = tuple(Event(f"u{n % 3}", f"i{n % 12}", 1_000_000 + n, 5.0) for n in range(30))


def test_holdings_follow_what_comes_in_and_goes():
    foundation = tiny.foundation(num_layers=4)
    rank = ScoreModel.create(TaskModelConfig(task="like", domain="movielens", foundation="tiny"), foundation)
    retrieve = tiny.retrieval(foundation, list(ITEMS.values()), "movielens")
    interactions = InteractionStore(ITEMS, named("movielens").feedback).update_all(EVENTS)
    began = time.time()
    log = Log(events=EVENTS, items=ITEMS, users={f"u{n}": User(f"u{n}") for n in range(3)})
    backend = Recommender(retrieve, rank, log, interactions)
    held = backend.holdings()
    assert (held.num_items, held.num_indexed, held.num_users, held.num_events) == (12, 12, 3, 30)
    assert (held.num_new_events, held.events_changed, held.tasks) == (0, None, ())
    assert held.index_changed >= began

    backend.ingest([Event("u9", "i1", 2_000_000, 4.0), Event("u0", "i2", 2_000_001, 4.0)])
    backend.upsert([Item("new", "Film 99 (1999)", ("War",))])
    later = backend.holdings()
    assert (later.num_items, later.num_indexed, later.num_users, later.num_events) == (13, 13, 4, 32)
    assert later.num_new_events == 2
    assert later.events_changed >= began
    assert later.index_changed > held.index_changed

    backend.forget("u0")  # ten events of the log, and one that came in
    rest = backend.holdings()
    assert (rest.num_users, rest.num_events, rest.num_new_events) == (3, 21, 1)
    assert {event.user for event in backend.export("events")} == {"u1", "u2", "u9"}
    assert {item.id for item in backend.export("items")} == {*ITEMS, "new"}
    assert {user.id for user in backend.export("users")} == {"u1", "u2", "u9"}


def test_reading_items_is_a_task_while_it_goes_on():
    foundation = tiny.foundation(num_layers=4)
    rank = ScoreModel.create(TaskModelConfig(task="like", domain="movielens", foundation="tiny"), foundation)
    retrieve = tiny.retrieval(foundation, list(ITEMS.values()), "movielens")
    backend = Recommender(
        retrieve, rank, Log(events=(), items=ITEMS, users={}), InteractionStore(ITEMS, named("movielens").feedback)
    )
    seen = []
    read_vectors = retrieve.item_vectors

    def item_vectors(items):
        seen.extend((task.name, task.done, task.total) for task in backend.holdings().tasks)
        return read_vectors(items)

    retrieve.item_vectors = item_vectors
    backend.upsert([Item(f"n{n}", f"Film {n} ({1950 + n})") for n in range(5)])
    assert {name for name, _, _ in seen} == {"read items"}
    assert seen[0][1:] == (0, 5)
    assert seen[-1][1] > 0
    assert backend.holdings().tasks == ()


# What the files tell


def project(folder):
    """A project of a tiny log with a finished run of ranking, and its folders."""
    events = [f"u{n % 4},i{n % 6},{1_000_000 + n},{1 + n % 5}" for n in range(60)]
    (folder / "events.csv").write_text("\n".join(["user,item,time,value", *events]) + "\n")
    log = read.read(folder / "events.csv")
    made = dataset.Dataset(split=split.split_by_time(log), domain="generic", protocol="time", why="values above 3")
    dataset.save(made, folder / "data")
    runs = folder / "runs"
    config = TaskModelConfig(task="like", domain="generic", foundation="tiny")
    ScoreModel.create(config, tiny.foundation(num_layers=4)).save(runs / "like-0")
    return folder / "data", runs


class StopError(Exception):
    """A training is interrupted."""


def train(folder, steps, stop_at=None):
    """A training of one parameter, which is interrupted after so many steps."""

    def progress(step, total, loss):
        if step == stop_at:
            raise StopError

    module = torch.nn.Linear(1, 1)
    with contextlib.suppress(StopError):
        fit(
            module,
            [1.0] * steps,
            lambda x: module(torch.full((1, 1), x)).square().mean(),
            TrainConfig(epochs=2, checkpoint_steps=1),
            validate=lambda: 0.5,
            folder=folder,
            progress=progress,
        )


def test_a_deployment_tells_runs_data_reports_and_tunings_that_go_on(tmp_path):
    data, runs = project(tmp_path)
    train(runs / "like-0", 4)
    train(runs / "click-1", 10, stop_at=5)
    rows = [("m6rec", (0.7, 0.72)), ("popularity", (0.6,))]
    table = report.Table(
        title="AUC by popularity",
        metric="AUC",
        ours="m6rec",
        rows=tuple(report.Row(method=name, metrics={"AUC": values}) for name, values in rows),
    )
    for name in ("like", "retrieve"):
        made = report.Report(title=name, tables=(table,), facts={"seeds": "0, 1"})
        report.write_report(made, tmp_path / "report" / name)
    for ending in ("json", "html"):
        os.utime(tmp_path / "report" / "like" / f"report.{ending}", (1, 1))
    (tmp_path / "report" / "broken").mkdir()
    (tmp_path / "report" / "broken" / "report.json").write_text("{")

    files = ProjectFiles(device=tmp_path / "device", reports=tmp_path / "report", runs=())
    told = read_deployment(data, tmp_path / "no such run", runs / "like-0", files)
    assert [one.name for one in told.reports] == ["retrieve/report.html", "like/report.html"]
    [run] = told.runs
    assert (run.run, run.task, run.readout, run.method) == ("like-0", "like", "score", "option-adapter")
    assert run.num_parameters > 0
    assert run.validation_scores == (0.5, 0.5)
    assert (told.data.domain, told.data.split, told.data.feedback) == ("generic", "time", "values above 3")
    assert (told.data.num_events, told.data.num_items, told.data.num_users) == (60, 6, 4)
    assert told.data.columns["events"]["user"] == "user"
    [tuning] = told.tunings
    assert (tuning.run, tuning.step, tuning.num_steps) == ("click-1", 5, 20)
    assert tuning.eta_s is not None
    assert tuning.eta_s >= 0
    assert [one.title for one in told.evaluations] == ["retrieve", "like"]
    [measured] = told.evaluations[0].tables
    assert measured.verdict == table.verdict
    ours = measured.rows[0].metrics["AUC"]
    assert ours.mean == pytest.approx(0.71)
    assert ours.deviation == pytest.approx(np.std([0.7, 0.72], ddof=1))
    assert measured.rows[1].metrics["AUC"].deviation is None

    with TestClient(create_app(FakeBackend(), Settings(), deployment=lambda: told), "http://127.0.0.1") as http:
        answer = http.get("/v1/deployment").json()
    assert answer["runs"][0]["run"] == "like-0"
    assert answer["evaluations"][0]["tables"][0]["rows"][1]["metrics"] == {"AUC": {"mean": 0.6}}


def test_a_deployment_of_nothing_is_empty(http, tmp_path):
    files = ProjectFiles(device=None, reports=None, runs=())
    told = read_deployment(tmp_path, tmp_path / "a", tmp_path / "b" / "c", files)
    assert (told.runs, told.data, told.tunings, told.evaluations) == ((), None, (), ())
    assert http.get("/v1/deployment").json() == {"runs": [], "tunings": [], "evaluations": [], "reports": []}
    assert http.get("/v1/report").status_code == 404


# Reports


def test_reports_of_the_project_are_given_under_a_policy_and_nothing_else_is(tmp_path):
    _, runs = project(tmp_path)
    train(runs / "like-0", 4)
    reports = tmp_path / "report"
    made = report.Report(title="like", tables=(), facts={"<b>": "1"})
    report.write_report(made, reports / "like")
    (tmp_path / "secret.html").write_text("secret")
    (reports / "outside.html").symlink_to(tmp_path / "secret.html")
    (reports / "elsewhere").symlink_to(tmp_path)
    with (reports / "large.html").open("wb") as file:
        file.truncate(REPORT_BYTES + 1)
    files = ProjectFiles(device=None, reports=reports, runs=(runs / "like-0",))
    assert [one.name for one in files.report_files()] == ["like/report.html"]
    app = create_app(FakeBackend(), Settings(), files=lambda: files)
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as http:
        answers = [http.get(f"/v1/reports/{name}") for name in ("like/report.html", "like%2Freport.html")]
        assert {one.text for one in answers} == {(reports / "like" / "report.html").read_text()}
        drawn = http.get("/v1/report")
        assert "<svg" in drawn.text  # its learning curve
        for answer in (*answers, drawn):
            policy = answer.headers["content-security-policy"].split("; ")
            assert {"sandbox", "default-src 'none'", "frame-ancestors 'none'"} <= set(policy)
            assert not [one for one in policy if one.startswith("script-src") or "allow" in one]
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["x-content-type-options"] == "nosniff"
        for name in (
            *("", ".", "../secret.html", "..%2Fsecret.html", "%2e%2e/secret.html", "like/..%2f..%2fsecret.html"),
            *("outside.html", "elsewhere/secret.html", "large.html", "like/report.json", "like", "/etc/passwd"),
        ):
            assert http.get(f"/v1/reports/{name}").status_code == 404, name


def test_a_reload_that_fails_is_a_fault_of_the_operator(tmp_path):
    def fail():
        raise AssetError("runs/like-0 holds no tuned task")

    key = make_key(tmp_path / "keys")
    with TestClient(create_app(FakeBackend(), Settings(keys=tmp_path / "keys"), reload=fail)) as http:
        http.headers["Authorization"] = f"Bearer {key}"
        http.post("/v1/admin/reload", headers={"X-Request-Id": "r-1"})
        [fault] = http.get("/v1/status").json()["faults"]
    assert (fault["request_id"], fault["type"], fault["status"]) == ("r-1", "reload", 409)
