"""A shop served by ``m6rec serve`` as a process: a prepared log, two runs on a tiny foundation, and what keeps it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from m6rec import cli
from tests import running, tiny


def log(noun: str = "Film") -> str:
    """A CSV file: six users who like and dislike 20 of 40 items in turn, none of them twice."""
    items = [(7 * (n // 6) + 13 * (n % 6)) % 40 for n in range(120)]
    rows = [f"u{n % 6},i{item},{n},{noun} {item},{n // 6 % 2}" for n, item in enumerate(items)]
    return "\n".join(["user,item,time,title,value", *rows])


def make(folder: Path) -> Path:
    """Fills the folder with the log and the runs; returns it."""
    tiny.hf_folder("llama", folder / "foundation")
    (folder / "log.csv").write_text(log())
    m6rec(folder, "prepare", "generic", folder / "log.csv", "--out", folder / "data")
    for task in ("click", "retrieve"):
        tune(folder, task)
    return folder


def m6rec(folder: Path, *words: object) -> str:
    """What a command prints; it must succeed."""
    done = CliRunner().invoke(cli.app, [str(word) for word in words], env={"M6REC_HOME": str(folder / "home")})
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return done.stdout


def tune(folder: Path, task: str, *words: str) -> None:
    """Tunes a task for one epoch."""
    where = ("--data", folder / "data", "--run", folder / task, "--foundation", folder / "foundation")
    m6rec(folder, "tune", task, *where, *split(task), "--epochs", "1", "--dtype", "float32", *words)


def split(task: str) -> tuple[str, ...]:
    """Where the foundation is split for a task that reads; retrieval has a split of its own."""
    return () if task == "retrieve" else ("--depth", "1")


def command(*words: object, first: str = "") -> list[str]:
    """``m6rec`` with these words as a command line; ``first`` is Python that runs before."""
    return [sys.executable, "-c", f"{first}\nfrom m6rec.cli import main; main()", *map(str, words)]


def environment(folder: Path) -> dict[str, str]:
    """That of a process of this shop."""
    return {**os.environ, "M6REC_HOME": str(folder / "home"), "PYTHONPATH": str(running.ROOT), "OMP_NUM_THREADS": "1"}


@contextmanager
def serving(
    folder: Path, *words: str, store: str = "store", first: str = ""
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(the process, its URL) of ``m6rec serve``; see ``command``."""
    runs = ("--data", "data", "--retrieve", "retrieve", "--rank", "click", "--store", store, "--dtype", "float32")
    line = command("serve", *runs, "--port", "0", *words, first=first)
    with running.process(line, folder, environment(folder)) as served:
        yield served[:2]
