"""A project: one folder with the data, the runs, the store and the reports of one recommender.

::

shop/project.json    which runs are served, where that is not the newest
shop/data/           the prepared dataset (`m6rec prepare`)
shop/runs/<name>/    what was tuned (`m6rec tune`)
shop/store/          what came in through the service (`m6rec serve`)
shop/report/         what was measured (`m6rec evaluate`)
shop/device/         what the page ranks by in the browser (`m6rec export`)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from m6rec import files
from m6rec.errors import AssetError, ConfigError
from m6rec.fingerprint import Fingerprint
from m6rec.tasks import task as tasks
from m6rec.tasks.task import Readout

FILE = "project.json"
CONFIG = "config.json"
"""The last file of a run to be written: where it is, the run is finished."""
TRAINING = "training.json"
"""How a run was trained: every setting, those left at their defaults too."""
ENVIRONMENT = "M6REC_PROJECT"
"""Names the project of commands that are given none."""

ConfigT = TypeVar("ConfigT")
_KINDS: Mapping[Readout, tuple[str, str]] = {
    "score": ("ranking", "like"),
    "embed": ("retrieval", "retrieve"),
    "generate": ("text", "explain"),
}
"""What a run is called, and a task of the kind."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run, as its configuration says.

    Attributes:
        folder: Where it is.
        task: A name or path of a task.
        finished: When it was, in nanoseconds since 1970.
    """

    folder: Path
    task: str
    finished: int

    @property
    def readout(self) -> Readout:
        """Whether its task scores, embeds or writes. Raises ConfigError where the task can't be imported."""
        return tasks.named(self.task).readout

    @classmethod
    def at(cls, folder: Path) -> Run | None:
        """The run in a folder; None where none is finished there."""
        try:
            task = str(json.loads((folder / CONFIG).read_text())["task"])
            return cls(folder=folder, task=task, finished=(folder / CONFIG).stat().st_mtime_ns)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def config_at(folder: Path, kind: Callable[..., ConfigT]) -> ConfigT:
    """The configuration of this kind that was saved with a run. Raises AssetError where the folder holds none."""
    try:
        return kind(**json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AssetError(
            f"{folder} holds no tuned task ({error}); make one with `m6rec tune --run {folder}`"
        ) from error


def save_config(config: Any, fingerprint: Fingerprint, folder: Path) -> None:
    """Writes what ``config_at`` reads, and the fingerprint where a training hasn't begun with its own."""
    if Fingerprint.load(folder) is None:
        fingerprint.save(folder)
    files.write(folder / CONFIG, json.dumps(asdict(config), indent=1) + "\n")


def require_saved(folder: Path, here: Fingerprint) -> None:
    """Raises ConfigError where a saved run has other words, features or foundation than it would be used with."""
    saved = Fingerprint.load(folder)
    if saved is None:
        raise ConfigError(f"{folder} was tuned by an earlier m6rec, which kept no fingerprint; tune it in a new folder")
    saved.require(
        here,
        what=f"the run in {folder}",
        parts=("wording", "features", "foundation"),
        remedy=f"use the m6rec and foundation it was tuned with, or tune it again: m6rec tune {here.task} --run FOLDER",
    )


def runs_in(folder: Path) -> list[Run]:
    """The finished runs in the folders of a folder, the newest first."""
    found = [run for one in folder.iterdir() if (run := Run.at(one))] if folder.is_dir() else []
    return sorted(found, key=lambda run: (run.finished, run.folder.name), reverse=True)


def writers_in(folder: Path) -> dict[str, Path]:
    """The newest finished run of each task of texts, by the name of the task."""
    writing_runs = [run for run in reversed(runs_in(folder)) if run.readout == "generate"]
    return {run.task: run.folder for run in writing_runs}


def require_readout(folder: Path, readout: Readout, option: str) -> None:
    """Checks that a run is of the kind that is wanted.

    Args:
        folder: The run.
        readout: The kind.
        option: Where it was given, such as "--rank".

    Raises:
        ConfigError: It is of another kind, or no finished run.
    """
    kind, example = _KINDS[readout]
    run = Run.at(folder)
    if run is None:
        raise ConfigError(
            f"{option} {folder} is no finished run; give one, or make it: m6rec tune {example} --run {folder}"
        )
    if run.readout != readout:
        raise ConfigError(
            f"{option} {folder} is a {_KINDS[run.readout][0]} run, of task {run.task!r}; give a {kind} run, "
            f"such as one of `m6rec tune {example}`"
        )


class Project:
    """A project folder.

    Attributes:
        folder: Where it is.
        data: The prepared dataset.
        store: What came in through the service.
        report: What was measured.
        device: What browsers rank by.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.store = folder / "data", folder / "store"
        self.report, self.device = folder / "report", folder / "device"

    @classmethod
    def create(cls, folder: Path) -> Project:
        """Makes a folder a project, with everything that is in it; one that is a project already stays as it is."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / FILE).exists():
            files.write(folder / FILE, "{}\n")
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Project:
        """The project in a folder: one with ``project.json``, or with a prepared dataset in ``data``.

        Raises:
            ConfigError: The folder is none.
        """
        if not cls._is_one(folder):
            raise ConfigError(
                f"{folder} is no project: it has neither {FILE} nor a prepared data/; make one with "
                f"`m6rec init events.csv`, or `m6rec prepare generic events.csv --out {folder / 'data'}`"
            )
        return cls(folder)

    @classmethod
    def find(cls, folder: Path | None = None) -> Project:
        """The project that is meant: the folder given, else that of ``$M6REC_PROJECT``, else the current folder.

        Raises:
            ConfigError: The folder is no project, or none is given and the current folder is none.
        """
        named = folder or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
        if named is not None:
            return cls.open(named)
        if cls._is_one(Path()):
            return cls(Path())
        raise ConfigError(
            f"no project is given, and the current folder is none; give --project FOLDER (or set {ENVIRONMENT}), or "
            "--data and the runs by name, or make a project with `m6rec init events.csv`, "
            "or `m6rec prepare generic events.csv --out FOLDER/data`"
        )

    @staticmethod
    def _is_one(folder: Path) -> bool:
        return (folder / FILE).is_file() or (folder / "data" / "manifest.json").is_file()

    def run(self, name: str) -> Path:
        """The folder of a run, whether it is there or not."""
        return self.folder / "runs" / name

    def runs(self) -> list[Run]:
        """The finished runs, the newest first."""
        return runs_in(self.folder / "runs")

    def ranking(self) -> Path:
        """The ranking run that is served. Raises ConfigError where there is none."""
        return self._served("score")

    def retrieval(self) -> Path:
        """The retrieval run that is served. Raises ConfigError where there is none."""
        return self._served("embed")

    def writers(self) -> dict[str, Path]:
        """The runs of texts that are served, by the name of their task."""
        return writers_in(self.folder / "runs")

    def serve(self, *, ranking: str = "", retrieval: str = "") -> None:
        """Names the runs that are served from now on; "" for the newest of their kind."""
        named = {name: run for name, run in (("ranking", ranking), ("retrieval", retrieval)) if run}
        files.write(self.folder / FILE, json.dumps(named, indent=1) + "\n")

    def _served(self, readout: Readout) -> Path:
        kind, example = _KINDS[readout]
        if name := self._named().get(kind):
            require_readout(self.run(name), readout, f"{self.folder / FILE} names as {kind}:")
            return self.run(name)
        for run in self.runs():
            if run.readout == readout:
                return run.folder
        raise ConfigError(
            f"the project {self.folder} has no finished {kind} run; tune one: "
            f"m6rec tune {example} --project {self.folder}"
        )

    def _named(self) -> dict[str, str]:
        file = self.folder / FILE
        try:
            named = json.loads(file.read_text()) if file.is_file() else {}
            return {str(kind): str(name) for kind, name in named.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f'{file} can\'t be read ({error}); it is an object such as {{"ranking": "like-0"}}, or {{}}'
            ) from error
