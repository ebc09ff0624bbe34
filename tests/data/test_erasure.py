"""What a log holds of users who were forgotten."""

from dataclasses import replace

from m6rec.data.erasure import REASON, without
from m6rec.data.log import Log
from m6rec.types import Event, Item, User

LOG = Log(
    events=tuple(Event(user, "i", time) for time in (1, 2, 3) for user in ("a", "b")),
    items={"i": Item("i", "Tea")},
    users={name: User(name) for name in "ab"},
    dropped={REASON: 1, "others": 4},
)


def test_what_was_told_up_to_then_is_gone_and_what_came_later_stays():
    left = without(LOG, {"a": 2})
    assert [(event.user, event.time) for event in left.events] == [("b", 1), ("b", 2), ("a", 3), ("b", 3)]
    assert list(left.users) == ["b"]
    assert left.items == LOG.items
    assert left.dropped == {REASON: 3, "others": 4}


def test_a_log_without_them_stays_as_it_is():
    assert without(LOG, {}) is LOG
    assert without(LOG, {"c": 2}) is LOG
    known = replace(LOG, users={"b": User("b")})
    assert without(known, {"a": 0}) is known
