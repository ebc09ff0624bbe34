"""The bodies that clients of OpenAI, Cohere, LangChain and Jina send and expect.

What such a client sends beside what is asked here is left unread, as it is neutral here, or a hint about wording.
Numbers beyond a limit mean the limit, and texts are read up to theirs. What would change the shape of the answer and
can't be done is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from m6rec.data.schema import Limits
from m6rec.language.chat import Intent, Message, Role
from m6rec.serving.api.fields import WHOLE, MaybeId, validation_error
from m6rec.serving.backend import Chat, Reason, Reply
from m6rec.serving.settings import (
    MAX_CANDIDATES,
    MAX_MESSAGES,
    MAX_QUERY_CHARS,
    MAX_REPLY_TOKENS,
    MAX_STOPS,
    MAX_TEXTS,
)
from m6rec.types import Ranked

MODEL = "m6rec"
_WIDTH = 256  # of an embedding (``retrieval.training.EmbeddingConfig.width``)


def _lenient(**value: Any) -> ConfigDict:
    return ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, json_schema_extra={"examples": [value]})


def _read_up_to(limit: int) -> BeforeValidator:
    return BeforeValidator(lambda value: value[:limit] if isinstance(value, str) else value)


Words = Annotated[str, _read_up_to(MAX_QUERY_CHARS)]
ModelName = Annotated[str | None, _read_up_to(MAX_QUERY_CHARS), Field(description="There is one; any name will do.")]


def _document(value: object) -> object:
    if not isinstance(value, str | dict):
        raise validation_error("is no document; send a text, or an object with its text as 'text' or with rank_fields")
    return value


def _fields(document: Mapping[str, Any], names: list[str]) -> str:
    """What an object says, as lines of ``name: value``; its text alone where it has one and no names are given."""
    if not names and isinstance(document.get("text"), str):
        return str(document["text"])
    said = {name: document[name] for name in names or document if isinstance(document.get(name), str | int | float)}
    return "\n".join(f"{name}: {value}" for name, value in said.items())


class RerankBody(BaseModel):
    """Asks how well documents fit a query, in the shape of Cohere's and Jina's rerank."""

    model_config = _lenient(query="winter stuff", documents=["Snow boots", "Flip-flops"], top_n=1)

    query: Annotated[Words, Field(min_length=1)]
    documents: Annotated[
        list[
            Annotated[
                Any,
                BeforeValidator(_document),
                WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]}),
            ]
        ],
        Field(min_length=1, max_length=MAX_CANDIDATES, description="Texts, or objects that hold one as text."),
    ]
    model: ModelName = MODEL
    rank_fields: Annotated[list[str] | None, Field(description="What is read of documents that are objects.")] = None
    top_n: Annotated[int | None, Field(ge=1, description="Only the best; all if absent."), WHOLE] = None
    top_k: Annotated[int | None, Field(ge=1, description="Another name of top_n."), WHOLE] = None
    return_documents: bool | None = None

    @property
    def count(self) -> int | None:
        """How many of the best are wanted."""
        return self.top_n or self.top_k

    def texts(self) -> list[str]:
        """The documents as texts."""
        texts = (one if isinstance(one, str) else _fields(one, self.rank_fields or []) for one in self.documents)
        return [text[:MAX_QUERY_CHARS] for text in texts]


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


def _texts(value: object) -> object:
    """One text or several; numbers are tokens of another model's vocabulary."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        if isinstance(value, list) and any(isinstance(one, int | list) for one in value):
            raise validation_error(
                "holds numbers of tokens, which only the model that they were made for can read; send texts "
                "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
            )
        raise validation_error("must be a text or a list of texts")
    if not value or not all(value):
        raise validation_error(
            "holds an empty text or none; leave empty ones out" if value else "is empty; send a text"
        )
    if len(value) > MAX_TEXTS:
        raise validation_error(
            f"has {len(value)} texts; {MAX_TEXTS} are allowed at once (LangChain: chunk_size={MAX_TEXTS})"
        )
    return [text[:MAX_QUERY_CHARS] for text in value]


