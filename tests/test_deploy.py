"""The examples of ``deploy/``, with the programs that read them."""

import configparser
import json
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import ExitStack, contextmanager
from dataclasses import fields

import httpx
import pytest
from typer.main import get_command

from m6rec import cli
from m6rec.foundation.states import CacheStatistics
from m6rec.serving.api.routes import Service
from m6rec.serving.settings import Settings
from tests import running
from tests.fake import FakeBackend

DEPLOY = running.ROOT / "deploy"

SERVE = """
import sys
from m6rec.serving.api import server
from m6rec.serving.settings import Settings
from tests.fake import FakeBackend
server.log_to_stderr()
server.serve(FakeBackend(), Settings(port=int(sys.argv[1])))
"""
BODY = {"user": "u0", "count": 3}


@contextmanager
def ended(command, **options):
    process = subprocess.Popen([str(word) for word in command], cwd=running.ROOT, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def balanced(tmp_path):
    """(the URL of the balancer, the two services behind it)."""
    ports, log = [running.free_port() for _ in range(3)], tmp_path / "log"
    with ExitStack() as stack:
        services = [
            stack.enter_context(ended([sys.executable, "-c", SERVE, port], stderr=subprocess.DEVNULL))
            for port in ports[1:]
        ]
        for port in ports[1:]:
            answers(f"http://127.0.0.1:{port}/readyz")
        with log.open("w") as output:
            command = [running.ROOT / "scripts" / "nginx.sh", tmp_path / "nginx", *ports]
            nginx = stack.enter_context(ended(command, stderr=output, stdout=output))
        answers(f"http://127.0.0.1:{ports[0]}/readyz", nginx, log)
        assert "test is successful" in log.read_text()
        yield f"http://127.0.0.1:{ports[0]}", services


def answers(url, process=None, log=None):
    until = time.monotonic() + 120  # the first time nginx is downloaded
    while time.monotonic() < until:
        if process is not None and process.poll() is not None:
            pytest.skip(f"there is no nginx: {log.read_text()[-300:]}")
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"nothing answers at {url}")


def test_behind_the_balancer_a_killed_service_fails_nobody(balanced):
    url, services = balanced
    failed, sent = [], []

    def ask(kind):
        with running.http(url) as client:
            for number in range(60):
                sent.append(number)
                if kind == "read":
                    answer = client.post("/v1/recommend", json=BODY)
                else:
                    event = {"user": "u0", "item": "i1", "time": 1, "value": 1, "id": f"{kind}-{number}"}
                    answer = client.post("/v1/events", json={"events": [event]})
                if answer.status_code not in (200, 201):
                    failed.append((kind, number, answer.status_code))
                time.sleep(0.01)

    threads = [threading.Thread(target=ask, args=[kind]) for kind in ("read", "write")]
    for thread in threads:
        thread.start()
    while len(sent) < 40:
        time.sleep(0.005)
    services[0].kill()
    for thread in threads:
        thread.join()
    assert len(sent) == 120
    assert not failed
    services[1].kill()
    assert httpx.post(f"{url}/v1/recommend", json=BODY).status_code == 502


def test_the_balancer_refuses_what_it_must(balanced):
    url, _ = balanced
    assert httpx.post(f"{url}/v1/events", content=b" " * (2 << 20)).status_code == 413
    assert httpx.post(f"{url}/v1/admin/reload").status_code == 404
    assert httpx.post(f"{url}/v1/events", json={"events": [1]}).status_code == 422  # the service's own answer


def test_the_dashboard_names_only_metrics_that_there_are():
    service = Service(
        FakeBackend(), Settings(), statistics=lambda: CacheStatistics(*[0] * len(fields(CacheStatistics)))
    )
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    metrics = service.measurements.registry.collect()
    there = {f"{metric.name}{ending}" for metric in metrics for ending in endings[metric.type]}
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    named = [re.findall(r"m6rec_\w+", query["expr"]) for panel in dashboard["panels"] for query in panel["targets"]]
    assert all(named)
    assert {name for names in named for name in names} <= there
    assert {name.removesuffix("_total") for names in named for name in names} >= {"m6rec_requests", "m6rec_cache_hits"}


def test_the_service_of_systemd_and_the_container_name_what_there_is():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read_string((DEPLOY / "m6rec.service").read_text())
    container = (DEPLOY / "Containerfile").read_text()
    words = json.loads(re.search(r"^CMD (.+)$", container, re.MULTILINE)[1])
    for command in (unit["Service"]["ExecStart"].split(), words):
        assert command[0].rpartition("/")[2] == "m6rec"
        serve = vars(get_command(cli.app))["commands"][command[1]]
        known = {option for parameter in serve.params for option in parameter.opts}
        assert {word for word in command if word.startswith("--")} <= known
    assert signal.Signals[unit["Service"]["KillSignal"]] == signal.SIGTERM
    for source in re.findall(r"^COPY (.+) \S+$", container, re.MULTILINE):
        assert all((running.ROOT / name).exists() for name in source.split())
    [extra] = re.findall(r"/source\[(\w+)\]", container)
    project = tomllib.loads((running.ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    assert (running.ROOT / project["readme"]).name in container
