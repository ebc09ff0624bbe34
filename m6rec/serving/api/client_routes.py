"""Routes in the shapes of other services, for the clients that people have: OpenAI's, Cohere's, LangChain's, Jina's."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from m6rec.errors import UnknownError
from m6rec.serving.api.client_schema import (
    MODEL,
    ChatAnswer,
    ChatBody,
    ChatChunk,
    Choice,
    ChunkChoice,
    Delta,
    Document,
    Embedding,
    EmbeddingsAnswer,
    EmbeddingsBody,
    Found,
    ModelEntry,
    ModelsAnswer,
    ReplyMessage,
    RerankAnswer,
    RerankBody,
    RerankResult,
)
from m6rec.serving.api.metrics import Measurements
from m6rec.serving.api.problems import INTERNAL
from m6rec.serving.api.routes import IdInPath
from m6rec.serving.api.schema import ErrorAnswer, Problem
from m6rec.serving.api.work import Work
from m6rec.serving.backend import LocalBackend, Reply
from m6rec.serving.batching import Done

log = logging.getLogger("m6rec.serving")


class ClientRoutes:
    """The routes, and what they share.

    Args:
        backend: What is served.
        work: Does it.
        measurements: Of how long it takes.
    """

    def __init__(self, backend: LocalBackend, work: Work, measurements: Measurements) -> None:
        self._backend, self._work, self._measurements = backend, work, measurements

    async def chat(self, body: ChatBody, request: Request) -> Response:
        """The next message of a conversation: it asks, recommends or explains; takes what clients of OpenAI send.

        A title in it is always that of an item, and ``m6rec.items`` are those recommended, best first. The words that
        are the model's own have passed the gate of explanations. With ``stream`` it comes sentence by sentence.
        """
        chat, key, created = body.chat(), f"chatcmpl-{request.scope['request_id']}", int(time.time())
        if not body.stream:
            reply = await self._work.written("chat", lambda: self._backend.chatting(chat))
            choice = Choice(message=ReplyMessage(content=reply.text), finish_reason=reply.finish_reason)
            answer = ChatAnswer(id=key, created=created, choices=[choice], usage=_usage(reply), m6rec=Found.of(reply))
            return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")
        pieces = self._work.pieces(lambda: self._backend.chatting(chat))
        try:
            first = await anext(pieces)  # what is refused is refused with its status
        except BaseException:
            await pieces.aclose()
            raise
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        events = self._events(first, pieces, key, created, with_usage, request)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def _events(
        self,
        first: str | Done[Reply],
        pieces: AsyncGenerator[str | Done[Reply], None],
        key: str,
        created: int,
        with_usage: bool,
        request: Request,
    ) -> AsyncGenerator[str, None]:
        """A reply as server-sent events, in OpenAI's shape."""

        def chunk(delta: Delta, reply: Reply | None = None) -> ChatChunk:
            choice = ChunkChoice(delta=delta, finish_reason=reply.finish_reason if reply else None)
            return ChatChunk(id=key, created=created, choices=[choice], m6rec=Found.of(reply) if reply else None)

        async with aclosing(pieces):
            yield _event(chunk(Delta(role="assistant", content="")))
            try:
                piece = first
                while isinstance(piece, str):
                    if piece:
                        yield _event(chunk(Delta(content=piece)))
                    piece = await anext(pieces)
            except Exception as error:
                # The status is out, so that the stream can only say it.
                request_id, kind = request.scope["request_id"], "internal"
                log.error("stream", extra={"facts": {"request_id": request_id, "error": type(error).__name__}})
                request.scope["problem"] = kind
                failed = Problem(type=kind, message=INTERNAL, request_id=request_id)
                yield f"data: {ErrorAnswer(error=failed).model_dump_json()}\n\n"
                return
            self._measurements.stage_s.labels("chat").observe(piece.run_ms / 1e3)
            yield _event(chunk(Delta(), piece.value))
            if with_usage:
                yield _event(ChatChunk(id=key, created=created, choices=[], usage=_usage(piece.value)))
            yield "data: [DONE]\n\n"

    async def models(self) -> ModelsAnswer:
        """What clients of OpenAI can name as ``model``."""
        return ModelsAnswer()

    async def model(self, name: IdInPath) -> ModelEntry:
        """The one model, by its name."""
        if name != MODEL:
            raise UnknownError(f"there is no model {name!r}; the one there is is {MODEL!r}, and any name may be sent")
        return ModelEntry()

    async def rerank(self, body: RerankBody, request: Request) -> RerankAnswer:
        """Orders documents by how well they fit a query; takes what clients of Cohere and Jina send."""
        texts = body.texts()
        scores, tokens = await self._work.written("rerank", lambda: self._backend.reranking(body.query, texts))
        results = [
            RerankResult(
                index=int(n),
                relevance_score=float(scores[n]),
                document=Document(text=texts[n]) if body.return_documents else None,
            )
            for n in np.argsort(-scores, kind="stable")[: body.count]
        ]
        return RerankAnswer(id=request.scope["request_id"], results=results, usage={"total_tokens": tokens})

    async def embeddings(self, body: EmbeddingsBody) -> EmbeddingsAnswer:
        """Unit vectors of texts, those of the retrieval task; takes what clients of OpenAI send."""
        texts = body.texts()
        vectors, tokens = await self._work.written("embed", lambda: self._backend.embedding(texts))
        data = [
            Embedding(
                index=n,
                embedding=base64.b64encode(vector.astype("<f4").tobytes()).decode()
                if body.encoding_format == "base64"
                else vector.tolist(),
            )
            for n, vector in enumerate(vectors)
        ]
        return EmbeddingsAnswer(data=data, usage={"prompt_tokens": tokens, "total_tokens": tokens})


def _event(chunk: ChatChunk) -> str:
    return f"data: {chunk.model_dump_json(exclude_none=True)}\n\n"


def _usage(reply: Reply) -> dict[str, int]:
    read, written = reply.num_prompt_tokens, reply.num_completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
