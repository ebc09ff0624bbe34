import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import lmdb
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m6rec.errors import ConfigError, DataError, StoreError
from m6rec.foundation.stores import seal
from m6rec.serving.histories import LmdbHistories, RedisHistories
from m6rec.types import Event
from tests.redis_server import Server

EVENTS = [Event(f"u{n % 3}", f"i{n}", 1000 - n, n / 4, "Nice.") for n in range(7)]
REAL = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"), durable=True).start()
    yield server
    server.stop()


@pytest.fixture
def server(running):
    """A server that is empty, and set as it was started."""
    with redis.Redis(port=running.port) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
    return running


@pytest.fixture
def own_server(tmp_path):
    """A server that the test may kill."""
    server = Server(tmp_path / "redis", durable=True).start()
    yield server
    server.stop()


@pytest.fixture(params=["lmdb", "redis"])
def journal(request, tmp_path):
    """Opens the same journal each time."""
    if request.param == "lmdb":
        return lambda: LmdbHistories(tmp_path / "new" / "folder")
    url = request.getfixturevalue("server").url
    return lambda: RedisHistories(url)


@pytest.fixture
def histories(journal):
    made = journal()
    yield made
    made.close()


def kept(folder):
    """The events in a folder, read by whoever comes later."""
    return list(LmdbHistories(folder).replay())


def kept_by(server):
    """The events on a server."""
    histories = RedisHistories(server.url)
    events = list(histories.replay())
    histories.close()
    return events


def test_events_come_back_in_order_of_acknowledgement(journal):
    for events in (EVENTS[3:], [], EVENTS[:3], EVENTS[:1]):
        histories = journal()
        histories.append(events)
        histories.close()
    histories = journal()
    assert list(histories.replay()) == EVENTS[3:] + EVENTS[:3] + EVENTS[:1]
    histories.close()


@given(st.lists(st.builds(Event, st.text(), st.text(), st.integers(), REAL, st.text()), max_size=4))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_event_comes_back(histories, events):
    before = len(list(histories.replay()))
    histories.append(events)
    assert list(histories.replay())[before:] == events


def test_many_events_keep_their_order(histories):
    events = [Event("u", f"i{n}", n) for n in range(2_300)]  # more than a byte counts, and than are read at once
    histories.append(events[:300])
    histories.append(events[300:])
    assert list(histories.replay()) == events


