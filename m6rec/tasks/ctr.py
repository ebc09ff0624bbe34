"""Ranking by clicks in the paper's own words: what is counted of user and item goes in as text (M6-Rec, section 3.2).

    It is a Friday evening in December, place "Beijing", weather "rain". The user was last here 23 minutes ago. The item
    is popular: high, among the top 10%. The user met the category "boots" 4 times in the last two years.

Each sentence is one of few, so that its state is computed once. ``click`` is told the same as numbers, and more of it.
"""

from dataclasses import replace

from m6rec.domains.domain import Domain
from m6rec.features.interactions import InteractionStore
from m6rec.tasks import click
from m6rec.text.verbalise import ago, capped_count, moment, percentile, quote
from m6rec.types import Item, Segment, Situation, User

WINDOW_S = 2 * 365 * 86_400
"""Seconds that counts look back; an event of a log without time is always within."""
MAX_EVENTS = 200
"""Latest events of the user that are counted."""


def cross(
    interactions: InteractionStore, user: User, item: Item, situation: Situation, domain: Domain
) -> tuple[Segment, ...]:
    """The sentences, each a segment; what isn't known is left out."""
    latest = interactions.history(user.id)[-MAX_EVENTS:]
    when = [f"It is a {moment(situation.time)}"] if situation.time else []
    where = [f"{name.replace('_', ' ')} {quote(str(value))}" for name, value in situation.context]
    told = [f"{', '.join([*when, *where])}."] if when or where else []
    if latest and situation.time:
        told.append(f"The user was last here {ago(max(0, situation.time - latest[-1].time))}.")
    told.append(f"The {domain.noun}'s popularity is {percentile(interactions.popularity_rank(item.id))}.")
    if item.categories:
        category = item.categories[0]
        recent = (event for event in latest if situation.time - event.time <= WINDOW_S)
        met = sum(category in interactions.categories(event.item) for event in recent)
        told.append(f"The user met the category {quote(category)} {capped_count(met)} in the last two years.")
    return tuple(Segment(sentence, "cross") for sentence in told)


TASK = replace(click.TASK, name="ctr", cross=cross, uses_features=False)
