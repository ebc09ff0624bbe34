"""What every part of a benchmark starts from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from m6rec.cli import tuned_runs
from m6rec.cli.tree import Config, FoundationSection
from m6rec.evaluation.metrics import Difference, bootstrap_difference
from m6rec.features.interactions import InteractionStore
from m6rec.fingerprint import Fingerprint
from m6rec.readouts import ScoreModel
from m6rec.serving.memory import keep_freed_memory
from m6rec.serving.recommender import Recommender
from tests import running, shared
from tests.shop import command

Claims = list[tuple[str, float, str, float]]
"""(what, measured, relation, target)."""
SEEDS = (0, 1, 2)


class AbsentError(Exception):
    """What a part needs is not on this machine, such as a public research set or a GPU."""


def research(name: str) -> Path:
    """A file of the public research sets, such as "redial/item_ids.json"; raises AbsentError, which names it."""
    path = shared.FOLDER / name
    if not path.exists():
        raise AbsentError(f"{name} is not at hand; M6REC_SHARED_DATA names the folder of the research sets")
    return path


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The runs that are served, those of the demo by default, and whether the short form is wanted."""

    run: Path = Path("runs/demo/runs/like-0")
    retrieve: Path = Path("runs/demo/runs/retrieve-0")
    data: Path = Path("runs/demo/data")
    quick: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of what draws at random; one in the short form."""
        return SEEDS[:1] if self.quick else SEEDS

    def fingerprint(self) -> dict[str, str]:
        """What the run that is measured was made from; empty without a run."""
        made = Fingerprint.load(self.run)
        return {name: part for name, part in asdict(made).items() if part} if made else {}

    def recommender(self, device: str = "cpu") -> tuple[Recommender, ScoreModel, Any, InteractionStore]:
        """(the service's own recommender, its ranking task, the prepared log, what was observed in it)."""
        keep_freed_memory()  # as ``m6rec serve`` does
        made, retrieve, like = tuned_runs(
            self.data, self.retrieve, self.run, Config(foundation=FoundationSection(device=device))
        )
        interactions = InteractionStore(made.split.log.items, made.domain.feedback).update_all(made.split.log.events)
        return Recommender(retrieve, like, made.split.log, interactions), like, made, interactions

    @contextmanager
    def serving(self, store: Path, *words: str) -> Iterator[tuple[Any, str, list[str]]]:
        """``m6rec serve`` as a process: (it, its URL, what it logs)."""
        runs = ("--data", self.data, "--retrieve", self.retrieve, "--rank", self.run, "--store", store)
        with running.process(command("serve", "--port", "0", *runs, *words), running.ROOT, dict(os.environ)) as served:
            yield served


def mean_difference(first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None) -> Difference:
    """How much higher the mean of the first values is than that of the second, one of each a question, in pairs."""
    labels = np.zeros(np.shape(first))  # which the mean doesn't look at
    return bootstrap_difference(labels, first, second, groups, metric=lambda _, values: float(values.mean()))


def rss_mib(pid: int | str = "self") -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
