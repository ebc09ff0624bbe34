"""Request and response bodies of the service's own routes, with limits and examples.

Requests are strict: unknown fields, wrong types and non-finite numbers are rejected. Responses are the values of
``Backend`` as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from m6rec.data.schema import Limits
from m6rec.serving.api.fields import (
    WHOLE,
    Categories,
    DetailName,
    Details,
    EventKind,
    Id,
    MaybeId,
    Number,
    Text,
    Time,
    Title,
    example,
    validation_error,
)
from m6rec.serving.backend import (
    MIN_CROWD,
    CandidateSource,
    Filters,
    GenerationKind,
    GenerationRequest,
    GenerationResult,
    InspectRequest,
    RankRequest,
    Request,
    Similarity,
)
from m6rec.serving.settings import (
    MAX_CANDIDATES,
    MAX_COUNT,
    MAX_CREATED,
    MAX_HISTORY,
    MAX_OFFSET,
    MAX_WRITES,
)
from m6rec.types import Event, Item, Ranked, User

Count = Annotated[int, Field(ge=1, le=MAX_COUNT), WHOLE]
UserId = Annotated[MaybeId, Field(description="An unknown or empty user gets popular items.")]

_ABOUT_SOMETHING = {
    "anyOf": [
        {"properties": {"item": {"minLength": 1}}, "required": ["item"]},
        {"properties": {"kind": {"const": "search"}, "text": {"pattern": "\\S"}}, "required": ["kind", "text"]},
    ]
}


class RangeBody(BaseModel):
    """A range of a numeric detail; items without it are excluded."""

    model_config = example(name="year", least=1990, greatest=1999)

    name: Annotated[
        DetailName, Field(description='A detail; also "year" of a title, and "length" for pages or minutes.')
    ]
    least: Annotated[Number | None, Field(description="null for no bound.")] = None
    greatest: Annotated[Number | None, Field(description="null for no bound.")] = None


class FiltersBody(BaseModel):
    """Restricts the items that are returned."""

    model_config = example(categories=["Comedy"], exclude=["50"], ranges=[{"name": "year", "least": 1990}])

    categories: Annotated[
        list[Id],
        Field(max_length=Limits.NUM_CATEGORIES, description="Items of at least one of these; empty allows all."),
    ] = []
    exclude_categories: Annotated[
        list[Id], Field(max_length=Limits.NUM_CATEGORIES, description="Items of any of these are left out.")
    ] = []
    exclude: Annotated[list[Id], Field(max_length=MAX_CANDIDATES, description="Ids to exclude.")] = []
    seen: Annotated[bool, Field(description="Whether to include items that the user has interacted with.")] = False
    ranges: Annotated[list[RangeBody], Field(max_length=Limits.NUM_DETAILS, description="All must hold.")] = []

    def filters(self) -> Filters:
        """The value for ``Backend``."""
        ranges: dict[str, tuple[float, float]] = {}
        for one in self.ranges:
            least, greatest = ranges.get(one.name, (-math.inf, math.inf))
            least = least if one.least is None else max(least, one.least)
            ranges[one.name] = least, greatest if one.greatest is None else min(greatest, one.greatest)
        return Filters(
            categories=tuple(self.categories),
            exclude_categories=tuple(self.exclude_categories),
            exclude=frozenset(self.exclude),
            seen=self.seen,
            ranges=ranges,
        )


class HistoryEventBody(BaseModel):
    """An event of the requesting user, in order of time."""

    model_config = example(_ABOUT_SOMETHING, item="50", kind="view")

    item: Annotated[MaybeId, Field(description="Id of the item; empty for a search.")] = ""
    time: Annotated[Time, Field(description="0 for now.")] = 0
    value: Annotated[Number | None, Field(description="Stars or a count; absent if the event has no value.")] = None
    text: Annotated[Text, Field(description="Text of the user, such as a review or a search query.")] = ""
    kind: Annotated[EventKind, Field(description="view, click, cart, purchase, rating, skip, search, …")] = ""
    impression: Annotated[
        str, Field(max_length=Limits.ID_CHARS, description="Id of the items shown together, such as a page of results.")
    ] = ""
    context: Annotated[Details, Field(description="Context: place, weather, device, …")] = {}

    @model_validator(mode="after")
    def _about_something(self) -> Self:
        if not self.item and not (self.kind == "search" and self.text):
            raise validation_error("has no item; only a search (kind 'search', with its words as text) has none")
        return self

    def event(self, user: str, key: str = "") -> Event:
        """The value of ``m6rec.types``."""
        return Event(
            user,
            self.item,
            self.time,
            self.value,
            self.text,
            kind=self.kind,
            impression=self.impression,
            context=tuple(sorted(self.context.items())),
            id=key,
        )


History = Annotated[
    list[HistoryEventBody],
    Field(
        max_length=MAX_HISTORY,
        description="Further events of the user, newer than the stored ones; used for this request only.",
    ),
]


class RecommendBody(BaseModel):
    """A request for recommendations."""

    model_config = example(user="196", count=5, history=[{"item": "50", "kind": "view"}])

    user: UserId = ""
    history: History = []
    count: Count = 10
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="Number of best items to skip."), WHOLE] = 0
    filters: FiltersBody = FiltersBody()
    diversity: Annotated[float, Field(ge=0, le=1, description="Weight of diversity; 0 for score alone.")] = 0.0
    calibration: Annotated[
        float, Field(ge=0, le=1, description="Weight of matching the user's category distribution; not with diversity.")
    ] = 0.0
    timings: Annotated[bool, Field(description="Return milliseconds per stage.")] = False

    def request(self) -> Request:
        """The value for ``Backend``."""
        return Request(
            user=self.user,
            count=self.count,
            offset=self.offset,
            filters=self.filters.filters(),
            diversity=self.diversity,
            calibration=self.calibration,
            history=tuple(one.event(self.user) for one in self.history),
        )


class RetrieveBody(BaseModel):
    """A request for candidates."""

    model_config = example(user="196", count=20)

    user: UserId = ""
    count: Annotated[int, Field(ge=1, le=MAX_CANDIDATES), WHOLE] = 100
    filters: FiltersBody = FiltersBody()
    history: History = []
    source: Annotated[
        CandidateSource, Field(description="Everything, the texts of items alone, or what is liked most.")
    ] = "blend"
    timings: bool = False

    def events(self) -> tuple[Event, ...]:
        """``history`` as values of ``m6rec.types``."""
        return tuple(one.event(self.user) for one in self.history)


class RankBody(BaseModel):
    """A request to rank items."""

    model_config = example(user="196", items=["50", "172", "100"])

    user: UserId = ""
    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_CANDIDATES)]
    history: History = []
    timings: bool = False

    def request(self) -> RankRequest:
        """The value for ``Backend``."""
        history = tuple(one.event(self.user) for one in self.history)
        return RankRequest(user=self.user, items=tuple(self.items), history=history)


class ExplainBody(BaseModel):
    """A request to explain an item."""

    model_config = example(user="196", item="50")

    user: UserId = ""
    item: Id
    history: History = []

    def events(self) -> tuple[Event, ...]:
        """``history`` as values of ``m6rec.types``."""
        return tuple(one.event(self.user) for one in self.history)


class InspectBody(BaseModel):
    """A request to show what the model reads of a user, and where an item stands for them."""

    model_config = example(user="196", item="50")

    user: UserId = ""
    item: Annotated[MaybeId, Field(description="Empty for the texts of the user alone.")] = ""
    filters: FiltersBody = FiltersBody()
    history: History = []

    def request(self) -> InspectRequest:
        """The value for ``Backend``."""
        history = tuple(one.event(self.user) for one in self.history)
        return InspectRequest(user=self.user, item=self.item, filters=self.filters.filters(), history=history)


class DeviceInputsBody(BaseModel):
    """A request for what a device ranks by itself."""

    model_config = example(user="196", history=[{"item": "50", "kind": "like"}])

    user: UserId = ""
    filters: FiltersBody = FiltersBody()
    history: History = []

    def request(self) -> Request:
        """The value for ``Backend``."""
        history = tuple(one.event(self.user) for one in self.history)
        return Request(user=self.user, filters=self.filters.filters(), history=history)


class CreateBody(BaseModel):
    """A request to generate texts for a user."""

    model_config = example(user="196", kind="design", category="Comedy", count=3, catalogue=True)

    user: Id
    kind: Annotated[GenerationKind, Field(description="A product title, a search query, or ad copy for an item.")]
    item: Annotated[Id | None, Field(description="Item of a headline; for headlines only.")] = None
    category: Annotated[Id | None, Field(description="Category of a design; chosen by the model by default.")] = None
    count: Annotated[int, Field(ge=1, le=MAX_CREATED, description="Maximum number of texts."), WHOLE] = 1
    catalogue: Annotated[bool, Field(description="Restrict a design to catalogue items that are new to the user.")] = (
        False
    )

    def request(self) -> GenerationRequest:
        """The value for ``Backend``."""
        return GenerationRequest(**self.model_dump())


class CreateAnswer(BaseModel):
    """Generated texts, best first."""

    texts: list[GenerationResult]


class RankedAnswer(BaseModel):
    """Items, best first; the score is a probability for ranking, a blended retrieval score for retrieval."""

    items: list[Ranked]
    unknown: Annotated[list[str], Field(description="Requested ids that are not in the catalogue.")] = []
    timings_ms: dict[str, float] | None = None


class EventBody(HistoryEventBody):
    """An event of a user with an item."""

    model_config = example(_ABOUT_SOMETHING, user="196", item="50", time=881250949, value=5.0, id="a1b2c3")

    user: Id
    time: Time
    id: Annotated[
        str, Field(max_length=Limits.ID_CHARS, description="Idempotency id: a repeated event counts once.")
    ] = ""


class EventsBody(BaseModel):
    """Events to store."""

    model_config = example(events=[{"user": "196", "item": "50", "time": 881250949, "value": 5.0, "id": "a1b2c3"}])

    events: Annotated[list[EventBody], Field(min_length=1, max_length=MAX_WRITES)]

    def named(self, key: str | None) -> list[Event]:
        """The events; those without an id get one from the idempotency key and their position, if there is a key."""
        return [
            one.event(one.user, one.id or (f"{key}/{place}" if key else "")) for place, one in enumerate(self.events)
        ]


class ItemBody(BaseModel):
    """An item; the domain verbalises its fields."""

    model_config = example(id="2001", title="Heat (1995)", categories=["Crime", "Drama"], details={"year": 1995})

    id: Id
    title: Title
    categories: Categories = []
    details: Details = {}

    def item(self) -> Item:
        """The value of ``m6rec.types``."""
        return Item(self.id, self.title, tuple(self.categories), self.details)


class NeighboursBody(BaseModel):
    """A request for similar items."""

    model_config = example(item="50", by="behaviour", count=5)

    item: Annotated[Id | ItemBody, Field(description="An id of the catalogue, or a draft, which is not stored.")]
    by: Annotated[Similarity, Field(description="By text, or by who liked them.")] = "text"
    count: Count = 10

    def subject(self) -> str | Item:
        """The value for ``Backend``."""
        return self.item if isinstance(self.item, str) else self.item.item()


class ItemSearch(BaseModel):
    """A search in the catalogue."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[
        str, Field(max_length=Limits.ID_CHARS, description="Beginnings of words of the title, or an id.")
    ] = ""
    id: Annotated[list[Id], Field(max_length=MAX_COUNT, description="These items, whatever the query.")] = []
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 10


