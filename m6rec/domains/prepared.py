"""A data set with the words of its domain: what ``m6rec prepare`` makes and every other command reads."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from m6rec.data import dataset, erasure
from m6rec.data import read as reading
from m6rec.data.dataset import Dataset
from m6rec.data.feedback import Rule, fitted, infer, parse
from m6rec.data.log import Log, without_repeats
from m6rec.data.split import Split, leave_one_out, split_by_item, split_by_time, split_by_user
from m6rec.domains import domain as domains
from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.fingerprint import Fingerprint, of_dataset, rule_of
from m6rec.types import Event, Item, User

SPLITS: Mapping[str, Callable[[Log], Split]] = {
    "time": split_by_time,
    "leave-one-out": leave_one_out,
    "item": split_by_item,
    "user": split_by_user,
}
IMPLICIT = "implicit"
"""In place of a rule: every event is positive."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A split log with the words of its domain; ``domain_name`` is what ``domains.domain.named`` takes."""

    domain_name: str
    domain: Domain
    split: Split
    protocol: str = "time"
    why: str = ""


def make(
    name: str,
    split: str | None,
    *files: str | Path,
    positive: str | None = None,
    repeats: Literal["keep", "drop"] = "keep",
    **options: Any,
) -> Prepared:
    """Reads the log of a domain (or the user's files), checks and splits it.

    Args:
        name: The domain.
        split: time, leave-one-out, item or user; None for time where the log has some, else leave-one-out.
        files: The user's own, where the domain has none or in place of its own.
        positive: What is positive, such as "rating>=4" (``feedback.parse``) or ``IMPLICIT``; inferred by default where
            the domain is generic.
        repeats: Whether an event whose user had done the same with the item before is kept or dropped.
        options: Of ``data.read.read``, for a domain that reads the user's files with it.

    Raises:
        ConfigError: There is no such domain or split, or the log doesn't allow it.
        DataError: The log is malformed.
    """
    if split is not None and split not in SPLITS:
        raise ConfigError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if repeats not in ("keep", "drop"):
        raise ConfigError(f"repeats {repeats!r} is unknown; choose keep or drop")
    domain = domains.named(name)
    log = _read(domain, files, options)
    if repeats == "drop":
        log = without_repeats(log)
    rule, why = _rule(domain, log, positive)
    protocol = split or ("time" if (log.table.column("time") != 0).any() else "leave-one-out")
    return _prepared(Dataset(split=SPLITS[protocol](log), domain=name, protocol=protocol, rule=rule, why=why))


def save(made: Prepared, folder: Path) -> None:
    """Keeps it in a folder, for ``load``, without users who were forgotten there."""
    made = admitted(made, folder)
    dataset.save(
        Dataset(split=made.split, domain=made.domain_name, protocol=made.protocol, rule=made.domain.rule, why=made.why),
        folder,
    )


def prepare(name: str, split: str | None, folder: Path, *files: str | Path, **options: Any) -> Prepared:
    """``make`` and ``save``."""
    made = make(name, split, *files, **options)
    save(made, folder)
    return made


def load(folder: Path) -> Prepared:
    """Reads what ``prepare`` kept. Raises AssetError where the folder holds nothing prepared."""
    return _prepared(dataset.load(folder))


def forget(folder: Path, user: str) -> bool:
    """Erases a user from what ``prepare`` kept, and from what it will keep there.

    Returns:
        Whether there was anything.

    Raises:
        AssetError: It kept nothing there.
    """
    made = load(folder)
    erasure.Forgotten(folder.parent).add(user)  # first, so that a crash leaves nobody who isn't left out next time
    there = user in made.split.log.users
    if there:
        save(made, folder)
    return there


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
    made = load(folder)
    log = made.split.log
    all_items = {**log.items, **items}
    fresh = [event for event in events if not event.item or event.item in all_items]
    whole = sorted([*log.events, *fresh], key=lambda event: event.time)
    known = {**log.users, **{event.user: User(event.user) for event in fresh if event.user not in log.users}, **users}
    save(_of(made, replace(log, events=tuple(whole), items=all_items, users=known)), folder)
    return len(fresh)


def admitted(made: Prepared, folder: Path) -> Prepared:
    """The same without the users who were forgotten in a folder."""
    gone = erasure.Forgotten(folder.parent).among(made.split.log.users)
    return _of(made, erasure.without(made.split.log, dict.fromkeys(gone, math.inf)))


def _of(made: Prepared, log: Log) -> Prepared:
    """The same of another log."""
    return made if log is made.split.log else replace(made, split=SPLITS[made.protocol](log))


def keep(made: Prepared, folder: Path) -> Fingerprint:
    """``save`` into a folder that holds nothing else yet, or the same already; returns its fingerprint.

    Raises:
        ConfigError: It holds another data set.
    """
    if not (folder / dataset.MANIFEST).exists():
        save(made, folder)
        return fingerprint(folder)
    with tempfile.TemporaryDirectory(prefix=".prepared-", dir=folder.parent) as beside:
        save(made, Path(beside))
        fresh = fingerprint(Path(beside))
    fingerprint(folder).require(
        fresh,
        what=f"the prepared log in {folder}",
        remedy="go on with the same log and options, or give another --project",
        parts=("data", "split", "domain", "rule"),
    )
    return fresh


def fingerprint(folder: Path) -> Fingerprint:
    """The parts data, split, domain and rule of what ``prepare`` kept. Raises AssetError where it kept nothing."""
    card = dataset.manifest(folder)
    return Fingerprint(
        data=of_dataset(folder / card["data"]),
        split=card["protocol"],
        domain=card["domain"],
        rule=rule_of(card["rule"]),
    )


def _prepared(made: Dataset) -> Prepared:
    rule = None if made.rule is None else made.rule.to_json()
    domain = domains.named(made.domain, rule)
    return Prepared(domain_name=made.domain, domain=domain, split=made.split, protocol=made.protocol, why=made.why)


def _read(domain: Domain, files: tuple[str | Path, ...], options: Mapping[str, Any]) -> Log:
    if domain.load is reading.read:
        if not 1 <= len(files) <= 3:
            raise ConfigError(
                f"The domain {domain.name!r} reads one to three tables (events, items, users), not {len(files)}; give "
                "several files of one table as a pattern in quotes ('events-*.csv') or as a folder."
            )
        return reading.read(*files, **options)
    if given := [name for name, value in options.items() if value is not None and name != "progress"]:
        raise ConfigError(f"The domain {domain.name!r} knows its own columns and times; leave out {', '.join(given)}.")
    return domains.load(domain, *files)


def _rule(domain: Domain, log: Log, positive: str | None) -> tuple[Rule | None, str]:
    """What is positive, and why."""
    events = pl.DataFrame({name: log.table.column(name) for name in ("value", "kind")})
    if positive == IMPLICIT:
        return fitted(Rule(), events), "every event, as asked"
    if positive is not None:
        rule = fitted(parse(positive), events)
        return rule, f"{rule.describe()}, as asked"
    if domain.load is not reading.read:
        return None, f"as the domain {domain.name!r} says"
    return infer(events)
