import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Fast

from m6rec import assets
from m6rec.device import ADAPTERS, ITEMS, LOWER, MANIFEST, TOKENIZER, UPPER, Device
from m6rec.domains import domain as domains
from m6rec.edge import export as module
from m6rec.features.interactions import FEATURES, InteractionStore
from m6rec.text.tokenizer import Tokenizer
from m6rec.types import Event, User
from tests import browser, fuzz, pocket

ALL = list(pocket.ITEMS.values())
ASKED = ["i0", "i3", "i6", "i7"]
ME = User("me", {"age": 30, "gender": "F", "occupation": "none"})
MINE = [Event("me", f"i{n % 8}", 10_000 + 60 * n * n, float(1 + n * 3 % 5)) for n in range(12)]


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as started:
        yield started


@pytest.fixture
def context(chromium):
    made = chromium.new_context()
    yield made
    made.close()


@pytest.fixture
def serve(tmp_path):
    """Starts a server of device folders by name; returns it."""
    servers = []

    def start(**folders):
        servers.append(browser.Server(tmp_path / f"blank{len(servers)}", **folders))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def folder(tmp_path):
    """A device folder with items, which may be changed."""
    return whole(tmp_path / "phone")


@pytest.fixture
def phone(context, serve, folder):
    """A page beside that folder, nothing loaded."""
    return browser.Phone(context, serve(phone=folder).url)


def whole(folder, *, event_texts=False, **options):
    """A device folder with the items and facts of ``ME``."""
    made, original = pocket.exported(**options)
    shutil.copytree(original, folder)
    module.send(made, ALL, pocket.interactions(), folder / ITEMS, user=ME, event_texts=event_texts)
    pocket.reseal(folder)
    return folder


def near(scores, here, items, atol=1e-5):
    """Whether a page scores and orders as a device in Python does."""
    expected = {one.item.id: one.score for one in here.rank(items)}
    assert scores == pytest.approx(expected, abs=atol)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    return True


