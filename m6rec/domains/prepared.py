"""A log made ready: validated, split and kept in a folder that names its domain."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m6rec.data import dataset
from m6rec.data.log import Log
from m6rec.data.split import Split, leave_one_out, split_by_item, split_by_time
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.errors import AssetError, ConfigError
from m6rec.files import write
from m6rec.fingerprint import Fingerprint, of_dataset, rule_of

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
    made = SPLITS[split](log)
    dataset.save(log, folder)
    write(folder / CARD, json.dumps({"domain": name, "split": split}) + "\n")
    return Prepared(domain_name=name, domain=domain, split=made)


def load(folder: Path) -> Prepared:
    """Reads what ``prepare`` kept. Raises AssetError where the folder holds nothing prepared."""
    card = _card(folder)
    name, split = card["domain"], SPLITS[card["split"]]
    return Prepared(domain_name=name, domain=domains.named(name), split=split(dataset.load(folder)))


def fingerprint(folder: Path) -> Fingerprint:
    """The parts data, split, domain and rule of what ``prepare`` kept. Raises AssetError where it kept nothing."""
    card = _card(folder)
    rule = rule_of(card.get("rule"))
    return Fingerprint(data=of_dataset(folder), split=card["split"], domain=card["domain"], rule=rule)


def _card(folder: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        if card["split"] not in SPLITS or not isinstance(card["domain"], str):
            raise ValueError(f"its split is {card['split']!r}, its domain {card['domain']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(
            f"{folder} holds no prepared log ({error}); make one with `m6rec prepare movielens --out {folder}`"
        ) from error
    return card