class UserSearch(BaseModel):
    """A search for users."""

    model_config = ConfigDict(extra="forbid")

    prefix: Annotated[str, Field(max_length=Limits.ID_CHARS, description="Beginning of the id, in any case.")] = ""
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 10


class ItemListAnswer(BaseModel):
    """Items that match, most liked first."""

    items: list[Item]


class UserListAnswer(BaseModel):
    """Ids of users that match, in alphabetical order."""

    users: list[str]


class ItemAnswer(BaseModel):
    """An item of the catalogue."""

    item: Item
    num_likes: Annotated[int | None, Field(description=f"Users who like it; absent below {MIN_CROWD}.")] = None


class ItemsBody(BaseModel):
    """Items to add or replace, all or none."""

    model_config = example(items=[{"id": "2001", "title": "Heat (1995)", "categories": ["Crime"]}])

    items: Annotated[list[ItemBody], Field(min_length=1, max_length=MAX_WRITES)]


class WriteAnswer(BaseModel):
    """Number of items written to disk."""

    written: int


class UserBody(BaseModel):
    """Details of a user, verbalised by the domain."""

    model_config = example(details={"age": 34, "city": "Lyon"})

    details: Details = {}


class KeptEvent(BaseModel):
    """A stored event."""

    user: str
    item: str
    time: int
    value: float | None
    text: str
    kind: str
    impression: str
    context: dict[str, str | int | float]
    id: str


class UserAnswer(BaseModel):
    """All stored data of a user."""

    id: str
    details: dict[str, str | int | float]
    events: list[KeptEvent]

    @classmethod
    def of(cls, user: User, events: Sequence[Event]) -> UserAnswer:
        """As JSON."""
        kept = [KeptEvent(**{**asdict(event), "context": dict(event.context)}) for event in events]
        return cls(id=user.id, details=dict(user.details), events=kept)


class ErasureAnswer(BaseModel):
    """Whether there was anything to erase."""

    erased: bool


class StatusAnswer(BaseModel):
    """Status of the service or of a write."""

    status: str


class Problem(BaseModel):
    """An error."""

    type: str
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """The body of every error response."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "type": "not_found",
                        "message": "there is no user '7' among the 943 of the log; check the id",
                        "request_id": "3f2b8c0e5d",
                    }
                }
            ]
        }
    )

    error: Problem
