"""Explanations: rationales with evidence first, wording second.

A rationale is derived from the history at the time of the explanation. Its evidence is the user's own events, counts
over at least ``MIN_PEOPLE`` other users, or sentences of the item's reviews; it identifies no other user.

Rationales are ranked by counterfactual: the share of the prediction and of the retrieval score that is lost without
the evidence (``without``, ``likes_without``). So the first reason is the one that influenced both models most;
likelihood of the text would measure fluency, and support would measure truth. Ties, as for reviews, which no model
reads here, are broken by support.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from m6rec.domains.domain import Domain
from m6rec.features.interactions import FEATURES, InteractionStore
from m6rec.language.faithfulness import harmless
from m6rec.language.opinions import Statement
from m6rec.text.batch import Example
from m6rec.text.verbalise import listed, quote
from m6rec.types import Event, Item

Kind = Literal["history", "similar", "attribute", "crowd", "review"]

NUM_STATEMENTS = 3
"""Rationales of an explanation."""
MIN_PEOPLE = 5
"""Minimum number of other users behind a count: fewer say little and could identify one of them."""
MIN_OWN = 2
"""Minimum number of the user's likes behind a rationale about a category."""
NUM_CONSIDERED, NUM_EACH = 4, 2
"""Rationales of each kind that are ranked, the best supported, and that are given, as they say much the same."""
NUM_EXAMPLES = 2
NUM_OPINIONS = 3
"""Opinions on an aspect that a sentence may repeat."""
NUM_LIKES = 64
"""Latest likes whose other fans are asked about the item."""
LONGEST_TITLE, LONGEST_SENTENCE = 80, 160
_PRIOR = 5.0
_LIKING = ("love", "adore", "enjoy", "like")


@dataclass(frozen=True, slots=True)
class Rationale:
    """A reason with its evidence.

    Attributes:
        text: A template sentence to the user; names and titles are in double quotes.
        kind: "history", "similar" and "attribute" for the user's own events: with items whose fans liked it, with items
            whose vectors are near, with items of its category; "crowd" for other users, "review" for reviews.
        evidence: As plain data.
        support: The share of likes in the evidence, shrunk towards one half; for reviews, of praise; of similar items
            the cosine.
        wordings: Paraphrases that the evidence supports as well, of which the model chooses one.
        positions: The supporting events, as negative indices into the user's history.
        features: Values of the affected ``FEATURES`` without this evidence.
    """

    text: str
    kind: Kind
    evidence: Mapping[str, Any] = field(hash=False)
    support: float
    wordings: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    features: Mapping[str, float] = field(default_factory=dict, hash=False)


def statements(
    interactions: InteractionStore,
    user: str,
    item: Item,
    domain: Domain,
    items: Mapping[str, Item],
    opinions: Sequence[Statement] = (),
    similar: Mapping[str, float] = {},
) -> list[Rationale]:
    """The best supported rationales of each kind; may be empty.

    Args:
        interactions: State at the time of the explanation.
        user: Id of the user.
        item: What is explained.
        domain: Its words.
        items: By id, those of the user's history.
        opinions: Mined from reviews of the item that were written by others.
        similar: Cosines of the items whose vectors (of text and of who likes them) are nearest to its own, by id.
    """
    known = dict(zip(FEATURES, interactions.features(user, [item.id])[0].tolist(), strict=True))
    events = interactions.timeline(user)  # a place is counted from the end of the context
    latest = {event.item: place for place, event in enumerate(events, -len(events)) if event.item}
    latest.pop(item.id, None)  # what the user did with the item itself is no reason to like it
    history = [(place, events[place]) for place in sorted(latest.values())]
    sorts = (
        _of_categories(history, item, domain, items, known),
        _of_fans(interactions, user, history, item, domain, items, known),
        _of_similar(history, domain, items, similar),
        _of_crowd(interactions, user, item),
        _of_reviews(opinions),
    )
    return [one for sort in sorts for one in sorted(sort, key=lambda one: -one.support)[:NUM_CONSIDERED]]


