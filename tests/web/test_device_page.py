"""Ranking in the page of `m6rec serve` by the device folder that it hands out, beside the service's own order."""

import shutil
from pathlib import Path

import httpx
import pytest

from m6rec.device import ITEMS, LOWER, MANIFEST, UPPER
from m6rec.edge import export
from m6rec.serving.project_files import ProjectFiles
from m6rec.serving.settings import make_key
from m6rec.types import Item
from tests import running, visits
from tests.visits import ALL_SCREENS, HOSTILE, check_screen, pick, visit

RUNTIME = "ort-wasm-simd-threaded.wasm"
FEW_LAYERS = 2  # of which a graph is made in half the time


def files(folder):
    """The files of a project that has nothing but a device folder, or not even that."""
    return lambda: ProjectFiles(device=folder, reports=None, runs=())


@pytest.fixture(scope="module")
def models():
    return visits.models(num_layers=FEW_LAYERS)


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """A device folder of the ranking run that is served, as `m6rec export --dtype float32` writes it."""
    where, interactions = tmp_path_factory.mktemp("project") / "device", visits.recommender(models).state.interactions
    export.export(models[1], where, dtype="float32", items=list(visits.ITEMS.values()), interactions=interactions)
    return where


@pytest.fixture
def url(backend, folder):
    with running.service(backend, files=files(folder), deadline_s=60.0) as where:
        yield where


def titles(page):
    return page.locator(".card .title").all_inner_texts()


def switch(page, name="on this device"):
    page.get_by_role("radio", name=name).check()
    page.locator(".cards[aria-busy=false]").wait_for()


def is_servers(page, backend, user):
    """Whether the page's list is the service's, and says so."""
    expected = [one.item.title for one in backend.recommend(user, 12).items]
    page.wait_for_function(
        "titles => [...document.querySelectorAll('.card .title')].map((one) => one.innerText).join() == titles",
        arg=",".join(expected),
    )
    page.locator(".cards[aria-busy=false]").wait_for()
    page.get_by_text(f"all {len(expected)} places are as the server has them").wait_for()
    return True


def test_the_order_on_this_device_is_the_servers(chromium, url, backend):
    page, faults, requests = visit(chromium, url, "desk, light")
    page.locator(".card").first.wait_for()
    nobody = titles(page)
    assert not [one for one in requests if "device/" in one]  # neither the runtime nor the folder
    switch(page)
    assert titles(page) == nobody
    assert is_servers(page, backend, "")
    assert {one.rpartition("/")[2] for one in requests if "device/" in one} >= {RUNTIME, UPPER, ITEMS}
    for screen in ALL_SCREENS.values():
        page.set_viewport_size({"width": screen[0], "height": 844})
        page.emulate_media(color_scheme=screen[1])
        check_screen(page)
    for user in ("u0", "u3", HOSTILE):
        pick(page, "Find a user by id", user)
        page.get_by_text(f"User {user}", exact=True).wait_for()
        assert is_servers(page, backend, user)
    assert page.get_by_role("slider", name="Diversity").is_disabled()
    before = titles(page)
    page.get_by_role("button", name=f"Not this: {before[0]}").click()
    page.wait_for_function("title => document.querySelector('.card .title').innerText != title", arg=before[0])
    page.locator(".cards[aria-busy=false]").wait_for()
    page.get_by_text("places are as the server has them").wait_for()
    ours = titles(page)
    page.get_by_role("radio", name="on this device").press("ArrowUp")
    page.get_by_text("in this page:").wait_for(state="detached")
    page.locator(".cards[aria-busy=false]").wait_for()
    assert titles(page) == ours
    page.context.close()
    assert faults == []
    assert all(one.startswith(f"{url}/") for one in requests)


def test_what_a_folder_of_another_run_ranks_otherwise_is_counted(chromium, folder):
    backend = visits.recommender(visits.models(num_layers=FEW_LAYERS, seed=1))
    with running.service(backend, files=files(folder), deadline_s=60.0) as url:
        page, faults, _ = visit(chromium, url, "phone, dark")
        page.locator(".card").first.wait_for()
        before = titles(page)
        switch(page)
        told = page.locator(".recommended [role=status]", has_text="Ranked in this page").inner_text()
        count = sum(one != other for one, other in zip(before, titles(page), strict=True))
        assert count > 0
        assert told.startswith(f"Ranked in this page: {count} of 12 places differ from the server's.")
        assert "another run" in told
        page.context.close()
        assert faults == []


