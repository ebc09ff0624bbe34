"""A client of the service with the interface of a recommender in process."""

from __future__ import annotations

import base64
import json
import math
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import numpy as np
from numpy.typing import NDArray

from m6rec.errors import ConfigError, M6RecError, UnknownError
from m6rec.serving.backend import (
    NO_FILTERS,
    Answer,
    Backend,
    CandidateSource,
    Chat,
    Explanation,
    Filters,
    GenerationRequest,
    GenerationResult,
    IngestResult,
    InspectedText,
    Inspection,
    InspectRequest,
    Placement,
    RankRequest,
    Reason,
    Reply,
    Request,
    Similarity,
    SourceScore,
)
from m6rec.types import Event, Item, Ranked, User

RETRIED = (429, 503)  # with these the service can't answer now
LOST = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)  # the answer may have been on its way
FIRST_WAIT_S = 0.1  # before the second try of a write whose answer was lost; doubles from try to try


class ServiceError(M6RecError):
    """The service can't be reached, is overloaded for too long, or failed.

    Attributes:
        status: Of its answer; 0 where there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client(Backend):
    """A ``Backend`` at a URL; a thread-safe context manager.

    Every method raises UnknownError for an unknown id, ConfigError if the service rejects the request (missing key,
    invalid value), and ServiceError if it can't answer.

    Args:
        url: Base URL of ``m6rec serve``.
        key: API key, if the service requires one.
        timeout_s: Timeout of a response.
        retries: Retries if the service is overloaded or unavailable, or the response to a write is lost; writes are
            idempotent.
        max_wait_s: Longest wait before a retry, whatever ``Retry-After`` says.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8300",
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        max_wait_s: float = 5.0,
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)
        self._retries, self._max_wait_s = retries, max_wait_s

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def recommend_many(self, requests: Sequence[Request]) -> list[Answer]:
        """See ``Backend``; one HTTP request each."""
        answers = []
        for one in requests:
            body = {**asdict(one), "filters": _filters(one.filters), "history": _history(one.history), "timings": True}
            answers.append(_answer(self._send("POST", "/v1/recommend", body)))
        return answers

    def retrieve(
        self,
        user: str,
        count: int = 100,
        *,
        filters: Filters = NO_FILTERS,
        history: Sequence[Event] = (),
        source: CandidateSource = "blend",
    ) -> list[Ranked]:
        """Candidates by retrieval score (``types.Ranked``)."""
        body = {"user": user, "count": count, "filters": _filters(filters), "history": _history(history)}
        return _ranked(self._send("POST", "/v1/retrieve", {**body, "source": source}))

    def rank_many(self, requests: Sequence[RankRequest]) -> list[Answer]:
        """``rank`` of several requests, one HTTP request each."""
        answers = []
        for one in requests:
            history = _history(one.history)
            body = {"user": one.user, "items": list(one.items), "history": history, "timings": True}
            answers.append(_answer(self._send("POST", "/v1/rank", body)))
        return answers

    def neighbours(self, item: str | Item, count: int = 10, *, by: Similarity = "text") -> list[Ranked]:
        """Items that are similar to one of the catalogue, by its id, or to one that is not stored."""
        subject = item if isinstance(item, str) else _item_body(item)
        return _ranked(self._send("POST", "/v1/neighbours", {"item": subject, "count": count, "by": by}))

    def inspect(self, request: InspectRequest) -> Inspection:
        """What the model reads of a user, and where an item stands for them."""
        body = {"user": request.user, "item": request.item, "filters": _filters(request.filters)}
        found = self._send("POST", "/v1/inspect", {**body, "history": _history(request.history)})
        segments, placed = tuple(InspectedText(**one) for one in found["segments"]), found.get("placement")
        if placed is None:
            return Inspection(segments)
        sources = tuple(SourceScore(**one) for one in placed["sources"])
        placed |= {"sources": sources, "filtered_by": tuple(placed["filtered_by"])}
        return Inspection(segments, Placement(**placed))

    def find_items(self, query: str = "", count: int = 10, *, ids: Sequence[str] = ()) -> list[Item]:
        """Items whose titles have words that begin with those of the query, most liked first; or those of the ids."""
        parameters = urlencode({"query": query, "count": count, "id": list(ids)}, doseq=True)
        return [_item(one) for one in self._send("GET", f"/v1/items?{parameters}")["items"]]

    def find_users(self, prefix: str = "", count: int = 10) -> list[str]:
        """Ids of users that begin with the prefix."""
        users: list[str] = self._send("GET", f"/v1/users?{urlencode({'prefix': prefix, 'count': count})}")["users"]
        return users

    def get_item(self, item: str) -> tuple[Item, int | None]:
        """The item and the number of users who like it, if they are enough."""
        found = self._send("GET", f"/v1/items/{quote(item, safe='')}")
        return _item(found["item"]), found.get("num_likes")

    def explain(self, user: str, item: str, *, history: Sequence[Event] = ()) -> Explanation:
        """Why the user would like the item."""
        found = self._send("POST", "/v1/explain", {"user": user, "item": item, "history": _history(history)})
        return Explanation(found["text"], [Reason(**one) for one in found["reasons"]])

    def stream(self, chat: Chat) -> Iterator[str | Reply]:
        """``chat`` as a stream of sentences, then the whole reply. Closing the stream cancels it."""
        body = {
            "messages": [{"role": message.role, "content": message.text} for message in chat.messages],
            "user": chat.user,
            "max_tokens": chat.max_tokens,
            "temperature": chat.temperature,
            "top_p": chat.top_p,
            "stop": list(chat.stops),
            "seed": chat.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        said, found, reason, usage = "", None, None, None
        with self._open("/v1/chat/completions", body) as response:
            for chunk in _events(response):
                if "error" in chunk:
                    raise ServiceError(chunk["error"]["message"])
                for choice in chunk["choices"]:
                    reason = choice.get("finish_reason", reason)
                    if piece := choice["delta"].get("content", ""):
                        said += piece
                        yield piece
                found = chunk.get("m6rec", found)
                usage = chunk.get("usage", usage)
        if found is None or reason is None or usage is None:
            raise ServiceError("the reply broke off; try again")
        reasons = [Reason(**one) for one in found["reasons"]]
        read, written = usage["prompt_tokens"], usage["completion_tokens"]
        yield Reply(said, found["intent"], _ranked(found), reasons, reason, read, written)

    def generate(self, request: GenerationRequest) -> list[GenerationResult]:
        """Texts for the user, best first; see ``Backend.create``."""
        found = self._send("POST", "/v1/create", asdict(request))
        return [GenerationResult(**{**one, "rejected": tuple(one["rejected"])}) for one in found["texts"]]

    def rerank(self, query: str, documents: Sequence[str]) -> tuple[NDArray[np.float64], int]:
        """(relevance of each document to the query, 0 to 1; number of tokens read)."""
        found = self._send("POST", "/v1/rerank", {"query": query, "documents": list(documents)})
        scores = np.zeros(len(documents))
        for result in found["results"]:
            scores[result["index"]] = result["relevance_score"]
        return scores, found["usage"]["total_tokens"]

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """(unit vectors of the texts [n, E]; number of tokens read)."""
        found = self._send("POST", "/v1/embeddings", {"input": list(texts), "encoding_format": "base64"})
        rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in found["data"]]
        return np.stack(rows).astype(np.float32), found["usage"]["total_tokens"]

    def ingest_many(self, writes: Sequence[Sequence[Event]]) -> list[IngestResult]:
        """``ingest`` for several writes, one HTTP request each.

        Events get an id where they have none, so that they count once, however often they have to be sent. Give them
        ids where you may call again with the same after a ServiceError, as it isn't known then whether they were taken.
        """
        made = []
        for events in writes:
            found = self._write("POST", "/v1/events", {"events": [_body(event) for event in events]})
            made.append(IngestResult(found["accepted"], found["repeated"], tuple(found["unknown"])))
        return made

    def upsert(self, items: Sequence[Item]) -> None:
        """Adds or replaces items, all or none; on return they can be recommended."""
        self._write("POST", "/v1/items", {"items": [_item_body(item) for item in items]})

    def delete(self, ids: Sequence[str]) -> int:
        """Removes items, one HTTP request each; returns how many there were."""
        deleted = 0
        for one in ids:
            try:
                self._write("DELETE", f"/v1/items/{quote(one, safe='')}")
                deleted += 1
            except UnknownError:
                pass
        return deleted

    def put_user(self, user: User) -> None:
        """Adds or replaces a user, also one who was erased."""
        self._write("PUT", f"/v1/users/{quote(user.id, safe='')}", {"details": dict(user.details)})

    def get_user(self, user: str) -> tuple[User, list[Event]]:
        """The user and their events, oldest first."""
        found = self._send("GET", f"/v1/users/{quote(user, safe='')}")
        return User(found["id"], found["details"]), [_event(one) for one in found["events"]]

    def forget(self, user: str) -> bool:
        """Erases a user and their events; returns whether there was anything."""
        erased: bool = self._write("DELETE", f"/v1/users/{quote(user, safe='')}")["erased"]
        return erased

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The response as JSON."""
        return self._ask(method, path, body).json()

    def _write(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The response as JSON, with retries after a lost response."""
        return self._ask(method, path, body, again=True).json()

    @contextmanager
    def _open(self, path: str, body: Mapping[str, Any]) -> Iterator[httpx.Response]:
        """The response as a stream."""
        response = self._ask("POST", path, body, whole=False)
        try:
            yield response
        except httpx.HTTPError as error:
            raise ServiceError(f"the answer of {self._http.base_url} broke off ({error!r}); try again") from error
        finally:
            response.close()

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, whole: bool = True, again: bool = False
    ) -> httpx.Response:
        """The answer, read to its end if it is wanted whole; tries again where the service asks for it.

        ``again`` tells that it may also be sent again where no answer comes, as then it isn't known what was done.
        """
        wait_s = FIRST_WAIT_S
        for left in range(self._retries, -1, -1):
            try:
                response = self._http.send(self._http.build_request(method, path, json=body), stream=True)
                if whole or not response.is_success:
                    response.read()
                if response.is_success:
                    return response
            except httpx.HTTPError as error:
                if not (left and again and isinstance(error, LOST)):
                    raise ServiceError(
                        f"{self._http.base_url} doesn't answer ({error!r}); is `m6rec serve` up?"
                    ) from error
                time.sleep(min(wait_s * random.uniform(0.5, 1), self._max_wait_s))  # not all clients at once
                wait_s *= 2
                continue
            except (TypeError, ValueError) as error:
                raise ConfigError(f"the request can't be written as JSON ({error})") from error
            if response.status_code not in RETRIED or not left:
                break
            time.sleep(min(_seconds(response.headers.get("retry-after")), self._max_wait_s))
        raise _error(response)


