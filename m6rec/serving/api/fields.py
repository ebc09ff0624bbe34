"""The values that bodies are made of: ids, texts, times and details, read as a table of a log is (``data.rows``)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from html import unescape
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from m6rec.data.feedback import kind_of
from m6rec.data.schema import Limits
from m6rec.types import Value

_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)  # Unicode's
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ENTITY = re.compile(r"&(#\d+|#x[0-9a-fA-F]+|[a-zA-Z]+);", re.ASCII)
_TIMES = "seconds since 1970 (milliseconds, microseconds and nanoseconds are known by their size), or ISO 8601"


def validation_error(clause: str) -> PydanticCustomError:
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
    name = unicodedata.normalize("NFC", value).strip(_SPACE)
    if not name:
        raise validation_error("is blank; give an id")
    if _CONTROL.search(name):
        raise validation_error("holds a control character, which no id can")
    if len(name) > Limits.ID_CHARS:
        raise validation_error(f"has {len(name)} characters; an id may have {Limits.ID_CHARS}")
    return name


def _tidy(value: str) -> str:
    """Text as a person reads it: composed, without white space around it, HTML entities and control characters."""
    text = unicodedata.normalize("NFC", value.strip(_SPACE))
    if _ENTITY.search(text):
        text = unescape(text)
    return _UNREADABLE.sub(" ", text).strip(_SPACE) if _UNREADABLE.search(text) else text


def _title(value: str) -> str:
    title = _tidy(value)
    if not title:
        raise validation_error("is blank; an item needs a title that can be read")
    return title


def _categories(value: list[str]) -> list[str]:
    names = [name for one in value if (name := one.strip(_SPACE))]
    longest = max(map(len, names), default=0)
    if longest > Limits.CATEGORY_CHARS:
        raise validation_error(f"holds {longest} characters in one; a category may have {Limits.CATEGORY_CHARS}")
    return names


def _said(value: str) -> str:
    """What a user wrote, to the letter; "" where that is blank."""
    return value if value.strip(_SPACE) else ""


def _kind(value: str) -> str:
    return kind_of(_tidy(value))


def _time(value: object) -> int:
    """Whole seconds since 1970 (UTC)."""
    seconds: float
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise validation_error(f"is no time; send {_TIMES}, such as 2020-09-13T12:26:40Z") from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
        for _ in range(3):
            if seconds > Limits.TIME:
                seconds = seconds // 1_000 if isinstance(seconds, int) else seconds / 1_000
    else:
        raise validation_error(f"is no time; send {_TIMES}")
    if not 0 <= seconds <= Limits.TIME:
        raise validation_error(f"is before 1970 or after 2261; send {_TIMES}")
    return int(seconds)


def _details(value: object) -> dict[str, Value]:
    """Numbers and texts by name: true is 1, a list is its members after commas, what is null or blank is left out."""
    if not isinstance(value, dict):
        raise validation_error("must be an object of texts and numbers by name")
    if len(value) > Limits.NUM_DETAILS:
        raise validation_error(f"has {len(value)} names; {Limits.NUM_DETAILS} are allowed")
    read = {_name(name): _detail(name, one) for name, one in value.items()}
    return {name: one for name, one in read.items() if one is not None and one != ""}


def _name(value: str) -> str:
    name = value.strip(_SPACE)
    if not name or len(name) > Limits.KIND_CHARS or _CONTROL.search(name):
        raise validation_error(
            f"has a name that is blank, holds a control character or is longer than {Limits.KIND_CHARS}"
        )
    return name


def _detail(name: str, value: object) -> Value | None:
    match value:
        case None:
            return None
        case bool():
            return int(value)
        case int() | float() if abs(value) <= Limits.NUMBER:
            return value
        case float():
            raise validation_error(f"holds a number under {name!r} beyond 2^53; send it as a text")
        case int() | str():
            text = _tidy(str(value))
        case list() if all(isinstance(_whole(one), str | int | None) for one in value):
            said = (str(one).lower() if isinstance(one, bool) else str(_whole(one)) for one in value if one is not None)
            text = _tidy(", ".join(said))
        case _:
            raise validation_error(
                f"holds an object, or a list of lists or decimals, under {name!r}, which can't be worded; "
                "send texts, numbers, or lists of texts"
            )
    if len(text) > Limits.TEXT_CHARS:
        raise validation_error(f"holds {len(text)} characters under {name!r}; {Limits.TEXT_CHARS} are allowed")
    return text


WHOLE = BeforeValidator(_whole)
_PLAIN = "[^\\u0000-\\u001f\\u007f]*"
_NAMED = f"{_PLAIN}[^\\s\\u0000-\\u001f\\u007f]{_PLAIN}"
# The limits are told in the schema and checked when white space is gone.
Id = Annotated[
    str,
    AfterValidator(_id),
    Field(json_schema_extra={"minLength": 1, "maxLength": Limits.ID_CHARS, "pattern": f"^{_NAMED}$"}),
]
MaybeId = Annotated[
    str,
    AfterValidator(lambda value: value and _id(value)),
    Field(json_schema_extra={"maxLength": Limits.ID_CHARS, "pattern": f"^({_NAMED})?$"}),
]
"""An id, or "" for none."""
Title = Annotated[
    str,
    Field(max_length=Limits.TITLE_CHARS),
    AfterValidator(_title),
    Field(json_schema_extra={"pattern": "[^\\s\\u0000-\\u001f\\u007f]"}),
]
Text = Annotated[str, Field(max_length=Limits.TEXT_CHARS), AfterValidator(_said)]
EventKind = Annotated[str, Field(max_length=Limits.KIND_CHARS), AfterValidator(_kind)]
Categories = Annotated[
    list[Annotated[str, Field(json_schema_extra={"maxLength": Limits.CATEGORY_CHARS})]],
    Field(max_length=Limits.NUM_CATEGORIES),
    AfterValidator(_categories),
]
Number = Annotated[float, Field(ge=-Limits.NUMBER, le=Limits.NUMBER)]
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
        {"type": "string", "maxLength": Limits.TEXT_CHARS},
        {"type": "number", "minimum": -Limits.NUMBER, "maximum": Limits.NUMBER},
        {"type": "boolean"},
        {"type": "null"},
    ]
}
_MEMBER = {"anyOf": [{"type": "string", "maxLength": 100}, {"type": "integer"}, {"type": "boolean"}, {"type": "null"}]}
_DETAIL_NAME = {"minLength": 1, "maxLength": Limits.KIND_CHARS, "pattern": f"^{_NAMED}$"}
DetailName = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", **_DETAIL_NAME})]
Details = Annotated[
    dict[str, Any],
    BeforeValidator(_details),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": Limits.NUM_DETAILS,
            "propertyNames": _DETAIL_NAME,
            "additionalProperties": {"anyOf": [*_CELL["anyOf"], {"type": "array", "items": _MEMBER, "maxItems": 100}]},
        }
    ),
]
"""What a domain can word: year, price, author, description; of a user, age or place; of an event, weather or device."""
