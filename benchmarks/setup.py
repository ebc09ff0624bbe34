"""What every part of ``benchmarks.serving`` starts from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m6rec import assets
from m6rec.domains import prepared
from m6rec.foundation.checkpoint import load
from m6rec.serving.memory import keep_freed_memory
from m6rec.serving.recommender import Recommender
from m6rec.text.past import Past
from m6rec.tuned import Tuned, read_config
from m6rec.tuned import load as load_tuned
from tests import running

Claims = list[tuple[str, float, str, float]]
"""(what, measured, relation, target)."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The runs that are served, and whether the short form is wanted."""

    run: Path
    retrieve: Path
    data: Path
    quick: bool

    def tuned(self) -> tuple[Tuned, Tuned, Any]:
        """(retrieval task, ranking task, prepared log)."""
        foundation = load(read_config(self.run).foundation)
        like = load_tuned(self.run, foundation, store=assets.home() / "states")
        return load_tuned(self.retrieve, foundation, like.cache), like, prepared.load(self.data)

    def recommender(self) -> tuple[Recommender, Tuned, Any, Past]:
        """(the service's own recommender, its ranking task, the prepared log, what was observed in it)."""
        keep_freed_memory()  # as ``m6rec serve`` does
        retrieve, like, made = self.tuned()
        past = Past(made.split.log.items, made.domain.likes).observe_all(made.split.log.events)
        return Recommender(retrieve, like, made.split.log, past), like, made, past

    @contextmanager
    def serving(self, store: Path, *words: str) -> Iterator[tuple[Any, str, list[str]]]:
        """``m6rec serve`` as a process: (it, its URL, what it logs)."""
        runs = ["--data", self.data, "--retrieve", self.retrieve, "--rank", self.run, "--store", store]
        command = [sys.executable, "-c", "from m6rec.cli import main; main()", "serve", "--port", "0"]
        command += [str(word) for word in (*runs, *words)]
        with running.process(command, running.ROOT, dict(os.environ)) as served:
            yield served


def rss_mib(pid: int | str = "self") -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
