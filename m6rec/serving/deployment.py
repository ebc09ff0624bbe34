"""What is served and what was measured of it, as files tell it: runs, data, reports, tunings that go on.

Everything here is read anew whenever it is asked for, so that what `m6rec tune` and `m6rec evaluate` write meanwhile
is seen without a restart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m6rec.adapters.task_adapter import CARD
from m6rec.data import dataset
from m6rec.errors import M6RecError
from m6rec.evaluation import report
from m6rec.project import Run, writers_in
from m6rec.serving.project_files import ProjectFiles, ReportFile
from m6rec.tasks.task import Readout
from m6rec.training import TrainingState

REPORT_BYTES = 4 << 20
"""Longer reports are left out."""
NUM_REPORTS = 20
"""Reports that are told of, the latest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedRun:
    """A run that is served.

    Attributes:
        run: Its name.
        task: Its task.
        readout: Whether it scores, embeds or generates.
        finished: When it was finished, in seconds since 1970.
        method: The tuning method; "" where its folder doesn't say.
        num_parameters: Parameters that were trained.
        validation_scores: The validation metric after each epoch; the best was kept.
    """

    run: str
    task: str
    readout: Readout
    finished: float
    method: str
    num_parameters: int
    validation_scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningTuning:
    """A tuning that isn't finished: it goes on, or was interrupted.

    Attributes:
        run: Its name.
        step: Steps that its latest checkpoint has.
        num_steps: … of so many.
        saved: When that was, in seconds since 1970.
        eta_s: Seconds from then on, at its pace; None where that isn't known.
        validation_scores: The validation metric after each epoch so far.
    """

    run: str
    step: int
    num_steps: int
    saved: float
    eta_s: float | None
    validation_scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCard:
    """The prepared log that is served.

    Attributes:
        domain: Its domain.
        split: How it was split.
        feedback: What is positive.
        num_events: Events.
        num_items: Items.
        num_users: Users.
        time: How times were read.
        columns: By table and role, the column that was read.
        dropped: Lines that were left out, by the reason.
        notes: What else was noticed.
    """

    domain: str
    split: str
    feedback: str
    num_events: int
    num_items: int
    num_users: int
    time: str
    columns: dict[str, dict[str, str]]
    dropped: dict[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A metric over the seeds: its mean, and its standard deviation if there are several."""

    mean: float
    deviation: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredMethod:
    """A method of a table, and its metrics by name."""

    method: str
    metrics: dict[str, MetricValue]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredTable:
    """A table of a report; see ``report.Table``."""

    title: str
    metric: str
    ours: str
    verdict: str
    note: str
    rows: tuple[MeasuredMethod, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A report of the project.

    Attributes:
        title: What was measured.
        measured: When, in seconds since 1970.
        facts: On what, and with which versions.
        tables: The tables.
    """

    title: str
    measured: float
    facts: dict[str, str | int | float]
    tables: tuple[MeasuredTable, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """What is served. ``evaluations`` and ``reports`` are the project's, the latest first."""

    runs: tuple[ServedRun, ...] = ()
    data: DataCard | None = None
    tunings: tuple[RunningTuning, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    reports: tuple[ReportFile, ...] = ()


def read_deployment(data: Path, retrieve: Path, rank: Path, files: ProjectFiles) -> Deployment:
    """Reads what is served.

    Args:
        data: The prepared dataset.
        retrieve: The retrieval run.
        rank: The ranking run; runs of texts and tunings that go on are its siblings.
        files: Where the project's reports are.

    What can't be read is left out: the service goes on without it, too.
    """
    return Deployment(
        runs=tuple(_served(run) for folder in served_runs(retrieve, rank) if (run := Run.at(folder))),
        data=_data_card(data),
        tunings=tuple(_tunings(rank.parent)),
        evaluations=tuple(_evaluations(files.reports)) if files.reports else (),
        reports=files.report_files(),
    )


def served_runs(retrieve: Path, rank: Path) -> tuple[Path, ...]:
    """The folders of the runs that are served: both, and those of texts beside the ranking run."""
    return tuple(dict.fromkeys([rank, retrieve, *writers_in(rank.parent).values()]))


def _served(run: Run) -> ServedRun:
    card = _json(run.folder / CARD)
    state = TrainingState.read(run.folder)
    return ServedRun(
        run=run.folder.name,
        task=run.task,
        readout=run.readout,
        finished=run.finished / 1e9,
        method=str(card.get("config", {}).get("method", "")),
        num_parameters=int(card.get("parameters", 0)),
        validation_scores=_finite(state.history.validation_scores) if state else (),
    )


def _tunings(folder: Path) -> Iterator[RunningTuning]:
    for one in sorted(folder.iterdir()) if folder.is_dir() else ():
        # A base is tuned before the rest, in a folder of its own.
        state = TrainingState.read(one) or TrainingState.read(one / "base")
        if state is not None and Run.at(one) is None:
            yield RunningTuning(
                run=one.name,
                step=state.step,
                num_steps=state.num_steps,
                saved=state.saved,
                eta_s=state.eta_s,
                validation_scores=_finite(state.history.validation_scores),
            )


def _finite(scores: list[float]) -> tuple[float, ...]:
    return tuple(score for score in scores if math.isfinite(score))


def _data_card(folder: Path) -> DataCard | None:
    try:
        noted = dataset.manifest(folder)
        counts, reading = noted["counts"], noted["reading"]
        return DataCard(
            domain=noted["domain"],
            split=noted["protocol"],
            feedback=noted["why"],
            num_events=counts["events"],
            num_items=counts["items"],
            num_users=counts["users"],
            time=reading["time"],
            columns=reading["columns"],
            dropped=noted["dropped"],
            notes=tuple(reading["notes"]),
        )
    except (M6RecError, KeyError, TypeError):
        return None


def _evaluations(folder: Path) -> Iterator[Evaluation]:
    files = [file for file in folder.glob("**/report.json") if file.stat().st_size <= REPORT_BYTES]
    for file in sorted(files, key=lambda one: -one.stat().st_mtime)[:NUM_REPORTS]:
        try:
            measured = report.from_json(file.read_text(encoding="utf-8"))
        except (M6RecError, OSError, ValueError):
            continue
        yield Evaluation(
            title=measured.title,
            measured=file.stat().st_mtime,
            facts=dict(measured.facts),
            tables=tuple(map(_measured_table, measured.tables)),
        )


def _measured_table(table: report.Table) -> MeasuredTable:
    return MeasuredTable(
        title=table.title,
        metric=table.metric,
        ours=table.ours,
        verdict=table.verdict,
        note=table.note,
        rows=tuple(
            MeasuredMethod(
                method=row.method,
                metrics={name: MetricValue(row.mean(name), row.spread(name)) for name in row.metrics},
            )
            for row in table.rows
        ),
    )


def _json(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
