"""The bodies that travel over HTTP, with their limits and examples.

Requests are strict: no field that isn't known, no value of another type, no number that isn't finite.
Answers are those of ``Recommender`` as JSON; rerank, embeddings and chat have the shapes that clients of Cohere, Jina
and OpenAI send and expect.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from m6rec.serving.backend import Brief, Chat, Creation, CreationKind, Filters, Reason, Reply, Request
from m6rec.serving.settings import (
    MAX_CANDIDATES,
    MAX_COUNT,
    MAX_CREATED,
    MAX_FIELDS,
    MAX_ID_CHARS,
    MAX_MESSAGES,
    MAX_OFFSET,
    MAX_REPLY_TOKENS,
    MAX_STOPS,
    MAX_TEXT_CHARS,
    MAX_TEXTS,
    MAX_WRITES,
)
from m6rec.tasks.chat import Intent, Message, Role
from m6rec.types import Event, Item, Ranked

MODEL = "m6rec"
_LAST_SECOND = 253_402_300_799  # of the year 9999
_SAFE = 2**53  # integers up to here are the same in every JSON reader


def _whole(value: object) -> object:
    """JSON has one kind of number: 3.0 is the integer 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS)]
Loose = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT), WHOLE]


def _example(**value: Any) -> ConfigDict:
    return ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": [value]})


class FiltersBody(BaseModel):
    """Which items may come up."""

    model_config = _example(categories=["Comedy"], exclude=["50"])

    categories: Annotated[list[Id], Field(max_length=MAX_FIELDS, description="Only these; none allows all.")] = []
    exclude: Annotated[list[Id], Field(max_length=MAX_CANDIDATES, description="Ids that are left out.")] = []
    seen: Annotated[bool, Field(description="Whether items may come up that the user has met already.")] = False

    def filters(self) -> Filters:
        """The same as a value of the recommender."""
        return Filters(categories=tuple(self.categories), exclude=frozenset(self.exclude), seen=self.seen)


class RecommendBody(BaseModel):
    """Asks for recommended items."""

    model_config = _example(user="196", count=5)

    user: Id
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
        )


class RetrieveBody(BaseModel):
    """Asks for candidates."""

    model_config = _example(user="196", count=20)

    user: Id
    count: Annotated[int, Field(ge=1, le=MAX_CANDIDATES), WHOLE] = 100
    filters: FiltersBody = FiltersBody()
    timings: bool = False


class RankBody(BaseModel):
    """Asks to order items."""

    model_config = _example(user="196", items=["50", "172", "100"])

    user: Id
    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_CANDIDATES)]
    timings: bool = False


class ExplainBody(BaseModel):
    """Asks why a user would like an item."""

    model_config = _example(user="196", item="50")

    user: Id
    item: Id


class CreateBody(BaseModel):
    """Asks for texts that are made for a user."""

    model_config = _example(user="196", kind="design", category="Comedy", count=3, catalogue=True)

    user: Id
    kind: Annotated[CreationKind, Field(description="A product's title, a search query, or copy for an item.")]
    item: Annotated[Id | None, Field(description="What a headline is about; for headlines only.")] = None
    category: Annotated[Id | None, Field(description="Of a design; the model chooses where none is given.")] = None
    count: Annotated[int, Field(ge=1, le=MAX_CREATED, description="Texts at most."), WHOLE] = 1
    catalogue: Annotated[bool, Field(description="Let a design be an item of the catalogue, new to the user.")] = False

    def brief(self) -> Brief:
        """The same as a value of the recommender."""
        return Brief(**self.model_dump())


class CreateAnswer(BaseModel):
    """The texts, the best first."""

    texts: list[Creation]


class RankedAnswer(BaseModel):
    """Items, the best first; the score is a probability for ranking, a product of vectors for retrieval."""

    items: list[Ranked]
    timings_ms: dict[str, float] | None = None


