import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m6rec import device as module
from m6rec.device import ADAPTERS, LOWER, MANIFEST, TOKENIZER, UPPER, Device
from m6rec.edge.export import export, send
from m6rec.errors import AssetError, ConfigError, DataError, StoreError, UnknownError
from m6rec.features.interactions import FEATURES, InteractionStore, PopularityCounts
from m6rec.tasks import task as tasks
from m6rec.text.tokenizer import Tokenizer
from m6rec.types import Event, Item, User
from tests import pocket

ASKED = ["i0", "i3", "i6", "i7"]
ME = User("me", {"age": 30, "gender": "F", "occupation": "none"})
MINE = [Event("me", f"i{n}", 10_000 + 60 * n, float(1 + n % 5)) for n in range(5)]


def scores(ranked):
    return {one.item.id: one.score for one in ranked}


@pytest.fixture
def bundle(tmp_path):
    file = tmp_path / "items.safetensors"
    send(pocket.exported()[0], list(pocket.ITEMS.values()), pocket.interactions(), file)
    return file


@pytest.fixture
def store(tmp_path):
    return tmp_path / "me.sqlite"


def load(store=None, folder=None):
    return Device.load(folder or pocket.exported()[1], store, user=ME)


def test_a_device_ranks_as_the_server_would_by_what_it_knows(bundle, store):
    made, _ = pocket.exported()
    here = load(store)
    here.receive(bundle)
    here.ingest(MINE)
    interactions = InteractionStore(
        pocket.ITEMS, pocket.MOVIES.feedback, pocket.interactions().popularity(pocket.ITEMS)
    ).update_all(MINE)
    items = [pocket.ITEMS[item] for item in ASKED]
    row = tasks.ask(made.task, interactions, ME, items, pocket.MOVIES, pocket.ITEMS)
    expected = dict(zip(ASKED, made.scores([row]), strict=True))
    ranked = here.rank(ASKED)
    assert scores(ranked) == pytest.approx(expected, abs=1e-5)
    assert [one.item.id for one in ranked] == sorted(ASKED, key=lambda item: expected[item], reverse=True)
    assert np.ptp(list(expected.values())) > 0.003


def test_a_new_user_and_no_candidates(bundle):
    here = Device.load(pocket.exported()[1])
    here.receive(bundle)
    assert len(here.rank(["i1"])) == 1  # without facts, history or a second candidate
    assert here.rank([]) == []


def test_many_candidates_are_scored_in_parts_as_in_one(bundle):
    whole, parts = load(), Device.load(pocket.exported()[1], user=ME, max_candidates=3)
    for here in (whole, parts):
        here.receive(bundle)
        here.ingest(MINE)
    expected = scores(whole.rank(list(pocket.ITEMS)))
    assert scores(parts.rank(list(pocket.ITEMS))) == pytest.approx(expected, abs=1e-6)


def test_what_is_known_outlives_the_process(bundle, store):
    first = load(store)
    first.receive(bundle)
    first.ingest(MINE[:3])
    first.ingest(MINE[3:])
    ranked = first.rank(ASKED)
    again = load(store)
    assert again.rank(ASKED) == ranked
    assert again.interactions.history("me") == MINE
    assert "_lower" not in vars(again)  # states were kept


def test_items_by_their_text_alone(store):
    here = load(store)
    here.upsert_items([Item("new", "Heat", ("Crime",), {"year": 1995})])
    (only,) = here.rank(["new"])
    here.upsert_items([Item("new", "Babe")])
    assert here.rank(["new"])[0].score != only.score
    assert load(store).items == {"new": Item("new", "Babe")}


def test_states_of_another_model_are_dropped_and_items_stay(bundle, store):
    load(store).receive(bundle)
    made, folder = pocket.exported(seed=1)
    here = load(store, folder)
    assert here.items == pocket.ITEMS
    row = tasks.ask(made.task, here.interactions, ME, [pocket.ITEMS["i0"]], pocket.MOVIES, pocket.ITEMS)
    np.testing.assert_allclose(here.scores(row), made.scores([row]), atol=1e-5)


def test_a_newer_parcel_replaces_counts(bundle):
    here = load()
    here.receive(bundle)
    one = here.interactions.popularity(["i0"])
    send(pocket.exported()[0], [pocket.ITEMS["i0"]], InteractionStore(pocket.ITEMS, pocket.MOVIES.feedback), bundle)
    here.receive(bundle)
    assert one.items["i0"][0] > 0
    now = here.interactions.popularity(["i0"])
    assert (now.total, now.items) == (PopularityCounts().total, {})
    assert here.items == pocket.ITEMS


