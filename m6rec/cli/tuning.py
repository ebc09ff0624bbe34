"""Tuning and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from m6rec import assets
from m6rec.cli.app import Device, Dtype, ExitAfter, Foundation, Json, app, bar, err, say
from m6rec.cli.runs import Data, ProjectFolder, data_of, require_dataset, run_of
from m6rec.errors import ConfigError
from m6rec.foundation.checkpoint import DEFAULT
from m6rec.project import Project, Run, task_and_foundation


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
    foundation: Foundation = DEFAULT,
    method: Annotated[
        str | None, typer.Option(help="Tuning method; default option-adapter, for text tasks lora.")
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(help="Layers whose states are cached; default all but one, for text tasks all but twelve."),
    ] = None,
    keep: Annotated[int, typer.Option(help="Cached tokens per segment; 0 for all.")] = 1,
    all_layers: Annotated[bool, typer.Option(help="Tune the lower layers too (needs --depth 0).")] = False,
    epochs: Annotated[
        int | None, typer.Option(help="Maximum number of epochs; default 3, for retrieval 20.", min=0)
    ] = None,
    min_steps: Annotated[int, typer.Option(help="Minimum number of steps, for small logs.", min=0)] = 100,
    learning_rate: Annotated[float | None, typer.Option(help="Default 0.002, for retrieval 0.001.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Epochs without improvement before stopping; 0 for never. Default 0, for retrieval 3."),
    ] = None,
    pairwise: Annotated[
        float, typer.Option(help="Weight, 0 to 1, of a pairwise ranking loss over a user's items.")
    ] = 0.0,
    seed: int = 0,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Tunes a task on a prepared dataset; resumes an interrupted run."""
    from m6rec.data.split import TRAIN, VALID
    from m6rec.domains import prepared
    from m6rec.evaluate import check_leaks, task_drafts, task_examples
    from m6rec.foundation.checkpoint import load
    from m6rec.quickstart import tune_retrieval
    from m6rec.retrieval.model import RetrievalConfig
    from m6rec.retrieval.training import EmbeddingConfig
    from m6rec.task_model import TaskModelConfig, create
    from m6rec.tasks import writing
    from m6rec.tasks.task import named
    from m6rec.text_model import TextModelConfig
    from m6rec.text_model import create as create_writer
    from m6rec.train import TrainConfig, tune_texts
    from m6rec.train import tune as train

    data = data_of(project, data)
    run = run or Project.find(project).run(f"{task.rpartition(':')[2].lower()}-{seed}")
    made, dataset = prepared.load(data), prepared.fingerprint(data)
    of_data: dict[str, Any] = {
        "task": task,
        "domain": made.domain_name,
        "rule": None if made.domain.rule is None else made.domain.rule.to_json(),
        "foundation": foundation,
        "data": dataset.data,
        "split": dataset.split,
    }
    rates: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate, "patience": patience}
    given = {name: value for name, value in rates.items() if value is not None}
    model, store = load(foundation, dtype=dtype, device=device), assets.home() / "states"
    was_finished = Run.at(run) is not None
    facts: dict[str, Any] = {"run": str(run)}
    history: Any
    if not writing.writes(task) and named(task).readout == "embed":
        if method or depth is not None or keep != 1 or all_layers or pairwise:
            raise ConfigError(
                f"--method, --depth, --keep, --all-layers and --pairwise do not apply to retrieval task {task!r}; omit "
                "them, or tune a task that scores, such as like"
            )
        questions = task_examples(named(task), made.split, made.domain)
        check_leaks(made.split, questions)
        training = EmbeddingConfig(**given, seed=seed)
        _, history = tune_retrieval(made, RetrievalConfig(**of_data), model, questions, training, run, bar, store)
        facts |= {"validation": history.validation, "kept epoch": history.epochs}
    else:
        training_of_task = TrainConfig(**{"epochs": 3, **given}, min_steps=min_steps, pairwise=pairwise, seed=seed)
        kind = TextModelConfig if writing.writes(task) else TaskModelConfig
        config = kind(**of_data, method=method or kind.method, depth=depth, keep=keep, all_layers=all_layers)
        if isinstance(config, TextModelConfig):
            writer = create_writer(config, model, store, seed=seed)
            drafts = task_drafts(writer.task, made.split, made.domain)
            with bar(f"tuning {task}") as update:
                history = tune_texts(
                    writer, drafts[TRAIN], drafts[VALID], training_of_task, folder=run, progress=update
                )
            adapter = writer.adapter
        else:
            tuned = create(config, model, store, seed=seed)
            questions = task_examples(tuned.task, made.split, made.domain)
            check_leaks(made.split, questions)
            rows = questions.rows
            items = list(made.split.log.items.values())
            with bar(f"tuning {task}") as update:
                history = train(tuned, rows[TRAIN], rows[VALID], items, training_of_task, folder=run, progress=update)
            adapter = tuned.adapter
        facts |= {
            "trained parameters": adapter.num_trainable(),
            "share of the foundation": adapter.trainable_share(model.model),
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
    device: Device = "cpu",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Evaluates runs on the test part against classical baselines, or the untuned model; writes a report."""
    from m6rec import report
    from m6rec.domains import prepared
    from m6rec.foundation.checkpoint import load
    from m6rec.tasks import writing

    runs, data = [run_of(project, run) for run in runs], data_of(project, data)
    dataset = prepared.fingerprint(data)
    for run in runs:
        require_dataset(run, dataset, split=True)
    of_runs = [task_and_foundation(run) for run in runs]
    if len(set(of_runs)) > 1:
        raise ConfigError("all runs must share task and foundation; evaluate the others separately")
    task, source = of_runs[0]
    out = out or Project.find(project).report / task.rpartition(":")[2].lower()
    made = prepared.load(data)
    foundation = load(source, dtype=dtype, device=device)
    is_text = writing.writes(task)
    if exit_after is not None and is_text:
        raise ConfigError(f"--exit-after does not apply to text task {task!r}; omit it")
    tables = _text_tables(runs, made, foundation, texts) if is_text else _tables(runs, made, foundation, exit_after)
    made_report = report.Report(
        title=f"{task} on {made.domain.name}",
        tables=tuple(tables),
        facts={**report.facts(), "runs": ", ".join(map(str, runs))},
    )
    report.write_report(made_report, out)
    if as_json:
        typer.echo(report.to_json(made_report))
    else:
        Console().print(report.to_table(made_report))


def _tables(runs: list[Path], made: Any, foundation: Any, exit_after: int | None) -> list[Any]:
    """Tables of tasks that score or embed."""
    from m6rec.evaluate import check_leaks, retrieval_tables, retriever_of, task_examples
    from m6rec.quickstart import RETRIEVAL, ranking_report
    from m6rec.retrieval.model import load as load_retrieval
    from m6rec.task_model import load as load_tuned
    from m6rec.tasks.task import named

    task, store = named(task_and_foundation(runs[0])[0]), assets.home() / "states"
    questions = task_examples(task, made.split, made.domain)
    check_leaks(made.split, questions)
    if task.readout == "embed":
        if exit_after is not None:
            raise ConfigError(f"--exit-after does not apply to retrieval task {task.name!r}; omit it")
        model = load_retrieval(runs[0], foundation, store=store)
        models = [model, *(load_retrieval(run, foundation, model.cache) for run in runs[1:])]
        with bar("reading items"):
            ours = {RETRIEVAL: [retriever_of(one, made.split, questions, made.domain) for one in models]}
        return [*retrieval_tables(made.split, questions, made.domain, ours)]
    first = load_tuned(runs[0], foundation, store=store, exit_after=exit_after)
    tuned = [first, *(load_tuned(run, foundation, first.cache, exit_after=exit_after) for run in runs[1:])]
    with bar("scoring") as update:
        return [*ranking_report(made, questions, f"m6rec {first.config.method}", tuned, update)]


def _text_tables(runs: list[Path], made: Any, foundation: Any, num_written: int) -> list[Any]:
    """Tables of text tasks."""
    from m6rec.evaluate import task_drafts, text_tables
    from m6rec.text_model import load as load_writer

    first = load_writer(runs[0], foundation, store=assets.home() / "states")
    writers = [first, *(load_writer(run, foundation, first.cache) for run in runs[1:])]
    drafts = task_drafts(first.task, made.split, made.domain)
    with bar("reading") as update:
        return [*text_tables(writers, drafts, num_written=num_written, progress=update)]


@app.command("zero-shot")
def zero_shot(
    *,
    project: ProjectFolder = None,
    data: Data = None,
    foundation: Foundation = DEFAULT,
    way: Annotated[str, typer.Option(help="Prompting strategy: diary, or also-clicks as in the paper.")] = "diary",
    seeds: Annotated[int, typer.Option(help="Number of seeds of the few-shot rows.", min=1)] = 1,
    questions: Annotated[int | None, typer.Option(help="Maximum number of test events; all by default.", min=1)] = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Zero-shot and few-shot AUC by likelihood: untuned, and after 80 and 400 examples."""
    from m6rec import report
    from m6rec import zero_shot as shots
    from m6rec.domains import prepared
    from m6rec.foundation.checkpoint import load

    made = prepared.load(data_of(project, data))
    model = load(foundation, dtype=dtype, device=device)
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
