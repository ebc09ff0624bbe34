"""The examples of ``deploy/``, with the programs that read them."""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests import running

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
