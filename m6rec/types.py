"""The nouns of the system: frozen, without logic, importable without any dependency.

A log is Events over Items and Users. A task turns one moment of the log into a Question made of
Segments, or into the Draft of a text. A recommender answers with Ranked items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be recommended.

    Attributes:
        id: Unique within a log; never shown to the model.
        title: The name that a person would read.
        categories: Genres, departments, … most specific first; may be empty.
        details: Further fields a domain can word (year, price, author, description).
    """

    id: str
    title: str
    categories: tuple[str, ...] = ()
    details: Mapping[str, Value] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class User:
    """A person; ``details`` are the fields that a domain can word (age, gender, place)."""

    id: str
    details: Mapping[str, Value] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Event:
    """One behaviour of one user with one item.

    Attributes:
        user: Id of the user.
        item: Id of the item; "" where there is none, as for a search.
        time: Seconds since 1970 (UTC); 0 in logs without time.
        value: Strength in the log's own unit: stars, a count, 0 for a skip; None: it happened.
        text: What the user wrote, such as a review or a search query; may be empty.
        kind: What they did: "view", "click", "cart", "purchase", "rating", "skip", "search", …; "" if unknown.
        impression: Names what was shown together; "" if the log doesn't say.
        context: Where and how: (name, value) of place, weather, device, …, sorted by name.
        id: Names the write, so that a retried one is applied once; "" in logs.
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
    """What an event says of its user's taste.

    Attributes:
        positive: Whether it speaks for the item (True), against it (False), or neither (None).
        strength: How much the user seems to want the item by it, from 0 (hated) to 1 (loved).
        words: What the user did, in the past; ``{}`` stands for the item.
    """

    positive: bool | None
    strength: float
    words: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text that the lower layers read on its own, so that its state can be cached.

    Attributes:
        text: Plain text; never parsed for control tokens.
        slot: What the text is, which picks its learned segment embedding: one of ``SLOTS``.
    """

    text: str
    slot: str


SLOTS = ("user", "history", "candidate", "cross", "ask")


@dataclass(frozen=True, slots=True)
class Situation:
    """When, where and how a question is asked.

    Attributes:
        time: Seconds since 1970 (UTC); 0 where it isn't known.
        context: As of an ``Event``.
    """

    time: int = 0
    context: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What a task asks of the model at one moment.

    Attributes:
        context: Region 1, the user: facts, then behaviours, oldest first.
        candidate: Region 2: the item, then what is known of user and item together.
    """

    context: tuple[Segment, ...]
    candidate: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A text to be written for a user at one moment.

    Attributes:
        context: Region 1, the user: facts, then behaviours, oldest first.
        prompt: The beginning of region 2, which is given.
        target: What follows it, to the letter, spaces included; "" where it isn't known.
        event: Position in the log of the event that the text is about; -1 for none.
    """

    context: tuple[Segment, ...]
    prompt: str
    target: str = ""
    event: int = -1


@dataclass(frozen=True, slots=True)
class Ranked:
    """One recommended item; ``score`` is a probability for ranking, a product of vectors for retrieval.

    The product is that of user and item vector, by weight, and what item-item models add to it (``retrieval.blend``).
    """

    item: Item
    score: float
