import contextlib
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m6rec.errors import ConfigError, DataError, StoreError
from m6rec.foundation.stores import add_checksum
from m6rec.serving.journal import FileJournal, held, later, open_journal
from m6rec.serving.redis_journal import RedisJournal
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


@pytest.fixture(params=["file", "redis"])
def reopen(request, tmp_path):
    """Opens the same journal each time."""
    if request.param == "file":
        return lambda: FileJournal(tmp_path / "new" / "folder")
    url = request.getfixturevalue("server").url
    return lambda: RedisJournal(url)


@pytest.fixture
def journal(reopen):
    made = reopen()
    yield made
    made.close()


def kept(folder):
    """The events in a folder, read by whoever comes later."""
    return list(FileJournal(folder).replay())


def kept_by(server):
    """The events on a server."""
    journal = RedisJournal(server.url)
    events = list(journal.replay())
    journal.close()
    return events


def test_events_come_back_in_order_of_acknowledgement(reopen):
    for events in (EVENTS[3:], [], EVENTS[:3]):
        journal = reopen()
        assert journal.append(events) == [True] * len(events)
        journal.close()
    journal = reopen()
    assert list(journal.replay()) == EVENTS[3:] + EVENTS[:3]
    journal.close()


CONTEXT = st.lists(st.tuples(st.text(), st.text() | st.integers() | REAL), max_size=2).map(tuple)
ANY = st.builds(Event, st.text(), st.text(), st.integers(), REAL, st.text(), st.text(), st.text(), CONTEXT)


@given(st.lists(ANY, max_size=4, unique_by=lambda event: (event.user, event.item, event.time)))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_event_comes_back(journal, events):
    events = [replace(event, id=uuid.uuid4().hex) for event in events]
    before = len(list(journal.replay()))
    assert journal.append(events) == [True] * len(events)
    assert list(journal.replay())[before:] == events


def test_many_events_keep_their_order(journal):
    events = [Event("u", f"i{n}", n) for n in range(2_300)]  # more than a byte counts, and than are read at once
    journal.append(events[:300])
    journal.append(events[300:])
    assert list(journal.replay()) == events


