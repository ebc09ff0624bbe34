"""Items by the words of their titles and users by their ids, as one types them: an index in memory."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from itertools import count

from m6rec.types import Item

_WORD = re.compile(r"[^\W_]+")
_IDEOGRAPH = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff])")
"""Characters that are words of their own: nothing stands between them."""
_TABLES = """
CREATE VIRTUAL TABLE item USING fts5(id UNINDEXED, title, tokenize = 'unicode61 remove_diacritics 2', prefix = '1 2 3');
CREATE TABLE user (id TEXT PRIMARY KEY, folded TEXT NOT NULL);
CREATE INDEX by_folded ON user (folded);
"""


class SearchIndex:
    """A full-text index (SQLite's FTS5) of what is live. Not thread-safe.

    Args:
        items: The first items.
        users: Ids of the first users.
    """

    def __init__(self, items: Iterable[Item] = (), users: Iterable[str] = ()) -> None:
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.executescript(_TABLES)
        self._rows: dict[str, int] = {}
        self._numbers = count(1)
        self.put_items(items)
        self.put_users(users)

    def put_items(self, items: Iterable[Item]) -> None:
        """Adds items or replaces them."""
        newest = {item.id: item for item in items}
        self.remove_items(newest)
        self._rows |= dict(zip(newest, self._numbers, strict=False))
        rows = ((self._rows[one.id], one.id, _spaced(one.title)) for one in newest.values())
        with self._database:
            self._database.executemany("INSERT INTO item (rowid, id, title) VALUES (?, ?, ?)", rows)

    def remove_items(self, ids: Iterable[str]) -> None:
        """Takes items out, if they are there."""
        rows = [(self._rows.pop(item),) for item in ids if item in self._rows]
        with self._database:
            self._database.executemany("DELETE FROM item WHERE rowid = ?", rows)

    def put_users(self, users: Iterable[str]) -> None:
        """Adds users by their ids."""
        rows = ((user, user.casefold()) for user in users)
        with self._database:
            self._database.executemany("INSERT OR IGNORE INTO user VALUES (?, ?)", rows)

    def remove_user(self, user: str) -> None:
        """Takes a user out."""
        with self._database:
            self._database.execute("DELETE FROM user WHERE id = ?", (user,))

    def items(self, query: str, count: int) -> list[str]:
        """Ids of items with words that begin with those of the query, in the order in which they came; none for ""."""
        words = _WORD.findall(_spaced(query))
        if not words:
            return []
        match = "title : " + " AND ".join(f'"{word}"*' for word in words)
        found = self._database.execute("SELECT id FROM item WHERE item MATCH ? LIMIT ?", (match, count))
        return [item for (item,) in found]

    def users(self, prefix: str, count: int) -> list[str]:
        """Ids that begin with the prefix, in any case, in alphabetical order."""
        first = prefix.casefold()
        bounds = (first, first + "\U0010ffff", count)
        found = self._database.execute(
            "SELECT id FROM user WHERE folded >= ? AND folded < ? ORDER BY folded LIMIT ?", bounds
        )
        return [user for (user,) in found]


def _spaced(text: str) -> str:
    return _IDEOGRAPH.sub(r" \1 ", text)
