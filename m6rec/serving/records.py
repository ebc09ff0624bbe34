"""Records that are on disk when a call returns: JSON with the version of its schema, and a checksum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from m6rec.errors import DataError, StoreError
from m6rec.foundation.stores import seal, unseal

SCHEMA = 1
"""Goes up when a field is renamed or changes its meaning; a new field with a default needs no other."""


def pack(key: bytes, record: Mapping[str, Any], what: str) -> bytes:
    """The bytes to store under a key.

    Args:
        key: The key, which the checksum covers.
        record: Values that JSON has.
        what: What it is, for the error.

    Raises:
        DataError: A number is not finite, a text is not Unicode, or a value is of another type.
    """
    try:
        return seal(key, json.dumps({"schema": SCHEMA, **record}, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what} can't be stored ({error}); its fields must be finite numbers and texts of whole characters"
        ) from error


def unpack(key: bytes, stored: bytes, where: object) -> dict[str, Any]:
    """What ``pack`` was given.

    Args:
        key: As then.
        stored: What it returned.
        where: Where the record is kept, for the error.

    Raises:
        StoreError: It is damaged, or of another schema.
    """
    value = unseal(key, stored)
    if value is None:
        raise StoreError(f"record {key.hex()} in {where} is damaged; restore it from a backup")
    record: dict[str, Any] = json.loads(value)
    if (schema := record.pop("schema")) != SCHEMA:
        raise StoreError(
            f"record {key.hex()} in {where} has schema {schema}, this version reads {SCHEMA}; upgrade m6rec"
        )
    return record


def number_key(number: int) -> bytes:
    """A key that sorts by its number."""
    return number.to_bytes(8, "big")


def next_number(cursor: Any) -> int:
    """One more than the last key under the cursor; 0 if there is none."""
    return int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 0
