from m6rec.domains.domain import named
from m6rec.features.interactions import InteractionStore
from m6rec.tasks import ctr
from m6rec.types import Event, Item, Situation, User

ITEMS = {name: Item(name, name.upper(), ("boots",) if name < "c" else ("hats",)) for name in "abcd"}
DAY = 86_400
NOW = 20_000 * DAY  # a Friday in October 2024, at midnight


def told(events, *, situation, item="a"):
    domain = named("generic")
    interactions = InteractionStore(ITEMS, domain.feedback).update_all(events)
    return [segment.text for segment in ctr.cross(interactions, User("u"), ITEMS[item], situation, domain)]


def test_the_sentences_of_the_paper():
    events = [Event("v", "a", NOW - DAY), Event("v", "b", NOW - DAY), Event("w", "a", NOW - DAY)]
    events += [Event("u", "b", NOW - 900 * DAY), Event("u", "a", NOW - DAY), Event("u", "c", NOW)]
    assert told(
        sorted(events, key=lambda event: event.time), situation=Situation(NOW + 1_380, (("place", "Beijing"),))
    ) == [
        'It is a Friday night in October, place "Beijing".',
        "The user was last here 23 minutes ago.",
        "The item's popularity is above average, in the upper half.",
        'The user met the category "boots" once in the last two years.',
    ]


def test_nothing_is_made_up_for_a_stranger_in_a_log_without_time():
    assert told([], situation=Situation()) == [
        "The item's popularity is very low, among the bottom 10%.",
        'The user met the category "boots" never in the last two years.',
    ]


def test_popularity_ranks_items_by_their_events():
    domain = named("generic")
    interactions = InteractionStore(ITEMS, domain.feedback)
    for place, item in enumerate("abcd"):
        interactions.update_all(Event("u", item, 1 + place) for _ in range(place + 1))
    assert [interactions.popularity_rank(item) for item in "abcd"] == [0, 0.25, 0.5, 0.75]
    known = InteractionStore(ITEMS, domain.feedback, interactions.popularity(ITEMS))
    assert [known.popularity_rank(item) for item in "abcd"] == [0, 0.25, 0.5, 0.75]
    assert interactions.popularity_rank("unknown") == 0
