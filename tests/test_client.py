import inspect
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from m6rec.client import Client, ServiceError
from m6rec.errors import ConfigError, UnknownError
from m6rec.language.chat import Message
from m6rec.serving.backend import Backend, Chat, Filters, IngestResult, InspectRequest, RankRequest, Request
from m6rec.serving.journal import FileJournal
from m6rec.serving.settings import make_key
from m6rec.types import Event, Item
from tests import lossy, running
from tests.fake import FakeBackend


@pytest.fixture(scope="module")
def both():
    """A client, and the backend behind its service."""
    backend = FakeBackend()
    with running.service(backend) as url, Client(url) as client:
        yield client, backend


def test_a_client_answers_as_the_backend_does(both):
    client, backend = both
    filters = Filters(categories=("Drama",), exclude=frozenset({"i3"}), ranges={"n": (4, float("inf"))})
    assert (
        client.recommend("u0", 3, offset=1, filters=filters).items
        == backend.recommend("u0", 3, offset=1, filters=filters).items
    )
    assert {"queue", "retrieve", "rank"} == set(client.recommend("u0").timings_ms)
    assert client.retrieve("u1", 5) == backend.retrieve("u1", 5)
    assert client.rank("u1", ["i5", "i2"]).items == backend.rank("u1", ["i5", "i2"]).items
    requests = [RankRequest(user="u0", items=("i1",)), RankRequest(user="u1", items=("i3", "i2"))]
    assert [a.items for a in client.rank_many(requests)] == [a.items for a in backend.rank_many(requests)]
    done = (
        Event("u9", "i3", 7, None, kind="view", context=(("device", "phone"), ("hour", 9))),
        Event("u9", "i4", 0, 2.0),
    )
    assert client.rank("u9", ["i5", "i99"], history=done).unknown == ("i99",)
    assert backend.asked == [RankRequest(user="u9", items=("i5", "i99"), history=done)]
    assert client.recommend("u9", 2, history=done).items == backend.recommend("u9", 2, history=done).items
    wanted = [Request(user="u0", count=2, offset=1), Request(user="u1")]
    assert [a.items for a in client.recommend_many(wanted)] == [a.items for a in backend.recommend_many(wanted)]
    assert client.explain("u1", "i3", history=done) == backend.explain("u1", "i3")
    assert client.retrieve("u1", 5, history=done, source="popular") == backend.retrieve("u1", 5)
    assert client.neighbours("i3", 4, by="behaviour") == backend.neighbours("i3", 4, by="behaviour")
    assert client.neighbours(Item("new", "New", ("Noir",), {"n": 1}), 4) == backend.neighbours(Item("new", "New"), 4)
    for item in ("", "i3"):
        asked = InspectRequest(user="u9", item=item, filters=filters, history=done)
        assert client.inspect(asked) == backend.inspect(asked)
    assert client.find_items("film 1", 3) == backend.find_items("film 1", 3)
    assert client.find_items(ids=["i3", "a&b"]) == backend.find_items(ids=["i3"])
    assert client.find_users("u", 2) == backend.find_users("u", 2)
    assert [client.get_item(item) for item in ("i1", "i2")] == [backend.get_item(item) for item in ("i1", "i2")]
    for given in ({"kind": "design", "count": 2, "catalogue": True}, {"kind": "headline", "item": "i3"}):
        assert client.create("u1", **given) == backend.create("u1", **given)
    documents = ["xyz", "snow", "so"]
    for found, expected in zip(client.rerank("snow", documents), backend.rerank("snow", documents), strict=True):
        np.testing.assert_array_equal(found, expected)
    vectors, tokens = client.embed(["a", "bcd"])
    expected, expected_tokens = backend.embed(["a", "bcd"])
    np.testing.assert_array_equal(vectors, expected)
    assert (vectors.dtype, tokens) == (np.float32, expected_tokens)


def test_a_client_talks_as_the_backend_does(both):
    client, backend = both
    chat = Chat(messages=[Message("user", "Anything?")], user="u0", stops=("never",))
    assert client.chat(chat) == backend.chat(chat)
    assert list(client.stream(chat)) == list(backend.stream(chat))
    with pytest.raises(ServiceError, match="the service failed"):
        client.chat(Chat(messages=[Message("user", "break")]))
    with pytest.raises(ConfigError, match="messages"):
        client.chat(Chat(messages=[]))


def test_what_a_client_writes_is_there(both):
    client, backend = both
    item, event = Item("n/1 ?", "Ünïcode", ("Noir",), {"year": 1999}), Event("u9", "i1", 7, 4.5, "fine")
    client.upsert([item])
    client.ingest([event])
    assert backend.items["n/1 ?"] == item
    assert replace(backend.events[-1], id="") == event
    assert client.delete(["n/1 ?", "never"]) == 1
    assert "n/1 ?" not in backend.items


