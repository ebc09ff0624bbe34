"""What a task says of items, worded ahead of time for devices that can't call it: a browser only joins the pieces."""

from collections.abc import Sequence
from typing import Any

from m6rec.domains.domain import Domain
from m6rec.tasks.task import Task
from m6rec.types import Event, Item, Segment, User


def words(
    task: Task, domain: Domain, items: Sequence[Item], values: Sequence[float | None], user: User | None
) -> dict[str, Any] | None:
    """Words items as candidates and as behaviours of each value; a text is the head of its item and a tail.

    Tails differ little between items, so that an item costs little more than its own words. Those of an item, and what
    its values say, are its kind.

    Args:
        task: Of ranking.
        domain: Its words.
        items: The items.
        values: The values of events to be worded; None for one that has none.
        user: Whose facts are worded; None for none.

    Returns:
        ``features`` (whether the task uses them), ``values``, ``profile`` ([text, slot] each; None without a user),
        ``kinds`` (``likes``, ``strengths`` and ``events`` by value, and ``candidate``; [tail, slot] each) and
        ``items`` ([head, number of its kind], in their order). None for a task whose
        words depend on an event's time or text, or on what is counted.
    """
    if task.cross:
        return None
    kinds: dict[tuple[Any, ...], int] = {}
    heads = []
    for item in items:
        events = [Event("", item.id, 0, value) for value in values]
        behaviours = [task.event_text(event, item, domain) for event in events]
        if behaviours != [task.event_text(Event("", item.id, 1 << 30, v, "text"), item, domain) for v in values]:
            return None
        candidate = task.candidate(item, domain)
        head = _shared([segment.text for segment in (*behaviours, *candidate)])
        said = [domain.feedback(event) for event in events]
        likes, strengths = tuple(one.positive is True for one in said), tuple(one.strength for one in said)
        kind = likes, strengths, _tails(behaviours, head), _tails(candidate, head)
        heads.append((head, kinds.setdefault(kind, len(kinds))))
    profile = None if user is None else [(segment.text, segment.slot) for segment in task.profile(user, domain)]
    return {
        "features": task.uses_features,
        "values": list(values),
        "profile": profile,
        "kinds": [dict(zip(("likes", "strengths", "events", "candidate"), kind, strict=True)) for kind in kinds],
        "items": heads,
    }


def _shared(texts: Sequence[str]) -> str:
    """How all the texts begin."""
    first, last = min(texts), max(texts)
    return first[: next((n for n, pair in enumerate(zip(first, last, strict=False)) if len({*pair}) > 1), len(first))]


def _tails(segments: Sequence[Segment], head: str) -> tuple[tuple[str, str], ...]:
    return tuple((segment.text[len(head) :], segment.slot) for segment in segments)