def _dimensions(value: object) -> object:
    if value not in (None, _WIDTH) or isinstance(value, bool):
        raise validation_error(
            f"is {str(value)[:40]}; every vector has {_WIDTH} numbers, so send {_WIDTH} or leave it out"
        )
    return value and _WIDTH


class EmbeddingsBody(BaseModel):
    """Asks for unit vectors of texts, in the shape of OpenAI's embeddings."""

    model_config = _lenient(input=["Snow boots", "Flip-flops"], encoding_format="float")

    input: Annotated[
        list[str],
        BeforeValidator(_texts),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {
                        "type": "array",
                        "items": {"type": "string", "minLength": 1},
                        "minItems": 1,
                        "maxItems": MAX_TEXTS,
                    },
                ],
                "description": f"Texts, of which the first {MAX_QUERY_CHARS} characters are read.",
            }
        ),
    ]
    model: ModelName = MODEL
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Field(description="base64 holds little-endian float32.")
    ] = None
    dimensions: Annotated[
        int | None,
        BeforeValidator(_dimensions),
        WithJsonSchema({"enum": [_WIDTH, None], "description": "All vectors have this width."}),
    ] = None

    def texts(self) -> list[str]:
        """What is to be embedded."""
        return self.input


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


_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant"}  # all others only frame the conversation


def _content(value: object) -> object:
    """The text of a message; parts of other media are refused, and what else a client keeps in them is left unread."""
    if value is None or isinstance(value, str):
        return (value or "")[:MAX_QUERY_CHARS]
    if not isinstance(value, list) or not all(isinstance(part, str | dict) for part in value):
        raise validation_error("must be a text, null, or a list of parts")
    texts = []
    for part in value:
        kind = "text" if isinstance(part, str) else part.get("type")
        if kind in ("image_url", "input_audio", "file", "image", "input_image", "video_url"):
            raise validation_error(f"holds a part of type {kind!r}; only texts are read")
        text = part if isinstance(part, str) else part.get("text", "")
        if kind == "text" and not isinstance(text, str):
            raise validation_error("holds a part whose 'text' is none")
        texts.append(text if kind == "text" else "")
    return "\n".join(filter(None, texts))[:MAX_QUERY_CHARS]


class MessageBody(BaseModel):
    """One message of a conversation; what it holds beside role and text is left unread."""

    model_config = _lenient(role="user", content="Something funny, please.")

    role: Literal["user", "assistant", "system", "developer", "tool", "function"]
    content: Annotated[
        str,
        BeforeValidator(_content),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                            "required": ["type", "text"],
                        },
                    },
                    {"type": "null"},
                ],
                "description": f"A text, of which the first {MAX_QUERY_CHARS} characters are read.",
            }
        ),
    ] = ""

    def message(self) -> Message:
        """The same as a noun of the system."""
        return Message(_ROLES.get(self.role, "system"), self.content)


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = _lenient(include_usage=True)

    include_usage: bool | None = None


