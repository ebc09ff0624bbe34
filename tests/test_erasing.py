"""`m6rec forget` and `m6rec merge`: a user who is gone for good, and events that count once wherever they are kept."""

import json

import polars as pl
import pytest

from m6rec.domains import prepared
from m6rec.serving.binding import bind_store
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.journal import FileJournal, later
from m6rec.types import Event, Item, User
from tests.shop import m6rec

ADA = "ada@example.org"
WORDS = "Poetical science"


@pytest.fixture
def shop(tmp_path):
    """A prepared log, and what a service has taken in since."""
    rows = [f"u{n % 6},i{7 * n % 12},{n},Film {7 * n % 12},{n % 2},fine" for n in range(120)]
    rows += [f"{ADA},i{n},{200 + n},Film {n},1,{WORDS} {n}" for n in range(8)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time,title,value,text", *rows]))
    prepare(tmp_path)
    store = tmp_path / "store"
    bind_store(store, prepared.fingerprint(tmp_path / "data"))
    journal, catalogue = FileJournal(store / "histories"), Catalogue(store / "catalogue")
    log = prepared.load(tmp_path / "data").split.log
    catalogue.upsert([*log.items.values(), Item("new", "New film"), Item("old", "Old film"), Item("gone", "Gone film")])
    catalogue.delete(["old", "gone"])
    catalogue.put_user(User(ADA, {"motto": WORDS}))
    catalogue.put_user(User("u1", {"age": 7}))
    journal.append([Event(ADA, "i3", 300, 1.0, f"{WORDS}!", id="ada-1"), Event("guest", "new", 301, 1.0, id="g1")])
    journal.append([Event("u1", "old", 302, 1.0), log.events[3]])
    journal.close()
    catalogue.close()
    return tmp_path


def prepare(folder):
    return m6rec(folder, "prepare", "generic", folder / "log.csv", "--out", folder / "data")


def where(shop):
    return ("--data", shop / "data", "--store", shop / "store")


def texts(shop):
    """All that the files of a shop hold, as bytes; tables also as what they decode to."""
    for file in shop.rglob("*"):
        if file.is_file() and file.name != "log.csv":
            yield file, file.read_bytes()
            if file.suffix == ".parquet":
                yield file, pl.read_parquet(file).write_ndjson().encode()


def holding(shop, *words):
    """The files that hold one of the words."""
    return {str(file.relative_to(shop)) for file, text in texts(shop) if any(word.encode() in text for word in words)}


def test_a_forgotten_user_is_in_no_file(shop):
    assert len(holding(shop, ADA, WORDS)) >= 4  # events, users, journal, catalogue
    told = json.loads(m6rec(shop, "forget", ADA, *where(shop), "--json"))
    assert told["erased"] == {"journal": True, "users of the service": True, "prepared log": True}
    assert holding(shop, ADA, WORDS, "ada-1") == set()
    log = prepared.load(shop / "data").split.log
    assert ADA not in log.users
    assert len(log.events) == 120
    bind_store(shop / "store", prepared.fingerprint(shop / "data"))  # the store is still that of the log
    assert "was in none of" in m6rec(shop, "forget", ADA, *where(shop))


def test_a_forgotten_user_does_not_come_back(shop):
    m6rec(shop, "forget", ADA, *where(shop))
    assert "a user who was forgotten" in prepare(shop)
    assert holding(shop, ADA, WORDS) == set()
    journal = FileJournal(shop / "store" / "histories")
    assert journal.append([Event(ADA, "i3", 300, 1.0, f"{WORDS}!", id="ada-1"), Event("x", "i3", 9)]) == [False, True]
    journal.close()
    assert holding(shop, ADA, WORDS) == set()
    m6rec(shop, "merge", *where(shop))
    assert holding(shop, ADA, WORDS) == set()


def test_what_came_in_is_taken_into_the_log_once(shop):
    before = prepared.load(shop / "data").split.log
    assert json.loads(m6rec(shop, "merge", *where(shop), "--json"))["events added"] == 3
    log = prepared.load(shop / "data").split.log
    assert len(log.events) == len(before.events) + 3
    assert [event.time for event in log.events] == sorted(event.time for event in log.events)
    assert {"new", "old"} <= log.items.keys()
    assert "gone" not in log.items  # nobody met it
    assert log.users["u1"].details == {"age": 7}
    journal = FileJournal(shop / "store" / "histories")
    assert list(later(journal, log.events)) == []
    assert len(list(journal.replay())) == 4
    assert json.loads(m6rec(shop, "merge", *where(shop), "--json"))["events added"] == 0
    told = json.loads(m6rec(shop, "merge", *where(shop), "--compact", "--json"))
    assert told == {"events added": 0, "events in the log": len(log.events), "dropped from the journal": 4}
    assert list(journal.replay()) == []
    assert journal.append([Event("guest", "new", 301, 1.0, id="g1")]) == [False]
    assert prepared.load(shop / "data").split.log.events == log.events
    bind_store(shop / "store", prepared.fingerprint(shop / "data"))
