"""Services that share a journal: each comes to know what the others took in, in one order."""

import logging
import random
import time

import pytest

from m6rec.errors import StoreError, UnknownError
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.following import following
from m6rec.serving.journal import FileJournal, open_journal
from m6rec.serving.recommender import Recommender
from m6rec.types import Event, Item, User
from tests import redis_server
from tests.serving.test_recommender import ITEMS, LOG, observed, tunings  # noqa: F401 - a fixture
from tests.tiny import Tunings


@pytest.fixture(params=["folder", "redis"])
def where(request, tmp_path):
    if request.param == "folder":
        yield tmp_path / "journal"
        return
    server = redis_server.Server(tmp_path / "redis", durable=True).start()
    yield server.url
    server.stop()


def service(tunings: Tunings, where):  # noqa: F811
    return Recommender(*tunings, LOG, observed(), journal=open_journal(where))


def events(count):
    rng = random.Random(3)
    return [
        Event(
            f"u{rng.randrange(5)}",
            f"i{rng.randrange(12)}",
            100 + rng.randrange(30),
            float(1 + rng.randrange(5)),
            id=f"{n}",
        )
        for n in range(count)
    ]


def known(recommender):
    users = sorted(recommender.state.users)
    of = recommender.state.interactions
    return {user: (list(of.timeline(user)), of.features(user, list(ITEMS)).tolist()) for user in users}


def test_all_who_share_a_journal_come_to_know_the_same(tunings: Tunings, where):  # noqa: F811
    services, rng = [service(tunings, where) for _ in range(3)], random.Random(1)
    for event in events(60):
        one = rng.choice(services)
        assert one.ingest([event]).accepted == 1
        assert one.get_user(event.user)[1].count(event) == 1  # at once, where it was told
        if rng.random() < 0.3:
            rng.choice(services).follow_events()
    for one in services:
        one.follow_events()
        assert one.follow_events() == 0
    assert known(services[0]) == known(services[1]) == known(services[2]) == known(service(tunings, where))


def test_what_was_told_to_two_services_counts_once(tunings: Tunings, where):  # noqa: F811
    one, other = service(tunings, where), service(tunings, where)
    event = Event("u9", "i3", 100, 5.0, id="once")
    assert one.ingest([event]).accepted == 1
    assert (other.ingest([event]).accepted, other.ingest([event]).repeated) == (0, 1)
    assert other.get_user("u9")[1] == one.get_user("u9")[1] == [event]


def test_a_service_follows_by_itself(tunings: Tunings, where):  # noqa: F811
    one, other = service(tunings, where), service(tunings, where)
    with following(other, every_s=0.01):
        one.ingest([Event("u9", "i3", 100, 5.0)])
        until = time.monotonic() + 20
        while "u9" not in other.state.users and time.monotonic() < until:
            time.sleep(0.01)
    assert other.get_user("u9")[1] == [Event("u9", "i3", 100, 5.0)]
    one.ingest([Event("late", "i3", 100, 5.0)])
    time.sleep(0.05)
    assert "late" not in other.state.users  # it has ended


def test_an_event_of_an_item_that_is_not_known_here_waits_for_it(tunings: Tunings, tmp_path, caplog):  # noqa: F811
    one, other = service(tunings, tmp_path), service(tunings, tmp_path)
    one.upsert([Item("fresh", "Storm")])
    one.ingest([Event("u9", "fresh", 100, 5.0), Event("u9", "i3", 101, 5.0)])
    assert other.follow_events() == 1
    assert "item 'fresh' is not known here" in caplog.text
    assert [event.item for event in other.get_user("u9")[1]] == ["i3"]
    other.upsert([Item("other", "Wind")])
    assert len(other.get_user("u9")[1]) == 1
    other.upsert([Item("fresh", "Storm")])
    assert other.get_user("u9")[1] == one.get_user("u9")[1]  # in order of time, though it came late


