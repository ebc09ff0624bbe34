"""What a prepared log holds, and what can be learned from it and measured on it, before anything is."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from m6rec.data import leakage
from m6rec.data.split import TEST, TRAIN, VALID, Split

PARTS = {"training": TRAIN, "validation": VALID, "test": TEST}
FEW = 20
"""Positive events of a part below which what is measured on it is mostly chance."""
Positive = Callable[[str, float | None], bool | None]
"""From the kind and value of an event to whether it is positive, negative (False) or neither (None)."""


def card(split: Split, positive: Positive) -> dict[str, Any]:
    """Counts, range, parts, leaks and what stands in the way of each kind of task, as JSON.

    Args:
        split: The split log.
        positive: What is positive.

    Returns:
        ``tasks`` holds for "ranking", "retrieval" and "texts" the reasons why it can't be tuned or measured, by part;
        none where all is well. ``warnings`` are sentences.
    """
    log, part = split.log, split.part
    label = _labels(split, positive)
    users, items = log.table.codes("user", log.users), log.table.codes("item", log.items)
    has_item = items >= 0
    known_items = np.bincount(items[has_item & (part == TRAIN)], minlength=len(log.items)) > 0
    known_users = np.bincount(users[part == TRAIN], minlength=len(log.users)) > 0
    has_text = (log.table.column("text").str.len_chars() > 0).to_numpy() & has_item
    parts = {
        name: {
            "events": int((here := part == number).sum()),
            "positive": int((label[here] == 1).sum()),
            "negative": int((label[here] == 0).sum()),
            "neither": int((label[here] < 0).sum()),
            "texts": int(has_text[here].sum()),
            "cold items": _share(~known_items[items[here & has_item]]),
            "cold users": _share(~known_users[users[here]]),
        }
        for name, number in PARTS.items()
    }
    new = _first(split, label >= 0)
    for name, number in PARTS.items():
        parts[name]["positive, new to their user"] = int(((part == number) & (label == 1) & new).sum())
    pairs = int(_first(split, has_item).sum())
    times = log.table.column("time")
    return {
        "events": len(log.events),
        "items": len(log.items),
        "users": len(log.users),
        "density": pairs / max(1, len(log.items) * len(log.users)),
        "times": _range(times) if log.reading.timed else [],
        "time": log.reading.time or "none; events are in the order of the file",
        "columns": {table: dict(roles) for table, roles in log.reading.columns.items()},
        "unused": {table: list(names) for table, names in log.reading.unused.items() if names},
        "notes": list(log.reading.notes),
        "dropped": dict(log.dropped),
        "repeats": log.reading.repeats,
        "future": log.reading.future,
        "parts": parts,
        "leaks": {leak.name: leak.count for leak in leakage.find(split)},
        "tasks": _obstacles(parts),
        "warnings": _warnings(split, parts),
    }


def words(facts: Mapping[str, Any]) -> str:
    """A card as text."""
    rows = [
        ("events", f"{facts['events']:,} of {facts['users']:,} users with {facts['items']:,} items, "
                   f"{facts['density']:.2%} of all pairs"),
        ("time", facts["time"] + (f": {facts['times'][0]} to {facts['times'][1]}" if facts["times"] else "")),
    ]  # fmt: skip
    for table, roles in facts["columns"].items():
        rows.append((table, ", ".join(f"{role} = {column!r}" for role, column in roles.items())))
        if facts["unused"].get(table):
            rows.append(("", f"not read: {', '.join(map(repr, facts['unused'][table]))}"))
    if "feedback" in facts:
        rows.append(("positive", facts["feedback"]))
    for name, part in facts["parts"].items():
        cold = (
            f"; cold: {part['cold items']:.0%} by item, {part['cold users']:.0%} by user" if name != "training" else ""
        )
        rows.append((name, f"{part['events']:,} events: {part['positive']:,} positive, {part['negative']:,} negative, "
                           f"{part['neither']:,} neither{cold}"))  # fmt: skip
    rows += [("repeats", f"{facts['repeats']:,} events whose user had done the same with the item before")]
    rows += [("dropped", f"{count:,} × {reason}") for reason, count in facts["dropped"].items()]
    rows += [("leaks", f"{count:,} {name}") for name, count in facts["leaks"].items()]
    rows += [("note", note) for note in facts["notes"]]
    rows += [("warning", warning) for warning in facts["warnings"]]
    rows += [(task, "; ".join(reasons) or "can be tuned and measured") for task, reasons in facts["tasks"].items()]
    for number, prompt in enumerate(facts.get("prompts", ()), start=1):
        rows.append((f"prompt {number}", prompt))
    return "\n".join(f"{name:10} {text}" for name, text in rows)


def impossible(facts: Mapping[str, Any]) -> str:
    """Why nothing can be tuned or measured; "" where something can."""
    if not all(facts["tasks"].values()):
        return ""
    return "; ".join(f"{task}: {', '.join(reasons)}" for task, reasons in facts["tasks"].items())


def _labels(split: Split, positive: Positive) -> NDArray[np.int8]:
    """1, 0 or -1 for each event, asked once for each distinct kind and value."""
    events = split.log.table
    frame = pl.DataFrame({"kind": events.column("kind"), "value": events.column("value")})
    distinct = frame.unique(maintain_order=True)
    said = [positive(kind, value) for kind, value in distinct.iter_rows()]
    distinct = distinct.with_columns(label=pl.Series([-1 if one is None else int(one) for one in said], dtype=pl.Int8))
    if distinct.height == 1:
        return np.full(frame.height, distinct["label"][0], np.int8)
    joined = frame.join(distinct, on=["kind", "value"], how="left", nulls_equal=True, maintain_order="left")
    return joined["label"].to_numpy()


def _first(split: Split, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether an event is the first of its user with its item, among some events."""
    events = split.log.table
    pairs = events.codes("user") * (len(events.ids("item")) + 1) + events.codes("item")
    first = np.zeros(len(pairs), np.bool_)
    first[among] = pl.Series(pairs[among]).is_first_distinct().to_numpy()
    return first