def _clamped(low: float, high: float) -> BeforeValidator:
    def clamp(value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return min(max(value, low), high)
        return value

    return BeforeValidator(clamp)


def _stops(value: object) -> object:
    """The strings that are not empty."""
    stops = [value] if isinstance(value, str) else value
    return [stop for stop in stops if stop != ""] if isinstance(stops, list) else stops


def _one(value: object) -> object:
    if value is not None and (value != 1 or isinstance(value, bool)):
        raise validation_error(
            f"is {str(value)[:40]}; one reply is written to a request, so leave n out and ask again for more"
        )
    return value and 1


def _plain_text(value: object) -> object:
    kind = value.get("type") if isinstance(value, dict) else value
    if kind not in (None, "text"):
        raise validation_error(
            f"asks for {str(kind)[:40]!r}; replies are plain text, so leave it out and read 'm6rec' of the answer"
        )
    return None


def _no_tools(value: object) -> object:
    if isinstance(value, dict) or value in ("required", "any"):
        raise validation_error(
            "asks for a call of a tool; none is ever called, so leave it out, or send 'auto' or 'none'"
        )
    return None


def _no_logprobs(value: object) -> object:
    if value not in (None, False, 0):
        raise validation_error("asks for the probabilities of tokens, which are not told; leave it out")
    return None


def _text_only(value: object) -> object:
    if value not in (None, ["text"]):
        raise validation_error("asks for other media; replies are texts, so leave it out")
    return None


def _enum(*values: Any) -> WithJsonSchema:
    return WithJsonSchema({"enum": [*values, None]})


_TEXT_FORMAT = WithJsonSchema(
    {"anyOf": [{"type": "object", "properties": {"type": {"const": "text"}}, "required": ["type"]}, {"type": "null"}]}
)
_Limit = Annotated[int | None, Field(ge=1), _clamped(-Limits.NUMBER, MAX_REPLY_TOKENS), WHOLE]


class ChatBody(BaseModel):
    """Asks for the next message of a conversation, in the shape of OpenAI's chat completions."""

    model_config = _lenient(user="196", messages=[{"role": "user", "content": "Something funny from the 80s, please."}])

    messages: Annotated[
        list[MessageBody],
        Field(
            min_length=1,
            description=f"All of the conversation, as nothing of it is kept; the latest {MAX_MESSAGES} are read. "
            "Messages of a system, a developer or a tool are not obeyed.",
        ),
    ]
    user: Annotated[MaybeId | None, Field(description="Whose history counts as well.")] = None
    model: ModelName = MODEL
    max_tokens: Annotated[_Limit, Field(description=f"More than {MAX_REPLY_TOKENS} mean {MAX_REPLY_TOKENS}.")] = None
    max_completion_tokens: Annotated[_Limit, Field(description="The newer name of max_tokens.")] = None
    temperature: Annotated[
        float | None,
        _clamped(0, 2),
        Field(description="Of the choice between wordings; 0 takes the likeliest, more than 2 means 2."),
    ] = None
    top_p: Annotated[float | None, _clamped(1e-3, 1)] = None
    stop: Annotated[
        Annotated[list[Words], Field(max_length=MAX_STOPS)] | None,
        BeforeValidator(_stops),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOPS},
                    {"type": "null"},
                ]
            }
        ),
    ] = None
    seed: Annotated[int | None, WHOLE] = None
    n: Annotated[int | None, BeforeValidator(_one), _enum(1)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Annotated[None, BeforeValidator(_plain_text), _TEXT_FORMAT] = None
    tool_choice: Annotated[None, BeforeValidator(_no_tools), _enum("auto", "none")] = None
    function_call: Annotated[None, BeforeValidator(_no_tools), _enum("auto", "none")] = None
    logprobs: Annotated[None, BeforeValidator(_no_logprobs), _enum(False)] = None
    top_logprobs: Annotated[None, BeforeValidator(_no_logprobs), _enum(0)] = None
    modalities: Annotated[None, BeforeValidator(_text_only), _enum(["text"])] = None

    def chat(self) -> Chat:
        """The same as a value of the recommender."""
        limits = [limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None]
        return Chat(
            messages=[message.message() for message in self.messages[-MAX_MESSAGES:]],
            user=self.user or "",
            max_tokens=min(limits, default=MAX_REPLY_TOKENS),
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            stops=tuple(self.stop or ()),
            seed=(self.seed or 0) % Limits.NUMBER,
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
    reasons: list[Reason]

    @classmethod
    def of(cls, reply: Reply) -> Found:
        """That of a reply."""
        return cls(intent=reply.intent, items=reply.items, reasons=reply.reasons)


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


class ModelEntry(BaseModel):
    """A model that can be named."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = MODEL


class ModelsAnswer(BaseModel):
    """What can be named as ``model``."""

    object: Literal["list"] = "list"
    data: list[ModelEntry] = [ModelEntry()]
