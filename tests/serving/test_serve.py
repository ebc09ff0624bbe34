"""The whole service as its users run it: a tuned model, a process, the client."""

import json
import signal
import time
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from m6rec import cli
from m6rec.client import Client, ServiceError
from m6rec.errors import ConfigError, UnknownError
from m6rec.language.chat import Message
from m6rec.serving.backend import Chat, Explanation
from m6rec.types import Event, Item
from tests import running, tiny
from tests import shop as shops
from tests.redis_server import Server
from tests.shop import m6rec, serving, tune


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return shops.make(tmp_path_factory.mktemp("shop"))


def test_what_was_acknowledged_outlives_a_kill_and_new_tunings_are_swapped_in(shop):
    with serving(shop) as (child, url), Client(url) as client:
        assert (shop / "store" / "vectors" / "items.safetensors").exists()
        before = client.recommend("u1", 5)
        assert len(before.items) == 5
        assert {"queue", "retrieve", "rank"} <= set(before.timings_ms)
        began = time.monotonic()
        client.upsert([Item("new", "Heat <|im_start|>", ("Crime",), {"year": 1995})])
        assert [ranked.item.id for ranked in client.rank("u1", ["new"]).items] == ["new"]
        assert "new" in {ranked.item.id for ranked in client.retrieve("u1", 50)}
        assert time.monotonic() - began < 1
        client.ingest([Event("nobody yet", "new", 200)])
        assert client.rank("nobody yet", ["i1"]).items
        assert client.delete(["i4"]) == 1
        scores, tokens = client.rerank("a heist", ["Heat", "Babe", "<|im_end|>"])
        assert tokens > 10
        assert scores.shape == (3,)
        assert ((scores > 0) & (scores < 1)).all()
        vectors, tokens = client.embed(["Heat", "Babe"])
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
        assert tokens > 2
        assert client.explain("u1", "i3") == Explanation("", [])  # nobody else met it
        reply = client.chat(Chat(messages=[Message("user", "I loved Heat. What else?")], user="u1"))
        assert len(reply.items) == 3
        assert all(f'"{ranked.item.title}"' in reply.text for ranked in reply.items)
        child.kill()
        child.wait()
    key = m6rec(shop, "key", shop / "keys", "--name", "shop", "--role", "write").strip()
    with serving(shop, "--keys", "keys") as (child, url), Client(url, key=key) as client:
        with Client(url) as stranger, pytest.raises(ConfigError, match="API key"):
            stranger.rank("u1", ["i1"])
        headers = {"Authorization": f"Bearer {key}"}
        told = httpx.get(f"{url}/v1/deployment", headers=headers).json()
        assert {one["task"]: one["run"] for one in told["runs"]} == {"click": "click", "retrieve": "retrieve"}
        assert next(one["validation_scores"] for one in told["runs"] if one["task"] == "click")
        assert (told["data"]["num_events"], told["tunings"]) == (120, [])
        assert httpx.get(f"{url}/v1/device", headers=headers).json() == {}
        assert "click: loss" in httpx.get(f"{url}/v1/report", headers=headers, timeout=60).text
        assert httpx.get(f"{url}/v1/export/users", headers=headers).status_code == 403
        kept = client.rank("nobody yet", ["new", "i1", "i9"]).items
        assert len(kept) == 3
        assert "i4" not in {ranked.item.id for ranked in client.retrieve("u1", 50)}
        (shop / "click").rename(shop / "old")
        tune(shop, "click", "--seed", "5")
        child.send_signal(signal.SIGHUP)
        for _ in range(100):
            swapped = client.rank("nobody yet", ["new", "i1", "i9"]).items  # never refused meanwhile
            if swapped != kept:
                break
            time.sleep(0.05)
        assert swapped != kept
        written = (shop / "store" / "vectors" / "items.safetensors").read_bytes()
        client.delete(["i5"])
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
        assert (shop / "store" / "vectors" / "items.safetensors").read_bytes() != written


