from dataclasses import replace

import numpy as np

from m6rec.domains import domain as domains
from m6rec.tasks.task import Task
from m6rec.tasks.writing import LATEST, build_drafts, draft
from m6rec.types import Draft, Event, Item, Segment, User

GENERIC = domains.named("generic")
ITEMS = {name: Item(name, title) for name, title in (("i1", "Boots"), ("i2", "Hat"))}
USERS = {name: User(name) for name in ("u1", "u2")}
LOG = [Event("u1", "i1", 1, text="warm"), Event("u2", "i2", 2), Event("u1", "i2", 3, text="big, blue")]
SAYS = Task(
    name="says",
    readout="generate",
    profile=lambda user, domain: (Segment("A person.", "user"),),
    event_text=lambda event, item, domain: Segment(f"{item.title}: {event.text}.", "history"),
    texts=lambda event, item, domain: tuple((f"{item.title}:", f" {word}") for word in event.text.split(", ") if word),
)


def test_an_event_may_ask_for_several_texts_or_none():
    drafts = build_drafts(SAYS, LOG, USERS, ITEMS, GENERIC, np.ones(3, bool))
    person, boots = Segment("A person.", "user"), Segment("Boots: warm.", "history")
    assert drafts == [
        Draft((person,), "Boots:", " warm", 0),
        Draft((person, boots), "Hat:", " big", 2),
        Draft((person, boots), "Hat:", " blue", 2),
    ]


def test_only_wanted_events_are_asked_and_all_are_remembered():
    drafts = build_drafts(SAYS, LOG, USERS, ITEMS, GENERIC, np.array([False, False, True]))
    assert [draft.event for draft in drafts] == [2, 2]
    assert drafts[0].context[-1].text == "Boots: warm."


def test_the_oldest_behaviours_give_way():
    log = [Event("u1", "i1", n, text=f"{n}") for n in range(LATEST + 3)]
    last = build_drafts(SAYS, log, USERS, ITEMS, GENERIC, np.ones(len(log), bool))[-1]
    assert [segment.text for segment in last.context[:2]] == ["A person.", "Boots: 2."]
    assert last.context[-1].text == f"Boots: {LATEST + 1}."
    assert last.context == draft(SAYS, log[:-1], USERS["u1"], GENERIC, ITEMS, "x").context


def test_a_lead_tells_of_the_past_alone():
    led = replace(SAYS, lead=lambda history, items, domain: f"{len(history)} before. ")
    log = [Event("u1", "i1", n, 1.0, "Fine.") for n in range(3)]
    drafts = build_drafts(led, log, USERS, ITEMS, GENERIC, np.ones(3, bool))
    plain = build_drafts(SAYS, log, USERS, ITEMS, GENERIC, np.ones(3, bool))
    assert [one.prompt for one in drafts] == [f"{n} before. {one.prompt}" for n, one in enumerate(plain)]
    assert draft(led, log, USERS["u1"], GENERIC, ITEMS, "Go on").prompt == "3 before. Go on"
