"""A domain: where a log comes from and how its items, users and behaviours are worded.

A new domain is one file with ``DOMAIN = Domain(...)``, used by its path (``shop.domains:DOMAIN``).
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from m6rec import assets, hooks
from m6rec.data.feedback import KINDS, Rule
from m6rec.data.log import Log
from m6rec.errors import ConfigError
from m6rec.language.lexicon import Vocabulary
from m6rec.text.verbalise import quote
from m6rec.types import Event, Feedback, Item, User


@dataclass(frozen=True, kw_only=True)
class Domain:
    """How one kind of log is read and worded; plain functions, no state.

    ``f"The user {action(event, item(...))}."`` is a sentence, and so is ``f"The user {action(event)}."``.

    Attributes:
        name: Its name in ``named``.
        noun: What an item is called; the plural adds an s.
        other_nouns: What else it is called.
        synonyms: Words that ask for one category, a tuple each; see ``Vocabulary``.
        assets: Names of the data sets that ``load`` reads; empty where the user brings the files.
        load: From the folders of the assets, in their order, or from the user's files to a log.
        item: A noun phrase for an item; ids never occur in it.
        user: A sentence about a user, "" if nothing is known.
        rating: What the value of an event says.
        happened: What a user did of whom no more is known, in the past; ``{}`` stands for the item.
        values: The least and the greatest value that an event can have.
        rule: What a prepared log counts as positive, in place of what ``rating`` and ``KINDS`` say.
    """

    name: str
    noun: str
    assets: tuple[str, ...]
    load: Callable[..., Log]
    item: Callable[[Item], str]
    user: Callable[[User], str]
    rating: Callable[[float], Feedback]
    happened: str
    values: tuple[float, float]
    rule: Rule | None = None
    other_nouns: tuple[str, ...] = ()
    synonyms: tuple[tuple[str, ...], ...] = ()

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that its items are talked about in."""
        return Vocabulary(nouns=(self.noun, *self.other_nouns), synonyms=self.synonyms)

    def feedback(self, event: Event) -> Feedback:
        """What an event says: by its value, else by its kind, else that it happened, which is positive."""
        if event.value is not None and event.kind in ("", "rating"):
            said = self.rating(event.value)
        elif event.kind:
            said = KINDS.get(event.kind) or Feedback(True, 0.75, f"did {quote(event.kind)} with {{}}")
        else:
            said = Feedback(True, 0.75, self.happened)
        return said if self.rule is None else replace(said, positive=self.rule.positive(event.kind, event.value))

    def positive(self, event: Event) -> bool:
        """Whether an event speaks for its item."""
        return self.feedback(event).positive is True

    def action(self, event: Event, item: str = "it") -> str:
        """What the user did, in the past, with its degree."""
        return self.feedback(event).words.replace("{}", item)


def names() -> tuple[str, ...]:
    """The domains that come with m6rec or with installed packages."""
    return tuple(hooks.DOMAINS.names())


def named(name: str, rule: Mapping[str, Any] | None = None) -> Domain:
    """The domain of a name, or of a path ``package.module:NAME``.

    Args:
        name: The name or path.
        rule: What a log of it counts as positive (``Rule.to_json``); None for what the domain says.

    Raises:
        ConfigError: There is no such domain; the message lists the names and the closest one.
    """
    domain = hooks.DOMAINS.find(name)
    if not isinstance(domain, Domain):
        raise ConfigError(f"{name!r} is a {type(domain).__name__}, not a Domain.")
    if rule is None:
        return domain
    given = Rule.from_json(rule)
    # The generic domain knows no scale of its own, so its words follow the rule too.
    return replace(domain, rule=given, rating=given.rating if domain.name == "generic" else domain.rating)


def titled(domain: Domain, item: Item) -> bool:
    """Whether an item has a title to name it by; where the domain doesn't word it, it is only an id."""
    return quote(item.title)[1:-1] in domain.item(item)


def load(domain: Domain, *paths: str | Path, offline: bool = False) -> Log:
    """The log of a domain.

    Args:
        domain: The domain.
        paths: The user's own files or folders, in place of the domain's assets.
        offline: Whether assets may only come from the cache.

    Raises:
        ConfigError: The domain has no data of its own and no path is given, or it takes fewer or more paths.
        AssetError: An asset can't be had.
        DataError: The data are malformed.
    """
    if not paths and not domain.assets:
        raise ConfigError(f"The domain {domain.name!r} has no data of its own; give the path of a file.")
    found = [*map(Path, paths)] or [assets.get(name, offline=offline) for name in domain.assets]
    try:
        inspect.signature(domain.load).bind(*found)
    except TypeError as error:
        raise ConfigError(f"The domain {domain.name!r} can't be read from {len(found)} paths: {error}.") from error
    return domain.load(*found)
