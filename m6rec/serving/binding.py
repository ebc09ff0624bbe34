"""A store belongs to one dataset: what came in through the service of one shop is not served in another.

The folder says so in ``store.json``, a Redis server in a key of its own, from before the first event is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from m6rec import files
from m6rec.errors import ConfigError, StoreError
from m6rec.fingerprint import Fingerprint
from m6rec.foundation.stores import connect, served

FILE = "store.json"
KEY = "m6rec:dataset"
_TIMEOUT_S = 2.0
_JOURNALS = "m6rec:journal", "m6rec-histories"  # keys of this version and of earlier ones


@dataclass(frozen=True, kw_only=True)
class Binding:
    """Whose a store is.

    Attributes:
        data: The part ``data`` of its dataset's fingerprint.
        domain: Its domain.
        former: Datasets in whose place this one came by ``adopt``, the latest last: runs tuned on them are served too.
    """

    data: str
    domain: str
    former: tuple[str, ...] = ()


def bind_store(store: Path | str, dataset: Fingerprint, *, adopt: bool = False, runs: Sequence[str] = ()) -> Binding:
    """Makes a store one of this dataset, if it is new, and checks that it is.

    Args:
        store: The folder, made if need be; or the URL of the Redis server that keeps a journal.
        dataset: Its parts ``data`` and ``domain`` count.
        adopt: Whether a store of another dataset is taken over, with all that it holds.
        runs: With ``adopt``: further datasets, on which the runs that are served were tuned.

    Returns:
        Whose the store is from now on.

    Raises:
        ConfigError: It is another dataset's and not to be taken over, or in another domain's words.
        StoreError: It can't be written.
    """
    place = _Folder(store) if isinstance(store, Path) else _Server(store)
    adopted = [run for run in dict.fromkeys(runs) if adopt and run]
    text = place.get()
    if text is None and place.used() and not adopt:
        raise ConfigError(f"{place.name} was filled by an earlier m6rec, which didn't note whose it is; {_REMEDY}")
    if text is None:
        fresh = _binding(dataset, adopted)
        if place.create(json.dumps(asdict(fresh))):
            return fresh
        text = place.get()  # another process was first
    binding = _parse(place.name, text or "")
    owner = Fingerprint(data=binding.data, domain=binding.domain)
    owner.require(dataset, what=place.name, parts=("domain",), remedy="give --store another folder")
    if not adopt:
        owner.require(dataset, what=place.name, parts=("data",), remedy=_REMEDY)
        return binding
    binding = _binding(dataset, [*binding.former, binding.data, *adopted])
    place.put(json.dumps(asdict(binding)))
    return binding


def read(store: Path) -> Binding | None:
    """Whose a store is; None where nothing says. Raises StoreError where that can't be read."""
    place = _Folder(store)
    return None if (text := place.get()) is None else _parse(place.name, text)


_REMEDY = (
    "give --store another folder, or take it over with `m6rec serve --adopt`: right where the same log was prepared "
    "anew, wrong where this is another shop's, whose items and events it would mix with yours"
)


def _binding(dataset: Fingerprint, former: Sequence[str]) -> Binding:
    others = tuple(data for data in dict.fromkeys(former) if data != dataset.data)
    return Binding(data=dataset.data, domain=dataset.domain, former=others)


class _Folder:
    """Where a folder says whose it is."""

    def __init__(self, folder: Path) -> None:
        self.name = f"the store in {folder}"
        self._folder, self._file = folder, folder / FILE

    def get(self) -> str | None:
        with self._failing():
            return self._file.read_text() if self._file.exists() else None

    def create(self, text: str) -> bool:
        """Whether nobody was first."""
        with self._failing():
            self._folder.mkdir(parents=True, exist_ok=True)
            return files.create(self._file, text)

    def put(self, text: str) -> None:
        with self._failing():
            files.write(self._file, text)

    def used(self) -> bool:
        """Whether an earlier m6rec, which noted nothing, kept anything here."""
        return any(file.name == "data.mdb" or file.suffix == ".sqlite" for file in self._folder.rglob("*"))

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.name} can't be read or written ({error})") from error


class _Server:
    """Where a Redis server does; see ``_Folder``."""

    def __init__(self, url: str) -> None:
        self.name = f"the journal at {url.rpartition('@')[2]}"
        self._client = connect(url, timeout_s=_TIMEOUT_S)

    def get(self) -> str | None:
        with served():
            text = self._client.get(KEY)
        return None if text is None else text.decode()

    def create(self, text: str) -> bool:
        with served():
            return bool(self._client.set(KEY, text, nx=True))

    def put(self, text: str) -> None:
        with served():
            self._client.set(KEY, text)

    def used(self) -> bool:
        with served():
            return bool(self._client.exists(*_JOURNALS))


def _parse(name: str, text: str) -> Binding:
    try:
        raw = json.loads(text)
        return Binding(data=str(raw["data"]), domain=str(raw["domain"]), former=tuple(map(str, raw["former"])))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"what {name} says of its dataset can't be read ({error}); give another folder") from error
