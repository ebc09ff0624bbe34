"""Figures of the documentation: ``python -m scripts.figures`` writes its tables anew from benchmarks/results.

A comment says where the block below it, up to the next empty line, has its figures from:

    <!-- figures: evidence.json | Retrieval, amazon_beauty | NDCG@10, HitRate@10 -->   this table, which is written
    <!-- figures: serving.json, gpu -->     a paragraph or table whose decimal numbers all stand in that part
    <!-- figures: design/018-item-vectors.md -->    likewise, letter by letter in that file

A number such as .712 that stands under no such comment is refused.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
GENERATED = re.compile(r"^<!-- below: python -m benchmarks\.page \w+ -->$.*", re.MULTILINE | re.DOTALL)
"""The end of a page that ``benchmarks.page`` writes and answers for."""
BY_HAND = ("evidence.md", "edge.md")
"""Pages of benchmarks, whose sentences are about their own tables."""
_BLOCK = re.compile(r"^<!-- figures: (?P<where>.*?) -->\n(?P<text>.*?)(?=\n\n|\n?\Z)", re.MULTILINE | re.DOTALL)
_DECIMAL = re.compile(r"(?<![\w.-])\d*\.\d+(?![\w.])")
_METRIC = re.compile(r"(?<![\w.])0?\.\d{3,}(?![\w.])")


def stale(page: Path) -> list[str]:
    """What a page says that isn't measured, each with its reason."""
    text = GENERATED.sub("", prose(page))
    found = []
    for block in _BLOCK.finditer(text):
        if " | " in block["where"]:
            if block["text"] != table(block["where"]):
                found.append(f"{block['where']}: the table is not as measured")
            continue
        known = source(block["where"])
        found += [f"{said}: not in {block['where']}" for said in _DECIMAL.findall(block["text"]) if not known(said)]
    if page.name not in BY_HAND:
        unsaid = re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", text))  # an option's value is no figure
        found += [f"{said}: no comment says where it is from" for said in _METRIC.findall(unsaid)]
    return found


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def write(page: Path) -> None:
    """Writes the tables of a page anew."""

    def anew(block: re.Match[str]) -> str:
        if " | " not in block["where"]:
            return block[0]
        return f"<!-- figures: {block['where']} -->\n{table(block['where'])}"

    page.write_text(_BLOCK.sub(anew, page.read_text()))


def table(where: str) -> str:
    """A table of a result, as Markdown: mean ± standard deviation over the seeds."""
    file, title, names = (word.strip() for word in where.split(" | "))
    value = json.loads((RESULTS / file).read_text())
    for part in value.get("parts", {"": value}).values():
        for one in part.get("tables", ()):
            if one["title"] == title:
                columns = [name.strip() for name in names.split(", ")]
                lines = [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
                for row in one["rows"]:
                    cells = [cell(row["metrics"].get(name, ())) for name in columns]
                    lines.append(f"| {row['method']} | {' | '.join(cells)} |")
                return "\n".join(lines)
    raise SystemExit(f"{file} has no table {title!r}")


def source(where: str) -> Any:
    """Tells of a number, as it is written, whether a result has it or one that rounds to it."""
    if where.endswith(".md"):
        text = (ROOT / where).read_text()
        return lambda said: re.search(rf"(?<![\d.]){re.escape(said.lstrip('0'))}(?!\d)", text.replace("0.", "."))
    file, _, part = where.partition(", ")
    value = json.loads((RESULTS / file).read_text())
    known = list(_numbers(value["parts"][part] if part else value))
    return lambda said: any(_rounds(one * scale, said) for one in known for scale in (1, 100, 1e-3, 1e-6))


def _rounds(number: float, said: str) -> bool:
    digits = len(said.partition(".")[2])
    return math.isclose(abs(number), float(said), abs_tol=0.5001 * 10**-digits, rel_tol=0)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _numbers(one)
    elif isinstance(value, list):
        for one in value:
            yield from _numbers(one)
        if len(value) > 1 and all(isinstance(one, int | float) for one in value):
            yield statistics.fmean(value)
            yield statistics.stdev(value)
        if len(value) > 1 and all(isinstance(one, dict) for one in value):  # a dictionary a seed
            for name in value[0]:
                yield from _numbers([one[name] for one in value if isinstance(one.get(name), int | float)])


def cell(values: Sequence[float]) -> str:
    """The mean of one value a seed, with its standard deviation over several; "" of none."""
    if not values:
        return ""
    number = "{:.4f}" if max(map(abs, values)) < 10 else "{:.0f}"
    mean = number.format(statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {number.format(statistics.stdev(values))}"


if __name__ == "__main__":
    for one in sorted((ROOT / "docs").rglob("*.md")):
        write(one)
