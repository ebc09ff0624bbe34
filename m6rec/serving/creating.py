"""What a user would like to read: a product designed for them, a query that they would type, copy for an item.

Several texts are drawn and taken in the order of their likelihood, without those that ``language.safety``, the
catalogue or the gate of ``language.faithfulness`` refuses. Where none is left, a text without a model stands in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m6rec.domains.domain import titled
from m6rec.errors import ConfigError, UnknownError
from m6rec.features.interactions import InteractionStore
from m6rec.foundation.generate import Generated, Sampling
from m6rec.language.safety import Blocklist, safety_violation
from m6rec.readouts import ScoreModel
from m6rec.serving.backend import GenerationRequest, GenerationResult, Writing
from m6rec.serving.explaining import choose_words, reasons_for, unfaithful
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.text_model_pool import TextModelPool
from m6rec.tasks import design, headline, query, writing
from m6rec.tasks.task import named
from m6rec.text.constraints import Constraint, Series, TitleTrie, Unquoted
from m6rec.types import Draft, Event, Item, User

NUM_SPARE = 4
"""Texts drawn beyond those asked for, to stand in for refused ones."""
MAX_TOKENS = 48
DRAWING = Sampling(max_tokens=MAX_TOKENS, temperature=0.8, top_p=0.95)

Wrong = Callable[[str], str | None]


@dataclass(frozen=True, kw_only=True)
class GenerationContext:
    """A request for texts.

    Attributes:
        request: What is asked for.
        user: For whom.
        history: Their events, oldest first.
        items: By id, those of the history and those deleted.
        live: By id, those that may be named.
        categories: All of the catalogue, ``design.OTHER`` among them where an item has none.
    """

    request: GenerationRequest
    user: User
    history: Sequence[Event]
    items: dict[str, Item]
    live: Mapping[str, Item]
    categories: Sequence[str]


class Creator:
    """Creates texts on one foundation.

    Args:
        rank: The tuned ranking task, which weighs the reasons of headlines.
        index: The items' index, which weighs them too.
        writers: Who writes.
        blocked: What no text may hold.
    """

    def __init__(self, rank: ScoreModel, index: ItemIndex, writers: TextModelPool, blocked: Blocklist) -> None:
        self._rank, self._index, self._writers, self._blocked = rank, index, writers, blocked

    def create(
        self, asked: GenerationContext, interactions: InteractionStore, recommended: Callable[[str], Iterable[Item]]
    ) -> Writing[list[GenerationResult]]:
        """See ``Backend.create``; in slices.

        Args:
            asked: The request.
            interactions: Everything observed so far.
            recommended: Items for the user, the best first, of a category or ("") of all.
        """
        if asked.request.kind == "headline":
            return self._headlines(asked, interactions)
        return self._designs(asked, recommended) if asked.request.kind == "design" else self._queries(asked)

    def _designs(
        self, asked: GenerationContext, recommended: Callable[[str], Iterable[Item]]
    ) -> Writing[list[GenerationResult]]:
        domain, given = self._rank.domain, asked.request.category or ""
        if not any(titled(domain, item) for item in asked.live.values()):
            raise ConfigError(
                f"no {domain.noun} of the catalogue has a title, so none can be designed; ask for a headline"
            )
        names = [name for name in asked.categories if not self._blocked.holds(name)]
        if given and given not in names:
            raise UnknownError(
                f"there is no category {given!r} among the {len(names)} of the catalogue; check its name"
            )
        if asked.request.catalogue:
            return (yield from self._named(asked, recommended(given), {given} if given else set(names)))
        tokenizer = self._rank.foundation.tokenizer
        opened: list[Constraint[Any]] = [] if given else [TitleTrie(tokenizer, [design.target(name) for name in names])]
        constraint = Series([*opened, Unquoted(tokenizer), TitleTrie(tokenizer, ['"'])])
        wrong = self._wrong(asked, design.LONGEST)
        written = yield from self._write(asked, design.prompt(domain, given), constraint)
        found, rejected = _pass(written, lambda text: wrong(design.read(text, given)[1]), asked.request.count)
        if not found:
            liked = given or next((name for name in self._liked(asked) if name in names), names[0])
            return [GenerationResult(f"Untitled {domain.noun}", "template", liked, None, rejected)]
        return [
            GenerationResult(title, "model", category, None, before)
            for text, before in found
            for category, title in [design.read(text, given)]
        ]

    def _named(
        self, asked: GenerationContext, items: Iterable[Item], names: Collection[str]
    ) -> Writing[list[GenerationResult]]:
        """Designs that exist: the model chooses among items recommended to the user, of these categories."""
        given, domain = asked.request.category or "", self._rank.domain
        texts: dict[str, Item] = {}
        for item in items:
            if self._blocked.holds(item.title):  # it is nobody's secret, but it may be blocked
                continue
            for name in design.categories(item):
                if name in names:
                    texts.setdefault(design.closed(item.title) if given else design.target(name, item.title), item)
        if not texts:
            of = f" of category {given!r}" if given else ""
            raise UnknownError(
                f"there is no {domain.noun}{of} left that the user has not met and that may be named; ask for another "
                "category, or without the catalogue"
            )
        constraint = TitleTrie(self._rank.foundation.tokenizer, texts)
        written = yield from self._write(asked, design.prompt(domain, given), constraint)
        found, rejected = _pass(written, lambda text: None, asked.request.count)
        if not found:
            best = list({item.id: item for item in texts.values()}.values())[: asked.request.count]
            return [
                GenerationResult(item.title, "template", given or design.categories(item)[0], item.id, rejected)
                for item in best
            ]
        return [
            GenerationResult(texts[text].title, "model", design.read(text, given)[0], texts[text].id, before)
            for text, before in found
        ]

    def _queries(self, asked: GenerationContext) -> Writing[list[GenerationResult]]:
        wrong = self._wrong(asked, query.LONGEST)
        tokenizer = self._rank.foundation.tokenizer
        constraint = Series([Unquoted(tokenizer), TitleTrie(tokenizer, ['"'])])
        written = yield from self._write(asked, query.prompt(), constraint)
        found, rejected = _pass(written, lambda text: wrong(_unclosed(text)), asked.request.count)
        if found:
            return [GenerationResult(_unclosed(text), "model", rejected=before) for text, before in found]
        noun = f"{self._rank.domain.noun}s"
        texts = [text for name in self._liked(asked) if wrong(text := f"{name.lower()} {noun}") is None]
        return [
            GenerationResult(text, "template", rejected=rejected) for text in (texts or [noun])[: asked.request.count]
        ]

    def _headlines(self, asked: GenerationContext, interactions: InteractionStore) -> Writing[list[GenerationResult]]:
        assert asked.request.item is not None
        item = asked.live[asked.request.item]
        context, chosen = reasons_for(self._rank, self._index, interactions, asked.user, item, asked.items)
        drafts = [Draft(context, headline.prompt(item, self._rank.domain))] * len(chosen)
        written = yield from choose_words(self._writers, asked.request.kind, drafts, chosen)
        private = self._private(asked.user)
        created = list[GenerationResult]()
        for statement, text in zip(chosen[: asked.request.count], written, strict=False):
            options = {
                headline.copy(text.text, item): "the sentence has no end"
                if text.finish_reason != "stop"
                else unfaithful(text.text, statement, item),
                headline.copy(statement.text, item): None,
            }
            rejected = list[str]()
            for place, (copy, wrong) in enumerate(options.items()):
                wrong = wrong or safety_violation(
                    copy, longest=headline.LONGEST, blocked=self._blocked, private=private
                )
                if wrong is None:
                    made = GenerationResult(
                        copy, "template" if place else "model", item=item.id, rejected=tuple(rejected)
                    )
                    created.append(made)
                    break
                rejected.append(wrong)
        if created:
            return created
        plain = headline.plain(item)
        wrong = safety_violation(plain, longest=headline.LONGEST, blocked=self._blocked)
        return [GenerationResult(plain if wrong is None else "Picked for you.", "template", item=item.id)]

    def _write(self, asked: GenerationContext, prompt: str, constraint: Constraint[Any]) -> Writing[list[Generated]]:
        """Different texts for the user, the likeliest by the token first."""
        task, domain = named(asked.request.kind), self._rank.domain
        draft = writing.draft(task, asked.history, asked.user, domain, asked.items, prompt)
        count = asked.request.count + NUM_SPARE
        drawn = yield from self._writers.write(asked.request.kind, [draft] * count, DRAWING, [constraint] * count)
        written = {one.text: one for one in drawn}
        return sorted(written.values(), key=lambda one: -one.log_probability / (len(one.ids) + 1))

    def _private(self, user: User) -> list[str]:
        return [user.id, *map(str, user.details.values()), self._rank.domain.user(user)]

    def _wrong(self, asked: GenerationContext, longest: int) -> Wrong:
        """Why a text that is new must not be shown to the user."""
        private = self._private(asked.user)
        taken = {asked.items[event.item].title for event in asked.history}
        return lambda text: safety_violation(text, longest=longest, blocked=self._blocked, private=private, taken=taken)

    def _liked(self, asked: GenerationContext) -> list[str]:
        """Categories by how many likes the user has of them, most first."""
        likes = (asked.items[event.item] for event in asked.history if self._rank.domain.positive(event))
        return [name for name, _ in Counter(name for item in likes for name in item.categories).most_common()]


def _pass(
    written: Sequence[Generated], wrong: Wrong, count: int
) -> tuple[list[tuple[str, tuple[str, ...]]], tuple[str, ...]]:
    """(the first texts that nothing is wrong with, each with why those before it were refused; the refusals left)."""
    found, rejected = list[tuple[str, tuple[str, ...]]](), list[str]()
    for one in written:
        if len(found) == count:
            break
        why = "it has no end" if one.finish_reason != "stop" else wrong(one.text)
        if why is None:
            found.append((one.text, tuple(rejected)))
            rejected = []
        else:
            rejected.append(why)
    return found, tuple(rejected)


def _unclosed(text: str) -> str:
    """A query without the quotation mark at its end."""
    return text.removesuffix('"').strip()