def test_all_events_or_none_are_taken_in(bundle, store):
    here = load(store)
    here.receive(bundle)
    with pytest.raises(UnknownError, match="'i99'"):
        here.ingest([MINE[0], Event("me", "i99", 1)])
    with pytest.raises(DataError, match="user 'you'"):
        here.ingest([MINE[0], Event("you", "i1", 1)])
    with pytest.raises(DataError, match="written down"):
        here.ingest([MINE[0], Event("me", "i1", 1 << 70)])
    with pytest.raises(DataError, match="written down"):
        here.ingest([MINE[0], Event("me", "i1", 1, 1.0, "\ud800")])
    assert here.interactions.history("me") == load(store).interactions.history("me") == ()


def test_an_unknown_item_is_named(bundle):
    here = load()
    with pytest.raises(UnknownError, match="'i1' among the 0 on this device"):
        here.rank(["i1"])


@pytest.mark.parametrize("name", [MANIFEST, TOKENIZER, LOWER, UPPER])
def test_a_file_that_is_absent_is_named(tmp_path, name):
    _, folder = pocket.copied(tmp_path / "phone")
    (folder / name).unlink()
    with pytest.raises(AssetError, match=name):
        Device.load(folder)


@pytest.mark.parametrize("name", [TOKENIZER, LOWER, UPPER, ADAPTERS])
def test_a_truncated_or_changed_file_is_refused(tmp_path, name):
    _, folder = pocket.copied(tmp_path / "phone")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    with pytest.raises(AssetError, match=f"{name} has {len(whole) - 1} bytes, but should have {len(whole)}"):
        Device.load(folder)
    middle = len(whole) // 2
    (folder / name).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(AssetError, match=f"{name} is damaged"):
        Device.load(folder)


CARDS = {
    "cut off": (lambda manifest: json.dumps(manifest)[:-9], AssetError, "is not the manifest"),
    "a list": (lambda manifest: "[]", AssetError, "is not the manifest"),
    "of a later format": (
        lambda manifest: json.dumps({**manifest, "format": 99}),
        AssetError,
        "format 99.*reads format 3",
    ),
    "with a field more": (lambda manifest: json.dumps({**manifest, "colour": "red"}), AssetError, "colour"),
    "without a graph": (lambda manifest: json.dumps({**manifest, "files": {}}), AssetError, "doesn't list upper.onnx"),
    "without a width": (
        lambda manifest: json.dumps({**manifest, "width": None}),
        AssetError,
        "a size is no whole number",
    ),
    "with a path": (
        lambda manifest: json.dumps({**manifest, "files": {"../x": manifest["files"][UPPER], **manifest["files"]}}),
        AssetError,
        "'../x', which is no name of a file",
    ),
    "with half a reader": (
        lambda manifest: json.dumps(
            {**manifest, "files": {name: of for name, of in manifest["files"].items() if name != LOWER}}
        ),
        AssetError,
        "doesn't list lower.onnx",
    ),
    "of a task unknown here": (lambda manifest: json.dumps({**manifest, "task": "guess"}), ConfigError, "guess"),
    "of a domain unknown here": (lambda manifest: json.dumps({**manifest, "domain": "shop"}), ConfigError, "shop"),
    "of other words": (
        lambda manifest: json.dumps({**manifest, "wording": "0" * 16}),
        ConfigError,
        "another wording of task",
    ),
    "of other features": (
        lambda manifest: json.dumps({**manifest, "features": "0" * 16}),
        ConfigError,
        "another features of task 'like' .* export it again",
    ),
}


@pytest.mark.parametrize("kind", CARDS)
def test_a_card_is_refused(tmp_path, kind):
    write, error, message = CARDS[kind]
    _, folder = pocket.copied(tmp_path / "phone")
    (folder / MANIFEST).write_text(write(json.loads((folder / MANIFEST).read_text())))
    with pytest.raises(error, match=message):
        Device.load(folder)


def test_a_graph_of_another_version_is_refused(tmp_path):
    _, folder = pocket.copied(tmp_path / "phone")
    graph = onnx.load(folder / UPPER, load_external_data=False)
    graph.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("later", 1, [1]))
    onnx.save(graph, folder / UPPER)
    pocket.reseal(folder)
    with pytest.raises(AssetError, match=r"is of another m6rec .* its input later"):
        Device.load(folder)


def test_a_graph_of_other_statistics_is_refused(tmp_path):
    _, folder = pocket.copied(tmp_path / "phone")
    pocket.of_features(folder / UPPER, 12)
    pocket.reseal(folder)
    with pytest.raises(AssetError, match=rf"it takes 12 features, but here are {len(FEATURES)}; export it again"):
        Device.load(folder)


