"""What a small model keeps of the served one: ``make bench-edge``.

Parts, each of which can be run alone (``--part``):

- sizes: each technique of ``m6rec shrink`` alone and all together, and every exit, beside the teacher, beside training
  without a teacher, and beside a model that is told nothing of any text;
- exits: reading that stops by confidence, beside exits by depth (``benchmarks/exits.py``);
- bundles: the folders of ``m6rec export``, in MB, with the AUC and the times of a device that has nothing else;
- parity: scores and tokens of those folders beside torch's;
- browser: such folders in Chromium (``benchmarks/browser.py``).

Small models are kept in ``runs/bench/edge`` and made once. ``QUICK=1`` makes two, with one pass over
the texts and the teacher's tuning, and asks 1 000 questions; it writes to ``runs/bench``, the full form to
``benchmarks/results``.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks import parts
from benchmarks.exits import Study, score
from benchmarks.setup import Claims, Setup
from m6rec import assets
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID
from m6rec.device import LOWER, TOKENIZER, UPPER, Device
from m6rec.domains import prepared
from m6rec.edge import shrink
from m6rec.edge.export import export, send
from m6rec.edge.model_card import fidelity
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
    "small, states alone": replace(SMALL, relation=0.0, logits=0.0),
    "small, no relations": replace(SMALL, relation=0.0),
    "small, no scores": replace(SMALL, logits=0.0),
    "small, no exits": replace(SMALL, exits=False),
    "small, own weights a layer": replace(SMALL, num_blocks=SMALL.num_layers),
    "small, table not factorised": replace(SMALL, embed_width=0),
    "small, all tokens": replace(SMALL, vocab_size=0),
    "small, 80 % of the weights zero": replace(SMALL, sparsity=0.8),
    "small, a quarter of the upper neurons": replace(SMALL, upper_neurons=0.25),
    "small, tuned to a device": replace(SMALL, alone=True),
    "tiny, 50 % of the weights zero": replace(TINY, sparsity=0.5),
}
DEEP = "deep"
MADE = {**RECIPES, DEEP: replace(SMALL, num_layers=6, tuning_epochs=0)}
"""… and a student for ``exits`` alone, which has more layers to leave out."""
AFTER = ("logits", "labels", "upper_neurons", "upper_heads", "alone", "tuning_epochs", "tuning_learning_rate")
"""Switches of what comes after a student has been distilled."""
QUICK = ("small", "swift")
BUNDLES = (
    *(("small", dtype) for dtype in ("float16", "int8", "int4")),
    *(("swift", dtype) for dtype in ("float16", "int8", "int4")),
)
PAGES = (("swift", "float16"), ("swift", "int8"), ("small", "float16"))
PAGE_MS = 20.0
"""Of the swift ones, with the processor throttled."""
ASKED = 1_000
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

    def _ask(self, task: tasks.Task) -> TaskExamples:
        questions = task_examples(task, self.made.split, self.domain)
        return questions

    @cached_property
    def questions(self) -> TaskExamples:
        """The questions of all parts, as the server asks them."""
        return self._ask(TASK)

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
        asked = np.concatenate([row.events for row in self.on_device])
        kept = [(row, np.isin(row.events, asked)) for row in self.questions.rows[TEST]]
        return [row.only(keep) for row, keep in kept if keep.any()]

    @cached_property
    def words(self) -> tuple[TaskExamples, ScoreModel]:
        """Questions without statistics, and the teacher's foundation tuned to them."""
        questions = self._ask(WORDS)
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
        recipe = MADE[name]
        if self.setup.quick:
            recipe = replace(recipe, epochs=1, tuning_epochs=0)
        folder = self.folder(name)
        _borrow(recipe, folder)
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

    def all_quality(self, one: ScoreModel, folder: Path, words: str) -> dict[str, tuple[float, ...]]:
        """AUC of a small model in all three ways; what was measured is kept in its folder."""
        file = folder / f"{words}.json"
        if not file.exists():
            found = {**self.quality(one), **self.quality_of_words(one, folder / words)}
            file.write_text(json.dumps(found) + "\n")
        return {name: tuple(values) for name, values in json.loads(file.read_text()).items()}

    def quality_of_words(self, one: ScoreModel, folder: Path | None = None) -> dict[str, tuple[float, ...]]:
        """AUC of the states alone, by the teacher's tuning to words.

        It reads the states of ``one`` as they are, or with ``folder`` after an epoch with them and the upper half of
        ``one``.
        """
        return {"AUC, words alone": (score(self.to_words(one, folder), self.asked_by_words[TEST]),)}

    def to_words(self, one: ScoreModel, folder: Path | None = None) -> ScoreModel:
        """The teacher's tuning to words on the foundation and the states of ``one``; see ``quality_of_words``."""
        questions, teacher = self.words
        reader = ScoreModel.create(replace(teacher.config, depth=one.config.depth), one.foundation, cache=one.cache)
        reader.adapter.load_state_dict(teacher.adapter.state_dict())
        if folder is not None:
            self._tune_to_words(reader, questions, folder, folder.parent.name, 1)
        return reader

    @cached_property
    def asked_by_words(self) -> dict[int, list[Example]]:
        """The questions without statistics that are judged by, by part; of the test part those of ``on_device``."""
        rows = {part: list(self.words[0].rows[part]) for part in (VALID, TEST)}
        if self.setup.quick:
            asked = np.concatenate([row.events for row in self.on_device])
            kept = [(row, np.isin(row.events, asked)) for row in rows[TEST]]
            rows[TEST] = [row.only(keep) for row, keep in kept if keep.any()]
        return rows


