"""A user's taste in words, for the head of a prompt: of which categories their latest likes are, and the last titles.

What the upper layers see of a history is a state or two of each behaviour; what stands in region 2 all layers read. So
even an untuned model writes something else for another user (design/006).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from m6rec.domains.domain import Domain, titled
from m6rec.text.verbalise import listed, quote
from m6rec.types import Event, Item

NUM_CATEGORIES, NUM_TITLES = 6, 5
LONGEST = 80
"""Characters of a title."""


def lead(history: Sequence[Event], items: Mapping[str, Item], domain: Domain) -> str:
    """Words it as "Of the movies that the user likes, 60% are Drama, …. Lately the user liked "…" and "…". ".

    Args:
        history: Behaviours, oldest first.
        items: By id.
        domain: Its words.

    Returns:
        One or two sentences with a space at the end; "" for a user without likes.
    """
    liked = [items[event.item] for event in history if event.item and domain.positive(event)]
    counts = Counter(name for item in liked for name in item.categories)
    shares = [
        f"{round(100 * n / len(liked))}% are {quote(name)[1:-1]}" for name, n in counts.most_common(NUM_CATEGORIES)
    ]
    titles = [quote(item.title, longest=LONGEST) for item in liked if titled(domain, item)][-NUM_TITLES:]
    said = f"Of the {domain.noun}s that the user likes, {', '.join(shares)}. " if shares else ""
    return said + (f"Lately the user liked {listed(titles)}. " if titles else "")
