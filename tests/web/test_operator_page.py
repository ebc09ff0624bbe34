"""The operator's view in a real browser: what it shows, what it lets one do, and for whom."""

import json

import pytest

from m6rec.evaluation import report
from m6rec.serving.deployment import (
    DataCard,
    Deployment,
    Evaluation,
    MeasuredMethod,
    MeasuredTable,
    MetricValue,
    RunningTuning,
    ServedRun,
)
from m6rec.serving.project_files import ProjectFiles, ReportFile
from m6rec.serving.settings import ROLES, make_key
from m6rec.types import Event
from tests import running
from tests.visits import ALL_SCREENS, HOSTILE, check_screen, pick, visit

RUN = ServedRun(
    run="like-0",
    task="like",
    readout="score",
    finished=1_700_000_000.0,
    method="option-adapter",
    num_parameters=173_124,
    validation_scores=(0.71, 0.73, 0.72),
)
TABLE = MeasuredTable(
    title="AUC by the number of the item's earlier events",
    metric="100+",
    ours="m6rec",
    verdict="m6rec wins by 0.01 100+ over popularity",
    note="95 % intervals",
    rows=(
        MeasuredMethod(method="m6rec", metrics={"100+": MetricValue(0.79, 0.002), "0": MetricValue(0.6, 0.01)}),
        MeasuredMethod(method="popularity", metrics={"100+": MetricValue(0.78, None)}),
    ),
)
DEPLOYMENT = Deployment(
    runs=(RUN,),
    data=DataCard(
        domain="movielens",
        split="time",
        feedback="ratings of 4 and 5",
        num_events=100_000,
        num_items=1_682,
        num_users=943,
        time="seconds since 1970",
        columns={"events": {"user": HOSTILE}},
        dropped={"no title": 3},
        notes=("genres are divided at |",),
    ),
    tunings=(
        RunningTuning(
            run="click-1", step=50, num_steps=200, saved=1_700_000_000.0, eta_s=90.0, validation_scores=(0.5,)
        ),
    ),
    evaluations=(
        Evaluation(title="like on movielens", measured=1_700_000_000.0, facts={"seeds": "0, 1"}, tables=(TABLE,)),
        Evaluation(title=HOSTILE, measured=1_600_000_000.0, facts={}, tables=(TABLE,)),
    ),
    reports=(ReportFile(name="like & more/report.html", written=1_700_000_000.0, num_bytes=20_000),),
)


@pytest.fixture
def reports(tmp_path):
    """The project's folder of reports, with one that would do harm."""
    made = report.Report(title="Like, measured", tables=(), facts={"seeds": "0, 1"})
    report.write_report(made, tmp_path / "like & more")
    file = tmp_path / "like & more" / "report.html"
    harm = "<script>parent.hurt = top.hurt = 1</script><img src=x onerror='top.hurt = 1'>"
    file.write_text(file.read_text().replace("</main>", f"{harm}</main>"))
    return tmp_path


@pytest.fixture
def url(backend, reports):
    known = {
        "deployment": lambda: DEPLOYMENT,
        "statistics": backend.cache_statistics,
        "files": lambda: ProjectFiles(device=None, reports=reports, runs=()),
    }
    with running.service(backend, deadline_s=60.0, **known) as where:
        yield where


@pytest.fixture
def operator(page):
    """The operator's view, on every screen, which must end without a fault."""
    page.get_by_role("link", name="Operator").click()
    page.get_by_role("heading", name="Traffic").wait_for()
    return page


def part(page, name):
    return page.get_by_role("region", name=name, exact=True)


def choose(page, name, text):
    """Chooses a file of this name and text for the import."""
    file = {"name": name, "mimeType": "text/csv", "buffer": text.encode()}
    part(page, "Import").locator("input[type=file]").set_input_files([file])


def test_it_shows_traffic_freshness_runs_measurements_and_tasks(operator, backend):
    traffic = part(operator, "Traffic")
    traffic.get_by_role("row", name="/v1/recommend").wait_for()
    assert "ms" in traffic.get_by_role("row", name="/v1/recommend").inner_text()
    service = part(operator, "Service")
    assert "42, all in the index" in service.inner_text()
    assert "none since the start" in service.inner_text()
    assert "hits" in service.inner_text()
    backend.ingest([Event("u0", "i1", 2_000_000_000 - 400_000_000, 5.0)])
    operator.wait_for_function("() => !document.body.innerText.includes('none since the start')")  # it looks by itself
    served = part(operator, "Served").get_by_role("row", name="like-0")
    assert "0.7300" in served.inner_text()
    measured = part(operator, "Measured")
    assert "m6rec wins by 0.01" in measured.inner_text()
    assert "0.7900 ± 0.0020" in measured.get_by_role("row", name="m6rec").inner_text()
    measured.get_by_role("combobox", name="Report").select_option("1")
    measured.locator("p", has_text=HOSTILE).wait_for()
    going = part(operator, "Going on")
    assert "Tuning click-1" in going.inner_text()
    assert "50 / 200 · about 2 minutes left" in going.inner_text()
    assert "100,000 events of 943 users with 1,682 items" in part(operator, "Data").inner_text()


