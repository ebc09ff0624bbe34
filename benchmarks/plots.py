"""The pictures of the pages: ``python -m benchmarks.plots`` rewrites them from the results.

Each number drawn is one of the results' file or the mean of those of the seeds. The bytes depend on that file only.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from m6rec.evaluation.report import COLOURS, INK, inline_svg

Parts = Mapping[str, Mapping[str, Any]]
"""Those of a benchmark's JSON, by name."""

_STYLE = """<style>svg { color: #1c2330; } .paper { fill: #fff; }
@media (prefers-color-scheme: dark) { svg { color: #e4e8ef; } .paper { fill: #14171d; } }</style>
<rect class="paper" width="100%" height="100%"/>"""
_SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a page.

    Attributes:
        page: The benchmark whose JSON is drawn.
        name: What is drawn.
        parts: Of the JSON, all of which are needed.
        about: A sentence for who doesn't see it.
        draw: Draws the parts on an empty figure.
        height: In inches, where the width is 9.
    """

    page: str
    name: str
    parts: tuple[str, ...]
    about: str
    draw: Callable[[Figure, Parts], None]
    height: float

    @property
    def file(self) -> str:
        """Its name in ``docs``."""
        return f"{self.page}-{self.name}.svg"

    def svg(self, parts: Parts) -> str:
        """The text of the file, which brings its own paper and follows light and dark."""
        inline = inline_svg(lambda figure: self.draw(figure, parts), width=9, height=self.height, label=self.about)
        head, rest = inline.replace("<svg", f"<svg {_SPACES}", 1).split(">", 1)
        text = re.sub(r"\s*\n\s*", "\n", f"{head}>\n{_STYLE}{rest}\n")
        return re.sub("<[^>]*>", lambda tag: re.sub(r"(\d\.\d)\d{2,}", r"\1", tag[0]), text)  # places, not labels


def of(page: str, parts: Parts) -> list[Picture]:
    """The pictures of a page for which everything has been measured."""
    return [picture for picture in PICTURES if picture.page == page and set(picture.parts) <= set(parts)]


def main() -> None:
    """Rewrites the pictures."""
    for page in dict.fromkeys(picture.page for picture in PICTURES):
        parts = json.loads(Path(f"benchmarks/results/{page}.json").read_text())["parts"]
        for picture in of(page, parts):
            Path("docs", picture.file).write_text(picture.svg(parts))


def _samples(figure: Figure, parts: Parts) -> None:
    """Quality by the number of examples, whole and near the top; "none" stands left of the logarithmic axis."""
    (table,) = parts["samples"]["tables"]
    sizes = sorted({int(size) for row in table["rows"] for size in row["metrics"]})
    ticks = [size for size, before in zip(sizes, [-1, *sizes], strict=False) if size >= 2 * before]
    panels = [figure.add_subplot(1, 2, place, xlabel="examples", ylabel="test AUC") for place in (1, 2)]
    for axes in panels:
        axes.set_xscale("symlog", linthresh=sizes[1], linscale=0.5)
        axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
        axes.set_xticks([], minor=True)
        for number, row in enumerate(_ours_first(table)):
            known = [size for size in sizes if f"{size}" in row["metrics"]]
            values = [row["metrics"][f"{size}"] for size in known]
            _line(axes, known, values, row["method"], number, shift=2.0 * (number - len(table["rows"]) / 2))
    panels[1].set_ylim(bottom=NEAR)
    _below(figure, *panels)


def _ours_first(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a table, that of ours first, which takes its colour."""
    return sorted(table["rows"], key=lambda row: row["method"] != table["ours"])


