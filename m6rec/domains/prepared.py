"""A log made ready: validated, split and kept in a folder that names its domain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from m6rec.data import dataset, erasure
from m6rec.data.log import Log
from m6rec.data.split import Split, leave_one_out, split_by_item, split_by_time
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.errors import AssetError, ConfigError

SPLITS: Mapping[str, Callable[[Log], Split]] = {
    "time": split_by_time,
    "leave-one-out": leave_one_out,
    "item": split_by_item,
}
CARD = "prepared.json"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A split log with the words of its domain; ``domain_name`` is what ``domains.domain.named`` takes."""

    domain_name: str
    domain: Domain
    split: Split


def prepare(name: str, split: str, folder: Path, *files: Path) -> Prepared:
    """Reads the log of a domain (or the user's files), checks and splits it, and keeps it in ``folder``.

    Raises:
        ConfigError: There is no such domain or split, or the log doesn't allow it.
        DataError: The log is malformed.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    domain = domains.named(name)
    log = domains.load(domain, *files)
    log = erasure.without(log, erasure.Forgotten(folder.parent).among(log.users))
    made = SPLITS[split](log)
    dataset.save(log, folder)
    (folder / CARD).write_text(json.dumps({"domain": name, "split": split}) + "\n")
    return Prepared(domain_name=name, domain=domain, split=made)


def load(folder: Path) -> Prepared:
    """Reads what ``prepare`` kept. Raises AssetError where the folder holds nothing prepared."""
    try:
        card = json.loads((folder / CARD).read_text())
        name, split = str(card["domain"]), SPLITS[card["split"]]
    except (OSError, ValueError, KeyError) as error:
        raise AssetError(
            f"{folder} holds no prepared log ({error}); make one with `m6rec prepare movielens --out {folder}`"
        ) from error
    return Prepared(domain_name=name, domain=domains.named(name), split=split(dataset.load(folder)))