def _event(found: Mapping[str, Any]) -> Event:
    return Event(**{**found, "context": tuple(sorted(found.get("context", {}).items()))})


def _body(event: Event) -> dict[str, Any]:
    """An event as JSON, with an id and without empty fields."""
    told = {field.name: getattr(event, field.name) for field in fields(event)}
    told |= {"id": event.id or uuid.uuid4().hex, "context": dict(event.context)}
    return {name: value for name, value in told.items() if value not in ("", None, {})}


def _history(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Events of a request's ``history`` as JSON."""
    return [{name: value for name, value in _body(event).items() if name not in ("user", "id")} for event in events]


def _answer(found: Mapping[str, Any]) -> Answer:
    return Answer(_ranked(found), found["timings_ms"], tuple(found["unknown"]))


def _filters(filters: Filters) -> dict[str, Any]:
    ranges = [
        {
            "name": name,
            "least": None if least == -math.inf else least,
            "greatest": None if greatest == math.inf else greatest,
        }
        for name, (least, greatest) in filters.ranges.items()
    ]
    return {
        "categories": list(filters.categories),
        "exclude_categories": list(filters.exclude_categories),
        "exclude": sorted(filters.exclude),
        "seen": filters.seen,
        "ranges": ranges,
    }


def _ranked(found: Mapping[str, Any]) -> list[Ranked]:
    return [Ranked(_item(row["item"]), row["score"]) for row in found["items"]]


def _item(found: Mapping[str, Any]) -> Item:
    return Item(**{**found, "categories": tuple(found["categories"])})


def _item_body(item: Item) -> dict[str, Any]:
    """An item as JSON."""
    return {**asdict(item), "categories": list(item.categories), "details": dict(item.details)}


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The data of server-sent events, up to the last one."""
    for line in response.iter_lines():
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            return
        if line:
            yield json.loads(data)


def _seconds(retry_after: str | None) -> float:
    """Seconds of a Retry-After header; 1 if it is a date or missing."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else 1.0


def _error(response: httpx.Response) -> M6RecError:
    try:
        said = response.json()["error"]
        kind, message = said["type"], f"{said['message']} (request {said['request_id']})"
    except (ValueError, KeyError, TypeError):
        kind, message = "", f"{response.url} answered {response.status_code}, not as m6rec does; check the URL"
    if kind == "not_found":
        return UnknownError(message)
    if response.is_client_error and response.status_code not in RETRIED:
        return ConfigError(message)
    return ServiceError(message, response.status_code)