def _retrieval(figure: Figure, parts: Parts) -> None:
    """A dot for each seed and a tick for their mean, best on average on top."""
    tables = {part: parts[part]["tables"][0] for part in RETRIEVALS}
    found: dict[str, list[float]] = {}
    for table in tables.values():
        for row in table["rows"]:
            found.setdefault(row["method"], []).append(statistics.fmean(row["metrics"][table["metric"]]))
    order = sorted(found, key=lambda method: statistics.fmean(found[method]))
    first = None
    for place, (part, table) in enumerate(tables.items(), 1):
        axes = figure.add_subplot(1, len(tables), place, title=part, xlabel=table["metric"], sharey=first)
        for row in table["rows"]:
            values, height = row["metrics"][table["metric"]], order.index(row["method"])
            colour = COLOURS[0] if row["method"] == table["ours"] else INK
            axes.plot(values, [height] * len(values), "o", color=colour, alpha=0.45, markersize=4)
            axes.plot(statistics.fmean(values), height, "|", color=colour, markersize=12, markeredgewidth=2)
        axes.grid(axis="x", color=INK, alpha=0.15)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=4)
        axes.set_yticks(range(len(order)), order)
        axes.tick_params(labelleft=first is None)
        first = first or axes


def _cold(names: Sequence[str], first: int) -> Callable[[Figure, Parts], None]:
    """Quality by how many events of the user, above, and of the item, below, had been before; a column a part.

    Args:
        names: The parts.
        first: The place of the users' table among those of a part; the items' follows.
    """

    def draw(figure: Figure, parts: Parts) -> None:
        numbers: dict[str, int] = {}
        panels: list[Axes] = []
        for row_number, whose in enumerate(("user", "item")):
            for column, part in enumerate(names):
                table = parts[part]["tables"][first + row_number]
                place = row_number * len(names) + column + 1
                axes = figure.add_subplot(2, len(names), place, xlabel=f"the {whose}'s earlier events")
                measure = table["title"].split(":")[1].split(" by ")[0].strip()
                axes.set(title=part if not row_number else "", ylabel=measure if not column else "")
                buckets = list(table["rows"][0]["metrics"])
                axes.set_xticks(range(len(buckets)), [bucket.replace(" (", "\n").rstrip(")") for bucket in buckets])
                axes.tick_params(axis="x", labelsize=6)
                axes.set_xlim(-0.4, len(buckets) - 0.6)
                for row in _ours_first(table):
                    number = numbers.setdefault(row["method"], len(numbers))
                    values = [row["metrics"][bucket] for bucket in buckets]
                    _line(axes, range(len(buckets)), values, row["method"], number, shift=2.0 * (number - 2))
                panels.append(axes)
        _below(figure, *panels)

    return draw


def _methods(figure: Figure, parts: Parts) -> None:
    """Test AUC by the time of tuning, and AUC on validation after each of the two epochs."""
    (table,) = parts["methods"]["tables"]
    of_time = figure.add_subplot(1, 2, 1, xlabel="processor seconds", ylabel="test AUC")
    of_steps = figure.add_subplot(1, 2, 2, xlabel="epochs", ylabel="AUC, validation")
    of_steps.set_xticks((1, 2))
    of_steps.set_xlim(0.8, 2.2)
    for number, row in enumerate(_ours_first(table)):
        metrics = row["metrics"]
        shift = 3.0 * (number - len(table["rows"]) / 2)
        _line(of_time, [statistics.fmean(metrics["processor s"])], [metrics["AUC"]], row["method"], number)
        steps = [metrics["… after one epoch"], metrics["AUC, validation"]]
        _line(of_steps, (1, 2), steps, row["method"], number, shift=shift)
    _below(figure, of_time, of_steps)


TICKS = (1, 2, 5, 10, 20, 50, 100)