class EventBody(BaseModel):
    """One behaviour of one user with one item."""

    model_config = _example(user="196", item="50", time=881250949, value=5.0)

    user: Id
    item: Id
    time: Annotated[int, Field(ge=0, le=_LAST_SECOND, description="Seconds since 1970 (UTC)."), WHOLE]
    value: Annotated[float, Field(ge=-_SAFE, le=_SAFE, description="Stars, 1 for a click, 0 for a skip.")] = 1.0
    text: Annotated[Loose, Field(description="What the user wrote, such as a review.")] = ""
    id: Annotated[
        str, StringConstraints(max_length=MAX_ID_CHARS), Field(description="Of a write; sent again, it counts once.")
    ] = ""

    def event(self) -> Event:
        """The same as a noun of the system."""
        return Event(self.user, self.item, self.time, self.value, self.text, id=self.id)


class EventsBody(BaseModel):
    """Events to keep, all or none."""

    model_config = _example(events=[{"user": "196", "item": "50", "time": 881250949, "value": 5.0}])

    events: Annotated[list[EventBody], Field(min_length=1, max_length=MAX_WRITES)]


class ItemBody(BaseModel):
    """An item; its fields are worded by the domain."""

    model_config = _example(id="2001", title="Heat (1995)", categories=["Crime", "Drama"], details={"year": 1995})

    id: Id
    title: Text
    categories: Annotated[list[Id], Field(max_length=MAX_FIELDS)] = []
    details: Annotated[
        dict[Id, Loose | Annotated[int, Field(ge=-_SAFE, le=_SAFE)] | Annotated[float, Field(ge=-_SAFE, le=_SAFE)]],
        Field(max_length=MAX_FIELDS),
    ] = {}

    def item(self) -> Item:
        """The same as a noun of the system."""
        return Item(self.id, self.title, tuple(self.categories), dict(self.details))


class ItemsBody(BaseModel):
    """Items to add, or to put in the place of those of the same ids, all or none."""

    model_config = _example(items=[{"id": "2001", "title": "Heat (1995)", "categories": ["Crime"]}])

    items: Annotated[list[ItemBody], Field(min_length=1, max_length=MAX_WRITES)]


class Written(BaseModel):
    """How many events or items were written, and are on disk."""

    written: int


class DocumentBody(BaseModel):
    """A document as an object."""

    model_config = _example(text="Trekking poles")

    text: Text


class RerankBody(BaseModel):
    """Asks how well documents fit a query, in the shape of Cohere's v2 and Jina's rerank."""

    model_config = _example(query="winter stuff", documents=["Snow boots", "Flip-flops"], top_n=1)

    query: Text
    documents: Annotated[list[Text | DocumentBody], Field(min_length=1, max_length=MAX_CANDIDATES)]
    model: Annotated[Id, Field(description="Clients must name one; there is one.")] = MODEL
    top_n: Annotated[int | None, Field(ge=1, description="Only the best; all if absent."), WHOLE] = None
    return_documents: bool = False

    def texts(self) -> list[str]:
        """The documents as texts."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


class Document(BaseModel):
    """A document that was sent."""

    text: str


class RerankResult(BaseModel):
    """A document by its place in the request, and its score in 0 … 1."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankAnswer(BaseModel):
    """The best documents first; ``usage`` counts the tokens read. Clients read ``meta``; nothing is billed."""

    id: str
    model: str = MODEL
    results: list[RerankResult]
    usage: dict[str, int]
    meta: dict[str, dict[str, str | int]] = {"api_version": {"version": "2"}, "billed_units": {"search_units": 0}}


class EmbeddingsBody(BaseModel):
    """Asks for unit vectors of texts, in the shape of OpenAI's embeddings."""

    model_config = _example(input=["Snow boots", "Flip-flops"], encoding_format="float")

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    model: Annotated[Id, Field(description="Clients must name one; there is one.")] = MODEL
    encoding_format: Annotated[Literal["float", "base64"], Field(description="base64 holds little-endian float32.")] = (
        "float"
    )
    dimensions: Annotated[Literal[128] | None, Field(description="All vectors have this width.")] = None
    user: Annotated[Loose, Field(description="Clients send it; it is not read.")] = ""