def test_threads_take_turns(histories):
    def write(user):
        for number in range(25):
            histories.append([Event(user, "i", number)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    events = list(histories.replay())
    assert len(events) == 100
    for user in "abcd":
        assert [event.time for event in events if event.user == user] == list(range(25))


@pytest.mark.parametrize(
    "wrong",
    [Event("mine", "i", 0, float("nan")), Event("mine", "i", 0, float("inf")), Event("mine", "\ud800", 0)],
    ids=["not a number", "infinite", "half a character"],
)
def test_all_events_of_a_call_or_none(histories, wrong):
    histories.append(EVENTS[:1])
    with pytest.raises(DataError, match=r"the event of user 'mine' with item .* can't be stored"):
        histories.append([EVENTS[1], wrong, EVENTS[2]])
    histories.append(EVENTS[3:4])
    assert list(histories.replay()) == [EVENTS[0], EVENTS[3]]


def test_a_replay_sees_the_moment_it_began(histories):
    histories.append(EVENTS[:2])
    replay = histories.replay()
    assert next(replay) == EVENTS[0]
    histories.append(EVENTS[2:])
    assert list(replay) == EVENTS[1:2]


WRITER = """
import sys
from pathlib import Path
from m6rec.serving.histories import LmdbHistories
from m6rec.types import Event

histories = LmdbHistories(Path(sys.argv[1]))
number = sum(1 for _ in histories.replay())
while True:
    histories.append([Event("u", str(number + n), number + n) for n in range(3)])
    number += 3
    print(number, flush=True)
"""


def test_kill_9_loses_no_acknowledged_event(tmp_path):
    acknowledged = 0
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True)
        first = int(writer.stdout.readline())
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
        lines = writer.stdout.read().splitlines()
        writer.stdout.close()
        writer.wait()
        assert first == acknowledged + 3
        last = int(lines[-1]) if lines else first
        events = kept(tmp_path)
        assert [event.time for event in events] == list(range(len(events)))
        assert len(events) in (last, last + 3)  # the call that was cut off, whole or not at all
        acknowledged = len(events)
    assert acknowledged > 12


FILLER = """
import resource, sys
from pathlib import Path
from m6rec.errors import StoreError
from m6rec.serving.histories import LmdbHistories
from m6rec.types import Event

histories = LmdbHistories(Path(sys.argv[1]))
histories.append([Event("u", "before", 0)])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, resource.RLIM_INFINITY))  # files can't grow: writes fail
try:
    for number in range(1000):
        histories.append([Event("u", "many", number, text="long " * 200)] * 5)
except StoreError as error:
    print(number, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
histories.append([Event("u", "after", 0)])
"""


def test_a_full_disk_is_told_and_survived(tmp_path):
    done = subprocess.run([sys.executable, "-c", FILLER, tmp_path], capture_output=True, text=True, check=True)
    number, error = done.stdout.split(maxsplit=1)
    assert "can't be written; is the disk full?" in error
    events = kept(tmp_path)
    assert [event.item for event in events] == ["before", *["many"] * 5 * int(number), "after"]
    assert int(number) > 0


ON_A_SMALL_DISK = """
import sys
from contextlib import suppress
from pathlib import Path
from m6rec.errors import StoreError
from m6rec.serving.histories import LmdbHistories
from m6rec.types import Event

disk = Path(sys.argv[1])
(disk / "ballast").write_bytes(bytes(200_000))
histories = LmdbHistories(disk / "one")
kept = []
while True:
    events = [Event("u", "i", len(kept), text="long " * 200)]
    try:
        histories.append(events)
    except StoreError as error:
        print(error)
        break
    kept += events
with open(disk / "rest", "wb", buffering=0) as rest, suppress(OSError):
    while True:
        rest.write(bytes(1))
try:
    LmdbHistories(disk / "two")
except StoreError as error:
    print(error)
(disk / "ballast").unlink()
for name in ("one", "two"):
    LmdbHistories(disk / name).append([Event("u", "after", 0)])
assert list(histories.replay()) == [*kept, Event("u", "after", 0)]
assert len(list(LmdbHistories(disk / "two").replay())) == 1
"""


def test_a_disk_that_is_full_to_the_last_byte(tmp_path):
    """Even to open a journal there, whose lock LMDB maps into memory, raises and doesn't kill the process."""
    inside = 'mount -t tmpfs -o size=400k none "$1" && exec "$2" -c "$3" "$1"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "mount -t tmpfs none /mnt"], check=False).returncode:
        pytest.skip("a small disk can't be made here: unshare or mount is not allowed")
    command = [*namespace, inside, "sh", tmp_path, sys.executable, ON_A_SMALL_DISK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    full, unopened = done.stdout.splitlines()
    assert "one can't be written; is the disk full?" in full
    assert re.search(r"two can't be opened \(.*No space left on device", unopened)


def test_the_size_limit_is_told_and_survived(tmp_path):
    histories = LmdbHistories(tmp_path, map_bytes=1 << 16)
    histories.append(EVENTS[:1])
    with pytest.raises(StoreError, match="is the disk full"):
        histories.append(EVENTS * 1000)
    histories.append(EVENTS[1:2])
    assert list(histories.replay()) == EVENTS[:2]


def test_a_commit_waits_for_the_disk(tmp_path):
    flags = LmdbHistories(tmp_path)._environment.flags()
    assert flags["sync"]
    assert flags["metasync"]


def rewrite(folder, change):
    """Changes the second record behind the back of ``LmdbHistories``."""
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as writing:
        key, stored = list(writing.cursor())[1]
        assert writing.put(key, change(key, stored))


def test_damage_is_told(tmp_path):
    histories = LmdbHistories(tmp_path)
    histories.append(EVENTS)
    histories.close()
    rewrite(tmp_path, lambda key, stored: stored[:-1])
    with pytest.raises(StoreError, match=r"record 0000000000000001 in .* is damaged; restore it from a backup"):
        kept(tmp_path)


def test_the_schema_is_frozen_and_checked(tmp_path):
    histories = LmdbHistories(tmp_path)
    histories.append(EVENTS[:2])
    histories.close()
    seen = []
    rewrite(tmp_path, lambda key, stored: seen.append((key, stored)) or stored)
    record = '{"schema": 1, "user": "u1", "item": "i1", "time": 999, "value": 0.25, "text": "Nice."}'
    assert seen == [(bytes(7) + b"\x01", seal(seen[0][0], record.encode()))]
    assert kept(tmp_path) == EVENTS[:2]
    later = json.dumps({**json.loads(record), "schema": 2}).encode()
    rewrite(tmp_path, lambda key, stored: seal(key, later))
    with pytest.raises(StoreError, match="has schema 2, this version reads 1; upgrade m6rec"):
        kept(tmp_path)


def test_a_folder_that_is_no_journal(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"can't be opened \(.*\)$"):
        LmdbHistories(tmp_path)


def test_a_killed_server_has_what_it_acknowledged(own_server):
    acknowledged = []

    def post(user):
        histories = RedisHistories(own_server.url)
        for number in range(10_000):
            events = [Event(user, f"i{n}", number) for n in range(3)]
            try:
                histories.append(events)
            except StoreError:
                break
            acknowledged.extend(events)
        histories.close()

    writers = [threading.Thread(target=post, args=(user,)) for user in "ab"]
    for writer in writers:
        writer.start()
    while len(acknowledged) < 100:
        time.sleep(0.005)
    own_server.stop()  # SIGKILL
    for writer in writers:
        writer.join()
    own_server.start()
    events = kept_by(own_server)
    assert set(acknowledged) <= set(events)
    assert len(events) - len(acknowledged) in (0, 3, 6)  # calls that were cut off, whole or not at all
    assert len(set(events)) == len(events)


def test_a_server_that_comes_back_takes_events_again(own_server):
    histories = RedisHistories(own_server.url)
    histories.append(EVENTS[:2])
    own_server.stop()
    with pytest.raises(StoreError, match="doesn't serve"):
        histories.append(EVENTS[2:3])
    own_server.start()
    histories.append(EVENTS[3:])
    assert list(histories.replay()) == [*EVENTS[:2], *EVENTS[3:]]
    histories.close()


def test_an_answer_that_is_lost_is_no_second_event(server, monkeypatch):
    histories = RedisHistories(server.url)
    read = redis.connection.Connection.read_response

    def lost(connection, *args, **options):
        answer = read(connection, *args, **options)
        if answer == 1:  # that of the push, the only one
            raise redis.ConnectionError("cut")
        return answer

    monkeypatch.setattr(redis.connection.Connection, "read_response", lost)
    with pytest.raises(StoreError, match="cut"):
        histories.append(EVENTS)
    monkeypatch.undo()
    assert list(histories.replay()) == EVENTS
    histories.append(EVENTS[:1])
    assert list(histories.replay()) == [*EVENTS, *EVENTS[:1]]
    histories.close()


LOSSY = [("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")]


@pytest.mark.parametrize(("name", "value"), LOSSY)
def test_a_server_that_can_lose_events_is_refused(own_server, name, value):
    """At opening, and when it has been restarted with other settings."""
    histories = RedisHistories(own_server.url)
    histories.append(EVENTS[:1])
    own_server.stop()
    own_server.start(f"--{name}", value)
    told = rf"can lose acknowledged events: its {name} is '{value}'; it must be .*redis.sh --durable"
    for use in (lambda: histories.append(EVENTS), lambda: RedisHistories(own_server.url)):
        with pytest.raises(StoreError, match=told):
            use()
    histories.close()


def test_a_full_server_refuses_and_tells_nobody_what_users_wrote(server):
    histories = RedisHistories(server.url)
    histories.append(EVENTS[:2])
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match="maxmemory") as caught:
            histories.append([Event("u", "i", 0, text="private")])
        assert "private" not in str(caught.value)
        client.config_set("maxmemory", 0)
    histories.append(EVENTS[2:])
    assert list(histories.replay()) == EVENTS
    histories.close()


def test_damage_on_the_server_is_told(server):
    histories = RedisHistories(server.url)
    histories.append(EVENTS)
    with redis.Redis(port=server.port) as client:
        kept = client.lrange("m6rec-histories", 0, -1)
        client.lset("m6rec-histories", 2, kept[2][:-1])
        with pytest.raises(StoreError, match=r"record 0000000000000002 in the list .* is damaged"):
            list(histories.replay())
        client.lset("m6rec-histories", 2, kept[2])
        client.lrem("m6rec-histories", 1, kept[4])  # one is missing in the middle
        with pytest.raises(StoreError, match=r"record 0000000000000004 in the list .* is damaged"):
            list(histories.replay())
    histories.close()


def test_a_server_that_is_none():
    with pytest.raises(StoreError, match="doesn't serve"):
        RedisHistories("redis://127.0.0.1:1/0")
    with pytest.raises(ConfigError, match="give redis://host:port/0"):
        RedisHistories("http://shop")
