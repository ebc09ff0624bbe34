"""The recommender on a device: it reads the folder that ``m6rec export`` wrote, and needs neither torch nor a network.

A ``Device`` keeps what its user does in one SQLite file of its own and ranks items by it. Tasks, domains and
``InteractionStore`` are those of the server; onnxruntime runs the two halves of the model. The lower half encodes
a text once, and its states are kept in the file; the upper half reads the states of the history and the candidates.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.errors import AssetError, ConfigError, DataError, ExtraError, StoreError, UnknownError
from m6rec.features.interactions import FEATURES, InteractionStore, PopularityCounts
from m6rec.tasks import probe
from m6rec.tasks import task as tasks
from m6rec.tasks.task import Task
from m6rec.text.batch import Example, pad
from m6rec.text.records import item_of, record_of
from m6rec.text.tokenizer import Tokenizer
from m6rec.types import Event, Item, Ranked, User

FORMAT = 3
"""Version of folders, bundles and SQLite files; others are rejected."""
MANIFEST, TOKENIZER, LOWER, UPPER = "manifest.json", "tokenizer.json", "lower.onnx", "upper.onnx"
ITEMS = "items.safetensors"
ADAPTERS = "adapters.bin"
"""Weights of the upper graph that change when the same foundation is tuned again."""
BUNDLE, CHECKSUM = "bundle", "sha256"
"""Metadata of a bundle: its JSON, and the checksum of JSON and states."""
ME = User("me")
_TAKEN = frozenset(
    "states slots owners positions event_features event_tokens last_states last_slots last_positions features".split()
)  # fmt: skip
_AGAIN = "export it again, or copy it again"

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Metadata of a device folder.

    Attributes:
        format: ``FORMAT``.
        m6rec: The version that wrote it.
        task: A name of ``tasks.task.named``.
        domain: A name of ``domains.domain.named``.
        rule: What counts as positive, likewise.
        foundation: What was tuned, by the name that the user gave.
        model: Its digest.
        tuning: The digest of the tuning.
        wording: The digest of what the task says (``tasks.probe``), which the device has to say likewise.
        features: That of the features; "" where there are none.
        licence: Of the foundation, as far as it is known.
        dtype: Of the large weights, "float32", "float16", "int8" or "int4".
        opset: Of the graphs.
        depth: Layers of the lower half.
        keep: States that are kept of a text, the last ones; 0 for all.
        width: Numbers of a state.
        files: Size in bytes and sha256 of every other file, by name. Without ``LOWER`` and ``TOKENIZER`` it
            can't read, and ranks by the states that it is sent.
    """

    format: int
    m6rec: str
    task: str
    domain: str
    rule: dict[str, Any] | None
    foundation: str
    model: str
    tuning: str
    wording: str
    features: str
    licence: str
    dtype: str
    opset: int
    depth: int
    keep: int
    width: int
    files: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class ItemBundle:
    """Items sent by a server; see ``edge.export.send``.

    Attributes:
        items: In any order.
        popularity: What others did with them.
        states: Of their texts, [T, width] by text; may be empty.
    """

    items: Sequence[Item]
    popularity: PopularityCounts
    states: Mapping[str, Floats]


