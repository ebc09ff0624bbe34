import json
import re
from dataclasses import replace
from typing import Any

import pytest

from m6rec.errors import AssetError, DataError
from m6rec.evaluation import comparison
from m6rec.evaluation.report import Claim, Curve, Report, Row, Table, to_html, write_report
from tests.evaluation.test_report import HOSTILE, Page

BUCKETS = {"0 (n=5)": (0.5, 0.6), "1-3 (n=7)": (0.7, 0.8)}
TABLES = (
    Table(title="Likes", metric="AUC", rows=(Row(method="ours", metrics={"AUC": (0.7, 0.72), "ms": (3.0, 4.0)}),
                                             Row(method="EASE", metrics={"AUC": (0.6,), "ms": (1.0,)})), ours="ours"),
    Table(title="Likes by the number of the item's earlier events", metric="0 (n=5)",
          rows=(Row(method="ours", metrics=BUCKETS),)),
)  # fmt: skip


@pytest.fixture
def reports(tmp_path):
    """Two folders of reports."""
    for name, gain in (("one", 0.0), ("two", 0.1)):
        row = Row(method="ours", metrics={"AUC": (0.7 + gain,)})
        first = replace(TABLES[0], rows=(row, *TABLES[0].rows[1:]))
        curve = Curve(title="like: loss", x="step", y="loss", series={name: ((1.0, 0.5), (2.0, 0.4 + gain))})
        write_report(Report(title=name, tables=(first, *TABLES[1:]), curves=(curve,)), tmp_path / name)
    return [tmp_path / "one", tmp_path / "two"]


def test_tables_of_one_title_are_merged_and_named_by_source(reports):
    found = comparison.read(reports)
    made = comparison.compare(found)
    assert [table.title for table in made.tables] == [table.title for table in TABLES]
    assert [row.method for row in made.tables[0].rows] == ["ours · one", "EASE · one", "ours · two", "EASE · two"]
    assert made.tables[0].rows[2].metrics["AUC"] == (0.7 + 0.1,)
    assert set(made.curves[0].series) == {"one", "two"}
    apart = comparison.gather(found)
    assert [table.title for table in apart.tables] == [f"{name}: {t.title}" for name in ("one", "two") for t in TABLES]
    assert apart.tables[0].verdict


def test_the_results_of_a_benchmark_are_read_with_what_each_part_was_measured_on(tmp_path):
    claim: dict[str, Any] = {
        "name": "AUC",
        "value": 0.7,
        "target": 0.6,
        "relation": ">=",
        "command": "make",
        "holds": True,
    }
    table = {"title": "T", "metric": "AUC", "rows": [{"method": "a", "metrics": {"AUC": [0.7]}}], "verdict": ""}
    value: dict[str, Any] = {
        "title": "Bench",
        "claims": [{"part": "p", **claim}],
        "parts": {"p": {"commit": "abc", "tables": [table]}, "q": {"commit": "def"}},
    }
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(value))
    (one,) = comparison.read([file]).values()
    assert one.claims == (Claim(name="AUC", value=0.7, target=0.6, command="make"),)
    assert one.facts == {"p, commit": "abc", "q, commit": "def"}
    assert one.tables[0].rows[0].mean("AUC") == 0.7
    value["claims"][0].pop("value")
    file.write_text(json.dumps(value))
    with pytest.raises(DataError):
        comparison.read([file])


def test_what_is_nothing_measured_is_refused(tmp_path):
    with pytest.raises(AssetError, match=r"is no finished run, no report and no results of a benchmark; give a run"):
        comparison.read([tmp_path])
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad.json can't be read"):
        comparison.read([tmp_path / "bad.json"])


def test_the_page_draws_bands_buckets_and_quality_by_time_and_runs_no_title(reports):
    made = comparison.compare(comparison.read(reports))
    buckets = replace(TABLES[1], title=HOSTILE, rows=(Row(method=HOSTILE, metrics=BUCKETS),))
    band = Curve(title="loss", x="step", y="loss", series={HOSTILE: ((1.0, 0.5), (1.0, 0.7), (2.0, 0.4), (2.0, 0.5))})
    html = to_html(replace(made, title=HOSTILE, tables=(TABLES[0], buckets), curves=(band,)))
    page = Page(html)
    assert {"script", "img", "iframe", "link", "object"} & page.tags == set()
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "http://x.example" not in re.sub(r"&lt;img.*?&gt;", "", html)
    assert HOSTILE in "".join(page.text)
    assert "Likes: AUC by ms" in html
    without = to_html(replace(made, tables=(), curves=(replace(band, series={"a": ((1.0, 0.5), (2.0, 0.4))}),)))
    assert html.count("fill-opacity: 0.15") >= 2 > without.count("fill-opacity: 0.15")
