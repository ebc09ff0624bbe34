import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from m6rec.errors import ConfigError, StoreError
from m6rec.fingerprint import Fingerprint
from m6rec.foundation.stores import connect
from m6rec.serving import binding
from m6rec.serving.binding import Binding, bind_store
from m6rec.serving.journal import FileJournal
from tests.redis_server import Server

SHOP = Fingerprint(data="d0", domain="generic", split="time")
GROWN = Fingerprint(data="d1", domain="generic", split="time")


def fill_as_before(folder):
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("redis")).start()
    yield running
    running.stop()


@pytest.fixture(params=["folder", "server"])
def store(request, tmp_path):
    """A place where nothing is."""
    if request.param == "folder":
        return tmp_path / "store"
    server = request.getfixturevalue("server")
    connect(server.url, timeout_s=2).flushall()
    return server.url


def test_a_store_belongs_to_its_first_dataset(store):
    assert bind_store(store, SHOP) == bind_store(store, SHOP) == Binding(data="d0", domain="generic")
    with pytest.raises(ConfigError) as refused:
        bind_store(store, GROWN)
    assert "is of another data (there d0, here d1); give --store another folder, or take it over" in str(refused.value)
    assert "m6rec serve --adopt" in str(refused.value)
    assert bind_store(store, SHOP).data == "d0"


def test_another_split_of_the_same_data_is_the_same_dataset(store):
    bind_store(store, SHOP)
    bind_store(store, Fingerprint(data="d0", domain="generic", split="item"))


def test_a_store_is_taken_over_explicitly_and_for_good(store):
    bind_store(store, SHOP)
    assert bind_store(store, GROWN, adopt=True) == Binding(data="d1", domain="generic", former=("d0",))
    assert bind_store(store, GROWN).former == ("d0",)
    assert bind_store(store, GROWN, adopt=True, runs=("d0", "d1", "", "older")).former == ("d0", "older")
    with pytest.raises(ConfigError, match="another data"):
        bind_store(store, SHOP)
    assert bind_store(store, SHOP, adopt=True).former == ("older", "d1")


def test_runs_of_other_data_are_noted_only_where_that_is_asked_for(store):
    assert bind_store(store, GROWN, runs=("d0",)).former == ()


def test_runs_of_other_data_are_noted_in_a_new_store_too(store):
    assert bind_store(store, GROWN, adopt=True, runs=("d0",)).former == ("d0",)


def test_another_domain_is_never_taken_over(store):
    """Its events can't be worded."""
    bind_store(store, SHOP)
    for adopt in (False, True):
        with pytest.raises(ConfigError, match=r"another domain \(there generic, here books\); give --store another"):
            bind_store(store, Fingerprint(data="d0", domain="books"), adopt=adopt)


@pytest.mark.parametrize("fill", [lambda folder: FileJournal(folder).close(), fill_as_before])
def test_a_store_of_an_earlier_version_is_taken_over_explicitly(tmp_path, fill):
    fill(tmp_path / "histories")
    with pytest.raises(ConfigError, match="was filled by an earlier m6rec, which didn't note whose it is"):
        bind_store(tmp_path, SHOP)
    bind_store(tmp_path, SHOP, adopt=True)
    bind_store(tmp_path, SHOP)


def test_of_several_that_are_first_one_is(store):
    def first(number):
        try:
            return bind_store(store, Fingerprint(data=f"d{number}", domain="generic")).data
        except ConfigError:
            return None

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(first, range(8)))
    (owner,) = [data for data in found if data is not None]
    assert bind_store(store, Fingerprint(data=owner, domain="generic")).data == owner


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": "d0"}'])
def test_a_damaged_note_is_said(tmp_path, text):
    (tmp_path / binding.FILE).write_text(text)
    with pytest.raises(StoreError, match="says of its dataset can't be read"):
        bind_store(tmp_path, SHOP)
    with pytest.raises(StoreError, match="says of its dataset can't be read"):
        binding.read(tmp_path)


def test_reading_makes_nothing(tmp_path):
    assert binding.read(tmp_path / "store") is None
    assert not (tmp_path / "store").exists()
    bind_store(tmp_path / "store", SHOP)
    assert binding.read(tmp_path / "store") == Binding(data="d0", domain="generic")
    assert set(json.loads((tmp_path / "store" / binding.FILE).read_text())) == {"data", "domain", "former"}


def test_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be read or written"):
        bind_store(tmp_path / "file", SHOP)