def test_it_has_the_methods_of_a_backend():
    for name, method in inspect.getmembers(Backend, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(Client, name)) == inspect.signature(method), name


def test_refusals_are_the_errors_of_the_house(both):
    client, _ = both
    with pytest.raises(UnknownError, match=r"nobody.*request [0-9a-f]{32}"):
        client.explain("nobody", "i1")
    with pytest.raises(ConfigError, match="count"):
        client.recommend("u0", 0)
    with pytest.raises(ConfigError, match="JSON"):
        client.rank("u0", [float("nan")])


def test_a_key_opens_the_door(tmp_path):
    key = make_key(tmp_path / "keys")
    with running.service(FakeBackend(), keys=tmp_path / "keys") as url:
        with Client(url) as client, pytest.raises(ConfigError, match="API key"):
            client.rank("u0", ["i1"])
        with Client(url, key=key) as client:
            assert len(client.rank("u0", ["i1"]).items) == 1


def test_nobody_there_is_told():
    with Client("http://127.0.0.1:9", retries=0) as client, pytest.raises(ServiceError, match="m6rec serve"):
        client.rank("u0", ["i1"])


@pytest.fixture
def busy():
    """A server that refuses as it is told: (status, Retry-After) pairs, the last one for ever."""
    refusals, times = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            times.append(time.monotonic())
            status, after = refusals.pop(0) if len(refusals) > 1 else refusals[0]
            body = b'{"items": [], "timings_ms": {}, "unknown": []}' if status == 200 else b"busy"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if after:
                self.send_header("Retry-After", after)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", refusals, times
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_waits_as_long_as_it_is_asked_and_tries_again(busy):
    url, refusals, times = busy
    refusals += [(429, "1"), (503, "0"), (200, "")]
    with Client(url) as client:
        assert client.rank("u0", ["i1"]).items == []
    assert len(times) == 3
    assert 1 <= times[1] - times[0] < 2
    assert times[2] - times[1] < 0.5


def test_it_gives_up_and_never_waits_longer_than_its_bound(busy):
    url, refusals, times = busy
    refusals += [(429, "3600")]
    with Client(url, retries=2, max_wait_s=0.1) as client, pytest.raises(ServiceError) as caught:
        client.rank("u0", ["i1"])
    assert caught.value.status == 429
    assert len(times) == 3
    assert times[2] - times[0] < 1


def test_a_lost_answer_is_no_second_event(tmp_path):
    """Whether the request or its answer gets lost, the event counts once, and twice where it happened twice."""
    journal = FileJournal(tmp_path)
    backend = FakeBackend(journal)
    with running.service(backend) as url, lossy.proxy(url, ["answer", "request", "answer", "none"]) as cut:
        event = Event("u0", "i1", 7, 4.5)
        with Client(cut, max_wait_s=0.05) as client:
            assert client.ingest([event]) == IngestResult(0, repeated=1)
            assert client.ingest([event]) == IngestResult(1)
            assert [replace(kept, id="") for kept in journal.replay()] == [event] * 2
            assert backend.events == list(journal.replay())


@pytest.mark.parametrize("lost", ["answer", "request"])
def test_all_writes_are_sent_again(lost):
    backend = FakeBackend()
    losses = [lost, "none"] * 5
    with running.service(backend) as url, lossy.proxy(url, losses) as cut, Client(cut, max_wait_s=0.05) as client:
        client.upsert([Item("new", "New")])
        assert backend.items["new"] == Item("new", "New")
        client.delete(["new"])
        assert "new" not in backend.items
        client.ingest([Event("u0", "i1", 7)])


READ, WRITE = (lambda client: client.rank("u0", ["i1"])), (lambda client: client.ingest([Event("u0", "i1", 7)]))


@pytest.mark.parametrize(("losses", "ask"), [(["answer", "none"], READ), (["answer"], WRITE)])
def test_what_reads_is_not_sent_again_and_an_end_is_told(losses, ask):
    with running.service(FakeBackend()) as url, lossy.proxy(url, losses) as cut:
        client = Client(cut, max_wait_s=0.01)
        with pytest.raises(ServiceError, match="doesn't answer"):
            ask(client)
        client.close()


def test_a_404_of_somebody_else_is_no_unknown_id(busy):
    url, refusals, _ = busy
    refusals += [(404, "")]
    with Client(url) as client, pytest.raises(ConfigError, match="check the URL"):
        client.rank("u0", ["i1"])


def test_other_failures_are_not_tried_again(busy):
    url, refusals, times = busy
    refusals += [(500, "0")]
    with Client(url) as client, pytest.raises(ServiceError, match="500"):
        client.rank("u0", ["i1"])
    assert len(times) == 1


def test_a_client_needs_neither_torch_nor_the_web_framework():
    code = "import sys, m6rec.client; print([m for m in ('torch', 'faiss', 'fastapi', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=running.ROOT)
    assert done.stdout.strip() == "[]"
