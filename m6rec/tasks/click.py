"""Ranking by whether the user will click: for logs of impressions, value 1 for a click and 0 for none."""

from dataclasses import replace

from m6rec.domains.domain import Domain
from m6rec.tasks import like
from m6rec.types import Item, Segment


def candidate(item: Item, domain: Domain) -> tuple[Segment, ...]:
    """Words it as "Does the user click the movie …?"."""
    return (Segment(f"Does the user click {domain.item(item)}?", "candidate"),)


TASK = replace(like.TASK, name="click", candidate=candidate, answer=lambda event, domain: int(event.value > 0))