def test_the_package_has_no_fault_of_types(chromium):
    done = subprocess.run(["npm", "run", "-s", "check"], cwd=browser.WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


OPTIONS = [{}, {"keep": 0, "depth": 0}, {"task": "click", "method": "head"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_page_ranks_as_a_device_does(context, serve, tmp_path, options):
    folder = whole(tmp_path / "phone", event_texts=not options, **options)
    here, phone = Device.load(folder, user=ME), browser.Phone(context, serve(phone=folder).url).load()
    assert near(phone.rank(["i1"]), here, ["i1"])  # without a history
    for event in MINE:
        here.ingest([event])
        phone.ingest([event])
        assert near(phone.rank(ASKED), here, ASKED)
    assert np.ptp(list(phone.rank(ASKED).values())) > 0.01
    assert phone.rank([]) == {}


def test_a_folder_that_cannot_read_ranks_by_what_it_is_sent(context, serve, tmp_path):
    made, folder = pocket.exported()[0], tmp_path / "phone"
    module.export(made, folder, items=ALL, interactions=pocket.interactions(), lower=False)
    here, phone = Device.load(folder), browser.Phone(context, serve(phone=folder).url).load()
    here.ingest(MINE)
    phone.ingest(MINE)
    assert near(phone.rank(ASKED), here, ASKED)
    bundle = tmp_path / "items.safetensors"
    module.send(made, [replace(ALL[0], id="new", title="New")], pocket.interactions(), bundle, states=False)
    phone.receive(bundle)
    with pytest.raises(Exception, match=r"DataError: the state of the text .* was not sent"):
        phone.rank(["new"])


def test_no_request_leaves_the_page_after_loading(phone):
    phone.load()
    assert {Path(url).name for url in phone.requests} >= {MANIFEST, TOKENIZER, LOWER, UPPER, ITEMS}
    phone.requests.clear()
    phone.ingest(MINE)
    phone.rank(list(pocket.ITEMS))
    phone.page.evaluate("device.forget()")
    phone.rank(ASKED)
    phone.page.wait_for_timeout(300)
    assert phone.requests == []
    phone.page.evaluate("fetch('/phone/manifest.json')")  # a request would have been seen
    assert len(phone.requests) == 1


def test_requests_elsewhere_are_refused_by_the_policy(phone):
    refused = phone.page.evaluate(
        """new Promise((done) => {
            addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective));
            fetch("http://127.0.0.1:9/").catch(() => 0);
        })"""
    )
    assert refused == "connect-src"


def test_what_is_known_outlives_the_page(context, phone):
    phone.load()
    phone.ingest(MINE[:5])
    phone.ingest(MINE[5:])
    ranked = phone.rank(ASKED)
    again = browser.Phone(context, phone.url).load()
    assert [url for url in again.requests if "/phone/" in url] == [f"{phone.url}phone/{MANIFEST}"]  # the rest is kept
    assert again.page.evaluate("device.history.length") == len(MINE)
    assert again.rank(ASKED) == ranked
    again.page.evaluate("device.forget()")
    assert again.page.evaluate("device.history.length") == 0
    other = browser.Phone(context, phone.url).load(store="another")
    assert other.page.evaluate("device.history.length") == 0
    assert other.rank(ASKED) == again.rank(ASKED) != ranked


def test_a_page_without_a_network_opens_what_it_has(context, serve, folder):
    server, page = serve(phone=folder), context.new_page()
    page.goto(server.url)
    lines, state = page.locator("#items li"), page.locator("#state")
    lines.first.wait_for()
    page.evaluate(
        """navigator.serviceWorker.controller ??
            new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", () => done()))"""
    )
    lines.first.locator("button").last.click()
    state.filter(has_text="by 1 events").wait_for()
    shown = page.locator("#items").inner_text()
    server.stop()
    page.reload()
    state.filter(has_text="by 1 events").wait_for()
    assert page.locator("#items").inner_text() == shown
    lines.first.locator("button").first.click()
    state.filter(has_text="by 2 events").wait_for()


def test_a_first_visit_without_a_network_is_told(phone, context):
    phone.page.evaluate("import('/m6rec.js')")
    context.set_offline(True)
    with pytest.raises(
        Exception, match=r"AssetError: .*manifest.json can't be reached .* no earlier visit left a copy"
    ):
        phone.load()


def test_threads_change_nothing(phone, folder):
    assert phone.page.evaluate("crossOriginIsolated")
    here = Device.load(folder, user=ME)
    phone.load(threads=2)
    assert near(phone.rank(ASKED), here, ASKED)


def test_many_candidates_are_scored_in_parts(context, serve, tmp_path):
    made, folder = pocket.copied(tmp_path / "phone")
    items = [replace(ALL[n % 8], id=f"n{n}") for n in range(300)]
    module.send(made, items, InteractionStore(pocket.ITEMS, pocket.MOVIES.feedback), folder / ITEMS)
    pocket.reseal(folder)
    here, phone = Device.load(folder), browser.Phone(context, serve(phone=folder).url).load()
    ids = [item.id for item in items]
    assert near(phone.rank(ids), here, ids)


@pytest.mark.parametrize("name", [TOKENIZER, LOWER, UPPER, ADAPTERS, ITEMS])
def test_a_damaged_file_is_refused(phone, folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(Exception, match=f"AssetError: .*{name} has {len(content) - 1} bytes, but should have"):
        phone.load()
    (folder / name).write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(Exception, match=f"AssetError: .*{name} is damaged: its sha256 is not that of manifest.json"):
        phone.load()
    (folder / name).unlink()
    with pytest.raises(Exception, match=f"AssetError: .*{name} can't be read .the server answers 404"):
        phone.load()
    (folder / name).write_bytes(content)
    assert len(phone.load().rank(ASKED)) == len(ASKED)


CARDS = {
    "cut off": (lambda manifest: json.dumps(manifest)[:-9], "is not the manifest of a device folder"),
    "a list": (lambda manifest: "[]", "is not the manifest of a device folder"),
    "of a later format": (
        lambda manifest: json.dumps({**manifest, "format": 99}),
        "has format 99, .* reads format 3",
    ),
    "without a graph": (lambda manifest: json.dumps({**manifest, "files": {}}), "doesn't list upper.onnx"),
    "without a width": (lambda manifest: json.dumps({**manifest, "width": None}), "a size is no whole number"),
}


@pytest.mark.parametrize("kind", CARDS)
def test_a_card_is_refused(phone, folder, kind):
    write, message = CARDS[kind]
    (folder / MANIFEST).write_text(write(json.loads((folder / MANIFEST).read_text())))
    with pytest.raises(Exception, match=f"AssetError: .*{message}"):
        phone.load()


def test_a_graph_of_another_version_is_refused(phone, folder):
    graph = onnx.load(folder / UPPER, load_external_data=False)
    graph.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("later", 1, [1]))
    onnx.save(graph, folder / UPPER)
    pocket.reseal(folder)
    with pytest.raises(Exception, match=r"AssetError: upper.onnx is of another m6rec .* its input later"):
        phone.load()


def test_a_graph_of_other_statistics_is_refused(phone, folder):
    pocket.of_features(folder / UPPER, 12)
    pocket.reseal(folder)
    with pytest.raises(Exception, match=rf"AssetError: upper.onnx .* takes 12 features, but here are {len(FEATURES)};"):
        phone.load()


def test_what_onnxruntime_or_the_tokenizer_does_not_know_is_refused(phone, folder):
    graph = (folder / UPPER).read_bytes()
    (folder / UPPER).write_bytes(b"no graph")
    pocket.reseal(folder)
    with pytest.raises(Exception, match=r"AssetError: upper.onnx can't be run by onnxruntime-web"):
        phone.load()
    (folder / UPPER).write_bytes(graph)
    (folder / TOKENIZER).write_bytes(b"{}")
    pocket.reseal(folder)
    with pytest.raises(Exception, match=r"AssetError: tokenizer.json can't be read"):
        phone.load()


def test_a_damaged_update_leaves_what_was_there(context, phone, folder):
    ranked = phone.load().rank(ASKED)
    content = (folder / UPPER).read_bytes()
    (folder / UPPER).write_bytes(content + b" ")
    pocket.reseal(folder)
    (folder / UPPER).write_bytes(content + b"!")
    with pytest.raises(Exception, match=r"is damaged"):
        phone.load()
    context.set_offline(True)
    assert phone.load().rank(ASKED) == ranked


def test_a_damaged_parcel_changes_nothing(phone, tmp_path):
    phone.load().ingest(MINE)
    ranked = phone.rank(ASKED)
    bundle = tmp_path / "items.safetensors"
    module.send(pocket.exported()[0], ALL[:3], pocket.interactions(), bundle)
    content = bundle.read_bytes()
    for part in (content[:-1], content[: len(content) // 2], b"", content[:-1] + bytes([content[-1] ^ 1])):
        bundle.write_bytes(part)
        with pytest.raises(Exception, match=r"AssetError: the bundle is not a readable bundle"):
            phone.receive(bundle)
    bundle.write_bytes(content.replace(rb"\"format\": 3", rb"\"format\": 7"))
    with pytest.raises(Exception, match=r"has format 7"):
        phone.receive(bundle)
    module.send(pocket.tuned(seed=1), ALL, pocket.interactions(), bundle)
    with pytest.raises(Exception, match=r"are of model tiny-4-1 .* runs tiny-4-0"):
        phone.receive(bundle)
    few = InteractionStore(pocket.ITEMS, pocket.MOVIES.feedback).update_all([Event("u", "i0", 1, 3.0)])
    module.send(pocket.exported()[0], ALL, few, bundle)
    with pytest.raises(Exception, match=r"doesn't word value [1245], which the history has"):
        phone.receive(bundle)
    assert phone.rank(ASKED) == ranked


def test_a_parcel_without_words_is_refused(phone, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "words", lambda *of: None)
    bundle = tmp_path / "items.safetensors"
    module.send(pocket.exported()[0], ALL, pocket.interactions(), bundle)
    with pytest.raises(Exception, match=r"AssetError: the bundle says nothing of how its items are worded"):
        phone.load().receive(bundle)


def test_a_newer_parcel_replaces_counts_and_words(phone, folder, tmp_path):
    here = Device.load(folder, user=ME)
    here.ingest(MINE)
    phone.load().ingest(MINE)
    bundle = tmp_path / "more.safetensors"
    items = [replace(pocket.ITEMS["i3"], title="Another sea"), replace(pocket.ITEMS["i0"], id="new")]
    module.send(pocket.exported()[0], items, pocket.interactions().update_all([Event("u", "i3", 1, 5.0)]), bundle)
    here.receive(bundle)
    phone.receive(bundle)
    assert near(phone.rank([*ASKED, "new"]), here, [*ASKED, "new"])


def test_what_is_asked_wrongly_is_told(phone):
    phone.load()
    with pytest.raises(Exception, match=r"UnknownError: there is no item 'i99' among the 8 on this device"):
        phone.rank(["i1", "i99"])
    with pytest.raises(Exception, match=r"DataError: value 2.5 of item 'i1' isn't worded; give one of 1, 2, 3, 4, 5"):
        phone.ingest([MINE[0], Event("me", "i1", 1, 2.5)])
    with pytest.raises(Exception, match=r"DataError: 1.5 is no time"):
        phone.page.evaluate("device.ingest({ item: 'i1', time: 1.5, value: 1 })")
    assert phone.page.evaluate("device.history.length") == 0


def test_a_database_of_a_later_format_is_refused(phone):
    phone.page.evaluate(
        "new Promise((done) => { indexedDB.open('m6rec', 7).onsuccess = (e) => done(e.target.result.close()); })"
    )
    with pytest.raises(Exception, match=r"StoreError: the database m6rec can't be opened"):
        phone.load()


@pytest.mark.parametrize("cut", ["ByteLevel", "Digits", "Split"])
def test_any_text_has_the_same_tokens_as_in_python(phone, folder, cut):
    """With a vocabulary in which some bytes have no token, and control tokens that texts spell out."""
    qwen = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut != "Split")
    parts: dict[str, list[Any]] = {
        "ByteLevel": [],
        "Digits": [pre_tokenizers.Digits(individual_digits=True)],
        "Split": [pre_tokenizers.Split(Regex(qwen), "isolated")],
    }
    first = parts[cut]
    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.Sequence([*first, level]) if first else level
    texts = [*fuzz.texts(1_000, seed=1), *(path.read_text() for path in Path(module.__file__).parent.glob("*.py"))]
    controls = ["<|endoftext|>", "<|im_end|>"]
    fast.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1_500, special_tokens=controls, show_progress=False))
    fast.save(str(folder / TOKENIZER))
    pocket.reseal(folder)
    here = Tokenizer.open(folder)
    asked = [*fuzz.texts(4_000), *pocket.TITLES, "a <|endoftext|>b", "", " ", "\n\n  x"]
    if assets.is_here("movielens-100k"):
        asked += [item.title for item in domains.load(domains.named("movielens"), offline=True).items.values()]
    found, expected = phone.load().encode(asked), here.encode(asked)
    assert [text for text, ours, theirs in zip(asked, found, expected, strict=True) if ours != theirs] == []
