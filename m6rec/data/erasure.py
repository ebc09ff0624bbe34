"""Users who were forgotten: left out of a log, and remembered without their ids so that they stay out of the next."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from m6rec import files
from m6rec.data.log import Log
from m6rec.errors import DataError

FILE = "forgotten.json"
"""Beside the folder of a prepared log, so that it outlives the folder's being made anew."""
REASON = "events: of a user who was forgotten"


class Forgotten:
    """Keyed hashes of users who were forgotten, in a file that tells of an id only whether it is one of them.

    Args:
        folder: Where the file is, or will be.

    Raises:
        DataError: The file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._key, self._digests = secrets.token_hex(32), set[str]()
        if self._file.exists():
            try:
                found = json.loads(self._file.read_text())
                self._key, self._digests = str(found["key"]), set(found["users"])
                bytes.fromhex(self._key)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self._file} is damaged ({error}); restore it from a backup, as without it users who were "
                    "forgotten would come back"
                ) from error

    def add(self, user: str) -> None:
        """Takes in a user; on return that is on disk."""
        self._digests.add(self._digest(user))
        files.write(self._file, json.dumps({"key": self._key, "users": sorted(self._digests)}, indent=1) + "\n")

    def among(self, users: Collection[str]) -> set[str]:
        """Those of the users who were forgotten."""
        return {user for user in users if self._digest(user) in self._digests} if self._digests else set()

    def _digest(self, user: str) -> str:
        key = bytes.fromhex(self._key)
        return hashlib.blake2b(user.encode(errors="surrogatepass"), digest_size=16, key=key).hexdigest()


def without(log: Log, gone: Mapping[str, float]) -> Log:
    """The log without some users and what they did, which is counted; items that nobody else met stay.

    Args:
        log: The log.
        gone: When each of the users was forgotten, in seconds since 1970: what is told of them later stays.
    """
    if not gone:
        return log
    events = tuple(event for event in log.events if event.user not in gone or event.time > gone[event.user])
    known = {name: user for name, user in log.users.items() if name not in gone}
    if len(events) == len(log.events) and len(known) == len(log.users):
        return log
    dropped = {**log.dropped, REASON: log.dropped.get(REASON, 0) + len(log.events) - len(events)}
    return replace(log, events=events, users=known, dropped=dropped)
