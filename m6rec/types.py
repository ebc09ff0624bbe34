"""The data types: frozen, without logic, without dependencies.

A log holds Events of Users with Items. A task turns a point in time of the log into a Question made of Segments, or
into the Draft of a text. A recommender returns Ranked items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be recommended.

    Attributes:
        id: Unique within a log; not an input of the model.
        title: The display name.
        categories: Genres, departments, … most specific first; may be empty.
        details: Further fields that a domain can verbalise (year, price, author, description).
    """

    id: str
    title: str
    categories: tuple[str, ...] = ()
    details: Mapping[str, Value] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class User:
    """A user; ``details`` are fields that a domain can verbalise (age, gender, place)."""

    id: str
    details: Mapping[str, Value] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a user, usually with an item.

    Attributes:
        user: Id of the user.
        item: Id of the item; "" for none, as for a search.
        time: Seconds since 1970 (UTC); 0 in logs without time.
        value: In the unit of the log: stars, a count, 0 for a skip; None if the event has no value.
        text: Written by the user, such as a review or a search query; may be empty.
        kind: "view", "click", "cart", "purchase", "rating", "skip", "search", …; "" if unknown.
        impression: Id of the set of items shown together; "" if unknown.
        context: (name, value) of place, weather, device, …, sorted by name.
        id: Idempotency id of a write; "" in logs.
    """

    user: str
    item: str
    time: int
    value: float | None = None
    text: str = ""
    kind: str = ""
    impression: str = ""
    context: tuple[tuple[str, Value], ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class Feedback:
    """The preference that an event expresses.

    Attributes:
        positive: True for positive, False for negative, None for neutral.
        strength: Preference from 0 (hated) to 1 (loved).
        words: The action in past tense; ``{}`` stands for the item.
    """

    positive: bool | None
    strength: float
    words: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A text that the lower layers encode independently, so that its state can be cached.

    Attributes:
        text: Plain text; not parsed for control tokens.
        slot: The role of the text, one of ``SLOTS``, which selects its segment embedding.
    """

    text: str
    slot: str


SLOTS = ("user", "history", "candidate", "cross", "ask")


@dataclass(frozen=True, slots=True)
class Situation:
    """Time and context of a question.

    Attributes:
        time: Seconds since 1970 (UTC); 0 if unknown.
        context: As of an ``Event``.
    """

    time: int = 0
    context: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """The text input of one prediction.

    Attributes:
        context: Region 1, the user: profile, then events, oldest first.
        candidate: Region 2: cross features of user and item, and the item.
    """

    context: tuple[Segment, ...]
    candidate: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A text to generate for a user, or to learn from.

    Attributes:
        context: Region 1, the user: profile, then events, oldest first.
        prompt: The beginning of region 2, which is given.
        target: The exact continuation, with spaces; "" if unknown.
        event: Position in the log of the event that the text belongs to; -1 for none.
    """

    context: tuple[Segment, ...]
    prompt: str
    target: str = ""
    event: int = -1


@dataclass(frozen=True, slots=True)
class Ranked:
    """A recommended item; ``score`` is a probability for ranking, a blend of scores for retrieval."""

    item: Item
    score: float
