"""What a small model keeps of the served one: ``make bench-edge``.

Parts, each of which can be run alone (``--part``):

- sizes: students of ``m6rec shrink`` beside the teacher, one that had no teacher, and a teacher that reads nothing;
- bundles: the folders of ``m6rec export``, in MB, with the AUC and the times of a device that has nothing else;
- parity: scores and tokens of those folders beside torch's;
- browser: such folders in Chromium (``benchmarks/browser.py``).

Small models are kept in ``runs/bench/edge`` and made once. ``QUICK=1`` makes two, with one pass over
the texts and the teacher's tuning, and asks 1 000 questions; it writes to ``runs/bench``, the full form to
``benchmarks/results``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import parts
from benchmarks.latency import timed
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.device import LOWER, TOKENIZER, UPPER, Device
from m6rec.domains import prepared
from m6rec.edge import shrink
from m6rec.edge.export import export, send
from m6rec.edge.recipe import Recipe
from m6rec.evaluation.metrics import auc
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.checkpoint import load
from m6rec.foundation.states import States
from m6rec.readouts import ScoreModel, read_config
from m6rec.tasks import task as tasks
from m6rec.tasks.examples import TaskExamples, task_examples
from m6rec.tasks.like import TASK
from m6rec.text.batch import Example
from m6rec.text.tokenizer import Tokenizer
from m6rec.training import TrainConfig
from m6rec.types import Event, User
from tests import fuzz

FOLDER = Path("runs/bench/edge")
WORDS = replace(TASK, name="like-words", uses_features=False)
"""Like-ranking without statistics, so that all that is known is what the texts say."""
SMALL = Recipe()
TINY = replace(
    SMALL, width=128, ffn_width=320, num_heads=2, embed_width=48, upper_neurons=0.25, upper_heads=0.34
)  # fmt: skip
SWIFT = replace(TINY, upper_neurons=1 / 12, alone=True)
"""For pages: an upper layer that takes a tenth of the time."""
RECIPES = {
    "small": SMALL,
    "tiny": TINY,
    "swift": SWIFT,
    "small, no teacher": replace(SMALL, hidden=0.0, relation=0.0, logits=0.0),
}
QUICK = ("small", "swift")
DTYPES = ("float16", "int8", "int4")
PAGES = (("swift", "float16"), ("swift", "int8"), ("small", "float16"))
PAGE_MS = 20.0
"""Of the swift ones, with the processor throttled."""
ASKED, FUZZED = 1_000, 2_000
EVENTS, CANDIDATES, TRIES = 20, 50, 50
ME = User("me")


class _Bench:
    """What the parts share: the log, the teacher and its questions, as the server and as a device asks them."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.made = prepared.load(setup.data)
        self.log, self.domain = self.made.split.log, self.made.domain
        self.teacher = ScoreModel.load(
            setup.run, load(read_config(setup.run).foundation), store=assets.home() / "states"
        )

    @cached_property
    def questions(self) -> TaskExamples:
        """The questions of all parts, as the server asks them."""
        return task_examples(TASK, self.made.split, self.domain)

    @cached_property
    def start(self) -> int:
        """The first event of the test part."""
        return int(self.made.split.indices(TEST)[0])

    @cached_property
    def counted(self) -> InteractionStore:
        """What the server knows when it sends a device its items."""
        return InteractionStore(self.log.items, self.domain.feedback).update_all(self.log.events[: self.start])

    @cached_property
    def on_device(self) -> list[Example]:
        """The questions of the test part as devices ask them: counts as of its start, nobody else's events."""
        popularity = self.counted.popularity(self.log.items)
        of_user: dict[str, list[tuple[int, Event]]] = {}
        for position, event in enumerate(self.log.events):
            of_user.setdefault(event.user, []).append((position, event))
        rows, items = [], dict(self.log.items)
        for user, events in of_user.items():
            if events[-1][0] < self.start:
                continue
            interactions = InteractionStore(self.log.items, self.domain.feedback, popularity)
            for position, event in events:
                if position >= self.start:
                    asked = tasks.ask(TASK, interactions, self.log.users[user], [items[event.item]], self.domain, items)
                    answer = np.array([int(self.domain.positive(event))])
                    rows.append(replace(asked, labels=answer, events=np.array([position])))
                interactions.update(event)
        rows.sort(key=lambda row: row.events[0])
        return rows[:: len(rows) // ASKED][:ASKED] if self.setup.quick else rows

    @cached_property
    def on_server(self) -> list[Example]:
        """The same, as the server asks them."""
        return self._same(self.questions.rows[TEST])

    @cached_property
    def words(self) -> tuple[TaskExamples, ScoreModel]:
        """Questions without statistics, and the teacher's foundation tuned to them."""
        questions = task_examples(WORDS, self.made.split, self.domain)
        config = replace(self.teacher.config, task="benchmarks.edge:WORDS")
        made = ScoreModel.create(config, self.teacher.foundation, cache=self.teacher.cache)
        self._tune_to_words(made, questions, FOLDER / f"words{'-quick' * self.setup.quick}", "the teacher", 3)
        return questions, made

    def _tune_to_words(self, made: ScoreModel, questions: TaskExamples, folder: Path, what: str, epochs: int) -> None:
        learned = questions.rows[TRAIN]
        learned = learned[:: len(learned) // 50] if self.setup.quick else learned
        training = TrainConfig(epochs=1 if self.setup.quick else epochs)
        with bar(f"tuning {what} to words alone") as update:
            made.tune(learned, questions.rows[VALID], training, folder=folder, progress=update)

    def folder(self, name: str) -> Path:
        """Where the small model of a recipe is kept."""
        kept = "".join(letter if letter.isalnum() else "-" for letter in name)
        return FOLDER / f"{kept}{'-quick' * self.setup.quick}"

    def small(self, name: str) -> tuple[ScoreModel, dict[str, Any]]:
        """(the small model of a recipe, its card), made where it is not there."""
        recipe = RECIPES[name]
        if self.setup.quick:
            recipe = replace(recipe, epochs=1, tuning_epochs=0)
        folder = self.folder(name)
        with bar(name) as update:
            card = shrink.shrink(
                self.teacher,
                self.log,
                {} if (folder / shrink.CARD).exists() else self.questions.rows,
                recipe,
                folder,
                lessons=FOLDER / "lessons",
                progress=lambda stage, done, total: update(done, total, label=f"{name}: {stage}"),
            )
        run = folder / shrink.RUN
        return ScoreModel.load(run, load(read_config(run).foundation, dtype="float32")), card

    def quality(self, one: ScoreModel) -> dict[str, tuple[float, ...]]:
        """AUC as on a device and as on the server."""
        return {
            "AUC, device": (score(one, self.on_device),),
            "AUC, server": (score(one, self.on_server),),
        }

    def by_words(self, one: ScoreModel, folder: Path | None = None) -> dict[str, tuple[float, ...]]:
        """AUC of the states alone, by the teacher's tuning to words.

        It reads the states of ``one`` as they are, or with ``folder`` after an epoch with them and the upper half of
        ``one``.
        """
        questions, teacher = self.words
        reader = ScoreModel.create(replace(teacher.config, depth=one.config.depth), one.foundation, cache=one.cache)
        reader.adapter.load_state_dict(teacher.adapter.state_dict())
        if folder is not None:
            self._tune_to_words(reader, questions, folder, folder.parent.name, 1)
        return {"AUC, words alone": (score(reader, self._same(questions.rows[TEST])),)}

    def _same(self, rows: Sequence[Example]) -> list[Example]:
        """Of these rows the questions of ``on_device``."""
        asked = np.concatenate([row.events for row in self.on_device])
        kept = [(row, np.isin(row.events, asked)) for row in rows]
        return [row.only(keep) for row, keep in kept if keep.any()]


def score(one: ScoreModel, rows: Sequence[Example]) -> float:
    """AUC of a model's scores."""
    return auc(np.concatenate([row.labels for row in rows]), one.scores(rows))


@lru_cache(maxsize=1)
def _bench(setup: Setup) -> _Bench:
    return _Bench(setup)


class _Blind:
    """In place of a cache: says of every text the teacher's mean state."""

    def __init__(self, teacher: ScoreModel, texts: Sequence[str]) -> None:
        self.config = teacher.cache.config
        self._mean_1D = teacher.cache.fetch(texts).tokens_TD.float().mean(0, keepdim=True)

    def fetch(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> States:
        """See ``StateCache``."""
        return States(self._mean_1D, dict.fromkeys(texts, (0, 1)))


def sizes(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Size and quality of each student."""
    bench = _bench(setup)
    teacher = bench.teacher
    learned, _ = shrink.texts_of(teacher.task, teacher.domain, bench.log, SMALL)
    size = teacher.foundation.model.num_parameters() + sum(p.numel() for p in teacher.adapter.parameters())
    told_nothing = ScoreModel(teacher.config, teacher.foundation, teacher.adapter, _Blind(teacher, learned))  # type: ignore[arg-type]
    metrics: dict[str, dict[str, tuple[float, ...]]] = {
        "teacher": {"M parameters": (size / 1e6,), **bench.quality(teacher), **bench.by_words(teacher)},
        "teacher that reads nothing": {**bench.quality(told_nothing), **bench.by_words(told_nothing)},
    }
    cards = {}
    for name in QUICK if setup.quick else RECIPES:
        small, cards[name] = bench.small(name)
        metrics[name] = {
            "M parameters": (cards[name]["parameters"]["all"] / 1e6,),
            **bench.quality(small),
            **bench.by_words(small, bench.folder(name) / "words"),
            "cosine, items held out": (cards[name]["quality"]["texts of items held out"]["cosine"],),
        }
    claims: Claims = [
        (f"{name}: parameters", cards[name]["parameters"]["all"], "<=", most)
        for name, most in (("small", 1e7), ("swift", 2e6))
    ]
    if not setup.quick:
        what = "AUC, words alone"
        lead = metrics["small"][what][0] - metrics["small, no teacher"][what][0]
        claims.append(("small: lead over no teacher in AUC by words alone", lead, ">", 0.0))
    rows = tuple(Row(method=name, metrics=values) for name, values in metrics.items())
    table = Table(title="Like-ranking by small models", metric="AUC, device", rows=rows)
    return {"tables": (table,), "cards": cards, "questions": len(bench.on_device)}, claims


def bundles(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """What is copied to a device, and what it does there."""
    bench = _bench(setup)
    answers = np.concatenate([row.labels for row in bench.on_device])
    served = score(bench.teacher, bench.on_device)
    rows, found = [], {}
    with TemporaryDirectory(prefix="m6rec-edge-") as parent:
        for name, dtype in product(QUICK, DTYPES):
            small, _ = bench.small(name)
            folder = Path(parent, f"{name}-{dtype}")
            card = export(small, folder, dtype=dtype)
            send(small, list(bench.log.items.values()), bench.counted, Path(parent, "items"), states=False)
            here = Device.load(folder)
            with bar(f"{name}, {dtype}") as update:
                scores = _scored(here, bench.on_device, update)
            size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            found[name, dtype] = size, auc(answers, scores) - served
            metrics = {
                "MB": (size,),
                "AUC, device": (auc(answers, scores),),
                **{f"MB of {file}": (card.files[file]["bytes"] / 1e6,) for file in (LOWER, UPPER, TOKENIZER)},
                "MB of items as text": (Path(parent, "items").stat().st_size / 1e6,),
                **_times(folder, Path(parent, "items"), bench),
            }
            rows.append(Row(method=f"{name}, {dtype}", metrics=metrics))
    claims: Claims = []
    for one, most, loss in ((("small", "float16"), 10, 0.01), (("swift", "float16"), 3, 0.02)):
        size, lead = found[one]
        claims.append((f"{', '.join(one)}: MB of graphs, weights, tokenizer and card", size, "<=", most))
        claims.append((f"{', '.join(one)}: test AUC minus the served teacher's, device's questions", lead, ">=", -loss))
    table = Table(
        title="Device folders", metric="AUC, device", rows=tuple(rows), note=f"The served teacher: {served:.4f}."
    )
    return {"tables": (table,), "questions": len(answers), "teacher": served}, claims


def parity(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Scores and tokens of device folders beside torch's."""
    bench = _bench(setup)
    rows, claims = [], []
    asked = bench.on_device[:: max(1, len(bench.on_device) // ASKED)][:ASKED]
    answers = np.concatenate([row.labels for row in asked])
    texts = [*dict.fromkeys(tasks.texts(bench.on_device)), *(item.title for item in bench.log.items.values())]
    fuzzed = fuzz.texts(FUZZED)
    with TemporaryDirectory(prefix="m6rec-edge-") as parent:
        for name in QUICK:
            small, _ = bench.small(name)
            expected = small.scores(asked)
            for dtype in ("float32", "float16", "int8", "int4"):
                folder = Path(parent, f"{name}-{dtype}")
                export(small, folder, dtype=dtype)
                scores = _scored(Device.load(folder), asked, lambda done, total: None)
                gap = np.abs(scores - expected)
                largest = float(gap.max())
                values = {
                    "AUC": auc(answers, scores),
                    "largest difference": largest,
                    "mean difference": float(gap.mean()),
                }
                rows.append(Row.of(f"{name}, {dtype}", [values]))
                if dtype in ("float32", "float16"):
                    what = f"{name}, {dtype}: largest difference of onnxruntime from torch, {len(asked)} questions"
                    claims.append((what, largest, "<=", 1e-3))
            here, there, whole = (
                Tokenizer.open(folder),
                small.foundation.tokenizer,
                bench.teacher.foundation.tokenizer,
            )
            same = np.mean([a == b for a, b in zip(here.encode(fuzzed), there.encode(fuzzed), strict=True)])
            kept = np.mean([_pieces(here, text) == _pieces(whole, text) for text in texts])
            read = np.mean([here.decode(here.encode([t])[0]) == whole.decode(whole.encode([t])[0]) for t in fuzzed])
            claims += [
                (f"{name}: fuzzed texts with the same tokens on device and server", float(same), ">=", 1.0),
                (f"{name}: texts and titles with the teacher's tokens", float(kept), ">=", 1.0),
                (f"{name}: fuzzed texts that lose nothing by fewer tokens", float(read), ">=", 1.0),
            ]
    table = Table(title=f"Device folders beside torch, {len(asked)} questions", metric="AUC", rows=tuple(rows))
    return {"tables": (table,), "texts": len(texts), "fuzzed": len(fuzzed)}, claims


def browser(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Folders in a page: the served model's upper half, which is sent the states, and small models that read."""
    from benchmarks import browser as page  # and Playwright

    bench = _bench(setup)
    folders = []
    for name, dtype in PAGES[:1] if setup.quick else PAGES:
        small, _ = bench.small(name)
        target_ms = PAGE_MS if name == "swift" else 0.0
        folders.append(page.Folder(f"{name}, {dtype}", small, small, dtype, lower=True, target_ms=target_ms))
    if not setup.quick:
        whole = load(read_config(setup.run).foundation, dtype="float32")
        teacher = ScoreModel.load(setup.run, whole, store=assets.home() / "states")
        folders.append(page.Folder("teacher, float32", teacher, bench.teacher, "float32", lower=False))
    return page.of(folders, bench.made, quick=setup.quick)


def _scored(here: Device, rows: Sequence[Example], update: Callable[[int, int], None]) -> NDArray[np.float64]:
    parts = []
    for number, row in enumerate(rows):
        parts.append(here.scores(row))
        update(number + 1, len(rows))
    return np.concatenate(parts)


def _times(folder: Path, items: Path, bench: _Bench) -> dict[str, tuple[float, ...]]:
    """Milliseconds of a device with one core: to read a text, and to rank once all texts are read."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        here = Device.load(folder, user=ME)
        here.receive(items)
        known = list(bench.log.items)
        here.ingest([Event(ME.id, item, 10**9 + n, 1.0 + n % 5) for n, item in enumerate(known[:EVENTS])])
        asked = known[EVENTS : EVENTS + CANDIDATES]
        texts = [bench.domain.item(item) for item in bench.log.items.values()]
        fresh = iter(texts)
        reading = timed(lambda: here._read([next(fresh)]), TRIES)
        ranking = timed(lambda: here.rank(asked), TRIES)
    finally:
        os.sched_setaffinity(0, cores)
    return {"ms to read a text": (reading["p50_ms"],), f"ms for {CANDIDATES} × {EVENTS}": (ranking["p50_ms"],)}


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([number]) for number in tokenizer.encode([text])[0]]


TITLE = "The edge"
PARTS: dict[str, parts.Measure] = {"sizes": sizes, "bundles": bundles, "parity": parity, "browser": browser}

if __name__ == "__main__":
    parts.run("edge", TITLE, PARTS, demo=True)
