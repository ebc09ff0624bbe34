import subprocess
import sys
import time
import zlib
from typing import cast

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from m6rec.errors import AssetError, ConfigError, StoreError
from m6rec.foundation import stores
from m6rec.foundation.stores import (
    CHUNK,
    FailOpenStore,
    LmdbStore,
    LRUCache,
    RedisStore,
    Store,
    add_checksum,
    strip_checksum,
)
from tests.redis_server import Server

VALUES = {b"one": b"1" * 100, b"two": b"\x00\xff", b"three": b""}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis")).start("--maxmemory", "64mb")
    yield server
    server.stop()


@pytest.fixture
def server(running):
    """A server that is empty."""
    with redis.Redis(port=running.port) as client:
        client.flushall()
    return running


@pytest.fixture
def own_server(tmp_path):
    """A server that the test may treat badly."""
    server = Server(tmp_path / "redis").start()
    yield server
    server.stop()


@pytest.fixture(params=["lmdb", "redis"])
def store(request, tmp_path):
    made = LmdbStore(tmp_path) if request.param == "lmdb" else RedisStore(request.getfixturevalue("server").url)
    yield made
    made.close()


def test_what_was_put_comes_back(store):
    assert store.get(list(VALUES)) == [None] * 3
    store.put(VALUES)
    store.put({b"one": b"anew"})
    assert store.get([b"three", b"four", b"one", b"two", b"one"]) == [b"", None, b"anew", b"\x00\xff", b"anew"]
    assert store.get([]) == []


def test_more_keys_than_a_command_takes(store):
    many = {n.to_bytes(4, "big"): bytes([n % 256]) * n for n in range(2 * CHUNK + 1)}
    store.put(many)
    assert store.get(list(many)) == list(many.values())


@given(key=st.binary(max_size=20), value=st.binary(max_size=50), data=st.data())
def test_a_damaged_value_is_absent(key, value, data):
    sealed = add_checksum(key, value)
    assert strip_checksum(key, sealed) == value
    place = data.draw(st.integers(0, len(sealed) - 1))
    flipped = sealed[:place] + bytes([sealed[place] ^ data.draw(st.integers(1, 255))]) + sealed[place + 1 :]
    assert strip_checksum(key, flipped) is None
    assert strip_checksum(key, sealed[:place]) is None
    assert strip_checksum(key + b"x", sealed) is None


def test_the_format_is_frozen():
    assert add_checksum(b"key", b"value") == b"\x01" + zlib.crc32(b"\x01keyvalue").to_bytes(4, "big") + b"value"


def test_damage_on_the_server_is_absence(server):
    store = RedisStore(server.url)
    store.put(VALUES)
    with redis.Redis(port=server.port) as client:
        assert client.setrange("m6rec:one", 50, b"x") == 105
        client.delete("m6rec:two")
        client.rpush("m6rec:two", "a list")
    assert store.get(list(VALUES)) == [None, None, b""]
    store.close()


