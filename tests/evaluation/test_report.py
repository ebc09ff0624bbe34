import io
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
from rich.console import Console

from m6rec.errors import DataError
from m6rec.evaluation import report as reports
from m6rec.evaluation.report import Claim, Curve, Report, Row, Table

LOST = Table(
    title="Like-ranking",
    metric="AUC",
    ours="m6rec",
    rows=(
        Row(method="item mean", metrics={"AUC": (0.7055,)}),
        Row(method="m6rec", metrics={"AUC": (0.75, 0.76, 0.77), "log loss": (0.5, 0.5, 0.5)}),
        Row(method="LightGBM", metrics={"AUC": (0.78,)}),
    ),
    note="three seeds",
)
WON = Table(
    title="Retrieval",
    metric="NDCG@10",
    ours="m6rec",
    rows=(
        Row(method="m6rec", metrics={"NDCG@10": (0.1,)}),
        Row(method="EASE", metrics={"NDCG@10": (0.0921,)}),
    ),
)
REPORT = Report(
    title="A demo",
    tables=(WON, LOST),
    claims=(
        Claim(name="mean AUC", value=0.76, target=0.77, command="make demo"),
        Claim(name="minutes", value=7, target=8, relation="<=", command="make demo"),
    ),
    curves=(Curve(title="Loss", x="step", y="nats", series={"seed 0": ((0, 0.7), (1, 0.6))}),),
    facts={"seeds": "0 1 2", "seconds": 412.5},
)
HOSTILE = '</script><img src="http://x.example/a.png"> & "$\\frac{1}{2$ \\1 推荐'
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Fails on tags that don't balance; collects tags, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.open: list[str] = []
        self.tags, self.attributes, self.text = set(), [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def shown(report):
    told = io.StringIO()
    Console(file=told, width=120).print(reports.to_table(report))
    return told.getvalue()


def test_a_lead_is_over_the_best_other_row():
    assert LOST.best.method == "LightGBM"
    assert LOST.lead == pytest.approx(0.76 - 0.78)
    assert LOST.verdict == "LightGBM wins by 0.0200 AUC over m6rec"
    assert WON.verdict == "m6rec wins by 0.0079 NDCG@10 over EASE"
    tied = replace(WON, rows=(WON.rows[0], Row(method="EASE", metrics=WON.rows[0].metrics)))
    assert tied.verdict == "m6rec ties with EASE in NDCG@10"
    assert replace(WON, ours="").verdict == replace(WON, rows=WON.rows[:1]).verdict == ""


def test_spread_is_over_the_seeds():
    assert LOST.rows[1].mean("AUC") == pytest.approx(0.76)
    assert LOST.rows[1].spread("AUC") == pytest.approx(0.01)
    assert LOST.rows[0].spread("AUC") is None


@pytest.mark.parametrize(
    ("value", "relation", "holds"),
    [(1, ">=", True), (1, "<=", True), (1, ">", False), (0.9, ">=", False), (1.1, "<=", False), (1.1, ">", True)],
)
def test_a_claim_holds_if_its_relation_does(value, relation, holds):
    assert Claim(name="n", value=value, target=1, relation=relation, command="c").holds is holds


def test_json_reads_back_and_carries_what_is_derived():
    text = reports.to_json(REPORT)
    assert reports.from_json(text) == REPORT
    document = json.loads(text)
    assert [claim["holds"] for claim in document["claims"]] == [False, True]
    assert document["tables"][1]["verdict"] == LOST.verdict


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"title": "a", "tables": [{}]}', "3"])
def test_json_that_is_no_report_is_refused(text):
    with pytest.raises(DataError, match="not a report of m6rec"):
        reports.from_json(text)


def test_losses_are_told_first():
    for text in (shown(REPORT), "".join(Page(reports.to_html(REPORT)).text)):
        assert text.index(LOST.verdict) < text.index(WON.verdict)
        assert text.index(WON.verdict) < text.index("0.7600 ± 0.0100")


