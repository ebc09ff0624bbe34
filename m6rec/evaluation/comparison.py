"""What runs, reports and benchmarks measured, read from their files and put into one report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m6rec.errors import AssetError, DataError
from m6rec.evaluation import report
from m6rec.evaluation.report import Curve, Report, Table
from m6rec.project import CONFIG, TRAINING, Run
from m6rec.training import TrainingState

REPORT = "report.json"
Sources = dict[str, Report]
"""By name: what each source measured."""


def read(paths: Sequence[Path]) -> Sources:
    """What was measured, from files and folders.

    Runs that differ in nothing but their seed are one source, whose curves have a band.

    Args:
        paths: Run folders of `m6rec tune`, of which learning curves are taken and what `m6rec evaluate` measured of
            them in the same project; folders or files of reports; JSON files of benchmarks.

    Raises:
        AssetError: One is none of these.
        DataError: A file is damaged.
    """
    found: list[tuple[str, Report]] = []
    recipes: dict[str, list[Run]] = {}
    for path in paths:
        file = path / REPORT if path.is_dir() else path
        if file.is_file():
            found.append((path.name if path.is_dir() else _stem(file), _of_file(file)))
        elif run := Run.at(path):
            recipes.setdefault(_recipe(run), []).append(run)
        else:
            raise AssetError(
                f"{path} is no finished run, no report and no results of a benchmark; give a run folder of `m6rec "
                "tune`, a folder or report.json of `m6rec evaluate`, or a file such as benchmarks/results/serving.json"
            )
    found += (_of_runs(runs) for runs in recipes.values())
    names = [name for name, _ in found]
    return {
        name if names.count(name) == 1 else f"{name} ({names[:place].count(name) + 1})": one
        for place, (name, one) in enumerate(found)
    }


def gather(sources: Sources) -> Report:
    """All sources in one report, one after another, each with its own verdicts."""
    return _report(
        sources,
        [replace(table, title=f"{name}: {table.title}") for name, one in sources.items() for table in one.tables],
        [replace(curve, title=f"{name}: {curve.title}") for name, one in sources.items() for curve in one.curves],
    )


def compare(sources: Sources) -> Report:
    """All sources in one report: tables and curves of one title are merged, their rows and lines named by source."""
    tables: dict[tuple[str, str], list[Table]] = {}
    curves: dict[str, Curve] = {}
    for name, one in sources.items():
        for table in one.tables:
            rows = tuple(replace(row, method=f"{row.method} · {name}") for row in table.rows)
            tables.setdefault((table.title, table.metric), []).append(replace(table, rows=rows, ours=""))
        for curve in one.curves:
            series = {f"{line} · {name}" if line != name else line: points for line, points in curve.series.items()}
            before = curves.get(curve.title, replace(curve, series={}))
            curves[curve.title] = replace(before, series={**before.series, **series})
    merged = [
        replace(
            alike[0],
            rows=tuple(row for table in alike for row in table.rows),
            note=" ".join(dict.fromkeys(table.note for table in alike if table.note)),
        )
        for alike in tables.values()
    ]
    return _report(sources, merged, curves.values())


def _report(sources: Sources, tables: Iterable[Table], curves: Iterable[Curve]) -> Report:
    return Report(
        title=", ".join(sources),
        tables=tuple(tables),
        claims=tuple(
            replace(claim, name=f"{name}: {claim.name}") for name, one in sources.items() for claim in one.claims
        ),
        curves=tuple(curves),
        facts={f"{name}: {fact}": value for name, one in sources.items() for fact, value in one.facts.items()},
    )


def _stem(file: Path) -> str:
    return file.resolve().parent.name if file.name == REPORT else file.stem


def _of_file(file: Path) -> Report:
    """A report, or the results of a benchmark, whose parts each say what they were measured on."""
    try:
        text = file.read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} can't be read ({error}); give a report.json or the results of a benchmark") from error
    if not isinstance(document, dict) or "parts" not in document:
        return report.from_json(text)
    try:
        parts: Mapping[str, Mapping[str, Any]] = document["parts"]
        made = {
            "title": document["title"],
            "tables": [table for part in parts.values() for table in part.get("tables", ())],
            "claims": [{name: of for name, of in claim.items() if name != "part"} for claim in document["claims"]],
            "curves": [],
            "facts": {f"{name}, {of}": part[of] for name, part in parts.items() for of in _FACTS if of in part},
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} holds no results of a benchmark ({error!r}); measure it anew") from error
    return report.from_json(json.dumps(made))


_FACTS = ("commit", "processor", "cores", "gpu")


def _recipe(run: Run) -> str:
    """All that a run was made with but its seed."""
    told = [run.folder / CONFIG, run.folder / TRAINING]
    values = [json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {} for file in told]
    return json.dumps([{name: value for name, value in of.items() if name != "seed"} for of in values], sort_keys=True)


def _of_runs(runs: Sequence[Run]) -> tuple[str, Report]:
    """(name, learning curves and evaluations) of runs that differ in their seed."""
    names = [run.folder.resolve().name for run in runs]
    stems = {re.sub(r"-\d+$", "", name) for name in names}
    name = stems.pop() if len(runs) > 1 and len(stems) == 1 else ", ".join(names)
    histories = [state.history for run in runs if (state := TrainingState.read(run.folder))]
    curves = []
    for title, x, of in (
        ("loss", "step", [history.losses for history in histories]),
        ("validation", "epoch", [history.validation_scores for history in histories]),
    ):
        points = tuple((float(at), value) for values in of for at, value in enumerate(values, 1))
        if points:
            curves.append(Curve(title=f"{runs[0].task}: {title}", x=x, y=title, series={name: points}))
    tables = [table for one in _evaluations(runs) for table in one.tables]
    return name, Report(title=name, tables=tuple(tables), curves=tuple(curves), facts={"runs": ", ".join(names)})


def _evaluations(runs: Sequence[Run]) -> list[Report]:
    """What `m6rec evaluate` measured of some of these runs, in their project."""
    wanted = {run.folder.resolve() for run in runs}
    files = sorted((runs[0].folder.resolve().parent.parent / "report").glob(f"**/{REPORT}"))
    found = [_of_file(file) for file in files]
    return [
        one for one in found if wanted & {Path(word).resolve() for word in str(one.facts.get("runs", "")).split(", ")}
    ]