def _borrow(recipe: Recipe, folder: Path) -> None:
    """Copies what was distilled for another recipe, where they differ in what comes after alone."""
    wanted = {name: value for name, value in asdict(recipe).items() if name not in AFTER}
    for distilled in FOLDER.glob("*/distilling"):
        card = distilled.parent / shrink.CARD
        if not card.exists():
            continue
        theirs = json.loads(card.read_text())["recipe"]
        if {name: theirs[name] for name in wanted} == wanted and not folder.exists():
            shutil.copytree(distilled, folder / "distilling")


_benches: dict[Setup, _Bench] = {}


def _bench(setup: Setup) -> _Bench:
    if setup not in _benches:
        _benches[setup] = _Bench(setup)
    return _benches[setup]


class _Blind:
    """In place of a cache: says of every text the teacher's mean state."""

    def __init__(self, teacher: ScoreModel, texts: Sequence[str]) -> None:
        self.config = teacher.cache.config
        self._mean_1D = teacher.cache.fetch(texts).tokens_TD.float().mean(0, keepdim=True)

    def fetch(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> States:
        """See ``StateCache``."""
        return States(self._mean_1D, dict.fromkeys(texts, (0, 1)))


def sizes(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Each technique alone and all together."""
    bench = _bench(setup)
    teacher = bench.teacher
    learned, held_out = shrink.texts_of(teacher.task, teacher.domain, bench.log, SMALL)
    all_parameters = teacher.foundation.model.num_parameters() + sum(p.numel() for p in teacher.adapter.parameters())
    rows = [
        Row(
            method="teacher",
            metrics={
                "M parameters": (all_parameters / 1e6,),
                "M not zero": (all_parameters / 1e6,),
                **bench.quality(teacher),
                **bench.quality_of_words(teacher),
            },
        )
    ]
    blind = _Blind(teacher, learned)
    told_nothing = ScoreModel(teacher.config, teacher.foundation, teacher.adapter, blind)  # type: ignore[arg-type]
    rows.append(
        Row(
            method="teacher that reads nothing",
            metrics={**bench.quality(told_nothing), **bench.quality_of_words(told_nothing)},
        )
    )
    cards = {}
    for name in QUICK if setup.quick else RECIPES:
        small, cards[name] = bench.small(name)
        metrics = {
            "M parameters": (cards[name]["parameters"]["all"] / 1e6,),
            "M not zero": (cards[name]["parameters that are not zero"] / 1e6,),
            **bench.all_quality(small, bench.folder(name), "words"),
            "cosine, items held out": (cards[name]["quality"]["texts of items held out"]["cosine"],),
        }
        rows.append(Row(method=name, metrics=metrics))
    small, card = bench.small("small")
    for layers in range(1, small.foundation.model.config.reader.num_layers + 1):
        left = shrink.at_exit(small, layers)
        metrics = {
            "M operations a text": (card["operations"]["to read a text, by layers"][layers - 1] / 1e6,),
            **bench.all_quality(left, bench.folder("small"), f"words-{layers}"),
            "cosine, items held out": (fidelity(left, teacher, held_out)["cosine"],),
        }
        rows.append(Row(method=f"small, exit after layer {layers}", metrics=metrics))
    by_name = {row.method: row for row in rows}
    claims: Claims = [
        (f"{name}: parameters", cards[name]["parameters"]["all"], "<=", most)
        for name, most in (("small", 10e6), ("swift", 2e6))
    ]
    if not setup.quick:
        what = "AUC, words alone"
        lead = by_name["small"].mean(what) - by_name["small, no teacher"].mean(what)
        claims.append(("small: lead over no teacher in AUC by words alone", lead, ">", 0.0))
    table = Table(title="Like-ranking by small models", metric="AUC, device", rows=tuple(rows))
    return {"tables": (table,), "cards": cards, "questions": len(bench.on_device)}, claims


def exits(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """Whether a text should leave the student where its state rests."""
    bench = _bench(setup)
    learned, held_out = shrink.texts_of(bench.teacher.task, bench.teacher.domain, bench.log, SMALL)
    names = ("small",) if setup.quick else ("small", DEEP)
    return Study(
        teacher=bench.teacher,
        learned=learned,
        held_out=held_out,
        words=bench.asked_by_words,
        to_words=bench.to_words,
    ).of({name: (bench.small(name)[0], bench.folder(name)) for name in names})


def bundles(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """What is copied to a device, and what it does there."""
    bench = _bench(setup)
    answers = np.concatenate([row.labels for row in bench.on_device])
    served = score(bench.teacher, bench.on_device)
    rows, found = [], {}
    with TemporaryDirectory(prefix="m6rec-edge-") as parent:
        for name, dtype in BUNDLES:
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
    fuzzed = _fuzzed()
    with TemporaryDirectory(prefix="m6rec-edge-") as parent:
        for name in QUICK:
            small, _ = bench.small(name)
            expected = small.scores(asked)
            for dtype in ("float32", "float16", "int8", "int4"):
                folder = Path(parent, f"{name}-{dtype}")
                export(small, folder, dtype=dtype)
                scores = _scored(Device.load(folder), asked, lambda done, total: None)
                difference = np.abs(scores - expected)
                rows.append(
                    Row(
                        method=f"{name}, {dtype}",
                        metrics={
                            "AUC": (auc(answers, scores),),
                            "largest difference": (float(difference.max()),),
                            "mean difference": (float(difference.mean()),),
                        },
                    )
                )
                if dtype in ("float32", "float16"):
                    what = f"{name}, {dtype}: largest difference of onnxruntime from torch, {len(asked)} questions"
                    claims.append((what, float(difference.max()), "<=", 1e-3))
            here, there = Tokenizer.open(folder), small.foundation.tokenizer
            same = np.mean([a == b for a, b in zip(here.encode(fuzzed), there.encode(fuzzed), strict=True)])
            claims.append((f"{name}: fuzzed texts with the same tokens on device and server", float(same), ">=", 1.0))
            kept = np.mean([_pieces(here, text) == _pieces(bench.teacher.foundation.tokenizer, text) for text in texts])
            claims.append((f"{name}: texts and titles with the teacher's tokens", float(kept), ">=", 1.0))
            whole = bench.teacher.foundation.tokenizer
            read = np.mean([here.decode(here.encode([t])[0]) == whole.decode(whole.encode([t])[0]) for t in fuzzed])
            claims.append((f"{name}: fuzzed texts that lose nothing by fewer tokens", float(read), ">=", 1.0))
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
        texts = [f'The movie "{item.title}". Does the user like it?' for item in bench.log.items.values()]
        here._read(texts[:1])
        reading = _median(lambda n: here._read([texts[n]]), 1 + np.arange(TRIES))
        here.rank(asked)
        ranking = _median(lambda n: here.rank(asked), np.arange(TRIES))
    finally:
        os.sched_setaffinity(0, cores)
    return {"ms to read a text": (reading,), f"ms for {CANDIDATES} × {EVENTS}": (ranking,)}


def _median(run: Callable[[int], object], numbers: NDArray[np.int64]) -> float:
    spent = []
    for number in numbers:
        begun = time.perf_counter()
        run(int(number))
        spent.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(spent)


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([number]) for number in tokenizer.encode([text])[0]]


def _fuzzed(count: int = 2_000) -> list[str]:
    """Strings of all planes of Unicode, of scripts alone and mixed."""
    rng = np.random.default_rng(0)
    ranges = (
        (0x20, 0x7F),
        (0xA0, 0x250),
        (0x370, 0x600),
        (0x900, 0xA00),
        (0x3040, 0xA000),
        (0x1F300, 0x1FA00),
        (1, 0xD800),
    )
    texts = []
    for number in range(count):
        first, last = ranges[number % len(ranges)]
        texts.append("".join(map(chr, rng.integers(first, last, rng.integers(1, 30)))))
    return texts


PARTS: dict[str, parts.Measure] = {
    "sizes": sizes,
    "exits": exits,
    "bundles": bundles,
    "parity": parity,
    "browser": browser,
}


def main(
    run: Annotated[Path, typer.Option(help="A run of the like task.")] = Path("runs/demo/runs/like-0"),
    data: Annotated[Path, typer.Option(help="The prepared log.")] = Path("runs/demo/data"),
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = None,
) -> None:
    setup = Setup(run=run, retrieve=run, data=data, quick=bool(os.environ.get("QUICK")))
    parts.measure("edge", "The edge", {name: PARTS[name] for name in part or PARTS}, setup)


if __name__ == "__main__":
    typer.run(main)
