"""What a run, a store, a cache or a device folder was made from, so that none is used with something else.

A ``Fingerprint`` has named parts, so a refusal says which of them differs. No part depends on where files lie. It is
kept as ``fingerprint.json`` beside what it identifies, from before the first result is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m6rec import files
from m6rec.errors import AssetError, ConfigError

FILE = "fingerprint.json"


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The parts of an identity; "" where one is not known or plays no role.

    Attributes:
        data: Digest of the events, items and users of a prepared dataset (``of_dataset``).
        split: How they are split into training, validation and test.
        domain: Name of the domain.
        rule: What counts as positive (``rule_of``).
        task: Name of the task.
        wording: Digest of what task and domain say of a probe, and of the labels they give it.
        features: Digest of the features' names, and of their values for a probe.
        foundation: Digest of weights, tokenizer.json and config.json (``Model.id``).
        tuning: Method, sizes and the seed of the initial weights, where they differ from the defaults.
        training: How it is trained, likewise.
        examples: Digest of the training and validation examples.
    """

    data: str = ""
    split: str = ""
    domain: str = ""
    rule: str = ""
    task: str = ""
    wording: str = ""
    features: str = ""
    foundation: str = ""
    tuning: str = ""
    training: str = ""
    examples: str = ""

    def require(self, given: Fingerprint, *, what: str, remedy: str, parts: Sequence[str] = ()) -> None:
        """Compares what is there with what is given.

        Args:
            given: What it would be used with.
            what: What this is the fingerprint of, such as "the run runs/like".
            remedy: What to do about a difference.
            parts: The parts to compare, where known on both sides; by default all, known or not.

        Raises:
            ConfigError: Some part differs; the message names each, with both values.
        """
        pairs = {name: (getattr(self, name), getattr(given, name)) for name in parts or _PARTS}
        different = [
            f"{name} (there {was or 'unknown'}, here {now or 'unknown'})"
            for name, (was, now) in pairs.items()
            if was != now and (not parts or (was and now))
        ]
        if different:
            raise ConfigError(f"{what} is of another {', another '.join(different)}; {remedy}")

    def save(self, folder: Path) -> None:
        """Writes it into a folder, which is made if need be; atomic."""
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / FILE, json.dumps({name: part for name, part in asdict(self).items() if part}, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Fingerprint | None:
        """The fingerprint of a folder; None where it has none.

        Raises:
            AssetError: It can't be read.
        """
        try:
            return cls(**{str(name): str(part) for name, part in json.loads((folder / FILE).read_text()).items()})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise AssetError(f"{folder / FILE} can't be read ({error}); give another folder") from error


_PARTS = tuple(field.name for field in fields(Fingerprint))


def begin(folder: Path, fingerprint: Fingerprint, *, results: Sequence[str]) -> None:
    """Makes a folder one of this fingerprint, before anything else is written into it, or goes on with what it began.

    Args:
        folder: Made if need be.
        fingerprint: What is begun.
        results: Names of files that are never there before a fingerprint is.

    Raises:
        ConfigError: The folder holds results of another fingerprint, or of none.
    """
    remedy = "go on with what it was begun with, give another folder, or remove it to start anew"
    if (begun := Fingerprint.load(folder)) is not None:
        begun.require(fingerprint, what=f"the run in {folder}", remedy=remedy)
    elif any((folder / name).exists() for name in results):
        raise ConfigError(f"{folder} holds a run of an earlier m6rec, without {FILE}; give another folder")
    else:
        fingerprint.save(folder)


def rule_of(rule: Mapping[str, Any] | None) -> str:
    """The part ``rule`` of a rule in plain values; a word of its own for none, which differs from one not known."""
    return "the domain's" if rule is None else json.dumps(dict(rule), sort_keys=True)


def of_dataset(folder: Path) -> str:
    """The digest of a prepared dataset: of the contents of its tables, by their names.

    Raises:
        AssetError: The folder holds no tables.
    """
    tables = sorted(folder.glob("*.parquet"))
    if not tables:
        raise AssetError(f"{folder} holds no prepared dataset; make one with `m6rec prepare … --out {folder}`")
    return digest([(table.name, of_file(table)) for table in tables])


def of_file(file: Path) -> str:
    """The digest of a file's contents."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def changed(config: Any, *, without: Collection[str] = ()) -> str:
    """The fields of a dataclass that differ from their defaults, but for some, as JSON; "" where none does.

    So a field that a later version adds doesn't make another thing of what was made before.
    """
    values = {name: value for name, value in _changed(config).items() if name not in without}
    return json.dumps(values, sort_keys=True, default=lambda one: type(one).__name__) if values else ""


def _changed(config: Any) -> dict[str, Any]:
    found = {}
    for field in fields(config):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if (value := getattr(config, field.name)) != default:
            found[field.name] = _told(value, default)
    return found


def _told(value: Any, default: Any) -> Any:
    """What differs from a default; of a dataclass also its class, where another stands there by default."""
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        return {name: _told(one, default.get(name)) for name, one in value.items() if one != default.get(name)}
    if not is_dataclass(value):
        return value
    another = {"class": type(value).__name__} if is_dataclass(default) and type(default) is not type(value) else {}
    return another | _changed(value)


def digest(value: object) -> str:
    """The digest of plain values, arrays, dataclasses, and sequences and mappings of these.

    >>> digest(["a", "b"]) == digest(("a", "b")), digest(["ab"]) == digest(["a", "b"])
    (True, False)

    Raises:
        TypeError: A value is of another kind.
    """
    state = hashlib.blake2b(digest_size=8)
    _feed(state, value)
    return state.hexdigest()


def _feed(state: Any, value: object) -> None:
    """Adds a value, preceded by its kind and size, so that no two values are the same bytes."""
    if isinstance(value, str):
        data = value.encode(errors="surrogatepass")
        state.update(b"s%d:" % len(data) + data)
    elif value is None or isinstance(value, bool | int | float):
        state.update(f"{type(value).__name__}{value!r};".encode())
    elif isinstance(value, bytes):
        state.update(b"b%d:" % len(value) + value)
    elif isinstance(value, np.ndarray):
        state.update(f"a{value.dtype.str}{value.shape};".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        _feed(state, sorted(value.items(), key=lambda pair: str(pair[0])))
    elif isinstance(value, Sequence):
        state.update(b"l%d:" % len(value))
        for one in value:
            _feed(state, one)
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(state, [getattr(value, field.name) for field in fields(value)])
    else:
        raise TypeError(f"a {type(value).__name__} has no digest; give plain values, arrays or dataclasses of them")
