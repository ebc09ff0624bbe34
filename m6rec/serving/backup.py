"""All state of a project in one folder, from which it can be restored: dataset, runs, reports, events and items.

::

backup/manifest.json    what each file is, by its sha256; it is written last
backup/project/         the project's files, but for its store
backup/store/           whose the store is, the copy of the journal, the copy of the catalogue
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m6rec import files
from m6rec.domains import prepared
from m6rec.errors import ConfigError, StoreError
from m6rec.project import Project
from m6rec.serving import binding
from m6rec.serving.journal import FileJournal, open_journal
from m6rec.serving.records import copy_database
from m6rec.serving.redis_journal import RedisJournal

MANIFEST = "manifest.json"
SCHEMA = 1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a manifest says.

    Attributes:
        time: When it was begun, in seconds since 1970.
        record: Number of the latest record of the journal that it holds.
        files: sha256 of each file, in hexadecimal, by its path in the backup.
    """

    time: float
    record: int
    files: dict[str, str]


def back_up(project: Project, folder: Path, journal: str = "") -> Backup:
    """Copies all state of a project into a new folder, while services may write. It appears whole or not at all.

    Events are copied before items, so that no event is of an item that is missing.

    Args:
        project: The project.
        folder: The backup; it must not exist.
        journal: Where the service keeps events, if not in the project: a folder or URL.

    Raises:
        ConfigError: The folder exists.
        StoreError: Something can't be read, or the dataset was prepared anew meanwhile.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists already; give the backup a new folder")
    began, dataset = time.time(), prepared.fingerprint(project.data)
    with files.new_folder(folder) as fresh:
        record = 0
        if journal or (project.store / "histories").is_dir():
            with closing(open_journal(journal or project.store / "histories")) as events:
                record = events.copy_to(fresh / "store" / "histories")
        if (catalogue := project.store / "catalogue").is_dir():
            (fresh / "store" / "catalogue").mkdir(parents=True)
            for file in catalogue.glob("*.sqlite"):
                copy_database(file, fresh / "store" / "catalogue" / file.name)
        if (whose := project.store / binding.FILE).is_file():
            (fresh / "store").mkdir(exist_ok=True)
            shutil.copyfile(whose, fresh / "store" / binding.FILE)
        for file in _files(project.folder, without={project.store, folder.parent / fresh.name}):
            _copy(file, fresh / "project" / file.relative_to(project.folder))
        if prepared.fingerprint(project.data) != dataset:
            raise StoreError(f"the dataset in {project.data} changed while it was copied; try again")
        sums = {file.relative_to(fresh).as_posix(): _sha256(file) for file in _files(fresh)}
        made = Backup(time=began, record=record, files=sums)
        files.write(fresh / MANIFEST, json.dumps({"schema": SCHEMA, **asdict(made)}, indent=1) + "\n")
    return made


def read(folder: Path) -> Backup:
    """What a backup holds, each file of it checked.

    Raises:
        ConfigError: The folder is no backup, or one of a later version.
        StoreError: A file is damaged, missing, or was added; the error names it.
    """
    try:
        told: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        schema = told.pop("schema")
        made = Backup(**told) if schema == SCHEMA else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder} is no backup ({error}); make one with `m6rec backup`") from error
    if made is None:
        raise ConfigError(f"the backup in {folder} has schema {schema}, this version reads {SCHEMA}; upgrade m6rec")
    found = {file.relative_to(folder).as_posix() for file in _files(folder)} - {MANIFEST}
    if different := sorted(found ^ made.files.keys()):
        what = "was added to" if different[0] in found else "is missing in"
        raise StoreError(f"{different[0]} {what} the backup in {folder}; use another backup")
    for name, digest in made.files.items():
        if _sha256(folder / name) != digest:
            raise StoreError(f"{name} in the backup in {folder} is damaged; use another backup")
    return made


def restore(backup: Path, folder: Path, journal: str = "") -> Backup:
    """Makes a project of a backup, in which everything is as it was at the backup's record.

    Args:
        backup: The folder of ``back_up``.
        folder: The project; it must not exist.
        journal: Where events are to be, if not in the project: a folder that doesn't exist, or the URL of a Redis
            server whose database holds no journal.

    Raises:
        ConfigError: There is no backup, or something is there already.
        StoreError: The backup is damaged, or the server fails. There is no project then.
    """
    place = Path(journal) if journal and "://" not in journal else None
    for there in (folder, place):
        if there is not None and there.exists():
            raise ConfigError(f"{there} exists already; restore into a new folder, and move it afterwards")
    made = read(backup)
    with files.new_folder(folder) as fresh:
        for name in made.files:
            part, _, rest = name.partition("/")
            _copy(backup / name, fresh / (rest if part == "project" else name))
            if _sha256(fresh / (rest if part == "project" else name)) != made.files[name]:
                raise StoreError(f"{name} in the backup in {backup} can't be read the same twice; use another backup")
        kept = fresh / "store" / "histories"
        if place is not None and kept.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(kept, place)
        elif journal and kept.is_dir():
            binding.bind_store(journal, prepared.fingerprint(fresh / "data"))
            with closing(RedisJournal(journal)) as server, closing(FileJournal(kept)) as copy:
                server.fill(copy)
            shutil.rmtree(kept)
    return made


def _files(folder: Path, without: set[Path] = frozenset()) -> Iterator[Path]:  # type: ignore[assignment]
    """The files in a folder but for those in some of its folders, and but for what is being written."""
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(where, name) not in without and not name.startswith(".")]
        yield from (Path(where, name) for name in sorted(names) if not name.startswith("."))


def _copy(file: Path, target: Path) -> None:
    """Copies a file; it is on disk on return."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy2(file, target)
        with target.open("rb") as copied:
            os.fsync(copied.fileno())
    except OSError as error:
        raise StoreError(f"{file} can't be copied to {target} ({error})") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
