"""Ranking by whether the user will click what is shown: as ``like``, in the words of an impression."""

from dataclasses import replace

from m6rec.domains.domain import Domain
from m6rec.tasks import like
from m6rec.text.verbalise import sentence
from m6rec.types import Item, Segment


def candidate(item: Item, domain: Domain) -> tuple[Segment, ...]:
    """Words it as "The movie …. Does the user click it?"."""
    return (Segment(f"{sentence(domain.item(item))} Does the user click it?", "candidate"),)


TASK = replace(like.TASK, name="click", candidate=candidate)
