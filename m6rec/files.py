"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m6rec.errors import ConfigError


def write(path: Path, text: str) -> None:
    """Puts a text file in place of the one that is there; a crash leaves the old one or the new one."""
    with _partial(path, text) as partial:
        os.replace(partial, path)


def create(path: Path, text: str) -> bool:
    """Makes a new text file; returns whether it was, as it isn't where another process was first."""
    with _partial(path, text) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
    return True


@contextmanager
def _partial(path: Path, text: str) -> Iterator[Path]:
    """A file beside it that holds the text, and is gone after the block."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


class new_folder:  # noqa: N801 - reads as a function
    """A temporary sibling that takes its final name only when the block ends well.

    Raises:
        ConfigError: At the end of the block: another process made a folder of that name meanwhile. It is left as it is.
    """

    def __init__(self, final: Path) -> None:
        self._final = final

    def __enter__(self) -> Path:
        self._final.parent.mkdir(parents=True, exist_ok=True)
        self._partial = Path(tempfile.mkdtemp(prefix=f".{self._final.name}-", dir=self._final.parent))
        return self._partial

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                os.rename(self._partial, self._final)
        except OSError as failure:
            if not self._final.exists():
                raise
            raise ConfigError(
                f"{self._final} was made by another process meanwhile, and this result is dropped; "
                "give a new folder, or use the one that is there"
            ) from failure
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