def test_items_are_followed_in_one_catalogue(tunings: Tunings, tmp_path):  # noqa: F811
    def shared():
        return Recommender(*tunings, LOG, observed(), catalogue=Catalogue(tmp_path / "catalogue"))

    one, other = shared(), shared()
    assert one.follow_items() == other.follow_items() == 0
    one.upsert([Item("fresh", "Storm"), Item("i3", "Another title")])
    one.delete(["i4", "i5"])
    assert other.follow_items() == 4
    assert other.follow_items() == one.follow_items() == 0
    other.upsert([Item("i5", "Back again")])
    one.upsert([Item("gone", "Soon")])
    one.delete(["gone"])
    assert (one.follow_items(), other.follow_items()) == (1, 0)
    for count in (3, 13):
        found = [[(hit.item, hit.score) for hit in of.retrieve("u1", count)] for of in (one, other, shared())]
        assert found[0] == found[1] == found[2]
    assert {item.id: item for item in one.state.live.values()} == other.state.live
    assert other.get_item("i3")[0].title == "Another title"


def test_a_journal_that_fails_for_a_while_is_read_later(tunings: Tunings, tmp_path, monkeypatch, caplog):  # noqa: F811
    one = service(tunings, tmp_path)
    read = FileJournal.since

    def broken(self, number):
        raise StoreError("the disk is away")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(FileJournal, "since", broken)
        assert one.ingest([Event("u9", "i3", 100, 5.0)]).accepted == 1  # it is on disk
        with following(one, every_s=0.01):
            time.sleep(0.1)
    assert caplog.text.count("events of other processes can't be read, and are tried again: the disk is away") == 1
    assert FileJournal.since is read
    assert "u9" not in one.state.users
    assert one.follow_events() == 1
    assert one.get_user("u9")[1] == [Event("u9", "i3", 100, 5.0)]
    assert known(one) == known(service(tunings, tmp_path))


def sealed(recommender):
    """All that is known and told, of everybody."""
    answers = {
        user: [(hit.item.id, hit.score) for hit in recommender.retrieve(user, 12)] for user in ("u0", "u1", "u9")
    }
    return known(recommender), answers, recommender.find_users("u"), recommender.holdings().num_new_events


def test_who_is_erased_by_one_service_is_unknown_to_all(tunings: Tunings, where, tmp_path):  # noqa: F811
    def started(number):
        return Recommender(
            *tunings, LOG, observed(), journal=open_journal(where), catalogue=Catalogue(tmp_path / f"machine-{number}")
        )

    one, other = started(1), started(2)  # each with a store of its own, as on two machines
    other.put_user(User("u9", {"motto": "Poetical science."}))
    one.ingest([Event("u9", "i3", 100, 5.0), Event("u0", "i9", 101, 5.0), Event("u1", "i2", 102, 1.0)])
    other.follow_events()
    before = sealed(other)
    assert one.forget("u9")
    assert one.forget("u0")  # of whom the log knows, too
    with following(other, every_s=0.01):
        until = time.monotonic() + 1
        while {"u0", "u9"} & set(other.state.users) and time.monotonic() < until:
            time.sleep(0.01)
    assert before != sealed(other) == sealed(one) == sealed(started(3))
    for of in (one, other):
        with pytest.raises(UnknownError):
            of.get_user("u9")
    assert b"Poetical" not in b"".join(file.read_bytes() for file in (tmp_path / "machine-2").iterdir())
    other.ingest([Event("u9", "i3", 103, 5.0)])
    one.follow_events()
    assert "u9" not in one.state.users  # they stay erased until they are told of again
    other.put_user(User("u9"))
    other.ingest([Event("u9", "i4", 104, 5.0)])
    one.follow_events()
    assert one.get_user("u9")[1] == other.get_user("u9")[1] == started(4).get_user("u9")[1]
    assert [event.item for event in one.get_user("u9")[1]] == ["i4"]


def test_an_erasure_while_a_service_is_stopped_reaches_its_own_store(tunings: Tunings, where, tmp_path):  # noqa: F811
    def started(number):
        return Recommender(
            *tunings, LOG, observed(), journal=open_journal(where), catalogue=Catalogue(tmp_path / f"machine-{number}")
        )

    started(2).put_user(User("u9", {"motto": "Poetical science."}))
    started(1).forget("u9")
    assert "u9" not in started(2).state.users
    assert not Catalogue(tmp_path / "machine-2").users()


def test_an_event_that_waits_for_its_item_is_erased_with_its_user(tunings: Tunings, tmp_path):  # noqa: F811
    one, other = service(tunings, tmp_path), service(tunings, tmp_path)
    one.upsert([Item("fresh", "Storm")])
    one.ingest([Event("u9", "fresh", 100, 5.0)])
    other.follow_events()
    one.forget("u9")
    other.follow_events()
    other.upsert([Item("fresh", "Storm")])
    assert "u9" not in other.state.users