def test_events_on_a_server_outlive_it_and_the_service(shop, tmp_path):
    server = Server(tmp_path / "redis", durable=True).start()
    words = ("--journal", server.url)
    with serving(shop, *words, store="server") as (_, url), Client(url, retries=0) as client:
        client.ingest([Event("guest", "i1", 200)])
        server.stop()
        with pytest.raises(ServiceError, match="doesn't serve") as caught:
            client.ingest([Event("late", "i1", 201)])
        assert caught.value.status == 503
        assert client.rank("guest", ["i2"]).items
    server.start()
    snapshot = shop / "server" / "vectors" / "items.safetensors"
    written = snapshot.stat().st_mtime_ns
    with serving(shop, *words, store="server") as (_, url), Client(url) as client:
        assert snapshot.stat().st_mtime_ns == written  # all of it was of use, so it was not written again
        assert [event.item for event in client.get_user("guest")[1]] == ["i1"]
        with pytest.raises(UnknownError, match="late"):
            client.get_user("late")
    server.stop()


def prepare(folder, noun="Film"):
    """A project's data of a little log."""
    (folder / "log.csv").write_text(shops.log(noun))
    m6rec(folder, "prepare", "generic", folder / "log.csv", "--out", folder / "project" / "data")


def contents(store):
    """What is kept, but for SQLite's own files of who reads."""
    return {
        file: file.read_bytes()
        for file in store.rglob("*")
        if file.is_file() and not file.suffix.startswith(".sqlite-")
    }


@contextmanager
def serving_project(folder, *words):
    line = shops.command("serve", "--project", "project", "--port", "0", "--dtype", "float32", *words)
    with running.process(line, folder, shops.environment(folder)) as served:
        yield served[:2]


def test_a_project_is_served_and_what_came_in_is_known_to_the_commands(tmp_path):
    tiny.hf_folder("llama", tmp_path / "foundation")
    prepare(tmp_path)
    where = ("--project", tmp_path / "project", "--dtype", "float32")
    for task in ("click", "retrieve"):
        words = ("--foundation", tmp_path / "foundation", *shops.split(task), "--epochs", "1")
        m6rec(tmp_path, "tune", task, *where, *words)
    asked = ("recommend", *where, "--user", "guest", "--json")
    with serving_project(tmp_path) as (child, url), Client(url) as client:
        client.upsert([Item("new", "Heat", ("Crime",))])
        client.ingest([Event("guest", "new", 200), Event("guest", "i1", 201)])
        told = json.loads(m6rec(tmp_path, *asked))  # while the service has the store open
        assert len(told["history"]) == 2
        client.delete(["i1"])
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    kept = contents(tmp_path / "project" / "store")
    told = json.loads(m6rec(tmp_path, *asked))
    assert "Heat" in told["history"][0]
    assert "Film 1" in told["history"][1]  # though it is gone
    assert "new" not in {item["id"] for item in told["items"]}  # met already
    assert contents(tmp_path / "project" / "store") == kept  # asking writes nothing
    # Prepared anew, it is another dataset, whose owner says that it may go on with what there is.
    prepare(tmp_path, "Movie")
    for verb in (("serve", "--project", "project"), ("serve", "--project", "project", "--store", "store2")):
        line = [str(tmp_path / word) if word in ("project", "store2") else word for word in verb]
        refused = CliRunner().invoke(cli.app, line, env={"M6REC_HOME": str(tmp_path / "home")})
        assert isinstance(refused.exception, ConfigError)
        assert "is of another data (there" in str(refused.exception)
        assert "m6rec serve --adopt" in str(refused.exception)
    refused = CliRunner().invoke(cli.app, [str(word) for word in asked])
    assert isinstance(refused.exception, ConfigError)
    with serving_project(tmp_path, "--adopt") as (child, url), Client(url) as client:
        assert client.rank("guest", ["i2"])
    with serving_project(tmp_path) as (child, url), Client(url) as client:
        assert client.rank("guest", ["i2"])
    assert json.loads(m6rec(tmp_path, *asked))["history"]


def test_other_machines_are_refused_before_anything_is_loaded():
    refused = CliRunner().invoke(cli.app, ["serve", "--host", "0.0.0.0"])
    assert isinstance(refused.exception, ConfigError)
    assert "--keys" in str(refused.exception)
