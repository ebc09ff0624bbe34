"""The Typer application, shared options and error output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from m6rec.errors import M6RecError, missing

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
assets_app = typer.Typer(no_args_is_help=True, help="Named models and datasets.")
app.add_typer(assets_app, name="assets")
device_app = typer.Typer(no_args_is_help=True, help="Use a folder of `m6rec export` as a device would.")
app.add_typer(device_app, name="device")
out, err = Console(), Console(stderr=True)


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Foundation = Annotated[
    str | None,
    typer.Option(help="Asset name, folder, .gguf file or hub id of the language model. [default: smollm2-135m]"),
]
ExitAfter = Annotated[
    int | None, typer.Option(help="Upper layers to run, if the ranking run has more; all by default.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, … [default: cpu]")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16, or auto for the faster one on this processor. [default: auto]")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from m6rec.evaluation.report import commit_of_code

        commit = commit_of_code()
        typer.echo(f"m6rec {version('m6rec')}" + (f" ({commit})" if commit else ""))
        raise typer.Exit


@app.callback()
def m6rec(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """One pretrained language model as the foundation of a whole recommender."""


def main() -> None:
    """The command ``m6rec``."""
    guard(app)


def guard(app: typer.Typer) -> None:
    """Runs a command; an ``M6RecError``, or that an extra is not installed, is one line, with exit code 2."""
    try:
        app()
    except M6RecError as error:
        _give_up(error)
    except ModuleNotFoundError as error:
        told = missing(error, "this command")
        if told is None:
            raise
        _give_up(told)


def _give_up(error: M6RecError) -> NoReturn:
    err.print(f"m6rec: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


@contextmanager
def bar(label: str) -> Iterator[Any]:
    """A progress bar with time left; yields ``update(done, total, loss, label)``."""
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