def _share(cold: NDArray[np.bool_]) -> float:
    return float(cold.mean()) if len(cold) else 0.0


def _range(times: pl.Series) -> list[str]:
    moments = (datetime.datetime.fromtimestamp(int(t), datetime.UTC) for t in (times.min(), times.max()))  # type: ignore[arg-type]
    return [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in moments]


def _obstacles(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """By kind of task, why it can't be tuned or measured."""
    drawn = not parts["training"]["negative"]  # negatives are, where the log has none
    found: dict[str, list[str]] = {"ranking": [], "retrieval": [], "texts": []}
    for name, part in parts.items():
        if not part["events"]:
            for reasons in found.values():
                reasons.append(f"the {name} part is empty")
            continue
        if not part["positive"]:
            found["ranking"].append(f"the {name} part has no positive event")
        elif not drawn and not part["negative"]:
            found["ranking"].append(f"the {name} part has no negative event")
        if not part["positive"]:
            found["retrieval"].append(f"the {name} part has no positive event")
        elif name != "training" and not part["positive, new to their user"]:
            found["retrieval"].append(f"in the {name} part users take no item that is new to them")
        if not part["texts"]:
            found["texts"].append(f"the {name} part has no event with a text")
    return found


def _warnings(split: Split, parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    log, found = split.log, []
    if len(log.users) == 1:
        found.append("there is one user, so nothing can be learned from what others do")
    if len(log.items) == 1:
        found.append("there is one item, so there is nothing to choose between")
    if not parts["training"]["negative"] and parts["training"]["positive"]:
        found.append("the training part has no negative event (an implicit log): ranking draws negatives")
    for name in ("validation", "test"):
        if 0 < parts[name]["positive"] < FEW:
            found.append(
                f"the {name} part has {parts[name]['positive']} positive events, so its metrics are mostly chance"
            )
    if log.reading.future:
        found.append(f"{log.reading.future:,} events lie more than a day in the future; is the unit of time right?")
    return found
