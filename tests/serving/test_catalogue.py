import subprocess
import sys
from types import MappingProxyType

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m6rec.errors import DataError, StoreError
from m6rec.serving.catalogue import Catalogue
from m6rec.types import Item

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
        Item("mine", "Film", (), {"seen": {1, 2}}),
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
from m6rec.types import Item

catalogue = Catalogue(Path(sys.argv[1]))
catalogue.upsert([Item("a", "A"), Item("b", "B")])
catalogue.delete(["a"])
catalogue.upsert([Item("b", "BB")])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == -9
    assert kept(tmp_path) == [Item("b", "BB")]


def test_the_size_limit_is_told_and_survived(tmp_path):
    catalogue = Catalogue(tmp_path, map_bytes=1 << 16)
    catalogue.upsert(ITEMS[:1])
    with pytest.raises(StoreError, match="is the disk full"):
        catalogue.upsert([Item(f"more {n}", "Film") for n in range(5000)])
    catalogue.upsert(ITEMS[1:2])
    assert catalogue.delete(["i0"]) == 1
    assert list(catalogue.items().values()) == ITEMS[1:2]


def test_a_commit_waits_for_the_disk(catalogue):
    flags = catalogue._environment.flags()
    assert flags["sync"]
    assert flags["metasync"]


def test_damage_is_told(tmp_path):
    catalogue = Catalogue(tmp_path)
    catalogue.upsert(ITEMS)
    catalogue.close()
    with lmdb.open(str(tmp_path), max_dbs=2) as environment:
        items = environment.open_db(b"items", create=False)
        with environment.begin(write=True, db=items) as writing:
            key, stored = next(iter(writing.cursor()))
            writing.put(key, stored.replace(b"Film", b"Flim"))
    with pytest.raises(StoreError, match=r"record 0000000000000000 in .* is damaged; restore it from a backup"):
        kept(tmp_path)