def test_without_a_folder_the_page_says_how_to_make_one(chromium, backend, tmp_path):
    with running.service(backend, files=files(tmp_path / "none"), deadline_s=60.0) as url:
        page, faults, _ = visit(chromium, url, "phone, light")
        page.get_by_text("m6rec export --project PROJECT").wait_for()
        assert page.get_by_role("radio").count() == 0
        page.get_by_role("combobox", name="Language").select_option("zh")
        page.get_by_text("请导出正在服务的运行").wait_for()
        page.context.close()
        assert faults == []


def test_what_is_wrong_with_a_folder_is_told(chromium, backend, folder, tmp_path):
    where = Path(shutil.copytree(folder, tmp_path / "device"))
    whole = (where / LOWER).read_bytes()
    (where / LOWER).write_bytes(whole[:-1] + b"!")
    with running.service(backend, files=files(where), deadline_s=60.0) as url:
        page, faults, _ = visit(chromium, url, "desk, dark")
        page.locator(".card").first.wait_for()
        page.get_by_role("radio", name="on this device").check()
        page.locator(".recommended [role=alert]", has_text="lower.onnx is damaged").wait_for()
        (where / LOWER).write_bytes(whole)
        backend.upsert([Item("fresh", "A film that the folder never had")])  # which it reads by itself
        page.get_by_role("button", name="Try again").click()
        assert is_servers(page, backend, "")
        (where / MANIFEST).write_text("{}")
        page.reload()
        page.get_by_text("is not the manifest of a device folder").wait_for()
        page.context.close()
        assert faults == []


def test_a_folder_needs_a_key_and_hands_out_nothing_else(chromium, backend, folder, tmp_path):
    (folder.parent / "secret.txt").write_text("secret")
    key = make_key(tmp_path / "keys", role="read")
    with running.service(backend, keys=tmp_path / "keys", files=files(folder), deadline_s=60.0) as url:
        assert httpx.get(f"{url}/v1/device/{MANIFEST}").status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        manifest = httpx.get(f"{url}/v1/device/{MANIFEST}", headers=headers)
        assert manifest.content == (folder / MANIFEST).read_bytes()
        answer = httpx.get(f"{url}/v1/device/{ITEMS}", headers=headers)
        assert answer.content == (folder / ITEMS).read_bytes()
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["etag"] == f'"{manifest.json()["files"][ITEMS]["sha256"]}"'
        again = httpx.get(f"{url}/v1/device/{ITEMS}", headers=headers | {"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        for name in ("../secret.txt", "..%2Fsecret.txt", "%2e%2e%2fsecret.txt", "secret.txt", "%2e%2e", "none"):
            assert httpx.get(f"{url}/v1/device/{name}", headers=headers).status_code == 404, name
        page, faults, _ = visit(chromium, url, "phone, dark")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        switch(page)
        page.get_by_text("places are as the server has them").wait_for()
        assert page.evaluate("indexedDB.databases().then((all) => all.length)") == 1
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_function("async () => !(await indexedDB.databases()).length && !(await caches.keys()).length")
        page.context.close()
        assert all("401" in fault for fault in faults)


def test_the_page_itself_may_not_run_webassembly(chromium, url):
    worker = httpx.get(f"{url}/page/device/worker.js").headers
    assert "'wasm-unsafe-eval'" in worker["content-security-policy"]
    assert httpx.get(f"{url}/page/device/{RUNTIME}").headers["content-type"] == "application/wasm"
    for path in ("/", "/page/main.js", "/page/report.html"):
        assert "wasm" not in httpx.get(f"{url}{path}").headers["content-security-policy"]
    page, _, _ = visit(chromium, url, "desk, light")
    refused = page.evaluate("WebAssembly.compile(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)).then(() => '', String)")
    page.context.close()
    assert "Content Security Policy" in refused
