import contextlib
import sqlite3
import subprocess
import sys
from types import MappingProxyType

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m6rec.errors import DataError, StoreError
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.records import encode_record
from m6rec.text.records import record_of
from m6rec.types import Item, User

ITEMS = [Item(f"i{n}", f"Film {n}", ("drama", "war")[: n % 3], {"year": 1990 + n, "by": "Ann"}) for n in range(6)]
REAL = st.floats(allow_nan=False, allow_infinity=False)
ANY_ITEM = st.builds(
    Item,
    st.text(max_size=3) | st.text(min_size=600, max_size=700),
    st.text(),
    st.lists(st.text(), max_size=2).map(tuple),
    st.dictionaries(st.text(), st.text() | st.integers() | REAL, max_size=2),
)


@pytest.fixture
def catalogue(tmp_path):
    made = Catalogue(tmp_path / "new" / "folder")
    yield made
    made.close()


def kept(folder):
    """The items in a folder, read by whoever comes later."""
    return list(Catalogue(folder).items().values())


def test_items_come_back_in_the_order_of_a_dict(tmp_path):
    """The order in which ids came first; after a deletion an id is new."""
    newer = Item("i1", "Film 1, restored")
    steps = [
        lambda catalogue: catalogue.upsert(ITEMS[:4]),
        lambda catalogue: catalogue.upsert([newer, ITEMS[4]]),
        lambda catalogue: catalogue.delete(["i2", "nothing", "i4", "i2"]),
        lambda catalogue: catalogue.upsert([ITEMS[5], ITEMS[2]]),
    ]
    returned = []
    for step in steps:  # each by a process of its own, as it were
        catalogue = Catalogue(tmp_path)
        returned.append(step(catalogue))
        catalogue.close()
    assert returned == [None, None, 2, None]
    assert kept(tmp_path) == [ITEMS[0], newer, ITEMS[3], ITEMS[5], ITEMS[2]]


@given(st.lists(ANY_ITEM, max_size=4), st.lists(ANY_ITEM, max_size=4))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_a_dict(catalogue, first, second):
    catalogue.delete(list(catalogue.items()))
    expected = {}
    for items in (first, second):
        catalogue.upsert(items)
        expected |= {item.id: item for item in items}
        assert list(catalogue.items().items()) == list(expected.items())
    assert catalogue.delete([item.id for item in first]) == len({item.id for item in first})
    for item in first:
        expected.pop(item.id, None)
    assert list(catalogue.items().items()) == list(expected.items())


def test_more_than_256_items_keep_their_order(catalogue):
    items = [Item(f"i{n}", "Film") for n in range(300, 0, -1)]
    catalogue.upsert(items)
    assert list(catalogue.items().values()) == items


def test_details_need_not_be_a_dict(catalogue):
    catalogue.upsert([Item("i", "Film", (), MappingProxyType({"year": 1999}))])
    assert catalogue.items()["i"].details == {"year": 1999}


@pytest.mark.parametrize(
    "wrong",
    [
        Item("mine", "Film", (), {"price": float("nan")}),
        Item("mine", "Film \udfff"),
        Item("mine", "Film", (), {"seen": {1, 2}}),  # type: ignore[dict-item]
    ],
    ids=["not a number", "half a character", "a set"],
)
def test_all_items_of_a_call_or_none(catalogue, wrong):
    catalogue.upsert(ITEMS[:2])
    with pytest.raises(DataError, match="the item 'mine' can't be stored"):
        catalogue.upsert([Item("i0", "changed"), ITEMS[3], wrong])
    assert list(catalogue.items().values()) == ITEMS[:2]
    assert catalogue.delete(["mine", "\udfff"]) == 0


def test_a_process_that_dies_leaves_what_was_acknowledged(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from m6rec.serving.catalogue import Catalogue
from m6rec.text.records import record_of
from m6rec.types import Item, User

catalogue = Catalogue(Path(sys.argv[1]))
catalogue.upsert([Item("a", "A"), Item("b", "B")])
catalogue.delete(["a"])
catalogue.upsert([Item("b", "BB")])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == -9
    assert kept(tmp_path) == [Item("b", "BB")]


def test_a_commit_waits_for_the_disk(catalogue):
    with catalogue._database.transaction() as reading:
        assert reading.execute("PRAGMA synchronous").fetchone() == (2,)


def test_damage_is_told(tmp_path):
    catalogue = Catalogue(tmp_path)
    catalogue.upsert(ITEMS)
    catalogue.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "catalogue.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE item SET record = substr(record, 1, 30) WHERE number = 1")
    with pytest.raises(StoreError, match=r"record 6930 in .* is damaged; restore it from a backup"):
        kept(tmp_path)


def test_deleted_items_can_still_be_named(catalogue):
    catalogue.upsert(ITEMS[:3])
    catalogue.delete(["i1"])
    assert list(catalogue.items()) == ["i0", "i2"]
    assert catalogue.deleted() == {"i1": ITEMS[1]}
    catalogue.upsert([ITEMS[1]])
    assert list(catalogue.items()) == ["i0", "i2", "i1"]
    assert catalogue.deleted() == {}


def test_an_empty_catalogue_is_not_a_new_one(tmp_path):
    catalogue = Catalogue(tmp_path)
    assert not catalogue.initialised
    catalogue.upsert(ITEMS[:1])
    catalogue.delete(["i0"])
    catalogue.close()
    assert Catalogue(tmp_path).initialised
    fresh = Catalogue(tmp_path / "fresh")
    fresh.upsert([])
    assert fresh.initialised


def test_users_are_kept_and_erased_to_the_last_byte(tmp_path):
    catalogue = Catalogue(tmp_path)
    ada, bob = User("ada@example.org", {"age": 36, "motto": "Poetical science"}), User("bob", {"age": 7})
    catalogue.put_user(User("ada@example.org", {"age": 35}))
    for user in (bob, ada):
        catalogue.put_user(user)
    catalogue.close()
    catalogue = Catalogue(tmp_path)
    assert catalogue.users() == {"ada@example.org": ada, "bob": bob}
    assert catalogue.forget("ada@example.org")
    assert not catalogue.forget("ada@example.org")
    for file in tmp_path.iterdir():
        assert b"ada@" not in file.read_bytes()
        assert b"Poetical" not in file.read_bytes()
    assert catalogue.users() == {"bob": bob}
    with pytest.raises(DataError, match="the user 'bob' can't be stored"):
        catalogue.put_user(User("bob", {"age": float("nan")}))


def test_a_catalogue_of_an_earlier_version_is_read_on(tmp_path):
    with lmdb.open(str(tmp_path), max_dbs=2) as environment:
        environment.open_db(b"places")
        with environment.begin(write=True, db=environment.open_db(b"items")) as writing:
            for number, item in enumerate(ITEMS[:2]):
                key = number.to_bytes(8, "big")
                writing.put(key, encode_record(key, record_of(item), "an item"))
    for _ in range(2):
        catalogue = Catalogue(tmp_path)
        assert list(catalogue.items().values()) == ITEMS[:2]
        assert catalogue.initialised
        catalogue.close()
    assert not (tmp_path / "data.mdb").exists()
