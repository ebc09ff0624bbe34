"""The pictures of the pages say what the results say, in the same bytes each time."""

import json
import re
import statistics
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks import page, plots
from tests.running import ROOT

SIZES = {
    "sizes": {
        "tables": [
            {
                "metric": "AUC, device",
                "rows": [
                    {
                        "method": "small",
                        "metrics": {"M not zero": [9.5], "AUC, device": [0.78], "AUC, words alone": [0.6]},
                    },
                    {"method": "reads nothing", "metrics": {"AUC, device": [0.77]}},
                ],
            }
        ]
    }
}
MEASURED = {
    "evidence": json.loads((ROOT / "benchmarks/results/evidence.json").read_text())["parts"],
    "edge": SIZES,
}


def numbers(parts):
    """Every value of the parts' tables, and every mean of one row's values."""
    found = set()
    for measured in parts.values():
        for table in measured.get("tables", ()):
            for row in table["rows"]:
                for values in row["metrics"].values():
                    found.update((*values, statistics.fmean(values)))
    return found


@pytest.mark.parametrize("picture", plots.PICTURES, ids=lambda picture: picture.file)
def test_a_picture_shows_numbers_of_the_results_alone(picture):
    parts = MEASURED[picture.page]
    figure = Figure()
    picture.draw(figure, parts)
    drawn = [line for axes in figure.axes for line in axes.lines]
    quality = [line.get_xdata() if picture.name == "retrieval" else line.get_ydata() for line in drawn]
    shown = {float(value) for values in quality for value in np.atleast_1d(values) if np.isfinite(value)}
    known = numbers({part: parts[part] for part in picture.parts})
    if picture.name == "sizes":
        known |= {0.0, 1.0}  # the ends of the lines of the limits, as shares of the height
    assert len(shown) > 2
    assert shown <= known


@pytest.mark.parametrize("picture", plots.PICTURES, ids=lambda picture: picture.file)
def test_a_picture_is_the_same_small_file_each_time(picture):
    parts = MEASURED[picture.page]
    text = picture.svg(parts)
    assert text == picture.svg(parts)
    assert len(text) < 60_000
    ElementTree.fromstring(text)  # it stands alone
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"#(000000|ffffff)\b", text)


def test_a_page_links_the_pictures_of_what_was_measured():
    told = page.pictures("evidence", {"parts": {"methods": MEASURED["evidence"]["methods"]}})
    assert re.findall(r"\]\((.*?)\)", told) == ["evidence-methods.svg"]
    assert page.pictures("edge", {"parts": {}}) == ""
    shown = (ROOT / "docs/evidence.md").read_text()
    for picture in plots.of("evidence", MEASURED["evidence"]):
        assert f"]({picture.file})" in shown
        assert (ROOT / "docs" / picture.file).is_file()