def _sizes(figure: Figure, parts: Parts) -> None:
    """Quality by size; what has no size of its own is a level."""
    (table,) = parts["sizes"]["tables"]
    sized = [row for row in table["rows"] if "M not zero" in row["metrics"]]
    for place, (column, title) in enumerate(SIZED.items(), 1):
        axes = figure.add_subplot(1, 2, place, title=title, xlabel="million parameters that are not zero")
        axes.set(xscale="log", ylabel="test AUC")
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.minorticks_off()
        for limit in LIMITS:
            axes.axvline(limit, color=INK, alpha=0.5, linewidth=0.5, linestyle=":")
        # By place and colour: what nearly coincides has one label.
        names: dict[tuple[float, float, str], list[str]] = {}
        for row in table["rows"]:
            if column not in row["metrics"]:
                continue
            (quality,) = row["metrics"][column]
            if row in sized:
                at, colour = row["metrics"]["M not zero"][0], INK
                axes.plot(at, quality, marker="o", markersize=3, color=COLOURS[0])
            else:
                at, colour = LIMITS[0], COLOURS[1]
                axes.axhline(quality, color=colour, linewidth=0.5)
            names.setdefault((round(at, 1), round(quality, 3 if place == 1 else 4), colour), []).append(row["method"])
        for (at, quality, colour), alike in names.items():
            text, offset = "\n".join(alike), {"xytext": (3, 3), "textcoords": "offset points"}
            axes.annotate(text, (at, quality), **offset, fontsize=5, color=colour, va="center")


def _line(
    axes: Axes, x: Iterable[float], values: Sequence[Sequence[float]], label: str, number: int, shift: float = 0.0
) -> None:
    """The means over the seeds, and their range at each; lines of the same place stand ``shift`` points apart."""
    colours = (*COLOURS, INK)
    moved = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    colour, x = colours[number % len(colours)], list(x)
    means = [statistics.fmean(of_seeds) for of_seeds in values]
    axes.plot(x, means, "s-", color=colour, label=label, lw=1, markersize=3.5, markeredgewidth=0, transform=moved)
    ends = [end for of_seeds in values for end in (min(of_seeds), max(of_seeds), math.nan)]
    axes.plot(np.repeat(x, 3), ends, color=colour, alpha=0.45, linewidth=2, transform=moved)
    axes.update_datalim([(place, end) for place, of_seeds in zip(x, values, strict=True) for end in of_seeds])
    axes.autoscale_view(scalex=axes.get_autoscalex_on())


def _below(figure: Figure, *panels: Axes) -> None:
    """One legend below panels whose lines have their colour in all of them."""
    lines: dict[str, Any] = {}
    for axes in panels:
        axes.grid(axis="y", color=INK, alpha=0.15)
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True):
            lines.setdefault(label, line)
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


RETRIEVALS, LIKES = ("movielens_retrieve", "amazon_beauty", "amazon_toys"), ("movielens_like", "ml1m_collm")
SIZED = {"AUC, words alone": "the task without statistics", "AUC, device": "a device's questions, with statistics"}
LIMITS = (10.0, 2.0)
"""Millions of parameters that the small models have at most."""
NEAR = 0.74
"""Where the second panel of the examples begins."""
RANGE = "Vertical bars are the range of the seeds or draws."
PICTURES = (
    Picture(
        page="evidence",
        name="samples",
        parts=("samples",),
        about=f"Sample efficiency: test AUC of ours and of the peers by the number of examples. {RANGE}",
        draw=_samples,
        height=5,
    ),
    Picture(
        page="evidence",
        name="retrieval",
        parts=RETRIEVALS,
        about="Retrieval: NDCG@10 of all methods on three sets; dots are seeds, ticks their mean.",
        draw=_retrieval,
        height=4,
    ),
    Picture(
        page="evidence",
        name="cold-retrieval",
        parts=RETRIEVALS,
        about=f"Cold start in retrieval: HitRate@10 by how many events of user and item had been before. {RANGE}",
        draw=_cold(RETRIEVALS, 3),
        height=5.5,
    ),
    Picture(
        page="evidence",
        name="cold-likes",
        parts=LIKES,
        about=f"Cold start in likes: AUC by how many events of user and item had been before. {RANGE}",
        draw=_cold(LIKES, 1),
        height=5.5,
    ),
    Picture(
        page="evidence",
        name="methods",
        parts=("methods",),
        about=f"Tuning methods: test AUC by the time of tuning, and AUC on validation by epochs. {RANGE}",
        draw=_methods,
        height=4,
    ),
    Picture(
        page="edge",
        name="sizes",
        parts=("sizes",),
        about="Small models: test AUC by size; levels are models without a size of their own.",
        draw=_sizes,
        height=4,
    ),
)


if __name__ == "__main__":
    main()
