"""The settings of a command: defaults, the project's file, ``--config``, then options and ``--set``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m6rec import config
from m6rec.cli.app import Json, app
from m6rec.config import Given
from m6rec.errors import ConfigError
from m6rec.project import Project

if TYPE_CHECKING:
    from m6rec.cli.tree import Config
    from m6rec.tasks.task import Readout

FILE = "config.toml"
"""Settings of a project, in its folder."""
config_app = typer.Typer(no_args_is_help=True, help="The settings of all commands.")
app.add_typer(config_app, name="config")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file of settings; `m6rec config show` prints one.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, such as ranking.training.epochs=2; may be repeated.")
]


def settings(
    file: Path | None,
    changes: list[str] | None,
    options: Mapping[str, tuple[str, Any]] | None = None,
    *,
    project: Path | None = None,
) -> Config:
    """The tree of settings of a command.

    Args:
        file: Of ``--config``.
        changes: Of ``--set``.
        options: Options that are short forms of a leaf: by path, the name of the option and its value, None for not
            given.
        project: The project's folder; None for the one that the command finds.

    Raises:
        ConfigError: A setting is unknown or not allowed, or is given twice.
    """
    return given(file, changes, options, project=project)[0]


def given(
    file: Path | None,
    changes: list[str] | None,
    options: Mapping[str, tuple[str, Any]] | None = None,
    *,
    project: Path | None = None,
) -> tuple[Config, dict[str, str]]:
    """(tree, origin of each leaf that somebody gave); see ``settings``."""
    from m6rec.cli.tree import Config

    short = {path: Given(value=value, origin=name) for path, (name, value) in (options or {}).items()}
    typed = {path: one for path, one in short.items() if one.value is not None}
    changed = config.parse(changes or [])
    if twice := sorted(typed.keys() & changed.keys()):
        raise ConfigError(f"{twice[0]} is given by {typed[twice[0]].origin} and by --set; give it once")
    values = _of_project(project) | (config.read(file) if file else {}) | typed | changed
    return config.with_values(Config(), values), {path: one.origin for path, one in values.items()}


def _of_project(folder: Path | None) -> dict[str, Given]:
    """What the file of a project gives; nothing where there is neither."""
    try:
        home = folder or Project.find().folder
    except ConfigError:
        return {}
    return config.read(home / FILE) if (home / FILE).is_file() else {}


def of_foundation(name: str | None = None, device: str | None = None, dtype: str | None = None) -> dict[str, Any]:
    """``options`` of ``settings`` that most commands have."""
    return {
        "foundation.name": ("--foundation", name),
        "foundation.device": ("--device", device),
        "foundation.dtype": ("--dtype", dtype),
    }


def of_readout(readout: Readout, options: Mapping[str, tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    """``options`` of ``settings`` whose paths are within the section of a readout.

    Raises:
        ConfigError: One is given that the section doesn't have.
    """
    from m6rec.cli.tree import SECTIONS, Config

    known = {leaf.path for leaf in config.leaves(Config())}
    found = {f"{SECTIONS[readout]}.{path}": option for path, option in options.items()}
    strange = [name for path, (name, value) in found.items() if path not in known and value is not None]
    if strange:
        verb, them = ("does", "it") if len(strange) == 1 else ("do", "them")
        raise ConfigError(
            f"{', '.join(strange)} {verb} not apply to a {SECTIONS[readout]} task; omit {them}, or tune a task that "
            "scores, such as like"
        )
    return {path: option for path, option in found.items() if path in known}


@config_app.command("show")
def show(
    within: Annotated[
        str, typer.Argument(metavar="[SETTING]", help="A setting or a table of them, such as ranking.training.")
    ] = "",
    *,
    run: Annotated[Path | None, typer.Option("--run", help="Show what this run was made with.")] = None,
    project: Annotated[Path | None, typer.Option("--project", help="Project folder; by default as elsewhere.")] = None,
    file: ConfigFile = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Prints settings with their values, where these are from, and what they mean, as TOML for --config."""
    from m6rec.cli.tree import Config

    if run is None:
        tree, origins = given(file, changes, project=project)
        leaves = config.select(tree, within)
    else:
        values = config.by_path(_of_run(project, run), "the run")
        tree, origins = config.with_values(Config(), values), {path: one.origin for path, one in values.items()}
        leaves = [leaf for leaf in config.select(tree, within) if leaf.path in origins]
    if as_json:
        typer.echo(json.dumps(config.to_entries(leaves, origins), indent=1, ensure_ascii=False))
    else:
        typer.echo(config.to_toml(leaves, origins))


def _of_run(project: Path | None, run: Path) -> dict[str, Any]:
    """What a run was made with, as tables of the tree."""
    from m6rec import readouts
    from m6rec.cli.runs import run_of
    from m6rec.cli.tree import made_with
    from m6rec.readouts import read_config, read_training

    folder = run_of(project, run)
    made = read_config(folder)
    return made_with(made, read_training(folder), readouts.of(made.task).readout)
