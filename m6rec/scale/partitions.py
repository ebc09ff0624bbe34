"""A folder of Parquet files that one job writes: each file is whole or not there, so that a killed job goes on.

Beside them ``_job.json`` says what they belong to; readers of Parquet folders skip names that begin with ``_`` or
``.``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from m6rec import files
from m6rec.errors import AssetError, ConfigError, StoreError

JOB = "_job.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder if need be, and keeps other jobs out of it for the block.

    Raises:
        ConfigError: Another process writes there, or it holds files of something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            strangers = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
            if strangers and JOB not in strangers:
                raise ConfigError(f"{folder} holds {min(strangers)} and no {JOB}; give a new or an empty folder")
            for partial in folder.glob(".part-*"):  # of a process that was killed
                partial.unlink(missing_ok=True)
            yield
    except Timeout as error:
        raise ConfigError(f"another process writes to {folder}; wait for it, or give another folder") from error


class Partitions:
    """The files of a job.

    Args:
        folder: Where they are.
        belongs_to: What determines their contents, in plain values by name.
        num: How many there will be.

    Raises:
        ConfigError: The folder holds those of another job.
    """

    def __init__(self, folder: Path, belongs_to: Mapping[str, Any], num: int) -> None:
        self.folder, self.num = folder, num
        if (begun := _read(folder / JOB)) is None:
            files.write(folder / JOB, json.dumps(dict(belongs_to), indent=1, ensure_ascii=False))
        elif different := [name for name in {**begun, **belongs_to} if begun.get(name) != belongs_to.get(name)]:
            told = ", another ".join(
                f"{name} (there {begun.get(name, 'none')}, here {belongs_to.get(name, 'none')})" for name in different
            )
            raise ConfigError(
                f"the partitions in {folder} belong to another {told}; give another folder, or remove it to start anew"
            )

    def file(self, number: int) -> Path:
        """That of a partition, there or not."""
        return self.folder / f"part-{number:05}.parquet"

    def missing(self) -> list[int]:
        """Numbers of those that are not there yet."""
        return [number for number in range(self.num) if not self.file(number).exists()]

    def commit(self, number: int, table: pa.Table) -> None:
        """Writes a partition, which is there as a whole from then on.

        Raises:
            StoreError: The disk is full or fails.
        """
        partial = self.folder / f".{self.file(number).name}.{os.getpid()}"
        try:
            with partial.open("wb") as stream:
                pq.write_table(table, stream, compression="zstd")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, self.file(number))
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StoreError(f"{self.file(number)} can't be written ({error}); what is there stays") from error


def _read(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AssetError(f"{file} can't be read ({error}); give another folder") from error
    if not isinstance(value, dict):
        raise AssetError(f"{file} is not a JSON object; give another folder")
    return value
