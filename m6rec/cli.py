"""The command line: one verb a command, ``--json`` on each that reports."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from m6rec import assets
from m6rec.errors import ConfigError, ExtraError, M6RecError
from m6rec.foundation.checkpoint import DEFAULT
from m6rec.types import Ranked

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
assets_app = typer.Typer(no_args_is_help=True, help="Named models and data sets.")
app.add_typer(assets_app, name="assets")
device_app = typer.Typer(no_args_is_help=True, help="A folder of `m6rec export`, used as on a device.")
app.add_typer(device_app, name="device")
out, err = Console(), Console(stderr=True)

SWITCH_S = 5e-4
"""How long the model keeps Python from the event loop, which a request wakes some ten times: the usual 5 ms add up."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Data = Annotated[Path, typer.Option(help="Folder that `m6rec prepare` made.")]
Foundation = Annotated[str, typer.Option(help="Name of an asset, folder, .gguf file or hub id.")]
ExitAfter = Annotated[
    int | None, typer.Option(help="Upper layers to run of a ranking task that was tuned with more; all by default.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option(help="bfloat16 or float32.")]


def main() -> None:
    """The command ``m6rec``."""
    guard(app)


def guard(app: typer.Typer) -> None:
    """Runs a command; an error that a user can act on is one line and exit code 2."""
    try:
        app()
    except M6RecError as error:
        err.print(f"m6rec: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


@contextmanager
def bar(label: str) -> Iterator[Any]:
    """A progress bar with the time left; yields ``update(done, total, *note)``."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=not err.is_terminal) as progress:
        number = progress.add_task(label, total=None)

        def update(done: int, total: int, loss: float | None = None, label: str = label) -> None:
            note = label if loss is None else f"{label}, loss {loss:.3f}"
            progress.update(number, completed=done, total=total, description=note)

        yield update


def say(value: object, as_json: bool, text: str) -> None:
    """Prints a result, as JSON or as text."""
    if as_json:
        typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
    else:
        out.print(text, markup=False, highlight=False, soft_wrap=True)


@assets_app.command("list")
def assets_list(as_json: Json = False) -> None:
    """What can be fetched by name, its licence, and what is here already."""
    rows = [{**asdict(assets.describe(name)), "here": assets.is_here(name)} for name in assets.names()]
    lines = [
        f"{'✓' if row['here'] else ' '} {row['name']:16} {row['kind']:6} {row['megabytes']:>4} MB  {row['licence']}"
        for row in rows
    ]
    say(rows, as_json, "\n".join(lines))


@assets_app.command("get")
def assets_get(
    name: str,
    accept_licence: Annotated[bool, typer.Option(help="Accept the terms of an asset that has some.")] = False,
    as_json: Json = False,
) -> None:
    """Fetches an asset, verifies it and tells where it is."""
    folder = assets.get(name, accept_licence=accept_licence)
    say({"name": name, "folder": str(folder)}, as_json, str(folder))


@app.command()
def prepare(
    domain: Annotated[str, typer.Argument(help="movielens, amazon, mind, generic, … or package.module:NAME")],
    files: Annotated[list[Path] | None, typer.Argument(help="Your own files, where the domain has no data.")] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the checked and split log.")],
    split: Annotated[str, typer.Option(help="time, leave-one-out or item.")] = "time",
    as_json: Json = False,
) -> None:
    """Reads, checks and splits a log."""
    from m6rec.domains import prepared
    from m6rec.text import leaks
    from m6rec.text.log import TEST, TRAIN, VALID

    made = prepared.prepare(domain, split, out, *(files or []))
    log = made.split.log
    facts = {
        "events": len(log.events),
        "items": len(log.items),
        "users": len(log.users),
        "training": len(made.split.indices(TRAIN)),
        "validation": len(made.split.indices(VALID)),
        "test": len(made.split.indices(TEST)),
        "dropped": dict(log.dropped),
        "leaks": {leak.name: leak.count for leak in leaks.find(made.split)},
    }
    say(facts, as_json, "\n".join(f"{name:10} {value}" for name, value in facts.items()))


@app.command()
def tune(
    task: Annotated[str, typer.Argument(help="like, click, retrieve, explain, design, query or package.module:NAME")],
    *,
    data: Data,
    run: Annotated[Path, typer.Option(help="Folder for the tuning; give it again to resume.")],
    foundation: Foundation = DEFAULT,
    method: Annotated[str | None, typer.Option(help="A tuning method; option-adapter, for texts lora.")] = None,
    depth: Annotated[
        int | None, typer.Option(help="Layers run ahead of time; all but one, for texts all but twelve.")
    ] = None,
    keep: Annotated[int, typer.Option(help="Kept tokens a segment; 0 keeps all.")] = 1,
    all_layers: Annotated[bool, typer.Option(help="Tune the lower layers too (needs --depth 0).")] = False,
    epochs: int = 3,
    learning_rate: float = 2e-3,
    patience: Annotated[int, typer.Option(help="Stop after so many epochs without a better one; 0 never.")] = 0,
    pairwise: Annotated[
        float, typer.Option(help="Of scores: share of the loss, 0 to 1, that orders a user's own items pair by pair.")
    ] = 0.0,
    seed: int = 0,
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Tunes a task on a prepared log; resumes where it was interrupted."""
    from m6rec.domains import prepared
    from m6rec.evaluate import ask_all, check_leaks, draft_all, fit_links
    from m6rec.foundation.checkpoint import load
    from m6rec.tasks import writing
    from m6rec.tasks.task import named
    from m6rec.text.log import TRAIN, VALID
    from m6rec.train import TrainConfig, tune_texts
    from m6rec.train import tune as train
    from m6rec.tuned import TunedConfig, create
    from m6rec.writer import WriterConfig
    from m6rec.writer import create as create_writer

    made = prepared.load(data)
    training = TrainConfig(epochs=epochs, learning_rate=learning_rate, patience=patience, pairwise=pairwise, seed=seed)
    kind = WriterConfig if writing.writes(task) else TunedConfig
    config = kind(
        task=task,
        domain=made.domain_name,
        foundation=foundation,
        method=method or kind.method,
        depth=depth,
        keep=keep,
        all_layers=all_layers,
    )
    model = load(foundation, dtype=dtype, device=device)
    store = assets.home() / "states"
    if isinstance(config, WriterConfig):
        writer = create_writer(config, model, store, seed=seed)
        drafts = draft_all(writer.task, made.split, made.domain)
        with bar(f"tuning {task}") as update:
            history = tune_texts(writer, drafts[TRAIN], drafts[VALID], training, folder=run, progress=update)
        tuning = writer.tuning
    else:
        links = None
        if named(task).readout == "embed":
            with bar("fitting links") as update:
                links = fit_links(made.split, made.domain, progress=update)
        tuned = create(config, model, store, links=links, seed=seed)
        questions = ask_all(tuned.task, made.split, made.domain)
        check_leaks(made.split, questions)
        with bar(f"tuning {task}") as update:
            history = train(
                tuned,
                questions.rows[TRAIN],
                questions.rows[VALID],
                list(made.split.log.items.values()),
                training,
                folder=run,
                progress=update,
            )
        tuning = tuned.tuning
    facts = {
        "run": str(run),
        "trained parameters": tuning.num_trainable(),
        "share of the foundation": tuning.trainable_share(model.model),
        "validation": history.judgements,
        "kept epoch": history.best_epoch,
    }
    say(facts, as_json, "\n".join(f"{name}: {value}" for name, value in facts.items()))


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Runs of `m6rec tune`; one seed each of the same task.")],
    *,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.html.")],
    texts: Annotated[int, typer.Option(help="Texts to write and compare, of a task that writes.", min=0)] = 200,
    exit_after: ExitAfter = None,
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Measures tuned runs on the test part, beside the classical baselines or the untuned model; writes the report."""
    from m6rec import report
    from m6rec.domains import prepared
    from m6rec.foundation.checkpoint import load
    from m6rec.tasks import writing
    from m6rec.tuned import run_of

    of_runs = [run_of(run) for run in runs]
    if len(set(of_runs)) > 1:
        raise ConfigError("runs of one report must share task and foundation; evaluate the others apart")
    task, source = of_runs[0]
    made = prepared.load(data)
    foundation = load(source, dtype=dtype, device=device)
    is_text = writing.writes(task)
    if exit_after is not None and is_text:
        raise ConfigError(f"task {task!r} writes and takes all of its layers; leave --exit-after out")
    tables = _text_tables(runs, made, foundation, texts) if is_text else _tables(runs, made, foundation, exit_after)
    made_report = report.Report(
        title=f"{task} on {made.domain.name}",
        tables=tuple(tables),
        facts={**report.facts(), "runs": ", ".join(map(str, runs))},
    )
    report.write(made_report, out)
    if as_json:
        typer.echo(report.to_json(made_report))
    else:
        Console().print(report.to_table(made_report))


def _tables(runs: list[Path], made: Any, foundation: Any, exit_after: int | None) -> list[Any]:
    """What ``evaluate`` says of tasks that score or embed."""
    from m6rec.evaluate import ask_all, check_leaks, ranking_table, retrieval_tables
    from m6rec.text.log import TEST
    from m6rec.tuned import load as load_tuned

    first = load_tuned(runs[0], foundation, store=assets.home() / "states", exit_after=exit_after)
    tuned = [first, *(load_tuned(run, foundation, first.cache, exit_after=exit_after) for run in runs[1:])]
    name = f"m6rec {first.config.method}"
    questions = ask_all(first.task, made.split, made.domain)
    check_leaks(made.split, questions)
    rows, items = questions.rows[TEST], list(made.split.log.items.values())
    with bar("scoring") as update:
        if first.task.readout == "score":
            scores = [one.scores(rows, update) for one in tuned]
            return [ranking_table(made.split, questions, made.domain, {name: scores})]
        ours = {name: [(one.vectors(rows, update), one.item_vectors(items)) for one in tuned]}
        return [*retrieval_tables(made.split, questions, made.domain, ours, links=first.links)]


def _text_tables(runs: list[Path], made: Any, foundation: Any, num_written: int) -> list[Any]:
    """What ``evaluate`` says of tasks that write."""
    from m6rec.evaluate import draft_all, text_tables
    from m6rec.writer import load as load_writer

    first = load_writer(runs[0], foundation, store=assets.home() / "states")
    writers = [first, *(load_writer(run, foundation, first.cache) for run in runs[1:])]
    drafts = draft_all(first.task, made.split, made.domain)
    with bar("reading") as update:
        return [*text_tables(writers, drafts, num_written=num_written, progress=update)]


Retrieve = Annotated[Path, typer.Option("--retrieve", help="Run of the retrieval task.")]
Rank = Annotated[Path, typer.Option("--rank", help="Run of the ranking task.")]
Blocked = Annotated[Path | None, typer.Option("--blocked", help="File of words that no text may hold, one a line.")]


@app.command()
def recommend(
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    data: Data = Path("runs/demo/data"),
    retrieve: Retrieve = Path("runs/demo/retrieve-0"),
    rank: Rank = Path("runs/demo/like-0"),
    count: Annotated[int, typer.Option(help="How many items.")] = 10,
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Recommends items to a user, with scores and the history they rest on."""
    recommender, history = _recommender(data, retrieve, rank, user, device, dtype)
    ranked = recommender.recommend(user, count).items
    value = {
        "user": user,
        "history": history,
        "items": [{"id": r.item.id, "title": r.item.title, "score": r.score} for r in ranked],
    }
    lines = ["Latest of the history:", *(f"  {line}" for line in history[-10:]), "", "Recommended:"]
    lines += [f"  {r.score:.3f}  {r.item.title}  ({', '.join(r.item.categories)})" for r in ranked]
    say(value, as_json, "\n".join(lines))


@app.command()
def rank(
    items: Annotated[list[str], typer.Argument(help="Ids of the items to order.")],
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    data: Data = Path("runs/demo/data"),
    retrieve: Retrieve = Path("runs/demo/retrieve-0"),
    rank: Rank = Path("runs/demo/like-0"),
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Orders given items by the probability that the user likes them."""
    recommender, _ = _recommender(data, retrieve, rank, user, device, dtype)
    _say_ranked(recommender.rank(user, items), as_json)


@app.command()
def explain(
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    item: Annotated[str, typer.Option(help="Id of the item.")],
    data: Data = Path("runs/demo/data"),
    retrieve: Retrieve = Path("runs/demo/retrieve-0"),
    rank: Rank = Path("runs/demo/like-0"),
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Says why a user would like an item, and what each sentence rests on."""
    recommender, _ = _recommender(data, retrieve, rank, user, device, dtype)
    explained = recommender.explain(user, item)
    lines = [] if explained.statements else ["Nothing of what is known speaks for it."]
    for one in explained.statements:
        lines += [one.text, f"  {one.kind}: {json.dumps(one.evidence, ensure_ascii=False)}"]
        lines += [f"  worded by the {one.worded_by}" + (f", as {one.reason}" if one.reason else "")]
    say({"user": user, "item": item, **asdict(explained)}, as_json, "\n".join(lines))


@app.command()
def chat(
    *,
    user: Annotated[str, typer.Option(help="Id of the user whose history counts; none for a newcomer.")] = "",
    data: Data = Path("runs/demo/data"),
    retrieve: Retrieve = Path("runs/demo/retrieve-0"),
    rank: Rank = Path("runs/demo/like-0"),
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Talks with you about what to choose next: it asks, recommends and explains. An empty line ends it."""
    from m6rec.serving.backend import Chat, Reply
    from m6rec.serving.settings import MAX_MESSAGES
    from m6rec.tasks.chat import Message

    recommender, _ = _recommender(data, retrieve, rank, user, device, dtype)
    messages: list[Message] = []
    while said := _heard():
        messages.append(Message("user", said))
        # The latest ones, as the service takes no more either.
        for told in recommender.stream(Chat(messages=messages[-MAX_MESSAGES + 1 :], user=user)):
            if not isinstance(told, Reply):
                if not as_json:
                    out.print(told, end="", markup=False, highlight=False, soft_wrap=True)
                continue
            messages.append(Message("assistant", told.text))
            if as_json:
                typer.echo(json.dumps(asdict(told), ensure_ascii=False))
            else:
                out.print()


def _heard() -> str:
    """The next line of the user's; "" at the end. It is asked for at a terminal only."""
    try:
        return (input("> ") if sys.stdin.isatty() else input()).strip()
    except EOFError:
        return ""


@app.command()
def create(
    kind: Annotated[str, typer.Argument(help="design, query or headline")],
    *,
    user: Annotated[str, typer.Option(help="Id of the user.")],
    item: Annotated[str | None, typer.Option(help="Id of the item that a headline is about.")] = None,
    category: Annotated[str | None, typer.Option(help="Category of a design; by default the model's choice.")] = None,
    count: Annotated[int, typer.Option(help="How many texts at most.")] = 1,
    catalogue: Annotated[bool, typer.Option("--catalogue", help="Let a design be an item that exists.")] = False,
    blocked: Blocked = None,
    data: Data = Path("runs/demo/data"),
    retrieve: Retrieve = Path("runs/demo/retrieve-0"),
    rank: Rank = Path("runs/demo/like-0"),
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Writes for a user: a product that they would like, a query that they would type, or copy for an item."""
    recommender, _ = _recommender(data, retrieve, rank, user, device, dtype, blocked=blocked)
    created = recommender.create(user, kind, item=item, category=category, count=count, catalogue=catalogue)
    lines = []
    for one in created:
        lines += [one.text + (f"  ({one.category})" if one.category else "")]
        lines += [f"  worded by the {one.worded_by}" + "".join(f"\n  refused: {why}" for why in one.refused)]
    say({"user": user, "kind": kind, "texts": [asdict(one) for one in created]}, as_json, "\n".join(lines))


@app.command()
def shrink(
    run: Annotated[Path, typer.Argument(help="Run of a ranking task.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the small model; give it again to resume.")],
    data: Data = Path("runs/demo/data"),
    recipe: Annotated[Path | None, typer.Option(help="JSON file of switches (edge.recipe.Recipe).")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="A switch, such as sparsity=0.5.")] = None,
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """Makes a small model of a tuned ranking task, for `m6rec export OUT/run`."""
    from m6rec.domains import prepared
    from m6rec.edge.recipe import Recipe
    from m6rec.edge.shrink import shrink as make
    from m6rec.evaluate import ask_all, check_leaks
    from m6rec.foundation.checkpoint import load
    from m6rec.tuned import load as load_tuned
    from m6rec.tuned import read_config

    chosen = Recipe.read(_switches(recipe, change or []))
    made = prepared.load(data)
    foundation = load(read_config(run).foundation, dtype=dtype)
    tuned = load_tuned(run, foundation, store=assets.home() / "states")
    questions = ask_all(tuned.task, made.split, made.domain)
    check_leaks(made.split, questions)
    lessons = assets.home() / "lessons"
    with bar("shrinking") as update:

        def tell(stage: str, done: int, total: int) -> None:
            update(done, total, label=stage)

        card = make(tuned, made.split.log, questions.rows, chosen, out, lessons=lessons, progress=tell)
    lines = [f"{name}: {card[name]}" for name in ("parameters", "tokens", "operations", "quality")]
    say(card, as_json, "\n".join([str(out), *lines]))


def _switches(file: Path | None, changes: Sequence[str]) -> dict[str, Any]:
    """Names and values of a recipe, from a file and from words of the form name=value."""
    try:
        values = dict(json.loads(file.read_text())) if file is not None else {}
        for change in changes:
            name, _, value = change.partition("=")
            values[name] = json.loads(value)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"the recipe can't be read ({error}); give a JSON file of names and values, or --set width=128"
        ) from error
    return values


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run of a ranking task.")],
    *,
    out: Annotated[Path, typer.Option(help="New folder for the device.")],
    data: Data = Path("runs/demo/data"),
    dtype: Annotated[str, typer.Option(help="float32, float16, int8 or int4.")] = "int8",
    states: Annotated[bool, typer.Option(help="Send the states of the items' texts along.")] = True,
    layers: Annotated[int | None, typer.Option(help="Layers of a shrunk model, for weak devices; all.")] = None,
    lower: Annotated[bool, typer.Option(help="Let the device read texts itself, with all of the model.")] = True,
    since: Annotated[Path | None, typer.Option(help="Folder of devices; only what has changed is written.")] = None,
    as_json: Json = False,
) -> None:
    """Writes a tuned ranking task and the items as a folder that `m6rec.device` runs without torch."""
    from m6rec.device import read_card
    from m6rec.domains import prepared
    from m6rec.edge.export import export as write
    from m6rec.edge.shrink import at_exit
    from m6rec.foundation.checkpoint import load
    from m6rec.text.past import Past
    from m6rec.tuned import load as load_tuned
    from m6rec.tuned import read_config

    log = prepared.load(data).split.log
    foundation = load(read_config(run).foundation, dtype="float32")
    tuned = load_tuned(run, foundation, store=assets.home() / "states")
    if layers is not None:
        tuned = at_exit(tuned, layers)
    past = Past(log.items, tuned.domain.likes).observe_all(log.events)
    items = list(log.items.values())
    older = read_card(since) if since else None
    with bar("exporting") as update:
        card = write(
            tuned, out, dtype=dtype, items=items, past=past, states=states, lower=lower, since=older, progress=update
        )
    lines = [f"{name:20} {facts['bytes'] / 1e6:7.1f} MB" for name, facts in card.files.items() if (out / name).exists()]
    say(asdict(card), as_json, "\n".join([str(out), *lines]))


DeviceFolder = Annotated[Path, typer.Argument(help="Folder of `m6rec export`.")]
Store = Annotated[Path, typer.Option(help="The device's own file; made if need be.")]


@device_app.command("update")
def device_update(
    folder: DeviceFolder,
    newer: Annotated[Path, typer.Argument(help="Folder of `m6rec export`, or of `m6rec export --since`.")],
) -> None:
    """Puts a newer folder in the place of one, whole or not at all."""
    from m6rec.device import update

    update(folder, newer)


@device_app.command("observe")
def device_observe(
    folder: DeviceFolder,
    item: Annotated[str, typer.Argument(help="Id of the item.")],
    *,
    store: Store,
    value: Annotated[float, typer.Option(help="Strength, in the unit of the log.")] = 1.0,
) -> None:
    """Notes that the user of the device did something now."""
    from m6rec.device import ME, Device
    from m6rec.types import Event

    Device.load(folder, store).observe([Event(ME.id, item, int(time.time()), value)])


@device_app.command("rank")
def device_rank(
    folder: DeviceFolder,
    items: Annotated[list[str], typer.Argument(help="Ids of the items to order.")],
    *,
    store: Store,
    as_json: Json = False,
) -> None:
    """Orders given items by the probability that the user of the device likes them."""
    from m6rec.device import Device

    _say_ranked(Device.load(folder, store).rank(items), as_json)


@app.command("zero-shot")
def zero_shot(
    *,
    data: Data = Path("runs/demo/data"),
    foundation: Foundation = DEFAULT,
    way: Annotated[str, typer.Option(help="How to ask: diary, or also-clicks as in the paper.")] = "diary",
    seeds: Annotated[int, typer.Option(help="Seeds of the few-shot rows.", min=1)] = 1,
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
    as_json: Json = False,
) -> None:
    """AUC of likes by likelihood: untuned, and after 80 and 400 examples."""
    from m6rec import report
    from m6rec import zero_shot as shots
    from m6rec.domains import prepared
    from m6rec.foundation.checkpoint import load

    made = prepared.load(data)
    model = load(foundation, dtype=dtype, device=device)
    table = shots.table(
        model,
        made.split,
        made.domain,
        way=way,
        seeds=range(seeds),
        progress=lambda name: err.print(f"  {name}", highlight=False),
    )
    result = report.Report(title=f"zero-shot on {made.domain.name}", tables=(table,), facts=report.facts())
    if as_json:
        typer.echo(report.to_json(result))
    else:
        Console().print(report.to_table(result))


@app.command()
def serve(
    *,
    data: Data = Path("runs/demo/data"),
    retrieve: Retrieve = Path("runs/demo/retrieve-0"),
    rank: Rank = Path("runs/demo/like-0"),
    blocked: Blocked = None,
    store: Annotated[
        Path, typer.Option(help="Folder that keeps the events and items which come in, and vectors.")
    ] = Path("runs/demo/store"),
    histories: Annotated[
        str, typer.Option(help="Where events are kept instead: a folder, or the redis:// URL of a durable server.")
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 8300,
    states: Annotated[
        str, typer.Option(help="Where states are kept: a folder, or the redis:// URL of a shared server.")
    ] = "",
    keys: Annotated[Path | None, typer.Option(help="File of hashed API keys, made by `m6rec key`.")] = None,
    insecure: Annotated[bool, typer.Option(help="Let other machines in without keys.")] = False,
    queue: Annotated[int, typer.Option(help="Requests that may wait for the model.")] = 16,
    batch: Annotated[int, typer.Option(help="Requests that are ranked together.")] = 8,
    threads: Annotated[int, typer.Option(help="Threads of the model; 0: one less than there are cores.", min=0)] = 0,
    deadline: Annotated[float, typer.Option(help="Seconds after which a waiting request is refused.")] = 5.0,
    exit_after: ExitAfter = None,
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
) -> None:
    """Serves recommendations over HTTP until SIGTERM; SIGHUP loads what was tuned meanwhile."""
    try:
        from m6rec.serving import http
    except ImportError as error:
        raise ExtraError("m6rec serve", "serving") from error
    import torch

    from m6rec.serving.catalogue import Catalogue
    from m6rec.serving.histories import LmdbHistories, RedisHistories
    from m6rec.serving.memory import keep_freed_memory
    from m6rec.serving.recommender import Recommender
    from m6rec.serving.settings import Settings
    from m6rec.text.past import Past
    from m6rec.tuned import load as load_tuned

    settings = Settings(
        host=host,
        port=port,
        keys=keys,
        insecure=insecure,
        max_queue=queue,
        max_batch=batch,
        deadline_s=deadline,
    )
    http.log_to_stderr()
    keep_freed_memory()
    # One core is left to the event loop, so that a busy service still answers and refuses.
    torch.set_num_threads(threads or max(1, torch.get_num_threads() - 1))
    sys.setswitchinterval(SWITCH_S)
    made, retrieval, ranking = tuned_runs(data, retrieve, rank, device, dtype, states, exit_after)
    log = made.split.log
    recommender = Recommender(
        retrieval,
        ranking,
        log,
        Past(log.items, made.domain.likes).observe_all(log.events),
        histories=RedisHistories(histories)
        if "://" in histories
        else LmdbHistories(Path(histories or store / "histories")),
        catalogue=Catalogue(store / "catalogue"),
        vectors=store / "vectors",
        writers=_writers(rank, ranking, states),
        blocked=_blocklist(blocked),
    )

    def reload() -> None:
        fresh = load_tuned(rank, ranking.foundation, ranking.cache, exit_after=exit_after)
        recommender.swap(load_tuned(retrieve, ranking.foundation, ranking.cache), fresh, _writers(rank, fresh, states))

    gc.freeze()  # what has been loaded stays: a collection that walks it would hold requests up for half a second
    http.serve(recommender, settings, reload=reload, statistics=ranking.cache.statistics)
    recommender.save()


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="File of hashes for `m6rec serve --keys`; made if need be.")],
    *,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
) -> None:
    """Makes an API key and prints it, once; the file keeps its hash."""
    from m6rec.serving.settings import make_key

    typer.echo(make_key(file, name))


def _say_ranked(ranked: Sequence[Ranked], as_json: bool) -> None:
    value = [{"id": r.item.id, "title": r.item.title, "score": r.score} for r in ranked]
    say(value, as_json, "\n".join(f"{r.score:.3f}  {r.item.id:>6}  {r.item.title}" for r in ranked))


def _recommender(
    data: Path,
    retrieve: Path,
    rank: Path,
    user: str,
    device: str,
    dtype: str,
    blocked: Path | None = None,
) -> tuple[Any, list[str]]:
    from m6rec.serving.recommender import Recommender
    from m6rec.text.past import Past

    made, retrieval, ranking = tuned_runs(data, retrieve, rank, device, dtype)
    log, domain = made.split.log, made.domain
    past = Past(log.items, domain.likes).observe_all(log.events)
    history = [f"{domain.action(event)} {log.items[event.item].title}" for event in past.history(user)]
    writers = _writers(rank, ranking)
    return Recommender(retrieval, ranking, log, past, writers=writers, blocked=_blocklist(blocked)), history


def _writers(rank: Path, ranking: Any, states: str = "") -> dict[str, Any]:
    """The writers whose runs stand beside that of the ranking task, each in a folder that has its task's name."""
    from m6rec.tasks import writing
    from m6rec.writer import load as load_writer

    runs = {task: rank.parent / task for task in writing.names()}
    return {
        task: load_writer(run, ranking.foundation, ranking.cache, _store(states))
        for task, run in runs.items()
        if run.is_dir()
    }


def _blocklist(file: Path | None) -> Any:
    from m6rec.text.safety import Blocklist

    return None if file is None else Blocklist.load(file)


def _store(states: str) -> Any:
    """Where states are kept: a folder, the URL of a server, or "" for this machine's own place."""
    from m6rec.foundation.stores import RedisStore

    return RedisStore(states) if "://" in states else Path(states) if states else assets.home() / "states"


def tuned_runs(
    data: Path,
    retrieve: Path,
    rank: Path,
    device: str = "cpu",
    dtype: str = "bfloat16",
    states: str = "",
    exit_after: int | None = None,
) -> tuple[Any, Any, Any]:
    """(the prepared log, the retrieval task, the ranking task) on one foundation and one cache, that of this machine.

    ``states`` is the folder or the URL of another cache.
    """
    from m6rec.domains import prepared
    from m6rec.foundation.checkpoint import load
    from m6rec.tuned import load as load_tuned
    from m6rec.tuned import read_config

    made = prepared.load(data)
    foundation = load(read_config(rank).foundation, dtype=dtype, device=device)
    ranking = load_tuned(rank, foundation, store=_store(states), exit_after=exit_after)
    return made, load_tuned(retrieve, foundation, ranking.cache), ranking
