"""The documentation as its readers use it: its blocks of code are run, page by page, in an empty folder.

What stands in a comment of a page is for this module alone:

    <!-- given: stars events.csv -->      the log `benchmarks.logs.stars` lies there as events.csv
    <!-- given: project shop -->          a project that was made of such a log lies there as shop
    <!-- not run: a GPU -->               the block below isn't run; the reason is one of ``REASONS``

A block with a title (```csv title="events.csv") is a file, which is written.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import typer.main
from typer.testing import CliRunner

from benchmarks import logs
from m6rec import cli, hooks
from m6rec.serving.api import server
from m6rec.serving.api.app import create_app
from tests.running import ROOT, free_port

DOCS = ROOT / "docs"
RUN = ("bash", "python")
SHOWN = ("csv", "json", "mermaid", "text", "toml", "ts", "tsv", "yaml")
"""Languages of blocks that this module doesn't run."""
REASONS = ("a GPU", "the network", "a Redis server", "minutes", "a file that is not ours to ship")
SERVICE, OWN_PORT = "127.0.0.1:8300", "8301"
"""Where the service is in the pages, and a server of the reader's own; free ports stand in for theirs."""
_PART = re.compile(
    r"^<!-- (?P<word>given|not run): (?P<what>.*?) -->$"
    r"|^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Part:
    """A block of code, or what is given before one.

    Attributes:
        line: Where it begins.
        language: Of a block, "none" where it says none; "" for what is given.
        title: The file that the block is; "" for none.
        body: The block, or what is given.
        reason: Why the block isn't run; "" where it is.
    """

    line: int
    language: str
    title: str
    body: str
    reason: str = ""


def pages() -> list[Path]:
    """All pages of the documentation."""
    return sorted(DOCS.rglob("*.md"))


def parts(page: Path) -> list[Part]:
    """The blocks of a page, and what is given, in order."""
    text, found, reason = page.read_text(encoding="utf-8"), [], ""
    for match in _PART.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["word"] == "not run":
            reason = match["what"]
        elif match["word"]:
            found.append(Part(line, "", "", match["what"]))
        else:
            found.append(Part(line, match["language"] or "none", match["title"] or "", match["body"], reason))
            reason = ""
    return found


def lines(body: str) -> list[str]:
    """The commands of a block of a shell."""
    joined = re.sub(r"\\\n\s*", " ", body)
    return [line for line in map(str.strip, joined.splitlines()) if line and not line.startswith("#")]


def words_of(line: str) -> list[str] | None:
    """The words after ``m6rec`` in a command line, None where there is no such command."""
    found = re.search(r"(?:^|\| |\$\()m6rec (.*?)\)?$", line)
    return shlex.split(found[1], comments=True) if found else None


class Reader:
    """Runs the parts of one page.

    Args:
        folder: An empty one, which is the current one.
        project: A project folder, for ``given: project``.
    """

    def __init__(self, folder: Path, project: Path) -> None:
        self.folder, self.project = folder, project
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path}  # "python" is this one
        self.names: dict[str, object] = {"__name__": "__main__"}
        self.port = str(free_port())
        self.service = ""
        self._stack = contextlib.ExitStack()
        self._serving = contextlib.ExitStack()

    def close(self) -> None:
        """Ends what the page began."""
        self._serving.close()
        self._stack.close()

    def run(self, part: Part) -> None:
        """Does what a part says; AssertionError where it fails."""
        if not part.language:
            self._give(*part.body.split())
        elif part.title:
            (self.folder / part.title).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / part.title).write_text(self._local(part.body), encoding="utf-8")
        elif part.reason:
            return
        elif part.language == "bash":
            for line in lines(part.body):
                self._line(self._local(line))
        elif part.language == "python":
            exec(compile(self._local(part.body), f"line {part.line}", "exec"), self.names)

    def _local(self, text: str) -> str:
        return text.replace(SERVICE, self.service or SERVICE).replace(OWN_PORT, self.port)

    def _give(self, kind: str, *names: str) -> None:
        if kind == "project":
            shutil.copytree(self.project, self.folder / names[0])
            return
        for made, name in zip(logs.KINDS[kind](self.folder, num_events=500), names, strict=True):
            Path(made).rename(self.folder / name)

    def _line(self, line: str) -> None:
        words, assigned = words_of(line), re.match(r"(?:export )?(\w+)=\$\(m6rec ", line)
        if words is None:
            self._shell(line)
        elif assigned:
            self.environment[assigned[1]] = self._m6rec(words).strip()
        elif words[0] == "serve":
            self._serve(words)
        else:
            told = line.partition(" | m6rec ")[0] if " | m6rec " in line else ""
            self._m6rec(words, self._output(told) if told else None)

    def _shell(self, line: str) -> None:
        if line.endswith(" &"):
            child = subprocess.Popen(["bash", "-c", f"exec {line[:-2]}"], cwd=self.folder, env=self.environment)
            self._stack.callback(child.wait)
            self._stack.callback(child.kill)
            return
        if given := re.fullmatch(r"export (\w+)=(\S+)", line):
            self._export(given[1], given[2])
            return
        self._output(line.replace("curl ", "curl -sS --fail-with-body --retry 30 --retry-connrefused --retry-delay 1 "))

    def _export(self, name: str, value: str) -> None:
        """For this process, too; a path of Python's is one more."""
        before = os.environ.get(name)
        value = os.pathsep.join(filter(None, (value, before))) if name == "PYTHONPATH" else value
        self.environment[name] = os.environ[name] = value
        self._stack.callback(lambda: os.environ.pop(name) if before is None else os.environ.update({name: before}))

    def _output(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _m6rec(self, words: list[str], told: str | None = None) -> str:
        done = CliRunner().invoke(cli.app, [*words, *_brief(words)], input=told)
        assert done.exit_code == 0, f"m6rec {shlex.join(words)}: {done.output}\n{done.exception!r}"
        return done.stdout

    def _serve(self, words: list[str]) -> None:
        self._serving.close()
        ready, failure = threading.Event(), []
        stopped: list[server.Server] = []

        def serve(backend, settings, **options):
            serving = server.Server(create_app(backend, settings, **options))
            listener = server.bind(replace(settings, port=0))
            self.service = f"127.0.0.1:{listener.getsockname()[1]}"
            stopped.append(serving)
            ready.set()
            serving.run(sockets=[listener])

        def work():
            try:
                typer.main.get_command(cli.app).main([*words, *_brief(words)], standalone_mode=False)
            except BaseException as error:
                failure.append(error)
            ready.set()

        threads, interval = torch.get_num_threads(), sys.getswitchinterval()
        before, told = server.serve, server.log_to_stderr
        server.serve, server.log_to_stderr = serve, lambda: None
        thread = threading.Thread(target=work)

        def stop():
            for one in stopped:
                one.should_exit = True
            thread.join(30)
            server.serve, server.log_to_stderr = before, told
            torch.set_num_threads(threads)
            sys.setswitchinterval(interval)
            gc.unfreeze()
            self.service = ""

        self._serving.callback(stop)
        thread.start()
        ready.wait(60)
        until = time.monotonic() + 30
        while stopped and not stopped[0].started and not failure and time.monotonic() < until:
            time.sleep(0.01)
        assert not failure, repr(failure)
        assert stopped, "the service did not start"


def command(words: list[str]) -> tuple[Any, list[str]]:
    """(the command that a line names, its words). AssertionError where there is none."""
    found, rest = typer.main.get_command(cli.app), list(words)
    while hasattr(found, "commands"):
        assert any(rest[:1] == [name] for name in found.commands), f"there is no command m6rec {shlex.join(words)}"
        found = found.commands[rest.pop(0)]
    return found, rest


@contextlib.contextmanager
def reading(folder: Path, project: Path) -> Iterator[Reader]:
    """A reader of a page, whose folder is the current one; what the page enters anywhere is gone afterwards."""
    reader, modules = Reader(folder, project), set(sys.modules)
    registries = [(registry, dict(registry)) for registry in (hooks.METHODS.registered, hooks.SOURCES.registered)]
    try:
        yield reader
    finally:
        reader.close()
        for registry, before in registries:
            registry.clear()
            registry.update(before)
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(folder)):
                del sys.modules[name]


def _brief(words: list[str]) -> list[str]:
    """Options that make a command the same on every machine, and short: numbers of 32 bits, few steps."""
    options = {option for parameter in command(words)[0].params for option in parameter.opts}
    wanted = {"--dtype": "float32"} if "--device" in options else {}
    wanted |= {"--min-steps": "10"} if "--min-steps" in options and words[:2] != ["tune", "retrieve"] else {}
    return [word for name, value in wanted.items() if name not in words for word in (name, value)]
