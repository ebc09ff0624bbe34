"""Tuning and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from m6rec.cli.app import Device, Dtype, ExitAfter, Foundation, Json, app, bar, err, say
from m6rec.cli.config import Changes, ConfigFile, of_foundation, of_readout, settings
from m6rec.cli.runs import Data, ProjectFolder, cache_of, data_of, require_dataset, run_of
from m6rec.errors import ConfigError
from m6rec.project import Project, Run


@app.command()
def tune(
    task: Annotated[
        str, typer.Argument(help="like, click, ctr, rating, retrieve, explain, design, query or package.module:NAME")
    ],
    *,
    project: ProjectFolder = None,
    data: Data = None,
    run: Annotated[
        Path | None, typer.Option(help="Output folder, by default TASK-SEED in the project; give it again to resume.")
    ] = None,
    file: ConfigFile = None,
    changes: Changes = None,
    foundation: Foundation = None,
    method: Annotated[
        str | None, typer.Option(help="Tuning method; default option-adapter, for text tasks lora.")
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(help="Layers whose states are cached; default all but one, for text tasks all but twelve."),
    ] = None,
    keep: Annotated[int | None, typer.Option(help="Cached tokens per segment; 0 for all. Default 1.")] = None,
    all_layers: Annotated[bool | None, typer.Option(help="Tune the lower layers too (needs --depth 0).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Maximum number of epochs; default 3, for retrieval 20.")] = None,
    min_steps: Annotated[int | None, typer.Option(help="Minimum number of steps, for small logs; default 100.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default 0.002, for retrieval 0.001.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Epochs without improvement before stopping; 0 for never. Default 0, for retrieval 3."),
    ] = None,
    pairwise: Annotated[
        float | None, typer.Option(help="Weight, 0 to 1, of a pairwise ranking loss over a user's items; default 0.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Default 0.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Tunes a task on a prepared dataset; resumes an interrupted run."""
    from m6rec import readouts
    from m6rec.data.split import TRAIN, VALID
    from m6rec.domains import prepared
    from m6rec.foundation.checkpoint import load
    from m6rec.quickstart import config_of

    readout = readouts.of(task)
    options = {
        "adapter.method": ("--method", method),
        "adapter.depth": ("--depth", depth),
        "adapter.keep": ("--keep", keep),
        "adapter.all_layers": ("--all-layers", all_layers),
        "training.epochs": ("--epochs", epochs),
        "training.min_steps": ("--min-steps", min_steps),
        "training.learning_rate": ("--learning-rate", learning_rate),
        "training.patience": ("--patience", patience),
        "training.pairwise": ("--pairwise", pairwise),
        "training.seed": ("--seed", seed),
    }
    chosen = settings(
        file,
        changes,
        of_foundation(foundation, device, dtype) | of_readout(readout.readout, options),
        project=project,
    )
    training, data = chosen.of(readout.readout).training, data_of(project, data)
    run = run or Project.find(project).run(f"{task.rpartition(':')[2].lower()}-{training.seed}")
    made, dataset = prepared.load(data), prepared.fingerprint(data)
    model = load(chosen.foundation.name, dtype=chosen.foundation.dtype, device=chosen.foundation.device)
    config = config_of(task, made, dataset, model, chosen.tuning(readout.readout))
    cache = cache_of(readout, config, model, chosen.states)
    tuned = readout.create(config, model, cache=cache, seed=training.seed)
    examples = readout.examples(tuned.task, made.split, made.domain)
    was_finished = Run.at(run) is not None
    with bar(f"states, {task}") as update:
        tuned.cache.fetch(tuned.texts(examples), update)
    with bar(f"tuning {task}") as update:
        history = tuned.tune(examples[TRAIN], examples[VALID], training, folder=run, progress=update)
    facts = {
        "run": str(run),
        **tuned.facts,
        "validation": history.validation_scores,
        "kept epoch": history.best_epoch,
    }
    if was_finished:
        err.print(f"{run} was already finished with these settings; nothing was trained", highlight=False)
    say(facts, as_json, "\n".join(f"{name}: {value}" for name, value in facts.items()))


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Runs of one task with different seeds, by folder or name.")],
    *,
    project: ProjectFolder = None,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.json and report.html; by default in the project's report folder."),
    ] = None,
    texts: Annotated[int, typer.Option(help="Number of texts to generate and compare, for text tasks.", min=0)] = 200,
    exit_after: ExitAfter = None,
    file: ConfigFile = None,
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Evaluates runs on the test part against classical baselines, or the untuned model; writes a report."""
    from m6rec import readouts
    from m6rec.domains import prepared
    from m6rec.evaluation import report
    from m6rec.foundation.checkpoint import load

    chosen = settings(file, changes, of_foundation(None, device, dtype), project=project)
    runs, data = [run_of(project, run) for run in runs], data_of(project, data)
    dataset = prepared.fingerprint(data)
    for run in runs:
        require_dataset(run, dataset, split=True)
    configs = [readouts.read_config(run) for run in runs]
    if len({(config.task, config.foundation) for config in configs}) > 1:
        raise ConfigError("all runs must share task and foundation; evaluate the others separately")
    task, readout = configs[0].task, readouts.of(configs[0].task)
    out = out or Project.find(project).report / task.rpartition(":")[2].lower()
    made = prepared.load(data)
    foundation = load(configs[0].foundation, dtype=chosen.foundation.dtype, device=chosen.foundation.device)
    cache = cache_of(readout, configs[0], foundation, chosen.states)
    first = readout.load(runs[0], foundation, cache, exit_after=exit_after)
    models = [first, *(readout.load(run, foundation, first.cache, exit_after=exit_after) for run in runs[1:])]
    examples = readout.examples(first.task, made.split, made.domain)
    with bar(f"evaluating {task}") as update:
        tables = readout.tables(models, made.split, examples, num_written=texts, progress=update)
    made_report = report.Report(
        title=f"{task} on {made.domain.name}",
        tables=tables,
        facts={**report.facts(), "runs": ", ".join(map(str, runs))},
    )
    report.write_report(made_report, out)
    if as_json:
        typer.echo(report.to_json(made_report))
    else:
        Console().print(report.to_table(made_report))


@app.command()
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Runs, by folder or name, reports of `m6rec evaluate`, or JSON files of benchmarks."),
    ],
    *,
    compare: Annotated[bool, typer.Option("--compare", help="Merge tables and curves of the same title.")] = False,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    project: ProjectFolder = None,
) -> None:
    """Writes what was measured into one HTML file with plots that fetches nothing; runs by seed share a curve."""
    from m6rec import files
    from m6rec.evaluation import comparison
    from m6rec.evaluation.report import to_html

    found = comparison.read([one if one.exists() else run_of(project, one) for one in sources])
    made = comparison.compare(found) if compare else comparison.gather(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write(out, to_html(made))
    err.print(f"{len(made.tables)} tables and {len(made.curves)} curves of {len(found)} sources are in {out}")


@app.command("zero-shot")
def zero_shot(
    *,
    project: ProjectFolder = None,
    data: Data = None,
    file: ConfigFile = None,
    changes: Changes = None,
    foundation: Foundation = None,
    way: Annotated[str, typer.Option(help="Prompting strategy: diary, or also-clicks as in the paper.")] = "diary",
    seeds: Annotated[int, typer.Option(help="Number of seeds of the few-shot rows.", min=1)] = 1,
    questions: Annotated[int | None, typer.Option(help="Maximum number of test events; all by default.", min=1)] = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Zero-shot and few-shot AUC by likelihood: untuned, and after 80 and 400 examples."""
    from m6rec import zero_shot as shots
    from m6rec.domains import prepared
    from m6rec.evaluation import report
    from m6rec.foundation.checkpoint import load

    chosen = settings(file, changes, of_foundation(foundation, device, dtype), project=project).foundation
    made = prepared.load(data_of(project, data))
    model = load(chosen.name, dtype=chosen.dtype, device=chosen.device)
    table = shots.zero_shot_table(
        model,
        made.split,
        made.domain,
        way=way,
        seeds=range(seeds),
        questions=questions,
        progress=lambda name: err.print(f"  {name}", highlight=False),
    )
    result = report.Report(title=f"zero-shot on {made.domain.name}", tables=(table,), facts=report.facts())
    if as_json:
        typer.echo(report.to_json(result))
    else:
        Console().print(report.to_table(result))
