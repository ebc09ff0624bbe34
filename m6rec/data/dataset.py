"""A prepared data set on disk: Parquet files and a manifest that names them.

The manifest is replaced in one step after the files that it names are there, and files that no manifest names are
removed afterwards. So a folder holds the former data set, or the new one, at every moment.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock

from m6rec.data.feedback import Rule
from m6rec.data.log import Events, Log, Reading
from m6rec.data.split import Split
from m6rec.errors import AssetError, DataError
from m6rec.files import write
from m6rec.types import Item, User

MANIFEST = "manifest.json"
_VERSION = 1
_FILES, _LOCK, _PARTS = "data-", ".lock", "parts.npy"
_TABLES = ("events", "items", "users")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A split log, and how it came about.

    Attributes:
        split: The log in its parts.
        domain: Name or path of the domain.
        protocol: How it was split: time, leave-one-out, item, user.
        rule: What is positive; None for what the domain says.
        why: Why that is, in words.
    """

    split: Split
    domain: str
    protocol: str
    rule: Rule | None = None
    why: str = ""


def save(made: Dataset, folder: str | Path) -> None:
    """Writes a data set to a folder that ``load`` reads back exactly, in place of the one that was there.

    Raises:
        DataError: The folder holds something that isn't a data set.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and not _is_ours(folder):
        raise DataError(f"{folder} holds something else than a prepared log; give a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / _LOCK):
        fresh = folder / f"{_FILES}{uuid.uuid4().hex[:12]}"
        try:
            fresh.mkdir()
            for name, frame in zip(_TABLES, _frames(made.split.log), strict=True):
                frame.write_parquet(fresh / f"{name}.parquet")
                _sync(fresh / f"{name}.parquet")
            with (fresh / _PARTS).open("wb") as file:
                np.save(file, made.split.part)
            _sync(fresh / _PARTS)
            write(folder / MANIFEST, json.dumps(_manifest(made, fresh.name), indent=1, ensure_ascii=False) + "\n")
        finally:
            current = _named_by(folder)
            for old in folder.glob(f"{_FILES}*"):
                if old.name != current:
                    shutil.rmtree(old)


def manifest(folder: str | Path) -> dict[str, Any]:
    """What ``save`` noted of a data set: "data", the subfolder of its files, "domain", "protocol", "rule" and more.

    Raises:
        AssetError: The folder holds none, or one of another version.
    """
    try:
        noted = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
        if noted["version"] != _VERSION:
            raise ValueError("it was prepared by another version of m6rec")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(
            f"{folder} holds no prepared log ({error}); make one with `m6rec prepare movielens --out {folder}`"
        ) from error
    return dict(noted)


def load(folder: str | Path) -> Dataset:
    """Reads a data set that ``save`` wrote.

    Raises:
        AssetError: The folder holds none.
        DataError: It is damaged.
    """
    folder, noted = Path(folder), manifest(folder)
    try:
        frames = [pl.read_parquet(folder / noted["data"] / f"{name}.parquet", glob=False) for name in _TABLES]
        part = np.load(folder / noted["data"] / _PARTS, allow_pickle=False)
        rule = noted["rule"]
        return Dataset(
            split=Split(_log(frames, noted), part),
            domain=noted["domain"],
            protocol=noted["protocol"],
            rule=None if rule is None else Rule.from_json(rule),
            why=noted["why"],
        )
    except FileNotFoundError as error:
        if _named_by(folder) != noted["data"]:  # it was prepared anew meanwhile
            return load(folder)
        raise DataError(f"{folder} is a damaged data set ({error}); prepare it again.") from error
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{folder} is a damaged data set ({error!r}); prepare it again.") from error


def _is_ours(folder: Path) -> bool:
    """Whether it is empty, or holds no more than what an interrupted ``save`` leaves."""
    return folder.is_dir() and all(p.name.startswith((_LOCK, _FILES, f".{MANIFEST}")) for p in folder.iterdir())


def _named_by(folder: Path) -> str:
    """The subfolder that the manifest names, "" where there is none."""
    try:
        return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError):
        return ""


def _sync(path: Path) -> None:
    """Waits until a file is on the disk, not only on its way."""
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _manifest(made: Dataset, data: str) -> dict[str, Any]:
    log = made.split.log
    return {
        "version": _VERSION,
        "data": data,
        "domain": made.domain,
        "protocol": made.protocol,
        "rule": None if made.rule is None else made.rule.to_json(),
        "why": made.why,
        "counts": {"events": len(log.events), "items": len(log.items), "users": len(log.users)},
        "dropped": dict(log.dropped),
        "reading": asdict(log.reading),
    }


def _frames(log: Log) -> tuple[pl.DataFrame, ...]:
    return (
        log.table.frame.cast({"user": pl.String, "item": pl.String}),
        pl.DataFrame(
            {
                "id": [item.id for item in log.items.values()],
                "title": [item.title for item in log.items.values()],
                "categories": [list(item.categories) for item in log.items.values()],
                "details": _as_json(item.details for item in log.items.values()),
            },
            schema={"id": pl.String, "title": pl.String, "categories": pl.List(pl.String), "details": pl.String},
        ),
        pl.DataFrame(
            {"id": [*log.users], "details": _as_json(user.details for user in log.users.values())},
            schema={"id": pl.String, "details": pl.String},
        ),
    )


def _as_json(rows: Iterable[Mapping[str, Any]]) -> list[str | None]:
    """Details a row, null where there are none; a mapping of its own keeps its types and order."""
    return [json.dumps(dict(details), ensure_ascii=False) if details else None for details in rows]


def _log(frames: Sequence[pl.DataFrame], noted: Mapping[str, Any]) -> Log:
    events, items, users = frames
    searched = (events["item"] == "").any() and "" not in items["id"]
    known = {"item": [*items["id"], *([""] if searched else [])], "user": users["id"].to_list()}
    coded = events.with_columns(events[name].cast(pl.Enum(ids), strict=False) for name, ids in known.items())
    complete = all(coded[name].null_count() == 0 for name in known)
    reading = noted["reading"]
    return Log(
        events=Events(coded if complete else events),
        items={
            key: Item(key, title, tuple(categories), _details(details))
            for key, title, categories, details in zip(*items.to_dict(as_series=False).values(), strict=True)
        },
        users={
            key: User(key, _details(details))
            for key, details in zip(*users.to_dict(as_series=False).values(), strict=True)
        },
        dropped=noted["dropped"],
        reading=Reading(**reading),
    )


_NO_DETAILS: Mapping[str, Any] = {}


def _details(text: str | None) -> Mapping[str, Any]:
    return json.loads(text) if text else _NO_DETAILS
