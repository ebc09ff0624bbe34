"""Files of a project that the service hands out as they are: its device folder and its reports.

They are looked for at each request, so that what `m6rec export` and `m6rec report` write meanwhile is seen. What is
asked for is compared with the names of what is there, before it becomes a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from m6rec.device import MANIFEST, Manifest, read_manifest
from m6rec.errors import UnknownError
from m6rec.evaluation import comparison
from m6rec.evaluation.report import to_html

REPORT_BYTES = 16 << 20
"""Larger reports are left out."""
NUM_REPORTS = 50
"""Reports that are told of, the latest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFile:
    """A report of the project as HTML.

    Attributes:
        name: Its path within the folder of reports, such as "like/report.html".
        written: When, in seconds since 1970.
        num_bytes: Its size.
    """

    name: str
    written: float
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectFiles:
    """Where these files are.

    Attributes:
        device: What `m6rec export` wrote, whether it is there or not; None without a project.
        reports: What `m6rec evaluate` and `m6rec report` wrote, likewise.
        runs: The runs that are served.
    """

    device: Path | None
    reports: Path | None
    runs: tuple[Path, ...]

    def manifest(self) -> Manifest | None:
        """That of the device folder; None where there is none. Raises AssetError where it can't be read."""
        if self.device is None or not (self.device / MANIFEST).exists():
            return None
        return read_manifest(self.device)

    def device_file(self, name: str) -> tuple[Path, str]:
        """A file of the device folder, and its sha256; "" for the manifest, which has none.

        Raises:
            UnknownError: The folder lists no such file, or isn't there.
            AssetError: Its manifest can't be read.
        """
        manifest = self.manifest()
        if manifest is None or self.device is None:
            raise UnknownError("the project has no device folder; make one: m6rec export --project PROJECT")
        listed = {MANIFEST: "", **{one: str(facts["sha256"]) for one, facts in manifest.files.items()}}
        if name not in listed or not (self.device / name).is_file():
            raise UnknownError("the project's device folder has no such file; its manifest.json lists what it has")
        return self.device / name, listed[name]

    def report_files(self) -> tuple[ReportFile, ...]:
        """The reports, the latest first."""
        found = [
            ReportFile(name=name, written=file.stat().st_mtime, num_bytes=file.stat().st_size)
            for name, file in self._reports()
        ]
        return tuple(sorted(found, key=lambda one: (-one.written, one.name))[:NUM_REPORTS])

    def report(self, name: str) -> Path:
        """The file of a report. Raises UnknownError where the project has none of this name."""
        for known, file in self._reports():
            if known == name:
                return file
        raise UnknownError("the project has no report of this name; /v1/deployment lists those that it has")

    def report_of_runs(self) -> str:
        """A report of the served runs as HTML: their learning curves, and what was measured of them.

        Raises:
            UnknownError: No run is served.
            DataError: What was measured can't be read.
        """
        if not self.runs:
            raise UnknownError("no run is known to be served, so there is nothing to report")
        return to_html(comparison.gather(comparison.read(self.runs)))

    def _reports(self) -> Iterator[tuple[str, Path]]:
        """(name, file) of each; a link that leads out of the folder is none of the project."""
        if self.reports is None:
            return
        home = self.reports.resolve()
        for file in home.rglob("*.html"):
            inside = file.resolve().is_relative_to(home) and file.is_file()
            if inside and file.stat().st_size <= REPORT_BYTES:
                yield file.relative_to(home).as_posix(), file
