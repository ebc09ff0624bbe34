"""A benchmark's tables as a page: ``python -m benchmarks.page evidence`` rewrites ``docs/evidence.md``.

What stands above the mark there is written by hand and stays.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.figures import cell

MARK = "<!-- below: python -m benchmarks.page {name} -->"


def main(name: str) -> None:
    """Rewrites the page of a benchmark."""
    value = json.loads(Path(f"benchmarks/results/{name}.json").read_text())
    page, mark = Path(f"docs/{name}.md"), MARK.format(name=name)
    above, found, _ = page.read_text().partition(mark)
    if not found:
        raise SystemExit(f"{page} lacks the line {mark!r}, below which the tables go")
    page.write_text(f"{above}{mark}\n\n{tables(name, value)}")


def tables(name: str, value: Mapping[str, Any]) -> str:
    """Every table of every part, with its command, its claims, and what it was measured on."""
    lines = []
    for part, measured in value["parts"].items():
        lines += [f"## {part}", "", f"`python -m benchmarks.{name} --part {part}`", ""]
        for table in measured.get("tables", ()):
            told = f"{table['verdict']}. {table['note']}" if table["verdict"] else table["note"]
            lines += [f"**{table['title']}**", "", *_table(table), "", told, ""]
        claims = [claim for claim in value["claims"] if claim["part"] == part]
        lines += [f"- {_mark(claim)} {claim['name']}: {claim['value']:.4g} ({_bound(claim)})" for claim in claims]
        seeds, commit = measured.get("seed"), measured.get("commit", "")[:9]
        lines += ["", f"Seeds {seeds}, commit {commit}, {measured.get('cores')} cores.", ""]
    return "\n".join(lines)


def _mark(claim: Mapping[str, Any]) -> str:
    return "holds:" if claim["holds"] else "**fails:**"


def _bound(claim: Mapping[str, Any]) -> str:
    return f"{claim['relation']} {claim['target']:g}"


def _table(table: Mapping[str, Any]) -> list[str]:
    """Markdown of a table: mean ± standard deviation over the seeds, our row in bold."""
    names = list(dict.fromkeys([table["metric"], *(name for row in table["rows"] for name in row["metrics"])]))
    lines = [" | ".join(["", "method", *names, ""]).strip(), "|---" * (len(names) + 1) + "|"]
    for row in table["rows"]:
        method = f"**{row['method']}**" if row["method"] == table["ours"] else row["method"]
        cells = [cell(row["metrics"].get(name, ())) for name in names]
        lines.append(" | ".join(["", method, *cells, ""]).strip())
    return lines


if __name__ == "__main__":
    main(sys.argv[1])