def without(row: Example, rationale: Rationale) -> Example:
    """The example with the rationale's evidence removed.

    Args:
        row: An example of ``task.ask`` about one item.
        rationale: One of ``statements`` for the same user and item, at the same time.
    """
    gone = {len(row.context) + place for place in rationale.positions}
    context = tuple(segment for place, segment in enumerate(row.context) if place not in gone)
    features = row.features.copy()
    if features.shape[1]:
        for name, value in rationale.features.items():
            features[:, FEATURES.index(name)] = value
    event_features = (
        np.delete(row.event_features, list(rationale.positions), 0) if len(row.event_features) else row.event_features
    )
    return replace(
        row, context=context, visible=row.visible - len(gone), features=features, event_features=event_features
    )


def likes_without(likes: Sequence[str], rationale: Rationale) -> list[str]:
    """The liked items, oldest first, with those of the rationale's evidence removed."""
    gone = {event["item"] for event in rationale.evidence.get("events", ())}
    return [item for item in likes if item not in gone]


def choose(found: Sequence[Rationale], falls: Sequence[float], count: int = NUM_STATEMENTS) -> list[Rationale]:
    """Rationales by their influence, ``NUM_EACH`` of a kind at most, without those that lower the scores.

    Args:
        found: All rationales.
        falls: How much is lost without the evidence of each.
        count: Maximum number.
    """
    fall = [round(one, 6) for one in falls]
    order = sorted((n for n in range(len(found)) if fall[n] >= 0), key=lambda n: (-fall[n], -found[n].support))
    chosen: list[Rationale] = []
    for rationale in (found[n] for n in order):
        if sum(one.kind == rationale.kind for one in chosen) < NUM_EACH:
            chosen.append(rationale)
    return chosen[:count]


def prompt(item: Item, domain: Domain) -> str:
    """Region 2 of an explanation, up to its sentence. The paper's ends in "because", which no sentence can follow."""
    return f"The user is now recommended {domain.item(item)}. Why they would like it:"


def _of_categories(
    history: Sequence[tuple[int, Event]],
    item: Item,
    domain: Domain,
    items: Mapping[str, Item],
    known: Mapping[str, float],
) -> list[Rationale]:
    found = []
    for category in item.categories:
        seen = [(place, event) for place, event in history if category in items[event.item].categories]
        liked = [(place, event) for place, event in seen if domain.positive(event)]
        if len(liked) < MIN_OWN or 2 * len(liked) < len(seen):
            continue
        examples = listed([_title(items[event.item]) for _, event in liked[: -NUM_EXAMPLES - 1 : -1]])
        those, kind = f"{len(liked)} of {len(seen)} {domain.noun}s", f"of the category {quote(category)}"
        text = f"You liked {those} {kind}, such as {examples}."
        wordings = (
            f"It is {kind}, and you liked {those} of that category.",
            f"It is {kind}, as are {examples}, which you liked.",
        )
        evidence = {
            "category": category,
            "liked": len(liked),
            "seen": len(seen),
            "events": [_plain(event, items) for _, event in liked],
        }
        features = {
            "category_share": known["user_share"],
            "category_value_surprise": known["value_surprise"],
        }
        positions = tuple(place for place, _ in liked)
        support = _support(len(liked), len(seen))
        found.append(Rationale(text, "attribute", evidence, support, wordings, positions, features))
    return found


def _of_fans(
    interactions: InteractionStore,
    user: str,
    history: Sequence[tuple[int, Event]],
    item: Item,
    domain: Domain,
    items: Mapping[str, Item],
    known: Mapping[str, float],
) -> list[Rationale]:
    likes = [(place, event) for place, event in history if domain.positive(event)][-NUM_LIKES:]
    crowds = interactions.also_liked(item.id, [event.item for _, event in likes], without=user)
    features = {
        "like_minded_share": known["item_share"],
        "agreeing_odds": 0.0,
        "neighbour_surprise": 0.0,
        "liked_together": 0.0,
    }
    found = []
    for (place, event), (liked, seen) in zip(likes, crowds, strict=True):
        if seen >= MIN_PEOPLE and 2 * liked > seen:
            title = _title(items[event.item])
            text = f"{liked} of {seen} people who liked {title}, as you did, liked it too."
            wordings = (f"You liked {title}, and {liked} of {seen} people who liked that liked it too.",)
            evidence = {"liked": liked, "seen": seen, "events": [_plain(event, items)]}
            support = _support(liked, seen)
            found.append(Rationale(text, "history", evidence, support, wordings, (place,), features))
    return found