def test_threads_take_turns(journal):
    def write(user):
        for number in range(25):
            journal.append([Event(user, "i", number)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    events = list(journal.replay())
    assert len(events) == 100
    for user in "abcd":
        assert [event.time for event in events if event.user == user] == list(range(25))


@pytest.mark.parametrize(
    "wrong",
    [Event("mine", "i", 0, float("nan")), Event("mine", "i", 0, float("inf")), Event("mine", "\ud800", 0)],
    ids=["not a number", "infinite", "half a character"],
)
def test_all_events_of_a_call_or_none(journal, wrong):
    journal.append(EVENTS[:1])
    with pytest.raises(DataError, match=r"the event of user 'mine' with item .* can't be stored"):
        journal.append([EVENTS[1], wrong, EVENTS[2]])
    journal.append(EVENTS[3:4])
    assert list(journal.replay()) == [EVENTS[0], EVENTS[3]]


def test_a_replay_sees_the_moment_it_began(journal):
    journal.append(EVENTS[:2])
    replay = journal.replay()
    assert next(replay) == EVENTS[0]
    journal.append(EVENTS[2:])
    assert list(replay) == EVENTS[1:2]


WRITER = """
import sys
from pathlib import Path
from m6rec.serving.journal import FileJournal
from m6rec.types import Event

journal = FileJournal(Path(sys.argv[1]))
number = sum(1 for _ in journal.replay())
while True:
    journal.append([Event("u", str(number + n), number + n) for n in range(3)])
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
from m6rec.serving.journal import FileJournal
from m6rec.types import Event

journal = FileJournal(Path(sys.argv[1]))
journal.append([Event("u", "before", 0)])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, resource.RLIM_INFINITY))  # files can't grow: writes fail
try:
    for number in range(1000):
        journal.append([Event("u", "many", n, text="long " * 200) for n in range(5 * number, 5 * number + 5)])
except StoreError as error:
    print(number, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append([Event("u", "after", 0)])
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
from m6rec.serving.journal import FileJournal
from m6rec.types import Event

disk = Path(sys.argv[1])
(disk / "ballast").write_bytes(bytes(200_000))
journal = FileJournal(disk / "one")
kept = []
while True:
    events = [Event("u", "i", len(kept), text="long " * 200)]
    try:
        journal.append(events)
    except StoreError as error:
        print(error)
        break
    kept += events
with open(disk / "rest", "wb", buffering=0) as rest, suppress(OSError):
    while True:
        rest.write(bytes(1))
try:
    FileJournal(disk / "two")
except StoreError as error:
    print(error)
(disk / "ballast").unlink()
for name in ("one", "two"):
    FileJournal(disk / name).append([Event("u", "after", 0)])
assert list(journal.replay()) == [*kept, Event("u", "after", 0)]
assert len(list(FileJournal(disk / "two").replay())) == 1
"""


def test_a_disk_that_is_full_to_the_last_byte(tmp_path):
    """Even to open a journal there, of which SQLite maps a file into memory, raises and doesn't kill the process."""
    inside = 'mount -t tmpfs -o size=400k none "$1" && exec "$2" -c "$3" "$1"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "mount -t tmpfs none /mnt"], check=False).returncode:
        pytest.skip("a small disk can't be made here: unshare or mount is not allowed")
    command = [*namespace, inside, "sh", tmp_path, sys.executable, ON_A_SMALL_DISK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    full, unopened = done.stdout.splitlines()
    assert "one/journal.sqlite can't be written; is the disk full?" in full
    assert re.search(r"two/journal.sqlite can't be opened \(.*(disk is full|I/O error)", unopened)


def test_a_commit_waits_for_the_disk(tmp_path):
    with FileJournal(tmp_path)._database.transaction() as reading:
        assert reading.execute("PRAGMA synchronous").fetchone() == (2,)


def rewrite(folder, change):
    """Changes the second record behind the back of ``FileJournal``."""
    with contextlib.closing(sqlite3.connect(folder / "journal.sqlite", isolation_level=None)) as connection:
        number, content, sealed = list(connection.execute("SELECT number, content, sealed FROM event"))[1]
        connection.execute("UPDATE event SET sealed = ? WHERE number = ?", (change(content, sealed), number))


def test_damage_is_told(tmp_path):
    journal = FileJournal(tmp_path)
    journal.append(EVENTS)
    journal.close()
    rewrite(tmp_path, lambda key, stored: stored[:-1])
    with pytest.raises(StoreError, match=r"record [0-9a-f]{32} in .* is damaged; restore it from a backup"):
        kept(tmp_path)
    (tmp_path / "journal.sqlite").write_bytes(bytes(4096))
    with pytest.raises(StoreError, match="can't be opened"):
        kept(tmp_path)


RECORD = '{"schema": 1, "user": "u1", "item": "i1", "time": 999, "value": 0.25, "text": "Nice."'


def test_the_schema_is_frozen_and_checked(tmp_path):
    journal = FileJournal(tmp_path)
    journal.append(EVENTS[:2])
    journal.close()
    seen = []
    rewrite(tmp_path, lambda key, stored: seen.append((key, stored)) or stored)
    record = RECORD + ', "kind": "", "impression": "", "context": [], "id": ""}'
    assert seen == [(seen[0][0], add_checksum(seen[0][0], record.encode()))]
    assert kept(tmp_path) == EVENTS[:2]
    later = json.dumps({**json.loads(record), "schema": 2}).encode()
    rewrite(tmp_path, lambda key, stored: add_checksum(key, later))
    with pytest.raises(StoreError, match="has schema 2, this version reads 1; upgrade m6rec"):
        kept(tmp_path)


def old_records(count):
    """(key, stored) as earlier versions kept events."""
    for number, event in enumerate(EVENTS[:count]):
        key = number.to_bytes(8, "big")
        fields = {"user": event.user, "item": event.item, "time": event.time, "value": event.value, "text": event.text}
        yield key, add_checksum(key, json.dumps({"schema": 1, **fields}, ensure_ascii=False).encode())


def test_a_journal_of_an_earlier_version_is_read_on(tmp_path):
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as writing:
        for key, record in old_records(5):
            writing.put(key, record)
    assert RECORD.encode() in (tmp_path / "data.mdb").read_bytes()
    journal = FileJournal(tmp_path)
    assert list(journal.replay()) == EVENTS[:5]
    assert journal.append(EVENTS) == [False] * 5 + [True] * 2
    assert list(FileJournal(tmp_path).replay()) == EVENTS
    assert not (tmp_path / "data.mdb").exists()


def test_a_list_of_an_earlier_version_is_read_on(server):
    with redis.Redis(port=server.port) as client:
        for _, record in old_records(5):
            client.rpush("m6rec-histories", record)
        assert kept_by(server) == kept_by(server) == EVENTS[:5]
        assert not client.exists("m6rec-histories")


def test_a_folder_that_is_no_journal(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"can't be opened \(.*\)$"):
        FileJournal(tmp_path)


def test_a_killed_server_has_what_it_acknowledged(own_server):
    acknowledged = []

    def post(user):
        journal = RedisJournal(own_server.url)
        for number in range(10_000):
            events = [Event(user, f"i{n}", number) for n in range(3)]
            try:
                journal.append(events)
            except StoreError:
                break
            acknowledged.extend(events)
        journal.close()

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
    journal = RedisJournal(own_server.url)
    journal.append(EVENTS[:2])
    own_server.stop()
    with pytest.raises(StoreError, match="doesn't serve"):
        journal.append(EVENTS[2:3])
    own_server.start()
    journal.append(EVENTS[3:])
    assert list(journal.replay()) == [*EVENTS[:2], *EVENTS[3:]]
    journal.close()


def test_an_answer_that_is_lost_is_no_second_event(server, monkeypatch):
    """What is sent again is new to who sends it, and kept once: it could not be taken in before."""
    journal = RedisJournal(server.url)
    execute = redis.client.Pipeline.execute

    def lost(pipe):
        execute(pipe)
        raise redis.ConnectionError("cut")

    monkeypatch.setattr(redis.client.Pipeline, "execute", lost)
    with pytest.raises(StoreError, match="cut"):
        journal.append(EVENTS)
    monkeypatch.undo()
    assert journal.append(EVENTS[:3]) == [True] * 3
    assert journal.append(EVENTS) == [False] * 3 + [True] * 4
    assert journal.append(EVENTS) == [False] * 7
    assert list(journal.replay()) == EVENTS
    journal.close()


def test_an_answer_that_is_lost_on_the_way_is_asked_for_again(server, monkeypatch):
    """The client library can't tell a lost answer from somebody else's write."""
    journal = RedisJournal(server.url)
    read, cuts = redis.connection.Connection.read_response, []

    def lost(connection, *args, **options):
        answer = read(connection, *args, **options)
        if isinstance(answer, list) and answer[1:] == [7, 7] and not cuts:  # that of the transaction
            cuts.append(answer)
            raise redis.ConnectionError("cut")
        return answer

    monkeypatch.setattr(redis.connection.Connection, "read_response", lost)
    assert journal.append(EVENTS) == [True] * 7
    assert len(cuts) == 1
    assert journal.append(EVENTS) == [False] * 7
    assert list(journal.replay()) == EVENTS
    journal.close()


LOSSY = [("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")]


@pytest.mark.parametrize(("name", "value"), LOSSY)
def test_a_server_that_can_lose_events_is_refused(own_server, name, value):
    """At opening, and when it has been restarted with other settings."""
    journal = RedisJournal(own_server.url)
    journal.append(EVENTS[:1])
    own_server.stop()
    own_server.start(f"--{name}", value)
    told = rf"can lose acknowledged events: its {name} is '{value}'; it must be .*redis.sh --durable"
    for use in (lambda: journal.append(EVENTS), lambda: RedisJournal(own_server.url)):
        with pytest.raises(StoreError, match=told):
            use()
    journal.close()


def test_a_full_server_refuses_and_tells_nobody_what_users_wrote(server):
    journal = RedisJournal(server.url)
    journal.append(EVENTS[:2])
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match="maxmemory") as caught:
            journal.append([Event("u", "i", 0, text="private")])
        assert "private" not in str(caught.value)
        client.config_set("maxmemory", 0)
    journal.append(EVENTS[2:])
    assert list(journal.replay()) == EVENTS
    journal.close()


def test_damage_on_the_server_is_told(server):
    journal = RedisJournal(server.url)
    journal.append(EVENTS)
    with redis.Redis(port=server.port) as client:
        kept = client.hget("m6rec:journal", "3")
        client.hset("m6rec:journal", "3", kept[:-1])
        with pytest.raises(StoreError, match=r"record [0-9a-f]{32} in the Redis server is damaged"):
            list(journal.replay())
        client.hset("m6rec:journal", "3", client.hget("m6rec:journal", "2")[:48] + kept[48:])
        with pytest.raises(StoreError, match=r"record [0-9a-f]{32} in the Redis server is damaged"):
            list(journal.replay())
    journal.close()


def test_an_event_counts_once_however_often_it_is_written(reopen):
    """By its id, or where it has none by its content."""
    journal = reopen()
    view, cart = Event("u", "i", 7, 1.0, kind="view"), Event("u", "i", 7, kind="cart")
    assert journal.append([view, cart, view]) == [True, True, False]
    assert journal.append([view] * 6) == [False] * 6
    twice = [replace(view, id="a"), replace(view, id="b")]  # two clicks within one second
    assert journal.append([*twice, *twice]) == [True, True, False, False]
    assert journal.append([replace(view, value=1), replace(view, impression="x")]) == [False, False]
    journal.close()
    journal = reopen()
    assert journal.append([view, cart, *twice]) == [False] * 4
    assert list(journal.replay()) == [view, cart, *twice]
    journal.close()


def test_an_id_of_another_event_is_refused(journal):
    journal.append([Event("u", "i", 7, id="mine")])
    with pytest.raises(DataError, match=r"the id 'mine' of the event of user 'v' .* belongs to another event"):
        journal.append([Event("w", "i", 7), Event("v", "i", 7, id="mine")])
    assert list(journal.replay()) == [Event("u", "i", 7, id="mine")]


def test_several_writers_of_the_same_events(reopen):
    journals = [reopen() for _ in range(4)]
    events = [Event("u", "i", number, id=str(number)) for number in range(40)]

    def write(journal):
        return [journal.append(events[first : first + 4]) for first in range(0, 40, 4)]

    with ThreadPoolExecutor(4) as pool:
        fresh = list(pool.map(write, journals))
    assert list(journals[0].replay()) == events
    for number in range(10):
        assert sorted(one[number] for one in fresh) == [[False] * 4] * 3 + [[True] * 4]
    for journal in journals:
        journal.close()


ADA = [Event("ada@example.org", f"i{n}", 100 + n, 5.0, f"Poetical science {n}", id=f"ada-{n}") for n in range(3)]


@pytest.fixture
def bytes_on_disk(journal, tmp_path, request):
    """Tells all bytes that a journal has on disk."""
    folder = tmp_path if isinstance(journal, FileJournal) else Path(request.getfixturevalue("server").folder)
    return lambda: b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_a_forgotten_user_leaves_no_byte(reopen, journal, bytes_on_disk):
    others = [Event(f"u{n}", "i", n, text="long " * 50) for n in range(300)]
    journal.append(others[:200])
    journal.append(ADA)
    journal.append(others[200:])
    assert b"ada@example.org" in bytes_on_disk()
    assert journal.forget("ada@example.org")
    assert not re.search(rb"(?i)ada@|ada-\d|poetical", bytes_on_disk())
    assert list(journal.replay()) == others
    assert not journal.forget("ada@example.org")
    assert not journal.forget("nobody")
    later = reopen()
    assert list(later.replay()) == others
    assert later.forgotten(["u1", "ada@example.org", "nobody"]).keys() == {"ada@example.org", "nobody"}
    later.close()


def test_a_forgotten_user_comes_back_only_when_readmitted(journal):
    journal.append(ADA[:2])
    journal.forget("ada@example.org")
    assert journal.append([*ADA, EVENTS[0]]) == [False, False, False, True]
    journal.readmit("ada@example.org")
    assert journal.append([ADA[2], ADA[2]]) == [True, False]
    assert list(journal.replay()) == [EVENTS[0], ADA[2]]
    (when,) = journal.forgotten(["ada@example.org", "u1"]).values()  # what a log holds from before stays out
    assert abs(when - time.time()) < 60


def test_what_a_log_holds_is_dropped_and_does_not_come_back(journal, bytes_on_disk):
    journal.append([*EVENTS, *ADA])
    log = [*EVENTS[:4], replace(ADA[0], id=""), ADA[1]]
    assert list(later(journal, log)) == [*EVENTS[4:], ADA[2]]
    size = len(bytes_on_disk())
    assert journal.compact(log) == 6
    assert len(bytes_on_disk()) <= size
    assert b"science 0" not in bytes_on_disk()
    assert list(journal.replay()) == [*EVENTS[4:], ADA[2]]
    assert journal.append([*EVENTS, *ADA]) == [False] * 10
    assert journal.compact(log) == 0
    assert journal.forget("ada@example.org")
    journal.readmit("ada@example.org")
    assert journal.append(ADA) == [True] * 3


def test_two_clicks_of_one_second_are_not_one_in_the_log():
    first, second = Event("u", "i", 7, id="a"), Event("u", "i", 7, id="b")
    assert held([first, second, replace(first, id="")], [first]) == [True, False, True]
    assert held([first, second], [replace(first, id="")]) == [True, True]
    assert held([first], []) == [False]


def test_a_place_names_its_journal(tmp_path, server):
    for where, kind in ((tmp_path, FileJournal), (server.url, RedisJournal)):
        journal = open_journal(where)
        assert isinstance(journal, kind)
        journal.close()


def test_a_server_that_is_none():
    with pytest.raises(StoreError, match="doesn't serve"):
        RedisJournal("redis://127.0.0.1:1/0")
    with pytest.raises(ConfigError, match="give redis://host:port/0"):
        RedisJournal("http://shop")


def test_events_of_one_call_are_compared_with_each_other_too(journal):
    named, nameless = Event("u", "i", 1, id="x"), Event("u", "i", 1)
    assert journal.append([named, nameless, named]) == [True, False, False]
    journal.forget("gone")
    assert journal.append(
        [Event("gone", "i", 1, id="y"), Event("v", "i", 2, id="y"), Event("gone", "i", 3, id="y")]
    ) == [
        False,
        True,
        False,
    ]
