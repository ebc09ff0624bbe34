"""Plots of tables and curves as inline SVG, drawn by ``matplotlib``; their bytes depend on what is drawn only."""

from __future__ import annotations

import io
import re
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from m6rec.evaluation.report import Curve, Row, Table

# matplotlib draws in this colour whatever the page shall colour like its text, in light and dark.
INK = "#010203"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe & Ito; the first is ours


_COUNTED = re.compile(r"(.+) \(n=(\d+)\)")
"""A column that holds a bucket of questions, such as "1-3 (n=615)"."""
_TIME = re.compile(r"\b(ms|s|seconds|minutes)\b")


def of_table(table: Table) -> str:
    """Lines over buckets where the columns are such; else dots, and beside them quality by time where that is known."""
    if len(table.columns) > 1 and all(_COUNTED.fullmatch(name) for name in table.columns):
        return _buckets_svg(table)
    timed = next((name for name in table.columns if _TIME.search(name)), None)
    pairs = [row for row in table.rows if timed in row.metrics]
    return _dots_svg(table) + (_frontier_svg(table, timed, pairs) if timed and len(pairs) > 1 else "")


def _dots_svg(table: Table) -> str:
    """A dot for each seed and a tick for the mean of the deciding metric, best on top.

    Dots and not bars: a bar must start at zero, where an AUC of .765 and one of .760 look the same.
    """
    rows = sorted(table.rows, key=lambda row: row.mean(table.metric))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot(xlabel=table.metric)
        for height, row in enumerate(rows):
            colour = COLOURS[0] if row.method == table.ours else INK
            values = row.metrics[table.metric]
            axes.plot(values, [height] * len(values), "o", color=colour, alpha=0.45, markersize=5)
            axes.plot(row.mean(table.metric), height, "|", color=colour, markersize=16, markeredgewidth=2.5)
        axes.set_yticks(range(len(rows)), [row.method for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="x", color=INK, alpha=0.15)

    return _inline_svg(draw, height=0.9 + 0.32 * len(rows), label=f"{table.title}: {table.metric} of each method")


def _frontier_svg(table: Table, time: str, rows: Sequence[Row]) -> str:
    """Quality over time: a point a method, best above left."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot(xlabel=time, ylabel=table.metric)
        for row in rows:
            at = row.mean(time), row.mean(table.metric)
            axes.plot(*at, "o", color=COLOURS[0] if row.method == table.ours else INK, markersize=5)
            axes.annotate(row.method, at, xytext=(5, 3), textcoords="offset points", fontsize=7)
        if min(row.mean(time) for row in rows) > 0:
            axes.set_xscale("log")
        axes.margins(x=0.25)
        axes.grid(color=INK, alpha=0.15)

    return _inline_svg(draw, height=3.2, label=f"{table.title}: {table.metric} by {time}")


def _buckets_svg(table: Table) -> str:
    """A line a method over the buckets, with a band of its seeds."""
    buckets = {name: place for place, name in enumerate(table.columns)}
    series = {
        row.method: tuple((float(buckets[name]), value) for name, values in row.metrics.items() for value in values)
        for row in table.rows
    }

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _lines(axes, series)
        axes.set_xticks(range(len(buckets)), [name.replace(" (", "\n(") for name in buckets])

    return _inline_svg(draw, height=3.2, label=table.title)


def of_curve(curve: Curve) -> str:
    """Its lines, with bands where a line has several values at one place."""

    def draw(figure: Figure) -> None:
        _lines(figure.add_subplot(xlabel=curve.x, ylabel=curve.y), curve.series)

    return _inline_svg(draw, height=3.2, label=curve.title)


def _lines(axes: Axes, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for number, (name, points) in enumerate(series.items()):
        values: dict[float, list[float]] = {}
        for x, y in points:
            values.setdefault(x, []).append(y)
        known, colour = sorted(values), COLOURS[number % len(COLOURS)]
        axes.plot(known, [statistics.fmean(values[x]) for x in known], ".-", color=colour, label=name)
        if len(points) > len(known):
            low, high = ([limit(values[x]) for x in known] for limit in (min, max))
            axes.fill_between(known, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.grid(color=INK, alpha=0.15)
    if series:
        axes.legend(frameon=False)


def _inline_svg(draw: Callable[[Figure], None], *, width: float = 7, height: float, label: str) -> str:
    """Draw on an empty figure of so many inches and return it as an inline ``<svg>``."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.sans-serif": ["DejaVu Sans"],  # matplotlib's own, by which it measures; else the browser's
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "m6rec",  # same report, same bytes
        "text.parse_math": False,  # a $ in a title is a $
    }
    drawn = io.StringIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # The browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # they hold URLs and the time
        figure.savefig(drawn, format="svg", transparent=True, metadata=metadata)
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view, "matplotlib gives each SVG its viewBox"
    svg = f'<svg {view[0]} role="img" aria-label="{escape(label)}">' + svg[svg.index(">") + 1 :]
    svg = re.sub(r'<g id="\w+_\d+">', "<g>", svg)  # these ids repeat from figure to figure
    return svg.replace(INK, "currentColor")