def test_the_page_shows_every_number_and_marks_best_and_claims():
    html = reports.to_html(REPORT)
    text = "".join(Page(html).text)
    for expected in ("0.7600 ± 0.0100", "0.7055", "0.0921", "–", "three seeds", "make demo", "412.5", "seed 0"):
        assert expected in text
    assert re.findall(r'<tr class="best[^"]*"><td>([^<]*)', html) == ["m6rec", "LightGBM"]
    assert "Claims: 1 of 2 hold" in text
    assert [text.count(mark) for mark in "✓✗"] == [1, 1]
    assert html.count("<svg") == 3


def test_the_page_fetches_nothing():
    html = reports.to_html(REPORT)
    page = Page(html)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "image"}
    assert "://" not in html
    assert "@import" not in html
    targets = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(target.startswith("#") for target in targets)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_the_page_colours_its_plots_like_its_text():
    html = reports.to_html(REPORT)
    assert "prefers-color-scheme: dark" in html
    assert "currentColor" in html
    svgs = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert not re.search(r"#(000000|ffffff|fff)\b", svgs)


def test_same_report_same_bytes():
    assert reports.to_html(REPORT) == reports.to_html(REPORT)


def test_text_of_users_stays_text():
    rows = (Row(method=HOSTILE, metrics={HOSTILE: (1.0,)}),)
    report = Report(
        title=HOSTILE,
        tables=(Table(title=HOSTILE, metric=HOSTILE, rows=rows, ours=HOSTILE, note=HOSTILE),),
        claims=(Claim(name=HOSTILE, value=1, target=1, command=HOSTILE),),
        curves=(Curve(title=HOSTILE, x=HOSTILE, y=HOSTILE, series={HOSTILE: ((0, 1),)}),),
        facts={HOSTILE: HOSTILE},
    )
    page = Page(reports.to_html(report))
    assert "img" not in page.tags
    assert "".join(page.text).count(HOSTILE) >= 14
    assert "[bold]" in shown(replace(REPORT, title="[bold]"))  # rich's markup is text as well


def test_write_replaces_whole_files(tmp_path):
    folder = tmp_path / "runs" / "demo"
    reports.write_report(REPORT, folder)
    reports.write_report(replace(REPORT, title="Again"), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    assert reports.from_json((folder / "report.json").read_text(encoding="utf-8")).title == "Again"
    assert "<h1>Again</h1>" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_number_that_is_none_is_refused_and_nothing_is_written(tmp_path):
    broken = replace(REPORT, claims=(replace(REPORT.claims[0], value=float("nan")),))
    assert not broken.claims[0].holds
    with pytest.raises(DataError, match="NaN or infinite"):
        reports.write_report(broken, tmp_path)
    assert not list(tmp_path.iterdir())


def test_facts_leave_out_what_is_not_known(monkeypatch):
    known = reports.facts()
    assert str(known["numpy"]).startswith("2.")
    assert int(known["cores"]) >= 1

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(reports, "version", missing)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    bare = reports.facts()
    assert "commit" not in bare
    assert "numpy" not in bare
    assert "gpu" not in bare
    assert bare["python"] == known["python"]


@pytest.mark.parametrize("used", [True, False])
def test_a_gpu_is_a_fact_where_it_was_used(monkeypatch, used):
    cuda = SimpleNamespace(is_initialized=lambda: used, get_device_name=lambda: "a fast one")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert reports.facts().get("gpu") == ("a fast one" if used else None)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: replace(WON, rows=()), "has no rows"),
        (lambda: replace(WON, rows=WON.rows * 2), "has a method twice"),
        (lambda: replace(WON, ours="mine"), "ours is 'mine'; the rows .* are m6rec, EASE"),
        (lambda: replace(WON, metric="AUC"), "it needs 'AUC'"),
        (lambda: replace(WON, rows=(Row(method="m6rec", metrics={"NDCG@10": ()}),)), "at least one value"),
        (lambda: replace(REPORT.claims[0], relation="=="), "relation is '=='; allowed are >=, <=, >"),
    ],
)
def test_what_cannot_be_read_is_refused(make, text):
    with pytest.raises(DataError, match=text):
        make()
