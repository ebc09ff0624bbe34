"""The bodies of the service's own routes, with their limits and examples.

Requests are strict: no field that isn't known, no value of another type, no number that isn't finite.
Answers are those of ``Recommender`` as JSON.
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
from m6rec.serving.backend import Filters, GenerationKind, GenerationRequest, GenerationResult, RankRequest, Request
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
UserId = Annotated[
    MaybeId, Field(description="One whom nobody knows, or none, is answered with what is generally liked.")
]

_ABOUT_SOMETHING = {
    "anyOf": [
        {"properties": {"item": {"minLength": 1}}, "required": ["item"]},
        {"properties": {"kind": {"const": "search"}, "text": {"pattern": "\\S"}}, "required": ["kind", "text"]},
    ]
}


class RangeBody(BaseModel):
    """What a number among the details of an item may be; an item without it is left out."""

    model_config = example(name="year", least=1990, greatest=1999)

    name: Annotated[DetailName, Field(description='Also "year" of a title, and "length" for pages or minutes.')]
    least: Annotated[Number | None, Field(description="None for no bound.")] = None
    greatest: Annotated[Number | None, Field(description="None for no bound.")] = None


class FiltersBody(BaseModel):
    """Which items may come up."""

    model_config = example(categories=["Comedy"], exclude=["50"], ranges=[{"name": "year", "least": 1990}])

    categories: Annotated[
        list[Id], Field(max_length=Limits.NUM_CATEGORIES, description="Only these; none allows all.")
    ] = []
    exclude: Annotated[list[Id], Field(max_length=MAX_CANDIDATES, description="Ids that are left out.")] = []
    seen: Annotated[bool, Field(description="Whether items may come up that the user has met already.")] = False
    ranges: Annotated[list[RangeBody], Field(max_length=Limits.NUM_DETAILS, description="All must hold.")] = []

    def filters(self) -> Filters:
        """The same as a value of the recommender."""
        ranges: dict[str, tuple[float, float]] = {}
        for one in self.ranges:
            least, greatest = ranges.get(one.name, (-math.inf, math.inf))
            least = least if one.least is None else max(least, one.least)
            ranges[one.name] = least, greatest if one.greatest is None else min(greatest, one.greatest)
        return Filters(
            categories=tuple(self.categories), exclude=frozenset(self.exclude), seen=self.seen, ranges=ranges
        )


class HistoryEventBody(BaseModel):
    """Something that the user of a request has done, in the order of time."""

    model_config = example(_ABOUT_SOMETHING, item="50", kind="view")

    item: Annotated[MaybeId, Field(description="Of the catalogue; none for a search.")] = ""
    time: Annotated[Time, Field(description="Where it isn't known, just now.")] = 0
    value: Annotated[Number | None, Field(description="Stars, a count; absent where it just happened.")] = None
    text: Annotated[Text, Field(description="What the user wrote, such as a review or a search query.")] = ""
    kind: Annotated[EventKind, Field(description="view, click, cart, purchase, rating, skip, search, …")] = ""
    impression: Annotated[
        str, Field(max_length=Limits.ID_CHARS, description="Names what was shown together, such as a page of results.")
    ] = ""
    context: Annotated[Details, Field(description="Where and how: place, weather, device, …")] = {}

    @model_validator(mode="after")
    def _about_something(self) -> Self:
        if not self.item and not (self.kind == "search" and self.text):
            raise validation_error("has no item; only a search (kind 'search', with its words as text) has none")
        return self

    def event(self, user: str, key: str = "") -> Event:
        """The same as a noun of the system."""
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
        description="What the user did after all that is known of them. It counts for this answer and is not kept.",
    ),
]


class RecommendBody(BaseModel):
    """Asks for recommended items."""

    model_config = example(user="196", count=5, history=[{"item": "50", "kind": "view"}])

    user: UserId = ""
    history: History = []
    count: Count = 10
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="How many of the best to leave out."), WHOLE] = 0
    filters: FiltersBody = FiltersBody()
    diversity: Annotated[float, Field(ge=0, le=1, description="0 orders by score alone.")] = 0.0
    calibration: Annotated[
        float, Field(ge=0, le=1, description="Spreads categories as the user's are; not together with diversity.")
    ] = 0.0
    timings: Annotated[bool, Field(description="Tell what each stage took.")] = False

    def request(self) -> Request:
        """The same as a value of the recommender."""
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
    """Asks for candidates."""

    model_config = example(user="196", count=20)

    user: UserId = ""
    count: Annotated[int, Field(ge=1, le=MAX_CANDIDATES), WHOLE] = 100
    filters: FiltersBody = FiltersBody()
    timings: bool = False


class RankBody(BaseModel):
    """Asks to order items."""

    model_config = example(user="196", items=["50", "172", "100"])

    user: UserId = ""
    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_CANDIDATES)]
    history: History = []
    timings: bool = False

    def request(self) -> RankRequest:
        """The same as a value of the recommender."""
        history = tuple(one.event(self.user) for one in self.history)
        return RankRequest(user=self.user, items=tuple(self.items), history=history)


class ExplainBody(BaseModel):
    """Asks why a user would like an item."""

    model_config = example(user="196", item="50")

    user: Id
    item: Id


class CreateBody(BaseModel):
    """Asks for texts that are made for a user."""

    model_config = example(user="196", kind="design", category="Comedy", count=3, catalogue=True)

    user: Id
    kind: Annotated[GenerationKind, Field(description="A product's title, a search query, or copy for an item.")]
    item: Annotated[Id | None, Field(description="What a headline is about; for headlines only.")] = None
    category: Annotated[Id | None, Field(description="Of a design; the model chooses where none is given.")] = None
    count: Annotated[int, Field(ge=1, le=MAX_CREATED, description="Texts at most."), WHOLE] = 1
    catalogue: Annotated[bool, Field(description="Let a design be an item of the catalogue, new to the user.")] = False

    def request(self) -> GenerationRequest:
        """The same as a value of the recommender."""
        return GenerationRequest(**self.model_dump())


class CreateAnswer(BaseModel):
    """The texts, the best first."""

    texts: list[GenerationResult]


class RankedAnswer(BaseModel):
    """Items, the best first; the score is a probability for ranking, a product of vectors for retrieval."""

    items: list[Ranked]
    unknown: Annotated[list[str], Field(description="Ids in the request that the catalogue doesn't have.")] = []
    timings_ms: dict[str, float] | None = None


class EventBody(HistoryEventBody):
    """One behaviour of one user with one item."""

    model_config = example(_ABOUT_SOMETHING, user="196", item="50", time=881250949, value=5.0, id="a1b2c3")

    user: Id
    time: Time
    id: Annotated[
        str, Field(max_length=Limits.ID_CHARS, description="Names the event: sent again, it counts once.")
    ] = ""


class EventsBody(BaseModel):
    """Events to keep."""

    model_config = example(events=[{"user": "196", "item": "50", "time": 881250949, "value": 5.0, "id": "a1b2c3"}])

    events: Annotated[list[EventBody], Field(min_length=1, max_length=MAX_WRITES)]

    def named(self, key: str | None) -> list[Event]:
        """The events; those without an id are named by the key of their write and their place in it, if it has one."""
        return [
            one.event(one.user, one.id or (f"{key}/{place}" if key else "")) for place, one in enumerate(self.events)
        ]


class ItemBody(BaseModel):
    """An item; its fields are worded by the domain."""

    model_config = example(id="2001", title="Heat (1995)", categories=["Crime", "Drama"], details={"year": 1995})

    id: Id
    title: Title
    categories: Categories = []
    details: Details = {}

    def item(self) -> Item:
        """The same as a noun of the system."""
        return Item(self.id, self.title, tuple(self.categories), self.details)


class ItemsBody(BaseModel):
    """Items to add, or to put in the place of those of the same ids, all or none."""

    model_config = example(items=[{"id": "2001", "title": "Heat (1995)", "categories": ["Crime"]}])

    items: Annotated[list[ItemBody], Field(min_length=1, max_length=MAX_WRITES)]


class WriteAnswer(BaseModel):
    """How many items were written, and are on disk."""

    written: int


class UserBody(BaseModel):
    """What is known of a user besides the events; worded by the domain."""

    model_config = example(details={"age": 34, "city": "Lyon"})

    details: Details = {}


class KeptEvent(BaseModel):
    """An event as it is kept."""

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
    """All that is kept of a user."""

    id: str
    details: dict[str, str | int | float]
    events: list[KeptEvent]

    @classmethod
    def of(cls, user: User, events: Sequence[Event]) -> UserAnswer:
        """The same as JSON."""
        kept = [KeptEvent(**{**asdict(event), "context": dict(event.context)}) for event in events]
        return cls(id=user.id, details=dict(user.details), events=kept)


class ErasureAnswer(BaseModel):
    """Whether there was anything to erase."""

    erased: bool


class StatusAnswer(BaseModel):
    """Whether the service is well."""

    status: str


class Problem(BaseModel):
    """What went wrong."""

    type: str
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """Every answer that is not a success."""

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