def test_a_report_is_read_in_the_page_and_runs_nothing(chromium, backend, reports, tmp_path):
    files = ProjectFiles(device=None, reports=reports, runs=())
    key = make_key(tmp_path / "keys", role="read")
    known = {"deployment": lambda: DEPLOYMENT, "files": lambda: files, "keys": tmp_path / "keys"}
    with running.service(backend, deadline_s=60.0, **known) as url:
        page, faults, requests = visit(chromium, f"{url}/#/operator", "phone, dark")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="like & more/report.html").click()
        frame = page.frame_locator("iframe")
        frame.get_by_role("heading", name="Like, measured").wait_for()
        assert frame.locator("main").evaluate("one => getComputedStyle(one).maxWidth") == "896px"  # its own styles
        assert page.evaluate("window.hurt") is None
        check_screen(page)
        page.get_by_role("link", name="m6rec").click()
        page.get_by_role("link", name="The runs that are served").click()
        page.get_by_text("no run is known to be served").wait_for()
        page.context.close()
        assert all(one.startswith((f"{url}/", "about:")) for one in requests)
        refused = [fault for fault in faults if "401" not in fault and "404" not in fault]
        assert all("sandboxed" in one or "Content Security Policy" in one for one in refused), refused


def test_what_was_refused_is_listed_by_request_id(operator, url):
    with running.http(url) as http:
        http.get("/v1/items/nowhere", headers={"X-Request-Id": "find-me"})
    row = part(operator, "Refused and failed").get_by_role("row", name="find-me")
    row.wait_for()
    assert "404" in row.inner_text()
    assert "nowhere" not in row.inner_text()


def test_events_of_a_csv_are_mapped_and_stored_once(operator, backend):
    before = backend.holdings()
    rows = [f'"u{n}";i{n % 40};2017-07-14T02:40:{n:02};{1 + n % 5};"said ""so""; twice\nover"' for n in range(10)]
    choose(operator, "events.csv", "\n".join(["\ufeffwho;item id;when;rating;note", *rows]))
    form = part(operator, "Import").locator("form")
    form.get_by_text("10 rows").wait_for()
    form.get_by_role("combobox", name="The rows are").select_option("events")
    assert form.get_by_role("combobox", name="Is: item id").input_value() == "item"
    form.get_by_text("Still to be named: the user.").wait_for()
    assert form.get_by_role("button", name="Import").is_disabled()
    form.get_by_role("combobox", name="Is: who").select_option("user")
    form.get_by_role("combobox", name="Is: note").select_option("text")
    form.get_by_role("button", name="Import").click()
    form.get_by_text("10 written, 0 were here already.").wait_for()
    form.get_by_role("button", name="Import").click()
    form.get_by_text("0 written, 10 were here already.").wait_for()
    assert backend.holdings().num_events == before.num_events + 10
    stored = backend.get_user("u9")[1][-1]
    assert (stored.item, stored.value, stored.text) == ("i9", 5.0, 'said "so"; twice\nover')
    assert stored.time == 1_500_000_009


def test_rows_that_are_refused_are_told_and_the_others_stored(chromium, url, backend):
    operator, faults, _ = visit(chromium, f"{url}/#/operator", "desk, light")
    good = [f"u0,i{n},{1_500_000_000 + n},4" for n in range(30)]
    bad = ["u0,i1,yesterday,4", "u0,i2,1500000100,four", "u0,gone,1500000200,4"]
    choose(operator, "mixed.csv", "\n".join(["user,item,time,value", *good[:15], *bad, *good[15:]]))
    form = part(operator, "Import").locator("form")
    form.get_by_role("button", name="Import").click()
    form.get_by_text("30 written").wait_for()
    told = form.locator(".refused li").all_inner_texts()
    assert sorted(line.split(":")[0] for line in told) == ["Row 16", "Row 17"]
    assert any("the value “four” is no number" in line for line in told)
    assert "left out: gone." in form.inner_text()
    operator.context.close()
    assert all("422" in fault for fault in faults)  # which the browser itself notes of what the service refused