def test_a_graph_that_onnxruntime_does_not_know(tmp_path):
    _, folder = pocket.copied(tmp_path / "phone")
    (folder / UPPER).write_bytes(b"no graph")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][UPPER] = {"bytes": 8, "sha256": module.file_sha256(folder / UPPER)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(AssetError, match="can't be run by onnxruntime"):
        Device.load(folder)


def test_a_damaged_parcel_changes_nothing(bundle, store):
    here = load(store)
    whole = bundle.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for part in (whole[:-1], whole[: len(whole) // 2], b"", whole.replace(b'"bundle"', b'"bundl3"'), flipped):
        bundle.write_bytes(part)
        with pytest.raises(AssetError, match="not a readable bundle"):
            here.receive(bundle)
    bundle.write_bytes(whole.replace(rb"\"format\": 3", rb"\"format\": 7"))
    with pytest.raises(AssetError, match="format 7"):
        here.receive(bundle)
    assert not here.items
    assert not load(store).items


def test_a_file_that_is_no_store_is_refused(store):
    store.write_bytes(b"a letter to my aunt" * 100)
    with pytest.raises(StoreError, match="not a database"):
        load(store)


def test_a_store_of_a_later_format_is_refused(store):
    load(store)._store._connection.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreError, match="has format 7"):
        load(store)


@pytest.fixture(scope="module")
def tuned_anew(tmp_path_factory):
    """(the same task tuned on, what of its device folder differs from that of ``pocket.exported``)."""
    made, folder = pocket.tuned(), tmp_path_factory.mktemp("anew") / "newer"
    with torch.no_grad():
        made.adapter.slots_SD.add_(torch.randn(made.adapter.slots_SD.shape, generator=torch.Generator().manual_seed(9)))
    export(made, folder, since=module.read_manifest(pocket.exported()[1]))
    return made, folder


@pytest.fixture
def newer(tmp_path, tuned_anew):
    """The same, with a folder that may be changed."""
    return tuned_anew[0], Path(shutil.copytree(tuned_anew[1], tmp_path / "newer"))


def test_an_update_holds_what_has_changed_and_keeps_the_store(tmp_path, newer, bundle, store):
    _, folder = pocket.copied(tmp_path / "phone")
    first = load(store, folder)
    first.receive(bundle)
    first.ingest(MINE)
    before = scores(first.rank(ASKED))
    made, changed = newer
    assert {file.name for file in changed.iterdir()} == {MANIFEST, ADAPTERS}
    with pytest.raises(AssetError, match="can't be read"):  # it is none by itself
        Device.load(changed)
    assert module.update_folder(folder, changed).tuning == made.adapter.digest()
    export(made, tmp_path / "whole")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()
    }
    here = load(store, folder)
    after = scores(here.rank(ASKED))
    assert "_lower" not in vars(here)  # states are still those of its own lower half
    assert here.interactions.history("me") == MINE
    assert max(abs(after[item] - before[item]) for item in ASKED) > 1e-4


BROKEN = {
    "without its new file": lambda newer: (newer / ADAPTERS).unlink(),
    "cut off": lambda newer: (newer / ADAPTERS).write_bytes((newer / ADAPTERS).read_bytes()[:-1]),
    "without a card": lambda newer: (newer / MANIFEST).unlink(),
    "of a later format": lambda newer: (newer / MANIFEST).write_text('{"format": 4}'),
}


@pytest.mark.parametrize("kind", [*BROKEN, "not runnable", "not movable"])
def test_an_update_that_fails_changes_nothing(tmp_path, newer, kind, monkeypatch):
    _, folder = pocket.copied(tmp_path / "phone")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    _, changed = newer
    if kind in BROKEN:
        BROKEN[kind](changed)
    elif kind == "not runnable":
        (changed / UPPER).write_bytes(b"no graph")
        manifest = json.loads((changed / MANIFEST).read_text())
        manifest["files"][UPPER] = {"bytes": 8, "sha256": module.file_sha256(changed / UPPER)}
        (changed / MANIFEST).write_text(json.dumps(manifest))
    else:
        rename = Path.rename

        def failing(path, target):
            if path.name.endswith(".partial"):
                raise OSError("no room")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(AssetError):
        module.update_folder(folder, changed)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_an_update_that_was_cut_off_between_its_last_steps_is_undone(tmp_path):
    _, folder = pocket.copied(tmp_path / "phone")
    folder.rename(tmp_path / ".phone.former")
    assert load(None, folder).manifest == module.read_manifest(folder)


@pytest.fixture(scope="module")
def tokenizers():
    """(the server's, the device's)."""
    made, folder = pocket.exported()
    return made.foundation.tokenizer, Tokenizer.open(folder)


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_any_text_has_the_same_tokens_as_on_the_server(tokenizers, text):
    server, here = tokenizers
    assert here.encode([text]) == server.encode([text])


def test_all_titles_have_the_same_tokens(tokenizers):
    server, here = tokenizers
    assert here.encode(pocket.TITLES) == server.encode(pocket.TITLES)


def test_a_device_needs_neither_torch_nor_transformers(bundle):
    _, folder = pocket.exported()
    code = f"""
import sys
from pathlib import Path
from m6rec.device import Device
from m6rec.types import Event
here = Device.load(Path({str(folder)!r}))
here.receive(Path({str(bundle)!r}))
here.ingest([Event("me", "i1", 5, 4.0)])
assert len(here.rank(["i2", "i3"])) == 2
print([name for name in ("torch", "transformers", "onnx", "m6rec.foundation", "m6rec.adapters") if name in sys.modules])
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
