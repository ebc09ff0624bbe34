"""A backup is a state that was, whole and checked, and a project restored of it is in that state."""

import shutil
import signal
import subprocess
import threading
import time
from contextlib import closing

import pytest

from m6rec.errors import ConfigError, StoreError
from m6rec.project import Project
from m6rec.serving import backup
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.journal import open_journal
from m6rec.types import Event, Item, User
from tests import redis_server, shop


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "log.csv").write_text(shop.log())
    shop.m6rec(folder, "prepare", "generic", folder / "log.csv", "--out", folder / "shop" / "data")
    (folder / "shop" / "runs" / "click").mkdir(parents=True)
    (folder / "shop" / "runs" / "click" / "adapters.safetensors").write_bytes(bytes(range(256)) * 100)
    (folder / "shop" / "project.json").write_text("{}\n")
    return folder / "shop"


@pytest.fixture(params=["folder", "redis"])
def journal(request, tmp_path):
    """The option ``--journal``."""
    if request.param == "folder":
        yield ""
        return
    server = redis_server.Server(tmp_path / "redis", durable=True).start()
    yield server.url
    server.stop()


@pytest.fixture
def project(prepared, tmp_path, journal):
    """One in which much has happened."""
    made = Project(shutil.copytree(prepared, tmp_path / "shop"))
    with closing(open_journal(journal or made.store / "histories")) as events:
        events.append([Event(f"u{n % 3}", "i1", n, 1.0, id=f"{n}" if n % 2 else "") for n in range(30)])
        events.forget("u0")
        events.append([Event("u0", "i2", 50, 1.0), Event("u4", "i2", 50, 1.0), Event("u5", "i2", 50, 1.0)])
        events.forget("u5")
        events.readmit("u5")
        events.append([Event("u5", "i2", 60, 1.0)])
    with closing(Catalogue(made.store / "catalogue")) as items:
        items.upsert([Item("i1", "Film"), Item("new", "Storm")])
        items.delete(["i1"])
        items.put_user(User("u1", {"age": 30}))
    return made


def state(project, journal=""):
    with (
        closing(open_journal(journal or project.store / "histories")) as events,
        closing(Catalogue(project.store / "catalogue")) as items,
    ):
        users = [f"u{n}" for n in range(9)]
        return (
            list(events.replay()),
            events.since(0).erased,
            events.forgotten(users),
            events.refused(users),
            {user: events.pseudonym(user) for user in users},
            items.items(),
            items.deleted(),
            items.users(),
        )


def test_a_restored_project_is_as_it_was(project, journal, tmp_path):
    before = state(project, journal)
    made = backup.back_up(project, tmp_path / "backup", journal)
    assert made.record > 30
    with closing(open_journal(journal or project.store / "histories")) as events:
        events.append([Event("u1", "i9", 99, 1.0)])  # it goes on
    assert backup.restore(tmp_path / "backup", tmp_path / "again") == made
    again = Project.open(tmp_path / "again")
    assert state(again) == before
    for file in project.folder.rglob("*"):
        if file.is_file() and project.store not in file.parents and file.name != ".lock":
            assert (again.folder / file.relative_to(project.folder)).read_bytes() == file.read_bytes()
    with closing(open_journal(again.store / "histories")) as events:
        assert events.append([Event("u1", "i1", 1, 1.0, id="1"), Event("u0", "i1", 1, 1.0)]) == [False, False]


def test_a_restored_server_is_as_it_was(project, journal, tmp_path):
    before = state(project, journal)
    backup.back_up(project, tmp_path / "backup", journal)
    server = redis_server.Server(tmp_path / "other", durable=True).start()
    try:
        backup.restore(tmp_path / "backup", tmp_path / "again", server.url)
        again = Project(tmp_path / "again")
        assert not (again.store / "histories").exists()
        assert state(again, server.url) == before
        with closing(open_journal(server.url)) as events:
            assert events.append([Event("u1", "i1", 1, 1.0, id="1"), Event("u8", "i1", 1, 1.0)]) == [False, True]
        with pytest.raises(StoreError, match="holds a journal already"):
            backup.restore(tmp_path / "backup", tmp_path / "third", server.url)
        assert not (tmp_path / "third").exists()
    finally:
        server.stop()


def test_while_a_service_writes_a_backup_is_what_was_at_its_record(project, journal, tmp_path):
    stopped = threading.Event()

    def write():
        with closing(open_journal(journal or project.store / "histories")) as events:
            number = 0
            while not stopped.is_set():
                events.append([Event("w", "i1", number, 1.0, id=f"w{number}")])
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = [backup.back_up(project, tmp_path / f"backup-{n}", journal) for n in range(3)]
    finally:
        stopped.set()
        writer.join()
    everything = state(project, journal)[0]
    assert made[0].record < made[1].record < made[2].record
    for n in range(3):
        backup.restore(tmp_path / f"backup-{n}", tmp_path / f"again-{n}")
        events = state(Project(tmp_path / f"again-{n}"))[0]
        assert events == everything[: len(events)]
        assert len(events) >= 20


def test_a_damaged_byte_and_a_file_too_much_or_too_few_are_named(project, journal, tmp_path):
    made = backup.back_up(project, tmp_path / "backup", journal)
    for name in made.files:
        file = tmp_path / "backup" / name
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(StoreError, match=f"{name} .*is damaged"):
            backup.restore(tmp_path / "backup", tmp_path / "again")
        file.unlink()
        with pytest.raises(StoreError, match=f"{name} is missing"):
            backup.restore(tmp_path / "backup", tmp_path / "again")
        file.write_bytes(content)
    (tmp_path / "backup" / "more").write_text("x")
    with pytest.raises(StoreError, match="more was added"):
        backup.restore(tmp_path / "backup", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_nothing_that_exists_is_overwritten(project, journal, tmp_path):
    backup.back_up(project, tmp_path / "backup", journal)
    with pytest.raises(ConfigError, match="exists already"):
        backup.back_up(project, tmp_path / "backup", journal)
    with pytest.raises(ConfigError, match="exists already"):
        backup.restore(tmp_path / "backup", project.folder)
    with pytest.raises(ConfigError, match="is no backup"):
        backup.restore(project.folder, tmp_path / "again")


def test_a_killed_backup_leaves_nothing_that_passes_for_one(project, journal, tmp_path):
    (project.folder / "runs" / "large").write_bytes(bytes(300 << 20))
    line = shop.command("backup", project.folder, tmp_path / "backup", *(["--journal", journal] if journal else []))
    child = subprocess.Popen(line, env=shop.environment(tmp_path))
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".backup-*/project/*")) and time.monotonic() < until:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = list(tmp_path.glob(".backup-*"))
    assert left
    assert not (tmp_path / "backup").exists()
    with pytest.raises(ConfigError, match="is no backup"):
        backup.restore(left[0], tmp_path / "again")
