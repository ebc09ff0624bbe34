"""A service of a real recommender that everybody uses at once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from m6rec.client import Client
from m6rec.features.interactions import InteractionStore
from m6rec.language.chat import Message
from m6rec.language.lexicon import Lexicon
from m6rec.serving.backend import Chat, Filters
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.item_index import ItemIndex
from m6rec.serving.journal import FileJournal
from m6rec.serving.recommender import Recommender
from m6rec.types import Event, Item, User
from tests import running
from tests.serving.test_recommender import ITEMS, LOG, observed, tunings  # noqa: F401
from tests.tiny import Tunings

TIMES = 12
WRITERS = [f"w{number}" for number in range(3)]


@pytest.fixture
def hesitating(monkeypatch):
    """Whoever changes memory pauses before and after each of its parts, so that all others get a chance in between."""

    def pausing(change):
        def paused(*args, **kwargs):
            time.sleep(2e-3)
            changed = change(*args, **kwargs)
            time.sleep(2e-3)
            return changed

        return paused

    for part, names in (
        (ItemIndex, ("put", "remove")),
        (InteractionStore, ("update", "upsert_items")),
        (Lexicon, ("put", "remove")),
    ):
        for name in names:
            monkeypatch.setattr(part, name, pausing(getattr(part, name)))


def made(tunings: Tunings, folder):  # noqa: F811
    return Recommender(
        *tunings,
        LOG,
        observed(),
        journal=FileJournal(folder / "journal"),
        catalogue=Catalogue(folder / "catalogue"),
        vectors=folder / "vectors",
    )


def scores(recommender, users, items):
    return {
        user: {one.item.id: (one.item.title, one.score) for one in recommender.rank(user, items).items}
        for user in users
    }


def test_all_at_once_is_as_one_after_another(tunings: Tunings, tmp_path, hesitating):  # noqa: F811
    recommender = made(tunings, tmp_path)
    start = threading.Barrier(len(WRITERS) + 7)

    def observe(client, user):
        for number in range(TIMES):
            event = Event(user, f"i{number % 6}", 100 + number, float(1 + number % 5), id=f"{user}-{number}")
            client.ingest([event, *([Event("shared", "i7", 200 + number, 4.0, id=f"{user}+{number}")])])
            assert client.ingest([event]).repeated == 1

    def upsert(client):
        for number in range(TIMES):
            client.upsert([Item(f"n{number % 4}", f"New {number}", ("War",)), Item(f"d{number}", "Short-lived")])
            assert client.delete([f"d{number}"]) == 1

    def put(client):
        for number in range(TIMES):
            client.put_user(User("told", {"age": number}))
            client.ingest([Event("gone", "i3", 300 + number, 5.0)])
            assert client.forget("gone")
            client.put_user(User("gone", {}))

    def rank(client):
        for number in range(TIMES):
            found = client.rank(WRITERS[number % 3], [*ITEMS, f"n{number % 4}"])
            assert len(found.items) >= len(ITEMS)
            assert len(client.retrieve("shared", 5)) == 5
            client.retrieve("shared", 100, filters=Filters(categories=("War",), seen=True))

    def nearest(client):
        for _ in range(5 * TIMES):
            assert len(client.retrieve("u1", 100, filters=Filters(seen=True))) >= len(ITEMS)

    def recommend(client):
        history = [Event("", "i2", 0, 5.0)]
        for number in range(TIMES):
            found = client.recommend(f"stranger {number}", 4, history=history).items
            assert len({one.item.id for one in found}) == 4
            client.explain("u1", "i2")

    def write(client):
        for number in range(TIMES // 3):
            scores, _ = client.rerank("a film", [f"Film {number}.{place}" for place in range(30)])
            assert len(scores) == 30
            client.embed([f"text {number}.{place}" for place in range(30)])
            client.chat(Chat(messages=[Message("user", "I liked Film 3. Something like it?")], user=f"guest {number}"))

    def swap(_):
        for _ in range(3):
            recommender.swap(*tunings)

    def begun(work, client, *args):
        start.wait(20)
        work(client, *args)

    with (
        running.service(recommender, max_queue=64, deadline_s=30.0) as url,
        Client(url, timeout_s=60) as client,
        ThreadPoolExecutor(start.parties) as pool,
    ):
        work = [pool.submit(begun, observe, client, user) for user in WRITERS]
        work += [pool.submit(begun, one, client) for one in (upsert, put, rank, nearest, recommend, write, swap)]
        for one in work:
            one.result(120)
        for user in WRITERS:
            assert [event.id for event in client.get_user(user)[1]] == [f"{user}-{number}" for number in range(TIMES)]
        shared = {event.id for event in client.get_user("shared")[1]}
        assert shared == {f"{user}+{number}" for user in WRITERS for number in range(TIMES)}
        assert client.get_user("told")[0].details == {"age": TIMES - 1}
        assert client.get_user("gone")[1] == []
    items = [*ITEMS, *(f"n{number}" for number in range(4))]
    users = [*WRITERS, "shared", "told", "gone", "u0", "u1", "u2", "nobody"]
    before, after = scores(recommender, users, items), scores(made(tunings, tmp_path), users, items)
    for user in users:
        assert before[user].keys() == after[user].keys() == set(items)
        for item, (title, score) in before[user].items():
            assert after[user][item] == (title, pytest.approx(score, rel=1e-4)), (user, item)