def _of_similar(
    history: Sequence[tuple[int, Event]], domain: Domain, items: Mapping[str, Item], similar: Mapping[str, float]
) -> list[Rationale]:
    found = []
    for place, event in history:
        if event.item in similar and domain.positive(event):
            title = _title(items[event.item])
            wordings = (f"You liked {title}, and it is close to that.",)
            evidence = {"similarity": round(similar[event.item], 3), "events": [_plain(event, items)]}
            text = f"It is close to {title}, which you liked."
            found.append(Rationale(text, "similar", evidence, similar[event.item], wordings, (place,)))
    return found


def _of_crowd(interactions: InteractionStore, user: str, item: Item) -> list[Rationale]:
    liked, seen = interactions.like_counts(item.id, without=user)
    if seen < MIN_PEOPLE or 2 * liked <= seen:
        return []
    share = f"{100 * liked // seen}% of {seen} people"
    features = {"item_share": interactions.like_rate, "item_count": 0.0, "item_value": interactions.mean_value}
    evidence = {"liked": liked, "seen": seen}
    wordings = (f"It was liked by {share}.",)
    return [Rationale(f"{share} liked it.", "crowd", evidence, _support(liked, seen), wordings, features=features)]


def _of_reviews(opinions: Sequence[Statement]) -> list[Rationale]:
    quotable = [one for one in opinions if harmless(one.sentence) and len(one.sentence) <= LONGEST_SENTENCE]
    praise = Counter(one.aspect for one in quotable if one.polarity > 0)
    blame = Counter(one.aspect for one in opinions if one.polarity < 0)
    found = []
    for aspect, count in praise.items():
        if count <= blame[aspect]:
            continue
        said = [one for one in quotable if one.aspect == aspect and one.polarity > 0]
        praises = "Reviewers praise" if count > 1 else "A reviewer praises"
        evidence = {
            "aspect": aspect,
            "praise": count,
            "blame": blame[aspect],
            "opinions": [opinion for opinion, _ in Counter(filter(None, map(_told, said))).most_common(NUM_OPINIONS)],
            "sentences": list(dict.fromkeys(one.sentence for one in said))[:NUM_EXAMPLES],
        }
        wordings = tuple(_praising(praises, evidence))
        support = _support(count, count + blame[aspect])
        found.append(Rationale(f"{praises} its {aspect}.", "review", evidence, support, wordings))
    return found


def _told(opinion: Statement) -> str:
    """What may follow "is"; "" for what a reviewer does, such as "love"."""
    return "" if opinion.opinion.split()[-1].startswith(_LIKING) else opinion.opinion


def _praising(praises: str, evidence: Mapping[str, Any]) -> Iterator[str]:
    """Sentences of the aspect, the opinions and the sentences of some reviews; which number fits, the model tells."""
    aspect, opinions = evidence["aspect"], evidence["opinions"]
    for opinion in [*opinions, *map(" and ".join, combinations(opinions, 2))]:
        for verb in ("is", "are"):
            yield f"The {aspect} {verb} {opinion}."
            yield f"{praises} its {aspect}, which {verb} {opinion}."
        if "not" not in opinion:
            yield f"{praises} its {opinion} {aspect}."
    for sentence in evidence["sentences"]:
        yield f"{praises} its {aspect}: {quote(sentence)}"


def _support(liked: int, seen: int) -> float:
    return (liked + _PRIOR / 2) / (seen + _PRIOR)


def _title(item: Item) -> str:
    return quote(item.title, longest=LONGEST_TITLE)


def _plain(event: Event, items: Mapping[str, Item]) -> dict[str, Any]:
    return {"item": event.item, "title": items[event.item].title, "time": event.time, "value": event.value}
