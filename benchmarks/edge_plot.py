"""The sizes of ``edge.json`` as a picture: ``python -m benchmarks.edge_plot`` rewrites ``docs/edge.svg``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

RESULTS, PICTURE = Path("benchmarks/results/edge.json"), Path("docs/edge.svg")
COLUMNS = {"AUC, words alone": "the task without statistics", "AUC, device": "a device's questions, with statistics"}
LIMITS = (10.0, 2.0)
"""Millions of parameters that the small models have at most."""


def main() -> None:
    """Rewrites the picture."""
    (table,) = json.loads(RESULTS.read_text())["parts"]["sizes"]["tables"]
    PICTURE.write_text(drawn(table["rows"]))


def drawn(rows: Sequence[Mapping[str, Any]]) -> str:
    """An SVG with a panel for each of ``COLUMNS``; its bytes depend on the rows only."""
    sized = [row for row in rows if "M not zero" in row["metrics"]]
    with matplotlib.rc_context({"svg.hashsalt": "m6rec", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        for place, (column, title) in enumerate(COLUMNS.items(), 1):
            axes = figure.add_subplot(1, 2, place)
            axes.set(xscale="log", xlabel="million parameters that are not zero", ylabel="test AUC", title=title)
            for limit in LIMITS:
                axes.axvline(limit, color="gray", linewidth=0.5, linestyle=":")
            for row in sized:
                size, quality = (row["metrics"][name][0] for name in ("M not zero", column))
                axes.plot(size, quality, marker="o", markersize=3, color="tab:blue")
                axes.annotate(row["method"], (size, quality), xytext=(3, 3), textcoords="offset points", fontsize=5)
            for row in rows:
                if row not in sized and column in row["metrics"]:
                    quality = row["metrics"][column][0]
                    axes.axhline(quality, color="tab:orange", linewidth=0.5)
                    axes.annotate(row["method"], (LIMITS[0], quality), fontsize=5, color="tab:orange")
        partial = PICTURE.with_suffix(".partial")
        figure.savefig(partial, format="svg", metadata={"Date": None})
    text = partial.read_text()
    partial.unlink()
    return text


if __name__ == "__main__":
    main()
