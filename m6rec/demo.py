"""The main job, start to end, on real data: ``python -m m6rec.demo --out runs/demo``.

MovieLens-100k → questions → states → three tunings of like-ranking and of retrieval → the report, beside the classical
models and the untuned foundation. Each stage leaves its result in the folder; run again, it goes on where it was.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from m6rec import zero_shot
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar, err, guard
from m6rec.domains import prepared
from m6rec.evaluation import report
from m6rec.evaluation.report import Claim, Curve, Report, Table
from m6rec.foundation.checkpoint import load
from m6rec.project import Project
from m6rec.quickstart import RETRIEVAL, Plan, first_list, tune_all
from m6rec.readouts import ScoreModel
from m6rec.training import TrainingHistory

SEEDS = (0, 1, 2)
COMMAND = "make demo"
STARTED = "M6REC_DEMO_STARTED"
"""Names the second of the day's clock at which ``make demo`` began, before it installed anything."""
_STARTED = time.time()
FIRST = "until the first recommendations, with installation"
QUESTIONS, SHOTS = 1_000, (80,)
"""Test questions and examples of the untuned model, which reads a diary anew for each."""
OURS, ITEM_VECTORS = "m6rec, option-adapter", "m6rec, item vectors"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Seconds:
    """How long each stage took, kept over interruptions: a finished stage is not timed again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stages: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a block."""
        err.print(f"· {name}", highlight=False)
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Notes a stage, unless an earlier run did the work."""
        self.stages.setdefault(name, seconds)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self.stages, indent=1))
        os.replace(partial, self._path)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything; give it again to resume.")] = Path("runs/demo"),
    foundation: Annotated[
        str, typer.Option(help="Name of an asset, folder, .gguf file or hub id.")
    ] = DEFAULT_FOUNDATION,
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=1)] = len(SEEDS),
) -> None:
    """Runs the main job in a project folder and writes report.json and report.html."""
    project = Project.create(out)
    project.report.mkdir(exist_ok=True)
    seconds = Seconds(project.report / "seconds.json")
    with seconds.stage("data"):
        log = prepared.prepare("movielens", "time", project.data)
    dataset = prepared.fingerprint(project.data)
    with seconds.stage("foundation"):
        model = load(foundation)

    @contextmanager
    def stage(name: str) -> Iterator[Any]:
        with seconds.stage(name), bar(name) as update:
            yield update

    chosen = Plan(ranking_seeds=SEEDS[:seeds])
    with stage("first recommendations, by text alone") as update:
        first = first_list(log, dataset, model, chosen, update)
    assert first is not None, "MovieLens has likes"
    until_first = time.time() - float(os.environ.get(STARTED, _STARTED))
    err.print(f"  {first.describe()}\n  {until_first:.0f} s after the start", markup=False, highlight=False)
    seconds.add(FIRST, until_first)
    made = tune_all(project, log, dataset, model, chosen, stage)
    assert not made.impossible, "MovieLens can be ranked on"
    like = made.runs["like"][0][0]
    assert isinstance(like, ScoreModel)
    with seconds.stage("zero-shot and few-shot"):
        shots = zero_shot.zero_shot_table(
            model, log.split, log.domain, seeds=(0,), shots=SHOTS, questions=QUESTIONS, progress=_tell
        )
    tuning_seconds = [seconds.stages[f"tuning like-{seed}"] for seed in SEEDS[:seeds]]
    result = Report(
        title="m6rec on MovieLens-100k, time split",
        tables=(*made.tables, shots),
        claims=_claims(
            made.measured["like"][0],
            made.measured[RETRIEVAL],
            shots,
            like,
            seconds.stages[FIRST],
            max(tuning_seconds),
            sum(spent for stage, spent in seconds.stages.items() if stage != FIRST),
        ),
        curves=(
            Curve(
                title="Training loss of like-ranking",
                x="step",
                y="loss, mean of 20 steps",
                series={
                    f"seed {seed}": _smooth(history)
                    for seed, (_, history) in zip(SEEDS, made.runs["like"], strict=False)
                },
            ),
        ),
        facts={
            **report.facts(),
            "seeds": ", ".join(map(str, SEEDS[:seeds])),
            "trained parameters of like": like.adapter.num_trainable(),
            **{f"seconds of {name}": round(spent, 1) for name, spent in seconds.stages.items()},
        },
    )
    report.write_report(result, project.report)
    err.print(report.to_table(result))
    err.print(f"Report: {project.report / 'report.html'}", highlight=False)
    err.print(
        f"Page: `make web` builds it; `m6rec serve --project {out}` serves it at http://127.0.0.1:8300/",
        highlight=False,
    )


def _tell(name: str) -> None:
    err.print(f"  {name}", highlight=False)


def _smooth(history: TrainingHistory, width: int = 20) -> tuple[tuple[float, float], ...]:
    starts = range(0, len(history.losses), width)
    return tuple(
        (start, sum(history.losses[start : start + width]) / len(history.losses[start : start + width]))
        for start in starts
    )


def _mean(table: Table, method: str, metric: str) -> float:
    return next(row for row in table.rows if row.method == method).mean(metric)


def _lead(table: Table) -> float:
    assert table.lead is not None, "the table has ours and others"
    return table.lead


def _claims(
    ranking: Table,
    retrieving: Sequence[Table],
    shots: Table,
    like: ScoreModel,
    first_seconds: float,
    tuning_seconds: float,
    all_seconds: float,
) -> tuple[Claim, ...]:
    """The lines that the demo has to show, each with what was measured."""
    unseen = retrieving[-1]

    def claim(name: str, value: float, relation: str, target: float) -> Claim:
        return Claim(name=name, value=value, relation=relation, target=target, command=COMMAND)

    best_hit = max(row.mean("HitRate@10") for row in unseen.rows if row.method != ITEM_VECTORS)
    lead_hit = _mean(unseen, ITEM_VECTORS, "HitRate@10") - best_hit
    return (
        claim(f"seconds {FIRST}", first_seconds, "<=", 300),
        claim("like-ranking: mean test AUC", _mean(ranking, OURS, "AUC"), ">=", 0.770),
        claim("like-ranking: lead over the best baseline", _lead(ranking), ">=", 0.005),
        claim("like-ranking: trained share", like.adapter.trainable_share(like.foundation.model), "<=", 0.01),
        claim("like-ranking: seconds to tune, slowest seed", tuning_seconds, "<=", 480),
        claim("retrieval of unseen items: lead in NDCG@10", _lead(unseen), ">", 0.0),
        claim("retrieval of unseen items: lead in HitRate@10", lead_hit, ">", 0.0),
        claim("zero-shot: test AUC", _mean(shots, "zero-shot", "AUC"), ">", 0.60),
        claim("few-shot, 80 examples: test AUC", _mean(shots, "80 examples", "AUC"), ">", 0.60),
        claim("demo: seconds of all stages, without installation", all_seconds, "<=", 900),
    )


if __name__ == "__main__":
    guard(app)