class Device:
    """The recommender of one user. Not thread-safe.

    Attributes:
        manifest: Metadata of the folder.
        items: What can be ranked, by id.
        interactions: History of the user, and popularity counts of everybody.
    """

    def __init__(self, folder: Path, manifest: Manifest, store: _Store, user: User, max_candidates: int) -> None:
        self.manifest = manifest
        self._folder, self._store, self._user, self._max_candidates = folder, store, user, max_candidates
        self._task, self._domain = tasks.named(manifest.task), domains.named(manifest.domain, manifest.rule)
        _require_same(folder, manifest, self._task, self._domain)
        self._tokenizer = Tokenizer.open(folder) if TOKENIZER in manifest.files else None
        self._upper = _upper(folder)
        self._remember()

    @classmethod
    def load(cls, folder: Path, store: Path | None = None, *, user: User = ME, max_candidates: int = 256) -> Device:
        """Opens a device folder and verifies its files.

        Args:
            folder: What ``m6rec export`` wrote.
            store: The file that keeps items, events and states; made if need be. None keeps them in memory only. It may
                outlive the folder: states of another model are dropped, items and events stay.
            user: Whose device it is; ``details`` are the fields that the domain words.
            max_candidates: Candidates per run of the upper half, whose time and memory are quadratic in them.

        Raises:
            AssetError: The folder is no device folder, of another format, or damaged.
            ConfigError: It needs a task or a domain that isn't installed here, or of other words or features.
            StoreError: The file is no store of a device, or can't be read.
        """
        manifest = verify_folder(folder)
        reader = manifest.files[LOWER]["sha256"] if LOWER in manifest.files else manifest.model
        device = cls(folder, manifest, _Store(store, f"{reader}|{manifest.keep}"), user, max_candidates)
        if ITEMS in manifest.files:
            device._receive_once(manifest.files[ITEMS]["sha256"])
        return device

    def receive(self, file: Path) -> None:
        """Adds or replaces the items of a bundle with their popularity counts, all or none.

        Raises:
            AssetError: The file is damaged, no bundle, of another format, or its states are of another model.
        """
        bundle = read_bundle(file, self.manifest)
        self._store.put_states(bundle.states)
        self._store.put_items(bundle.items, bundle.popularity)
        self._remember()

    def upsert_items(self, items: Sequence[Item]) -> None:
        """Adds or replaces items by their text alone, all or none."""
        self._store.put_items(items, None)
        self._remember()

    def ingest(self, events: Sequence[Event]) -> None:
        """Stores events of the user, oldest first, all or none; on return they are on disk.

        Raises:
            UnknownError: An item isn't known.
            DataError: An event is another user's.
        """
        for event in events:
            self._need(event.item)
            if event.user != self._user.id:
                raise DataError(f"an event is of user {event.user!r}, but this device is {self._user.id!r}'s")
        self._store.append(events)
        self.interactions.update_all(events)

    def rank(self, items: Sequence[str]) -> list[Ranked]:
        """The items by descending probability of a like. Raises UnknownError for an unknown one."""
        candidates = [self._need(item) for item in items]
        if not candidates:
            return []
        row = tasks.ask(self._task, self.interactions, self._user, candidates, self._domain, self.items)
        scores = self.scores(row)
        return [Ranked(candidates[n], float(scores[n])) for n in np.argsort(-scores, kind="stable")]

    def scores(self, row: Example) -> NDArray[np.float64]:
        """Probability of the last class ("yes") for every query of an example, as ``ScoreModel.scores``."""
        states_TD, places = self._read(list(dict.fromkeys(tasks.texts([row]))))
        parts = []
        for moment in row.by_timestamp():
            number = np.arange(len(moment.candidates))
            for first in range(0, len(number), self._max_candidates):
                part = moment.only((first <= number) & (number < first + self._max_candidates))
                parts.append(self._upper.run(None, _inputs(part, states_TD, places))[0])
        return np.concatenate(parts).astype(np.float64)

    def _receive_once(self, sha256: str) -> None:
        """Adds the items of the folder, once."""
        if self._store.note("items") != sha256:
            self.receive(self._folder / ITEMS)
            self._store.put_note("items", sha256)

    def _read(self, texts: Sequence[str]) -> tuple[Floats, dict[str, tuple[int, int]]]:
        """(states_TD, first row and number of rows of each text); missing states are computed."""
        known = self._store.states(texts, self.manifest.width)
        fresh = {}
        for text in texts:
            if text not in known:
                if self._tokenizer is None:
                    raise DataError(
                        f"the state of the text {text!r} was not sent, and this device can't read; send its item with "
                        "the states of behaviours, and the user's facts, or export the folder with its lower half"
                    )
                (ids,) = self._tokenizer.encode([text])
                if not ids:
                    raise DataError(f"the text {text!r} has no token; leave empty segments out")
                fresh[text] = self._lower.run(None, {"ids": np.array(ids, np.int64)})[0]
        self._store.put_states(fresh)
        known |= fresh
        counts = [len(known[text]) for text in texts]
        starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
        return np.concatenate([known[text] for text in texts]), dict(
            zip(texts, zip(starts, counts, strict=False), strict=True)
        )

    @cached_property
    def _lower(self) -> Any:
        """The lower half, which takes most of the memory; loaded when a state is missing."""
        return _session(self._folder / LOWER)

    def _need(self, item: str) -> Item:
        if item not in self.items:
            raise UnknownError(f"there is no item {item!r} among the {len(self.items)} on this device; send it first")
        return self.items[item]

    def _remember(self) -> None:
        """Rebuilds the interaction store from the file."""
        self.items, popularity = self._store.items()
        self.interactions = InteractionStore(self.items, self._domain.feedback, popularity).update_all(
            self._store.events(self._user.id)
        )