def test_items_of_a_csv_can_be_recommended_and_their_texts_never_run(operator, backend):
    rows = [f"n{n}\tNew film {n}\tWar|Drama\t{1950 + n}" for n in range(3)] + [f"n3\t{HOSTILE}\tWar\t1999"]
    choose(operator, "items.tsv", "\n".join(["id\ttitle\tgenres\tyear", *rows]))
    form = part(operator, "Import").locator("form")
    assert form.get_by_role("combobox", name="The rows are").input_value() == "items"
    form.get_by_role("button", name="Import").click()
    form.get_by_text("4 written").wait_for()
    [item, last] = backend.find_items(ids=["n0", "n3"])
    assert (item.title, item.categories, item.details) == ("New film 0", ("War", "Drama"), {"year": 1950})
    assert last.title == HOSTILE


def test_a_csv_is_dropped(operator):
    text = "user,item,time\nu0,i1,5"
    dropping = """text => {
        const data = new DataTransfer();
        data.items.add(new File([text], "dropped.csv"));
        return data;
    }"""
    transfer = operator.evaluate_handle(dropping, text)
    operator.locator(".drop").dispatch_event("drop", {"dataTransfer": transfer})
    operator.get_by_role("heading", name="dropped.csv").wait_for()
    choose(operator, "empty.csv", "user,item,time\n")
    operator.get_by_text("The file has no rows below its header.").wait_for()


def test_everything_is_exported_as_a_file(operator, backend, tmp_path):
    for name in ("Events", "Items", "Users"):
        with operator.expect_download() as download:
            part(operator, "Export").get_by_role("button", name=name).click()
        assert download.value.suggested_filename == f"{name.lower()}.jsonl"
        download.value.save_as(tmp_path / name)
        lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert len(lines) == len(backend.export(name.lower()))


def test_a_user_is_erased_only_when_their_id_was_written(operator, backend):
    erase = part(operator, "Erase a user")
    pick(operator, "Find the user by id", "u3")
    button = erase.get_by_role("button", name="Erase for good")
    field = erase.get_by_label("Write u3 to confirm")
    field.fill("u4")
    assert button.is_disabled()
    field.fill("u3")
    button.click()
    erase.get_by_text("u3 is erased (request").wait_for()
    assert backend.find_users("u3") == []
    assert all(event.user != "u3" for event in backend.export("events"))


def test_each_role_sees_what_its_key_may_do(chromium, backend, tmp_path):
    keys = {role: make_key(tmp_path / "keys", role=role) for role in ROLES}
    reloads = []
    with running.service(backend, keys=tmp_path / "keys", deadline_s=60.0, reload=lambda: reloads.append(1)) as url:
        for role, key in keys.items():
            page, faults, _ = visit(chromium, f"{url}/#/operator", "desk, light")
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Sign in").click()
            service = part(page, "Service")
            service.get_by_text(role, exact=True).wait_for()
            assert part(page, "Import").locator("input[type=file]").count() == (role != "read")
            assert part(page, "Export").get_by_role("button").count() == (3 if role == "admin" else 0)
            assert part(page, "Erase a user").get_by_role("combobox").count() == (role == "admin")
            if role == "admin":
                part(page, "Served").get_by_role("button", name="Load the newest runs").click()
                page.get_by_text("The newest runs are served.").wait_for()
            else:
                told = part(page, "Erase a user").inner_text()
                assert f"needs a key with the role “admin”; yours has “{role}”" in told
            page.context.close()
            assert all("401" in fault for fault in faults)
    assert reloads == [1]


@pytest.mark.parametrize("screen", ALL_SCREENS)
def test_the_view_is_accessible_and_fits_its_screen(chromium, url, screen):
    page, faults, _ = visit(chromium, f"{url}/#/operator", screen)
    page.get_by_role("row", name="/v1/status").wait_for()
    choose(page, "events.csv", "user,item,time,value\nu0,i1,5,x\nu0,i2,6,4")
    form = part(page, "Import").locator("form")
    form.get_by_role("button", name="Import").click()
    form.locator(".refused li").first.wait_for()
    pick(page, "Find the user by id", "u3")
    check_screen(page)
    page.get_by_role("combobox", name="Language").select_option("zh")
    part(page, "流量").wait_for()
    check_screen(page)
    page.context.close()
    assert faults == []
