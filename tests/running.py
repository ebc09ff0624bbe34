"""A service on a real socket: in a thread of the tests, or as a process of its own."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from m6rec.serving.api.app import create_app
from m6rec.serving.api.server import Server, bind
from m6rec.serving.settings import Settings

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def service(backend, **options) -> Iterator[str]:
    """Serves a backend from a thread; yields its URL. Options are those of ``create_app``, and settings."""
    passed = {name: options.pop(name, None) for name in ("reload", "statistics", "deployment", "files")}
    settings = Settings(port=0, **options)
    server, listener = Server(create_app(backend, settings, **passed)), bind(settings)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.005)  # a socket that is bound but does not listen yet refuses
        yield url
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def process(
    command: list[str], folder: Path, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen, str, list[str]]]:
    """A process that serves at port 0; yields it, its URL and what it logs."""
    child = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lines.extend, args=(child.stderr,))
    try:
        while '"listening"' not in (line := child.stderr.readline()):
            assert line.startswith("{"), line + child.stderr.read()
            lines.append(line)
        reader.start()
        yield child, f"http://127.0.0.1:{json.loads(line)['port']}", lines
    finally:
        child.kill()
        child.wait()
        if reader.ident:
            reader.join()
        child.stderr.close()


@contextmanager
def http(url: str) -> Iterator[httpx.Client]:
    """Plain HTTP to a service, as any client would speak it."""
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client