def update_folder(folder: Path, newer: Path) -> Manifest:
    """Replaces a device folder by a newer export, atomically; the store of the device is kept.

    Args:
        folder: What is there. If this is cut off between its last two steps, ``verify_folder`` finds it again.
        newer: A device folder that may lack files which are the same in ``folder``; see ``edge.export.export``.

    Raises:
        AssetError: Together they are no whole device folder, or it can't be run here; ``folder`` is as it was.
    """
    verify_folder(folder)
    partial, former = (_beside(folder, end) for end in ("partial", "former"))
    for rest in (partial, former):
        shutil.rmtree(rest, ignore_errors=True)
    try:
        partial.mkdir()
        shutil.copyfile(newer / MANIFEST, partial / MANIFEST)
        for name in read_manifest(newer).files:
            shutil.copyfile((newer if (newer / name).exists() else folder) / name, partial / name)
        manifest = verify_folder(partial)
        _upper(partial)
        folder.rename(former)
        partial.rename(folder)
    except OSError as error:
        raise AssetError(f"{newer} can't take the place of {folder} ({error}); copy it again") from error
    finally:
        _find_again(folder)
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(former, ignore_errors=True)
    return manifest


def _beside(folder: Path, end: str) -> Path:
    return folder.with_name(f".{folder.name}.{end}")


def _find_again(folder: Path) -> None:
    """Undoes an update that was interrupted between its two renames."""
    if not folder.exists() and _beside(folder, "former").exists():
        _beside(folder, "former").rename(folder)


def verify_folder(folder: Path) -> Manifest:
    """The manifest of a device folder, after verifying its files.

    Raises:
        AssetError: They are not, or it is none, or of another format.
    """
    _find_again(folder)
    manifest = read_manifest(folder)
    for name, facts in manifest.files.items():
        file = folder / name
        try:
            found, size = file.stat().st_size, facts["bytes"]
            if found != size:
                raise AssetError(f"{file} has {found} bytes, but should have {size}; {_AGAIN}")
            if file_sha256(file) != facts["sha256"]:
                raise AssetError(f"{file} is damaged: its sha256 is not that of {MANIFEST}; {_AGAIN}")
        except OSError as error:
            raise AssetError(f"{file} can't be read ({error}); {_AGAIN}") from error
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a device folder, without verifying its files. Raises AssetError; see ``verify_folder``."""
    try:
        raw = json.loads((folder / MANIFEST).read_text())
        if raw["format"] != FORMAT:
            raise AssetError(
                f"{folder} has format {raw['format']!r}, but this m6rec reads format {FORMAT}; "
                "export it again with the m6rec of the device"
            )
        manifest = Manifest(**raw)
        files = {name: {"bytes": int(of["bytes"]), "sha256": str(of["sha256"])} for name, of in manifest.files.items()}
        if not all(isinstance(number, int) for number in (manifest.depth, manifest.keep, manifest.width)):
            raise ValueError("a size is no whole number")
        if strange := [name for name in files if Path(name).name != name]:
            raise ValueError(f"it lists {strange[0]!r}, which is no name of a file")
        needed = {UPPER} | ({TOKENIZER, LOWER} if {TOKENIZER, LOWER} & files.keys() else set())
        if missing := needed - files.keys():
            raise ValueError(f"it doesn't list {', '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AssetError(f"{folder / MANIFEST} is not the manifest of a device folder ({error}); {_AGAIN}") from error
    return manifest


def file_sha256(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_bundle(file: Path, manifest: Manifest) -> ItemBundle:
    """Reads a bundle for the model of a manifest. Raises AssetError; see ``Device.receive``."""
    try:
        with safe_open(file, "np") as stored:
            text, sha256 = ((stored.metadata() or {})[name] for name in (BUNDLE, CHECKSUM))
            states_TD = stored.get_tensor("states_TD")
        raw = json.loads(text)
        if raw["format"] != FORMAT:
            raise AssetError(f"{file} has format {raw['format']!r}, but this m6rec reads format {FORMAT}; send it anew")
        if sha256 != bundle_checksum(text, states_TD):
            raise ValueError("its sha256 is another")
        theirs, ours = (raw["model"], raw["depth"], raw["keep"]), (manifest.model, manifest.depth, manifest.keep)
        if theirs != ours and raw["texts"]:
            raise AssetError(
                f"the states in {file} are of model {theirs[0]} (depth {theirs[1]}, {theirs[2]} kept), but this device "
                f"runs {ours[0]} (depth {ours[1]}, {ours[2]} kept); send states of its own model, or text only"
            )
        counts = raw["counts"]
        if states_TD.shape != (sum(counts), manifest.width) or states_TD.dtype != np.float32:
            raise ValueError(f"{states_TD.dtype} states of shape {states_TD.shape}; they have width {manifest.width}")
        parts = np.split(states_TD, np.cumsum(counts)[:-1]) if counts else []
        return ItemBundle(
            [item_of(one) for one in raw["items"]],
            PopularityCounts(
                _count(raw["total"]),
                {item: _count(of) for item, of in raw["popularity"].items()},
                {name: float(scale) for name, scale in raw["scales"].items()},
            ),
            dict(zip(raw["texts"], parts, strict=True)),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise AssetError(f"{file} is not a readable bundle of items ({error}); send it anew") from error


def bundle_checksum(text: str, states_TD: Floats) -> str:
    """The checksum of a bundle's JSON and states."""
    return hashlib.sha256(text.encode() + states_TD.tobytes()).hexdigest()