def test_a_folder_is_shared_within_a_process_and_between_processes(tmp_path):
    one, two = LmdbStore(tmp_path), LmdbStore(tmp_path / "." / "")
    one.put(VALUES)
    one.close()
    code = (
        "import sys; from pathlib import Path; from m6rec.foundation.stores import LmdbStore;"
        "store = LmdbStore(Path(sys.argv[1])); store.put({b'four': store.get([b'two'])[0]})"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert two.get([b"one", b"four"]) == [VALUES[b"one"], VALUES[b"two"]]


def test_a_closed_store_says_so(tmp_path):
    store = stores.LmdbStore(tmp_path)
    store.put({b"key": b"value"})
    store.close()
    store.close()
    for use in (lambda: store.get([b"key"]), lambda: store.put({b"key": b"value"})):
        with pytest.raises(StoreError, match="the store is closed; open it again"):
            use()
    assert stores.FailOpenStore(store).get([b"key"]) == [None]


def test_a_folder_that_is_no_store(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(AssetError, match=r"can't be opened \(.*\); delete the folder"):
        LmdbStore(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(AssetError, match="can't be opened"):
        LmdbStore(tmp_path / "file")


def test_a_full_disk_keeps_what_was_there(tmp_path):
    environment = stores.open_environment(tmp_path, durable=False, map_bytes=1 << 16)
    with stores.transaction(environment, write=True) as writing:
        writing.put(b"old", b"1")

    def fill():
        with stores.transaction(environment, write=True) as writing:
            writing.put(b"new", b"2")
            writing.put(b"large", bytes(1 << 20))

    with pytest.raises(StoreError, match="is the disk full"):
        fill()
    with stores.transaction(environment) as reading:
        assert list(reading.cursor()) == [(b"old", b"1")]


def test_urls():
    with pytest.raises(ConfigError, match="give redis://host:port/0") as caught:
        RedisStore("http://me:secret@shop")
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there():
    server = RedisStore("redis://127.0.0.1:1/0")
    with pytest.raises(StoreError, match="doesn't serve"):
        server.get([b"one"])


def test_a_server_that_does_not_answer(own_server):
    store = RedisStore(own_server.url, timeout_s=0.1)
    store.put(VALUES)
    own_server.freeze()
    begun = time.monotonic()
    with pytest.raises(StoreError):
        store.get([b"one"])
    assert time.monotonic() - begun < 1
    own_server.thaw()
    assert store.get([b"two", b"one"]) == [VALUES[b"two"], VALUES[b"one"]]  # not the late answer
    store.close()


def test_a_server_that_comes_back(own_server):
    store = RedisStore(own_server.url)
    store.put(VALUES)
    own_server.stop()
    with pytest.raises(StoreError):
        store.put(VALUES)
    own_server.start()
    assert store.get([b"one"]) == [None]
    store.put(VALUES)
    assert store.get([b"one"]) == [VALUES[b"one"]]
    store.close()


def test_a_full_server_can_be_read(own_server):
    store = RedisStore(own_server.url)
    store.put(VALUES)
    with redis.Redis(port=own_server.port) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
    with pytest.raises(StoreError, match="maxmemory"):
        store.put({n.to_bytes(4, "big"): bytes(1 << 20) for n in range(CHUNK + 1)})
    assert store.get([b"one"]) == [VALUES[b"one"]]
    store.close()


class Broken:
    """A store that fails while it is told to."""

    def __init__(self):
        self.calls, self.broken, self.values = 0, True, {}

    def _try(self):
        self.calls += 1
        if self.broken:
            raise StoreError("it is broken")

    def get(self, keys):
        self._try()
        return [self.values.get(key) for key in keys]

    def put(self, values):
        self._try()
        self.values |= values

    def close(self):
        pass


def test_a_failing_store_is_left_alone_for_longer_and_longer(monkeypatch, caplog):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    broken = Broken()
    store = FailOpenStore(cast(Store, broken))
    tried = []
    for now in range(100):
        before = broken.calls
        assert store.get([b"key"]) == [None]
        tried += [now] * (broken.calls - before)
    assert tried == [0, 1, 3, 7, 15, 31, 61, 91]  # 1, 2, 4, 8, 16, 30, 30 s apart
    assert store.failures == 8
    assert caplog.messages[1] == "states can't be read, and are computed: it is broken; next try in 2 s"

    broken.broken = False
    store.put({b"key": b"value"})  # reads wait, writes don't
    now = 121
    assert store.get([b"key"]) == [b"value"]
    broken.broken = True
    assert store.get([b"key"]) == [None]
    now = 122  # after a success the wait is the first one again
    broken.broken = False
    assert store.get([b"key"]) == [b"value"]
    assert store.failures == 9


def test_only_failures_are_forgiven():
    class Wrong(Broken):
        def _try(self):
            raise TypeError("a mistake of ours")

    with pytest.raises(TypeError):
        FailOpenStore(cast(Store, Wrong())).get([b"key"])


@given(
    budget=st.integers(0, 12),
    steps=st.lists(st.tuples(st.sampled_from("abcde"), st.none() | st.integers(0, 14)), max_size=30),
)
def test_memory_keeps_what_was_used_last(budget, steps):
    memory, reference = LRUCache(budget), []  # reference: (key, size), the last used at the end
    for key, size in steps:
        old = [entry for entry in reference if entry[0] == key]
        reference = [entry for entry in reference if entry[0] != key]
        if size is None:
            assert memory.get(key) == (old[0][1] if old else None)
            reference += old
        else:
            memory.put(key, size, size)
            reference += [(key, size)] if size <= budget else []
            while sum(size for _, size in reference) > budget:
                del reference[0]
        assert (len(memory), memory.bytes) == (len(reference), sum(size for _, size in reference))
    assert [memory.get(key) for key, _ in reference] == [size for _, size in reference]


def test_memory_tells_its_age(monkeypatch):
    now = 10.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    memory = LRUCache(100)
    assert memory.oldest_s() == 0
    memory.put("a", 1, 1)
    now = 13.0
    memory.put("b", 1, 1)
    now = 20.0
    assert memory.oldest_s() == 10
    memory.get("a")
    assert memory.oldest_s() == 7
    with pytest.raises(ConfigError, match="-1 bytes"):
        LRUCache(-1)
