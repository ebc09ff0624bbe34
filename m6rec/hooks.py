"""Everything that a package may bring to m6rec, on one page: a hook for each kind of value.

A value of a hook has a name. The names below come with m6rec; an installed package adds its own as entry points ::

    [project.entry-points."m6rec.sources"]
    recent = "shop.recommender:RECENT"

a program adds one for itself by ``hooks.SOURCES.registered["recent"] = RECENT``, and wherever a name is asked for, a
path ``shop.recommender:RECENT`` does as well. Nothing is imported before it is used.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from m6rec.errors import ConfigError

ValueT = TypeVar("ValueT")


class Hook:
    """One kind of value that is looked up by name.

    Args:
        group: Of the entry points.
        what: What a value is called in messages.
        built_in: Paths ``package.module:NAME`` of those that come with m6rec, by name.

    Attributes:
        registered: Values of this process by name; one takes the place of any other of its name.
    """

    def __init__(self, group: str, what: str, built_in: Mapping[str, str]) -> None:
        self.group, self.registered = group, dict[str, Any]()
        self._what, self._paths = what, dict(built_in)
        self._built_in = tuple(built_in)

    def names(self) -> list[str]:
        """Of what comes with m6rec, of what installed packages bring, of what was registered."""
        return list(dict.fromkeys([*self._built_in, *self._installed(), *self.registered]))

    def find(self, name: str) -> Any:
        """The value of a name or path.

        Raises:
            ConfigError: There is none; the message lists the names and the closest one.
        """
        if name in self.registered:
            return self.registered[name]
        if name not in self._paths and ":" not in name:
            self._paths = self._installed() | self._paths  # not at each request
        path = self._paths.get(name, name)
        module, is_path, attribute = path.partition(":")
        if not is_path:
            close = difflib.get_close_matches(name, self.names(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            names = ", ".join(self.names())
            raise ConfigError(
                f"there is no {self._what} {name!r}.{hint} Known are {names}; your own is package.module:NAME."
            )
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{self._what} {name!r} can't be imported ({error}); give package.module:NAME") from error

    def find_kind(self, name: str, kind: type[ValueT]) -> ValueT:
        """``find``, where the value has to be of a class. Raises ConfigError where it is of another."""
        value = self.find(name)
        if not isinstance(value, kind):
            wanted = f"{kind.__module__.removeprefix('m6rec.')}.{kind.__name__}"
            raise ConfigError(f"{name!r} is a {type(value).__name__}, not a {self._what} ({wanted})")
        return value

    def all(self) -> dict[str, Any]:
        """Every value that has a name. Raises ConfigError where one can't be imported."""
        return {name: self.find(name) for name in self.names()}

    def _installed(self) -> dict[str, str]:
        return {point.name: point.value for point in entry_points(group=self.group)}


_DOMAINS = "movielens books clothes instruments amazon steam yelp mind peter xrec redial generic".split()
DOMAINS = Hook("m6rec.domains", "domain", {name: f"m6rec.domains.{name}:DOMAIN" for name in _DOMAINS})
"""``domains.domain.Domain``: how a log is read and worded."""

_TASKS = "like rating click ctr retrieve explain design query reply".split()
TASKS = Hook(
    "m6rec.tasks",
    "task",
    {name: f"m6rec.tasks.{name}:TASK" for name in _TASKS} | {"explain": "m6rec.tasks.explanations:TASK"},
)
"""``tasks.task.Task``: how a question is worded and labelled, and what is read of the model."""

_METHODS = "prompt option adapter option-adapter lora head upper full".split()
METHODS = Hook(
    "m6rec.methods",
    "tuning method",
    {name: f"m6rec.adapters.methods:{name.upper().replace('-', '_')}" for name in _METHODS},
)
"""``adapters.methods.Method``: which small parameters a tuning trains, and where they act."""

SOURCES = Hook(
    "m6rec.sources",
    "candidate source",
    {
        "ials": "m6rec.retrieval.sources:ials",
        "next-item": "m6rec.retrieval.sources:next_item",
        "ease": "m6rec.retrieval.sources:ease",
    },
)
"""``retrieval.sources.Source``: an item-item model of the blend; every one is fitted and weighed."""

REDIS = ("redis", "rediss", "unix")
"""Schemes of the URLs of a Redis or Valkey server."""
STATE_STORES = Hook("m6rec.state_stores", "state store", dict.fromkeys(REDIS, "m6rec.foundation.stores:RedisStore"))
"""Scheme of a URL → from the URL to a ``foundation.stores.Store`` of cached states."""

JOURNALS = Hook("m6rec.journals", "journal", dict.fromkeys(REDIS, "m6rec.serving.redis_journal:RedisJournal"))
"""Scheme of a URL → from the URL to a ``serving.journal.Journal`` of events; one of a package notes whose it is."""
