"""What a measurement says: tables, claims and curves, as JSON, as one HTML file, and on the terminal.

A report is honest by construction: each table with a method of ours derives a verdict, and a
baseline's win is told first.
"""

import json
import operator
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m6rec.errors import DataError
from m6rec.evaluation import charts

if TYPE_CHECKING:
    from rich.console import RenderableType

Fact = str | int | float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of a table; ``metrics`` holds one value a seed, under each metric's name."""

    method: str
    metrics: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, method: str, by_seed: Sequence[Mapping[str, float]]) -> "Row":
        """The metrics of each seed, whose names are the same."""
        return cls(method=method, metrics={name: tuple(metrics[name] for metrics in by_seed) for name in by_seed[0]})

    def mean(self, metric: str) -> float:
        """Average over the seeds."""
        return statistics.fmean(self.metrics[metric])

    def spread(self, metric: str) -> float | None:
        """Standard deviation over the seeds (n − 1); None of one seed."""
        values = self.metrics[metric]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Methods side by side.

    Attributes:
        title: What was measured, and on what.
        metric: The column that decides; higher is better. Every row has it; other columns may have gaps.
        rows: The methods, in the order shown.
        ours: Which row's method is ours; empty where none is.
        note: How to read it.

    Raises:
        DataError: There are no rows, a row lacks ``metric`` or has an empty column, two rows have the
            same method, or ``ours`` is none of them.
    """

    title: str
    metric: str
    rows: tuple[Row, ...]
    ours: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        methods = [row.method for row in self.rows]
        if not methods:
            raise DataError(f"table {self.title!r} has no rows; give at least one")
        if len(set(methods)) < len(methods):
            raise DataError(f"table {self.title!r} has a method twice; its rows are {', '.join(methods)}")
        if self.ours and self.ours not in methods:
            raise DataError(f"ours is {self.ours!r}; the rows of table {self.title!r} are {', '.join(methods)}")
        for row in self.rows:
            if self.metric not in row.metrics or not all(row.metrics.values()):
                raise DataError(
                    f"row {row.method!r} of table {self.title!r} has {dict(row.metrics)}; "
                    f"it needs {self.metric!r}, and at least one value in each column"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """All metrics of the rows: the deciding one first, then as they appear."""
        return tuple(dict.fromkeys([self.metric, *(name for row in self.rows for name in row.metrics)]))

    @property
    def best(self) -> Row:
        """The row with the highest mean of ``metric`` (the first, if tied)."""
        return max(self.rows, key=lambda row: row.mean(self.metric))

    @property
    def lead(self) -> float | None:
        """Our mean less that of the best other row; negative if we lose; None without ours or others."""
        others = [row.mean(self.metric) for row in self.rows if row.method != self.ours]
        ours = [row.mean(self.metric) for row in self.rows if row.method == self.ours]
        return ours[0] - max(others) if ours and others else None

    @property
    def verdict(self) -> str:
        """One sentence: who wins, and by how much; empty where nothing is compared."""
        if self.lead is None:
            return ""
        others = [row for row in self.rows if row.method != self.ours]
        rival = max(others, key=lambda row: row.mean(self.metric)).method
        if self.lead == 0:
            return f"{self.ours} ties with {rival} in {self.metric}"
        winner, loser = (self.ours, rival) if self.lead > 0 else (rival, self.ours)
        return f"{winner} wins by {_number(abs(self.lead))} {self.metric} over {loser}"


_RELATIONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A number that must reach a target, with the command that measures it again.

    Raises:
        DataError: ``relation`` is none of >=, <=, >.
    """

    name: str
    value: float
    target: float
    relation: str = ">="
    command: str

    def __post_init__(self) -> None:
        if self.relation not in _RELATIONS:
            raise DataError(f"relation is {self.relation!r}; allowed are {', '.join(_RELATIONS)}")

    @property
    def holds(self) -> bool:
        """Whether ``value`` stands in ``relation`` to ``target``."""
        return bool(_RELATIONS[self.relation](self.value, self.target))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Lines over a common x axis: name → (x, y) points; of several y at one x the mean, with a band of their range."""

    title: str
    x: str
    y: str
    series: Mapping[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one run measured.

    Attributes:
        title: Heads the page.
        tables: Methods side by side.
        claims: Numbers against their targets.
        curves: How a number went.
        facts: What is needed to measure it again; start from ``facts()`` and add seeds and seconds.
    """

    title: str
    tables: tuple[Table, ...] = ()
    claims: tuple[Claim, ...] = ()
    curves: tuple[Curve, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def verdicts(self) -> tuple[tuple[Table, str], ...]:
        """Each table that compares, with its verdict; our losses first, the greatest first."""
        compared = [(table.lead, table) for table in self.tables if table.lead is not None]
        return tuple((table, table.verdict) for _, table in sorted(compared, key=lambda pair: pair[0]))


_LIBRARIES = tuple(
    "m6rec torch transformers numpy faiss-cpu implicit lightgbm scikit-learn sacrebleu rouge-score textblob".split()
)


def facts() -> dict[str, Fact]:
    """What is known of code, machine and libraries; what isn't known is left out."""
    known: dict[str, Fact] = {}
    if commit := commit_of_code():
        known["commit"] = commit
    known["system"] = platform.platform()
    known["processor"] = _processor()
    known["gpu"] = _gpu()
    known["cores"] = os.cpu_count() or 0
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        known["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    known["python"] = platform.python_version()
    for library in _LIBRARIES:
        try:
            known[library] = version(library)
        except PackageNotFoundError:
            continue
    return {name: value for name, value in known.items() if value}


def to_json(report: Report) -> str:
    """Write a report as JSON; each claim also says whether it holds, each table its verdict.

    Raises:
        DataError: A number is NaN or infinite.
    """
    document = asdict(report)
    for claim, written in zip(report.claims, document["claims"], strict=True):
        written["holds"] = claim.holds
    for table, written in zip(report.tables, document["tables"], strict=True):
        written["verdict"] = table.verdict
    try:
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise DataError(
            f"report {report.title!r} has a number that is NaN or infinite; leave the row out and say why"
        ) from error


def from_json(text: str) -> Report:
    """Read back what ``to_json`` wrote; ``holds`` and ``verdict`` are derived anew.

    Raises:
        DataError: The text isn't a report.
    """
    try:
        document = json.loads(text)
        return Report(
            title=document["title"],
            tables=tuple(_table_from(table) for table in document["tables"]),
            claims=tuple(
                Claim(**{name: value for name, value in claim.items() if name != "holds"})
                for claim in document["claims"]
            ),
            curves=tuple(
                Curve(**curve | {"series": {name: _points(xy) for name, xy in curve["series"].items()}})
                for curve in document["curves"]
            ),
            facts=document["facts"],
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"this is not a report of m6rec ({type(error).__name__}: {error}); give a report.json"
        ) from error


def write_report(report: Report, folder: str | Path) -> None:
    """Write ``report.html`` and ``report.json`` into a folder; each is whole or absent.

    Raises:
        DataError: As ``to_json``; nothing is written then.
    """
    folder = Path(folder)
    texts = {"report.json": to_json(report), "report.html": to_html(report)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        unfinished = folder / f".{name}.{os.getpid()}"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(folder / name)


def to_table(report: Report) -> "RenderableType":
    """The report for a terminal, to be printed by ``rich``."""
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    parts: list[RenderableType] = [Text(report.title, style="bold")]
    for table, verdict in report.verdicts:
        parts.append(Text(f"{table.title}: {verdict}", style="green" if _won(table) else "bold red"))
    for table in report.tables:
        grid = Grid(title=Text(table.title), caption=Text(table.note))
        grid.add_column("method")
        for column in table.columns:
            grid.add_column(Text(column), justify="right")
        for row in table.rows:
            cells = [Text(cell) for cell in (row.method, *(_cell(row, name) for name in table.columns))]
            grid.add_row(*cells, style="bold" if row == table.best else "")
        parts.append(grid)
    if report.claims:
        grid = Grid("", "claim", "value", "target", title="Claims")
        for claim in report.claims:
            mark = Text("✓", style="green") if claim.holds else Text("✗", style="bold red")
            target = f"{claim.relation} {_exact(claim.target)}"
            grid.add_row(mark, Text(claim.name), _exact(claim.value), target)
        parts.append(grid)
    return Group(*parts)


def to_html(report: Report) -> str:
    """The report as one HTML file that fetches nothing, readable in light and dark.

    Plots are inline SVG drawn by ``matplotlib``; the bytes depend on the report only.
    """
    sections = [
        *(_html_verdicts(report) if report.verdicts else ()),
        *(_html_claims(report.claims) if report.claims else ()),
        *(line for table in report.tables for line in _html_table(table)),
        *(f"<section><h2>{escape(curve.title)}</h2>{charts.of_curve(curve)}</section>" for curve in report.curves),
        *(_html_facts(report.facts) if report.facts else ()),
    ]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(report.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{escape(report.title)}</h1>",
            *sections,
            "</main>\n</body>\n</html>\n",
        ]
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --paper: #fff; --soft: #5d6778; --line: #dfe3ea;
  --card: #f6f7f9; --good: #137a3f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ef; --paper: #14171d; --soft: #98a2b3;
  --line: #313744; --card: #1c2028; --good: #5fd08f; --bad: #ff8a80; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 56rem; margin: auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
section { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: .875rem; }
th:first-child, td:first-child, .text { text-align: left; } .text { white-space: normal; }
.best { font-weight: 700; } .ours td:first-child { box-shadow: inset 3px 0 #0072b2; }
.spread, .note { color: var(--soft); font-weight: 400; font-size: .875rem; }
.verdicts { list-style: none; padding: 0; }
.verdicts li { color: var(--ink); padding: .5rem .9rem; margin: .4rem 0; background: var(--card); border-radius: .4rem;
  border-left: 4px solid var(--good); } .verdicts .bad { border-color: var(--bad); }
.good { color: var(--good); } .bad { color: var(--bad); }
code { font: .8125rem ui-monospace, monospace; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; margin: 1rem 0; }
"""


def _html_verdicts(report: Report) -> list[str]:
    lines = [
        f'<li class="{"good" if _won(table) else "bad"}"><b>{escape(verdict)}</b>'
        f'<br><span class="note">{escape(table.title)}</span></li>'
        for table, verdict in report.verdicts
    ]
    return ['<ul class="verdicts">', *lines, "</ul>"]


def _html_claims(claims: tuple[Claim, ...]) -> list[str]:
    lines = [
        f'<tr><td class="{"good" if claim.holds else "bad"}">{"✓" if claim.holds else "✗"}</td>'
        f'<td class="text">{escape(claim.name)}</td><td>{_exact(claim.value)}</td>'
        f"<td>{escape(claim.relation)} {_exact(claim.target)}</td>"
        f'<td class="text"><code>{escape(claim.command)}</code></td></tr>'
        for claim in claims
    ]
    head = '<th></th><th class="text">claim</th><th>value</th><th>target</th><th class="text">command</th>'
    held = sum(claim.holds for claim in claims)
    title = f"<section><h2>Claims: {held} of {len(claims)} hold</h2>"
    return [f"{title}<table><thead><tr>{head}</tr></thead><tbody>", *lines, "</tbody></table></section>"]


def _html_table(table: Table) -> list[str]:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("method", *table.columns))
    lines = []
    for row in table.rows:
        classes = ("best " if row == table.best else "") + ("ours" if row.method == table.ours else "")
        cells = "".join(f"<td>{_html_cell(row, name)}</td>" for name in table.columns)
        lines.append(f'<tr class="{classes.strip()}"><td>{escape(row.method)}</td>{cells}</tr>')
    return [
        f"<section><h2>{escape(table.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>",
        *lines,
        f'</tbody></table><p class="note">{escape(table.note)}</p>{charts.of_table(table)}</section>',
    ]


def _html_cell(row: Row, metric: str) -> str:
    mean, *spread = _cell(row, metric).split(" ", 1)
    return mean + "".join(f' <span class="spread">{part}</span>' for part in spread)


def _html_facts(facts: Mapping[str, Fact]) -> list[str]:
    lines = [
        f'<tr><td>{escape(name)}</td><td class="text">{escape(str(value))}</td></tr>' for name, value in facts.items()
    ]
    return ["<section><h2>Facts</h2><table><tbody>", *lines, "</tbody></table></section>"]


def _cell(row: Row, metric: str) -> str:
    """The mean, with its spread over several seeds: "0.7654 ± 0.0012"."""
    if metric not in row.metrics:
        return "–"
    spread = row.spread(metric)
    return _number(row.mean(metric)) + ("" if spread is None else f" ± {_number(spread)}")


def _number(value: float) -> str:
    """Four decimals below 10, four digits above, no decimals from 1000."""
    if abs(value) < 10:
        return f"{value:.4f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _exact(value: float) -> str:
    """Five digits, so that a claim missed by a little doesn't read as reached."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"


def _won(table: Table) -> bool:
    return table.lead is not None and table.lead > 0


def _table_from(document: Mapping[str, Any]) -> Table:
    rows = tuple(
        Row(method=row["method"], metrics={name: tuple(values) for name, values in row["metrics"].items()})
        for row in document["rows"]
    )
    kept = {name: value for name, value in document.items() if name not in ("rows", "verdict")}
    return Table(rows=rows, **kept)


def _points(pairs: list[list[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in pairs)


def commit_of_code() -> str:
    """The commit that this file is kept in, with "-dirty" where files differ from it; empty if none."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        for command in (["ls-files", "--error-unmatch", Path(__file__).name], ["describe", "--always", "--dirty"]):
            answer = subprocess.run([*git, *command], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def _gpu() -> str:
    """The GPU that this process has used, if any."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_initialized() else ""
