"""The contract, ``/openapi.json``: what FastAPI derives, with the fields of responses as they are sent."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from fastapi import FastAPI

Schema = dict[str, Any]


class Application(FastAPI):
    """An application whose contract says which fields of a response are always there.

    Pydantic declares a field with a default as optional, in responses too, and knows nothing of routes that omit nulls.

    Attributes:
        without_null: Operation ids of routes that leave out fields that are null.
    """

    without_null: Set[str] = frozenset()

    def openapi(self) -> Schema:
        """The contract, derived once."""
        if self.openapi_schema is None:
            _declare_as_sent(super().openapi(), self.without_null)
        return super().openapi()


def _declare_as_sent(document: Schema, without_null: Set[str]) -> None:
    schemas = document["components"]["schemas"]
    with_null: dict[str, bool] = {}
    for methods in document["paths"].values():
        for operation in methods.values():
            sends_null = operation["operationId"] not in without_null
            for name in _reached(operation["responses"], schemas):
                with_null[name] = with_null.get(name, False) or sends_null
    for name, sends_null in with_null.items():
        _require_fields(schemas[name], sends_null)


def _reached(node: Any, schemas: Schema) -> set[str]:
    """Names of the schemas that a part of the contract refers to, directly or through another schema."""
    found: set[str] = set()
    pending = list(_references(node))
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += _references(schemas[name])
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _require_fields(schema: Schema, sends_null: bool) -> None:
    """Requires all fields but those that are left out where they would be null; these are never null."""
    required = []
    for name, field in schema.get("properties", {}).items():
        kinds = field.get("anyOf", [])
        present = [kind for kind in kinds if kind != {"type": "null"}]
        if sends_null or len(present) == len(kinds):
            required.append(name)
        elif len(present) == 1:
            del field["anyOf"]
            field |= present[0]
        else:
            field["anyOf"] = present
    schema["required"] = required