def _count(numbers: Sequence[Any]) -> tuple[int, int, float]:
    events, likes, values = numbers
    return int(events), int(likes), float(values)


def _inputs(moment: Example, states_TD: Floats, places: Mapping[str, tuple[int, int]]) -> dict[str, NDArray[Any]]:
    """Inputs of the upper graph, without padding: tokens that are only attended to, and each candidate's last.

    The former are those of the context, owned by 0, then those of candidate 1, 2, … beside its last.
    """
    batch = pad([moment], places)
    count, last_C = batch.context_BN.shape[1], batch.last_BC[0]
    number_C = np.arange(len(last_C))
    inner_A, place_A = np.nonzero(np.arange(batch.block_BCM.shape[2]) < last_C[:, None])
    traced_H = np.flatnonzero(batch.has_event_features_BN[0])
    return {
        "states": states_TD[np.concatenate([batch.context_BN[0], batch.block_BCM[0][inner_A, place_A]])],
        "slots": np.concatenate([batch.context_slot_BN[0], batch.block_slot_BCM[0][inner_A, place_A]]),
        "owners": np.concatenate([np.zeros(count, np.int64), inner_A + 1]),
        "positions": np.concatenate([np.arange(count), count + place_A]),
        "event_features": batch.event_features_BNG[0][traced_H],
        "event_tokens": traced_H,
        "last_states": states_TD[batch.block_BCM[0][number_C, last_C]],
        "last_slots": batch.block_slot_BCM[0][number_C, last_C],
        "last_positions": count + last_C,
        "features": batch.features_BCF[0],
    }


def _require_same(folder: Path, manifest: Manifest, task: Task, domain: Domain) -> None:
    """Raises ConfigError if the model was tuned with another wording or other features."""
    here = {"wording": probe.wording(task, domain), "features": probe.features() if task.uses_features else ""}
    for part, known in here.items():
        if (tuned := getattr(manifest, part)) != known:
            raise ConfigError(
                f"{folder} was tuned with another {part} of task {manifest.task!r} and domain {manifest.domain!r} "
                f"(there {tuned}, here {known}); use the m6rec that exported it, or tune and export it again"
            )


def _upper(folder: Path) -> Any:
    """The upper half. Raises AssetError if its inputs are not those of ``_inputs``."""
    session = _session(folder / UPPER)
    again = "export it again with the m6rec of the device"
    shape_of = {one.name: one.shape for one in session.get_inputs()}
    if strange := shape_of.keys() ^ _TAKEN:
        raise AssetError(
            f"{folder / UPPER} is of another m6rec than this one: only one of them knows its input "
            f"{', '.join(sorted(strange))}; {again}"
        )
    if (known := shape_of["features"][1]) not in (0, len(FEATURES)):
        raise AssetError(
            f"{folder / UPPER} is of another m6rec than this one: it takes {known} features, but here are "
            f"{len(FEATURES)}; {again}"
        )
    return session


