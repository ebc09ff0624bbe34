"""What goes wrong, as an answer: one status, one type, one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from m6rec.errors import ConfigError, DataError, M6RecError, StoreError, UnknownError
from m6rec.serving.api.schema import ErrorAnswer, Problem
from m6rec.serving.batching import OverloadedError

RETRY_S = 1
INTERNAL = "the service failed; its log has the reason under this request id"
_SHOWN_CHARS = 40  # of a value that was refused


class DeadlineError(M6RecError):
    """The work did not begin in time; nothing was done."""


class ReloadError(M6RecError):
    """The new tunings can't be served; the old ones still are."""


# The first class that fits gives status and type.
_PROBLEMS: tuple[tuple[type[Exception], int, str], ...] = (
    (OverloadedError, 429, "overloaded"),
    (DeadlineError, 503, "deadline"),
    (StoreError, 503, "store"),
    (ReloadError, 409, "reload"),
    (UnknownError, 404, "not_found"),
    (DataError, 422, "invalid"),
    (ConfigError, 422, "invalid"),
)
TYPES = {400: "malformed", 401: "unauthorised", 403: "forbidden", 404: "not_found", 405: "method", 408: "slow_body"}
TYPES |= {413: "too_large", 422: "invalid", 429: "overloaded"}


def problem(scope: Scope, status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says what went wrong."""
    scope["problem"] = kind
    retry = {"Retry-After": str(RETRY_S)} if status in (429, 503) else {}
    body = ErrorAnswer(error=Problem(type=kind, message=message, request_id=scope["request_id"]))
    return JSONResponse(body.model_dump(), status, {**retry, **(headers or {})})


async def problem_of(request: Request, error: Exception) -> JSONResponse:
    """The answer to a request that ended with an error."""
    if isinstance(error, HTTPException):
        kind = TYPES.get(error.status_code, "refused")
        return problem(request.scope, error.status_code, kind, error.detail, dict(error.headers or {}))
    if isinstance(error, RequestValidationError):
        return problem(request.scope, 422, "invalid", error_message(error.errors()))
    for kind_of_error, status, kind in _PROBLEMS:
        if isinstance(error, kind_of_error):
            return problem(request.scope, status, kind, str(error))
    return problem(request.scope, 500, "internal", INTERNAL)


def error_message(errors: Any) -> str:
    """What is wrong with a body: its first fault, as what was given and what is allowed, and how many more there are.

    Args:
        errors: As ``pydantic.ValidationError.errors`` gives them.
    """
    # Of a union pydantic tells every member's fault, and names the member after the field.
    places = [_place(error["loc"]) for error in errors]
    first, where = errors[0], places[0]
    others = len(dict.fromkeys(places)) - 1
    more = f" ({others} more {'is' if others == 1 else 'are'} wrong)" if others else ""
    return f"{where}{_fault(first)}{more}"


def _place(loc: tuple[str | int, ...]) -> str:
    """A path as people write it, such as ``events[3].time``."""
    path = ""
    for part in loc[1:] if loc[:1] in (("body",), ("path",), ("header",)) else loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            path += f".{part}" if path else part
        else:  # a member of a union, or a key that nobody would name so
            break
    return path[:100] or "the body"


def _fault(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "missing":
            return " is missing"
        case "extra_forbidden":
            return " is not a field of this request"
        case "named":  # by one of our own checks, as a whole clause
            return f" {error['msg']}"
        case "model_attributes_type" | "model_type":
            return f" is {_given(error.get('input'))}; it must be an object"
    wanted = re.sub(r"^(Input|String|List|Dictionary|Value|Tuple) should ", "must ", error["msg"])
    return f" is {_given(error.get('input'))}; it {wanted[:200]}"


def _given(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str() if len(value) > _SHOWN_CHARS:
            return f"a text of {len(value)} characters"
        case str():
            return f"the text {value!r}"
        case int() | float():
            shown = f"{value:.6g}" if isinstance(value, float) else str(value) if abs(value) < 10**20 else "huge"
            return f"the number {shown}"
        case list():
            return f"a list of {len(value)}"
    return "an object"
