"""Explanation as a text: what a user praises about an item, in the words of a review (M6-Rec, section 3.1).

The paper's prompt ends in "The user likes it because". Mined sentences are whole ones ("The sound is great."), which
nothing can follow on "because", so ours names the aspect and lets the user speak. The aspect is given, as in PETER+
(Li et al., ACL 2021): a statement of ``tasks.explain`` about reviews knows it, and a text can then be checked by it.
The event's value is given too, as the domain words it; where there is no history, user facts and value are all that is
known of a person.
"""

from m6rec.domains.domain import Domain
from m6rec.language.opinions import mine
from m6rec.tasks import like
from m6rec.tasks.task import Task
from m6rec.text.verbalise import quote, sentence
from m6rec.types import Event, Item, Segment

LONGEST_TARGET, LONGEST_REVIEW = 160, 160
"""Characters of a sentence that is learned, and of a past review that is read."""


def event_text(event: Event, item: Item, domain: Domain) -> Segment:
    """Words it as "The movie …. The user liked it, and wrote "…"."; what was written tells what a user cares for."""
    wrote = f", and wrote {quote(event.text, longest=LONGEST_REVIEW)}" if event.text.strip() else ""
    return Segment(f"{sentence(domain.item(item))} The user {domain.action(event)}{wrote}.", "history")


def prompt(item: Item, domain: Domain, action: str, aspect: str) -> str:
    """Region 2 up to the sentence; ``action`` is what the user did (``Domain.action``)."""
    return f"The user now purchases {domain.item(item)}. The user {action}. About the {aspect}:"


def texts(event: Event, item: Item | None, domain: Domain) -> tuple[tuple[str, str], ...]:
    """The first aspect that each sentence of the event's review praises, and the sentence."""
    if item is None:
        return ()
    praised: dict[str, str] = {}
    for one in mine(event.text):
        if one.polarity > 0 and len(one.sentence) <= LONGEST_TARGET:
            praised.setdefault(one.sentence, one.aspect)
    return tuple((prompt(item, domain, domain.action(event), aspect), f" {said}") for said, aspect in praised.items())


TASK = Task(name="explain", readout="generate", profile=like.profile, event_text=event_text, texts=texts)