class Embedding(BaseModel):
    """The vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(BaseModel):
    """Vectors in the order of the texts; ``usage`` counts the tokens that were read."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = MODEL
    usage: dict[str, int]


class TextPart(BaseModel):
    """A piece of a message."""

    model_config = _example(type="text", text="Something funny, please.")

    type: Literal["text"]
    text: Loose


class MessageBody(BaseModel):
    """One message of a conversation."""

    model_config = _example(role="user", content="Something funny, please.")

    role: Role
    content: Loose | Annotated[list[TextPart], Field(max_length=MAX_FIELDS)]

    def message(self) -> Message:
        """The same as a noun of the system."""
        whole = self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        return Message(self.role, whole)


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = _example(include_usage=True)

    include_usage: bool = False


class ChatBody(BaseModel):
    """Asks for the next message of a conversation, in the shape of OpenAI's chat completions."""

    model_config = _example(user="196", messages=[{"role": "user", "content": "Something funny from the 80s, please."}])

    messages: Annotated[
        list[MessageBody],
        Field(
            min_length=1,
            max_length=MAX_MESSAGES,
            description="All of the conversation, as nothing of it is kept. System messages are not obeyed.",
        ),
    ]
    user: Annotated[str, StringConstraints(max_length=MAX_ID_CHARS)] = ""
    model: Annotated[Id, Field(description="Clients must name one; there is one.")] = MODEL
    max_tokens: Annotated[int | None, Field(ge=1, le=MAX_REPLY_TOKENS), WHOLE] = None
    max_completion_tokens: Annotated[
        int | None, Field(ge=1, le=MAX_REPLY_TOKENS, description="The newer name of max_tokens."), WHOLE
    ] = None
    temperature: Annotated[
        float | None, Field(ge=0, le=2, description="Of the choice between wordings; 0 takes the likeliest.")
    ] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    stop: Text | Annotated[list[Text], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int | None, Field(ge=0, le=_SAFE), WHOLE] = None
    n: Annotated[Literal[1] | None, WHOLE] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def chat(self) -> Chat:
        """The same as a value of the recommender."""
        limits = [limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None]
        return Chat(
            messages=[message.message() for message in self.messages],
            user=self.user,
            max_tokens=min(limits, default=MAX_REPLY_TOKENS),
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            stops=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            seed=self.seed or 0,
        )


class ReplyMessage(BaseModel):
    """The next message of a conversation."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """The one answer there is."""

    index: Literal[0] = 0
    message: ReplyMessage
    finish_reason: Literal["stop", "length"]


class Found(BaseModel):
    """What clients of OpenAI don't know: what the message was taken to want, and what the reply names and rests on."""

    intent: Intent
    items: list[Ranked]
    statements: list[Reason]

    @classmethod
    def of(cls, reply: Reply) -> Found:
        """That of a reply."""
        return cls(intent=reply.intent, items=reply.items, statements=reply.statements)


class ChatAnswer(BaseModel):
    """A reply; ``usage`` counts the tokens of the messages and of the reply."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str = MODEL
    choices: list[Choice]
    usage: dict[str, int]
    m6rec: Found


class Delta(BaseModel):
    """A piece of a reply."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one answer there is, in pieces."""

    index: Literal[0] = 0
    delta: Delta
    finish_reason: Literal["stop", "length"] | None = None


class ChatChunk(BaseModel):
    """An event of a streamed reply; the last one that has a choice holds ``m6rec``."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str = MODEL
    choices: list[ChunkChoice]
    usage: dict[str, int] | None = None
    m6rec: Found | None = None


class Model(BaseModel):
    """A model that can be named."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = MODEL


class ModelsAnswer(BaseModel):
    """What can be named as ``model``."""

    object: Literal["list"] = "list"
    data: list[Model] = [Model()]


class State(BaseModel):
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
