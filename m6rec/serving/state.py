"""What answers are made from: the items, users and events of now, and the models that read them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property

from m6rec.errors import UnknownError
from m6rec.features.interactions import InteractionStore
from m6rec.language.lexicon import Lexicon
from m6rec.readouts import EmbedModel, ScoreModel
from m6rec.serving.admission import Admission
from m6rec.serving.creating import Creator
from m6rec.serving.documents import Documents
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.kv_cache_pool import KVCachePool
from m6rec.serving.search import SearchIndex
from m6rec.serving.text_model_pool import TextModelPool
from m6rec.tasks import task as tasks
from m6rec.text.batch import Example
from m6rec.types import Event, Item, User


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """The models that answer, and what is made of them; others are put in place as a whole."""

    retrieve: EmbedModel
    rank: ScoreModel
    index: ItemIndex
    ranking: KVCachePool
    documents: Documents
    writers: TextModelPool
    creator: Creator
    admission: Admission

    @cached_property
    def rank_identity(self) -> dict[str, str]:
        """Digests of what ranks: ``model``, ``tuning``, ``wording`` and ``features``, as in a device's manifest."""
        made_from = self.rank.fingerprint()
        return {
            "model": made_from.foundation,
            "tuning": self.rank.adapter.digest(),
            "wording": made_from.wording,
            "features": made_from.features,
        }


@dataclass(kw_only=True, eq=False)
class ServingState:
    """What answers are made from. It changes between two requests and never within one.

    Attributes:
        items: By id, deleted ones too: histories still name them.
        live: By id, those that may be recommended.
        users: By id, those whom something is known of.
        interactions: What they did.
        lexicon: The names of what is live.
        search: Finds what is live and who is known.
        latest: How many behaviours of a user are read.
        num_retrieved: How many items are ranked.
        models: What reads all this.
    """

    items: dict[str, Item]
    live: dict[str, Item]
    users: dict[str, User]
    interactions: InteractionStore
    lexicon: Lexicon
    search: SearchIndex
    latest: int
    num_retrieved: int
    models: Models = field(init=False)

    def user(self, user: str) -> User:
        """The user; one of whom nothing is known has no details."""
        return self.users.get(user) or User(user)

    def need(self, items: Sequence[str], advice: str) -> None:
        """Raises UnknownError where none of the items is in the catalogue."""
        if items and not any(item in self.live for item in items):
            raise UnknownError(f"there is no item {items[0]!r} in the catalogue of {len(self.live)}; {advice}")

    def having_done(self, user: str, history: Sequence[Event]) -> AbstractContextManager[None]:
        """As if the user had done this as well. Items that nobody knows are left out; DataError as for any event."""
        now = self.interactions.time
        told = []
        for event in history:
            if not event.item or event.item in self.items:
                told.append(replace(event, user=user or "someone", time=event.time or now))
                self.models.admission.event(told[-1], self.items.get(event.item))
        return self.interactions.overlay(user, told)

    def asked(self, task: ScoreModel, user: str, items: Sequence[Item]) -> Example:
        """What the task is asked of the user and the items now."""
        return tasks.ask(
            task.task, self.interactions, self.user(user), items, task.domain, self.items, latest=self.latest
        )