def _session(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ExtraError("A device", "edge") from error
    try:
        return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise AssetError(f"{file} can't be run by onnxruntime {onnxruntime.__version__} ({error})") from error


_SCHEMA = """
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (id TEXT PRIMARY KEY, item TEXT NOT NULL, popularity TEXT);
CREATE TABLE events (number INTEGER PRIMARY KEY, item TEXT NOT NULL, time INTEGER NOT NULL, value REAL,
    text TEXT NOT NULL);
CREATE TABLE states (text TEXT PRIMARY KEY, numbers BLOB NOT NULL);
"""
_TEXTS = 500
"""Of one query."""


class _Store:
    """Items, events and states in a SQLite file; each call is a transaction.

    Args:
        file: Made if need be; None for memory.
        scope: What states depend on beside their text. Those of another scope are dropped.

    Raises:
        StoreError: The file is none, or fails; as with all methods.
    """

    def __init__(self, file: Path | None, scope: str) -> None:
        self._name = str(file) if file else ":memory:"
        with self._failing():
            self._connection = sqlite3.connect(self._name)
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if not version:
            with self._changing() as connection:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {FORMAT}")
        elif version != FORMAT:
            raise StoreError(f"{file} has format {version}, but this m6rec reads format {FORMAT}; give another file")
        if self.note("scope") != scope:
            with self._changing() as connection:
                connection.execute("DELETE FROM states")
                connection.execute("REPLACE INTO notes VALUES ('scope', ?)", (scope,))

    def items(self) -> tuple[dict[str, Item], PopularityCounts]:
        """All items by id, and popularity counts."""
        with self._failing():
            rows = self._connection.execute("SELECT id, item, popularity FROM items ORDER BY rowid").fetchall()
        total = _count(json.loads(self.note("total") or "[0, 0, 0]"))
        counts = {item: _count(json.loads(of)) for item, _, of in rows if of}
        scales = json.loads(self.note("scales") or "{}")
        return {item: item_of(json.loads(record)) for item, record, _ in rows}, PopularityCounts(total, counts, scales)

    def put_items(self, items: Sequence[Item], popularity: PopularityCounts | None) -> None:
        """Adds or replaces items, and popularity counts if given."""
        with self._changing() as connection:
            connection.executemany(
                "INSERT INTO items VALUES (?, ?, NULL) ON CONFLICT (id) DO UPDATE SET item = excluded.item",
                [(item.id, json.dumps(record_of(item))) for item in items],
            )
            if popularity is not None:
                notes = [("total", json.dumps(popularity.total)), ("scales", json.dumps(dict(popularity.scales)))]
                connection.executemany("REPLACE INTO notes VALUES (?, ?)", notes)
                counts = ((item.id, popularity.items.get(item.id)) for item in items)
                connection.executemany(
                    "UPDATE items SET popularity = ? WHERE id = ?",
                    [(json.dumps(count) if count else None, item) for item, count in counts],
                )

    def events(self, user: str) -> list[Event]:
        """All events, oldest first."""
        with self._failing():
            rows = self._connection.execute("SELECT item, time, value, text FROM events ORDER BY number").fetchall()
        return [Event(user, *row) for row in rows]

    def append(self, events: Sequence[Event]) -> None:
        """Appends events."""
        with self._changing() as connection:
            connection.executemany(
                "INSERT INTO events (item, time, value, text) VALUES (?, ?, ?, ?)",
                [(event.item, event.time, event.value, event.text) for event in events],
            )

    def states(self, texts: Sequence[str], width: int) -> dict[str, Floats]:
        """States [T, width] of the stored ones among the texts."""
        found: dict[str, Floats] = {}
        for first in range(0, len(texts), _TEXTS):
            part = texts[first : first + _TEXTS]
            marks = ", ".join("?" * len(part))
            with self._failing():
                rows = self._connection.execute(f"SELECT text, numbers FROM states WHERE text IN ({marks})", part)
                found |= {text: np.frombuffer(numbers, "<f4").reshape(-1, width) for text, numbers in rows}
        return found

    def put_states(self, states: Mapping[str, Floats]) -> None:
        """Stores states by text."""
        if states:
            with self._changing() as connection:
                connection.executemany(
                    "REPLACE INTO states VALUES (?, ?)",
                    [(text, np.ascontiguousarray(numbers, "<f4").tobytes()) for text, numbers in states.items()],
                )

    def note(self, name: str) -> str | None:
        """A stored note; None if absent."""
        with self._failing():
            row = self._connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def put_note(self, name: str, value: str) -> None:
        """Stores a note."""
        with self._changing() as connection:
            connection.execute("REPLACE INTO notes VALUES (?, ?)", (name, value))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; rolled back on an exception."""
        with self._failing(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"the store of the device at {self._name} fails ({error}); is it one, and is there room on the disk?"
            ) from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise DataError(f"this can't be written down ({error}); nothing was changed") from error
