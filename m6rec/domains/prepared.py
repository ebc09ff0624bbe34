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
from m6rec.files import write
from m6rec.fingerprint import Fingerprint, of_dataset
from m6rec.types import Event, Item, User

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
    _save(log, folder, name, split)
    return Prepared(domain_name=name, domain=domain, split=made)


def load(folder: Path) -> Prepared:
    """Reads what ``prepare`` kept. Raises AssetError where the folder holds nothing prepared."""
    card = _card(folder)
    name, split = card["domain"], SPLITS[card["split"]]
    return Prepared(domain_name=name, domain=domains.named(name), split=split(dataset.load(folder)))


def forget(folder: Path, user: str) -> bool:
    """Erases a user from what ``prepare`` kept, and from what it will keep there.

    Returns:
        Whether there was anything.

    Raises:
        AssetError: It kept nothing there.
    """
    card = _card(folder)
    erasure.Forgotten(folder.parent).add(user)  # first, so that a crash leaves nobody who isn't left out next time
    log = dataset.load(folder)
    left = erasure.without(log, [user])
    if left is not log:
        _save(left, folder, card["domain"], card["split"])
    return left is not log


def merge(folder: Path, events: Iterable[Event], items: Mapping[str, Item], users: Mapping[str, User]) -> int:
    """Takes events into what ``prepare`` kept, with their items and users; they must not be in it.

    Args:
        folder: What ``prepare`` kept, in place of which the larger log is kept.
        events: In the order in which they came.
        items: By id; they become items of the log. Events of items that neither has are left out.
        users: By id, with what is known of them.

    Returns:
        How many events the log has gained.

    Raises:
        AssetError: Nothing is kept there.
    """
    card = _card(folder)
    log = dataset.load(folder)
    all_items = {**log.items, **items}
    fresh = [event for event in events if event.item in all_items]
    whole = sorted([*log.events, *fresh], key=lambda event: event.time)
    known = {**log.users, **{event.user: User(event.user) for event in fresh if event.user not in log.users}, **users}
    _save(replace(log, events=tuple(whole), items=all_items, users=known), folder, card["domain"], card["split"])
    return len(fresh)


def _save(log: Log, folder: Path, name: str, split: str) -> None:
    dataset.save(log, folder)
    write(folder / CARD, json.dumps({"domain": name, "split": split}) + "\n")


def fingerprint(folder: Path) -> Fingerprint:
    """The parts data, split and domain of what ``prepare`` kept. Raises AssetError where it kept nothing."""
    card = _card(folder)
    return Fingerprint(data=of_dataset(folder), split=card["split"], domain=card["domain"])


def _card(folder: Path) -> dict[str, str]:
    try:
        card = json.loads((folder / CARD).read_text())
        if card["split"] not in SPLITS:
            raise ValueError(f"its split {card['split']!r} is unknown")
        return {"domain": str(card["domain"]), "split": str(card["split"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(
            f"{folder} holds no prepared log ({error}); make one with `m6rec prepare movielens --out {folder}`"
        ) from error
