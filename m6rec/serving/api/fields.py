"""The values that bodies are made of: ids, texts, times and details, read as a log's table is read."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from m6rec.serving.settings import (
    MAX_FIELDS,
    MAX_ID_CHARS,
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    MAX_TITLE_CHARS,
)
from m6rec.types import Value

LARGEST = 2**53  # integers up to here are the same in every JSON reader
LATEST_S = 9_214_646_400  # the start of the year 2262: nanoseconds fit in 64 bits up to there
_TIMES = "seconds since 1970 (milliseconds, microseconds and nanoseconds are known by their size), or ISO 8601"


def fault(clause: str) -> PydanticCustomError:
    """An error whose message follows the name of the field, such as ``is blank``."""
    return PydanticCustomError("named", "{clause}", {"clause": clause})


def example(schema: Mapping[str, Any] | None = None, /, **value: Any) -> ConfigDict:
    """Strict: no field that isn't known, no value of another type, no number that isn't finite.

    Args:
        schema: What the JSON schema says besides.
        value: The example.
    """
    extra: dict[str, Any] = {"examples": [value], **(schema or {})}
    return ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra=extra)


def _whole(value: object) -> object:
    """JSON has one kind of number: 3.0 is the integer 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _id(value: str) -> str:
    """Without white space around it and with composed characters, so that one id is written in one way."""
    name = unicodedata.normalize("NFC", value).strip()
    if not name:
        raise fault("is blank; give an id")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise fault("holds a control character, which no id can")
    if len(name) > MAX_ID_CHARS:
        raise fault(f"has {len(name)} characters; an id may have {MAX_ID_CHARS}")
    return name


def _title(value: str) -> str:
    title = value.strip()
    if not title:
        raise fault("is blank; an item needs a title that can be read")
    return title


def _time(value: object) -> int:
    """Whole seconds since 1970 (UTC)."""
    seconds: float
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise fault(f"is no time; send {_TIMES}, such as 2020-09-13T12:26:40Z") from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
        for _ in range(3):
            if seconds > LATEST_S:
                seconds = seconds // 1_000 if isinstance(seconds, int) else seconds / 1_000
    else:
        raise fault(f"is no time; send {_TIMES}")
    if not 0 <= seconds <= LATEST_S:
        raise fault(f"is before 1970 or after 2261; send {_TIMES}")
    return int(seconds)


def _details(value: object) -> dict[str, Value]:
    """Numbers and texts by name: true is 1, a list is its members after commas, what is null or empty is left out."""
    if not isinstance(value, dict):
        raise fault("must be an object of texts and numbers by name")
    if len(value) > MAX_FIELDS:
        raise fault(f"has {len(value)} names; {MAX_FIELDS} are allowed")
    read = {_name(name): _detail(name, one) for name, one in value.items()}
    return {name: one for name, one in read.items() if one is not None and one != ""}


def _name(value: str) -> str:
    name = unicodedata.normalize("NFC", value).strip()
    if not name or len(name) > MAX_NAME_CHARS or any(unicodedata.category(letter) == "Cc" for letter in name):
        raise fault(f"has a name that is blank, holds a control character or is longer than {MAX_NAME_CHARS}")
    return name


def _detail(name: str, value: object) -> Value | None:
    match value:
        case None | str():
            text = value
        case bool():
            return int(value)
        case int() | float():
            if abs(value) > LARGEST:
                raise fault(f"holds a number under {name!r} beyond 2^53; send it as a text")
            return value
        case list() if all(isinstance(one, str | int | float | None) for one in value):
            text = ", ".join(str(int(one) if isinstance(one, bool) else one) for one in value if one is not None)
        case _:
            raise fault(f"holds an object or a list of lists under {name!r}; send texts, numbers, or lists of them")
    if text is not None and len(text) > MAX_TEXT_CHARS:
        raise fault(f"holds {len(text)} characters under {name!r}; {MAX_TEXT_CHARS} are allowed")
    return text


WHOLE = BeforeValidator(_whole)
_PLAIN = "[^\\u0000-\\u001f\\u007f-\\u009f]*"
_NAMED = f"{_PLAIN}[^\\s\\u0000-\\u001f\\u007f-\\u009f]{_PLAIN}"
# The limits are told in the schema and checked when white space is gone.
Id = Annotated[
    str,
    AfterValidator(_id),
    Field(json_schema_extra={"minLength": 1, "maxLength": MAX_ID_CHARS, "pattern": f"^{_NAMED}$"}),
]
MaybeId = Annotated[
    str,
    AfterValidator(lambda value: value and _id(value)),
    Field(json_schema_extra={"maxLength": MAX_ID_CHARS, "pattern": f"^({_NAMED})?$"}),
]
"""An id, or "" for none."""
Title = Annotated[
    str, Field(max_length=MAX_TITLE_CHARS), AfterValidator(_title), Field(json_schema_extra={"pattern": "\\S"})
]
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
_MOMENT = (
    "^(19[7-9][0-9]|20[0-9][0-9]|21[0-9][0-9]|22[0-5][0-9])-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"
)  # one way of ISO 8601; the others are read too
Time = Annotated[
    int,
    BeforeValidator(_time),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 0, "maximum": 9.2e18}, {"type": "string", "pattern": _MOMENT}],
            "description": f"When it was: {_TIMES}.",
        }
    ),
]
_CELL: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_TEXT_CHARS},
        {"type": "number", "minimum": -LARGEST, "maximum": LARGEST},
        {"type": "boolean"},
        {"type": "null"},
    ]
}
Details = Annotated[
    dict[str, Any],
    BeforeValidator(_details),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_FIELDS,
            "propertyNames": {"minLength": 1, "maxLength": MAX_NAME_CHARS, "pattern": f"^{_NAMED}$"},
            "additionalProperties": {"anyOf": [*_CELL["anyOf"], {"type": "array", "items": _CELL, "maxItems": 100}]},
        }
    ),
]
"""What a domain can word: year, price, author, description; of a user, age or place; of an event, weather or device."""
