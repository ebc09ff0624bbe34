from dataclasses import replace

from m6rec.tasks import click, like
from m6rec.tasks.words import words
from m6rec.types import Event, Segment
from tests import pocket

ITEMS = list(pocket.ITEMS.values())
VALUES = [1.0, 2.5, 5.0]


def said(worded, number):
    """(behaviours by value, candidate) of an item, joined as a browser joins them."""
    head, kind = worded["items"][number]
    tails = worded["kinds"][kind]
    return tuple([Segment(head + tail, slot) for tail, slot in tails[of]] for of in ("events", "candidate"))


def test_joined_pieces_are_what_the_task_says():
    for task in (like.TASK, click.TASK):
        worded = words(task, pocket.MOVIES, ITEMS, VALUES, pocket.USERS["u1"])
        for number, item in enumerate(ITEMS):
            behaviours, candidate = said(worded, number)
            events = [Event("u", item.id, 7, value) for value in VALUES]
            assert behaviours == [task.event_text(event, item, pocket.MOVIES) for event in events]
            assert candidate == [*task.candidate(item, pocket.MOVIES)]
        facts = task.profile(pocket.USERS["u1"], pocket.MOVIES)
        assert worded["profile"] == [(segment.text, segment.slot) for segment in facts] != []
        assert [kind["likes"] for kind in worded["kinds"]] == [(False, False, True)]
        assert [kind["strengths"] for kind in worded["kinds"]] == [
            tuple(pocket.MOVIES.feedback(event).strength for event in events)
        ]
        assert worded["features"]


def test_what_all_items_share_is_said_once():
    worded = words(like.TASK, pocket.MOVIES, ITEMS, VALUES, None)
    assert len(worded["kinds"]) == 1
    assert worded["items"][0] == ('The movie "Sea" (1990). ', 0)
    assert worded["profile"] is None


def test_an_item_of_its_own_kind():
    def behaviour(event, item, domain):
        return Segment("Ash, again." if item.id == "i2" else like.event_text(event, item, domain).text, "history")

    worded = words(replace(like.TASK, event_text=behaviour), pocket.MOVIES, ITEMS, VALUES, None)
    assert [kind for _, kind in worded["items"]] == [0, 0, 1, 0, 0, 0, 0, 0]
    behaviours, candidate = said(worded, 2)
    assert [segment.text for segment in behaviours] == ["Ash, again."] * 3
    assert candidate == [*like.candidate(pocket.ITEMS["i2"], pocket.MOVIES)]


def test_words_that_depend_on_the_moment_are_not_laid_ahead():
    def behaviour(event, item, domain):
        return Segment(f"{item.title} at {event.time}", "history")

    assert words(replace(like.TASK, event_text=behaviour), pocket.MOVIES, ITEMS, VALUES, None) is None
