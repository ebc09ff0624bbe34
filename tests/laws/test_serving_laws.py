"""What must hold for whatever is served, in every domain; a new one inherits all of it."""

import copy
import threading
import time
from array import array
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m6rec.data.log import Log
from m6rec.domains import domain as domains
from m6rec.errors import DataError, UnknownError
from m6rec.features.interactions import FEATURES, InteractionStore
from m6rec.features.item_columns import ItemColumns
from m6rec.features.item_feedback import ItemFeedback
from m6rec.features.store import FeatureStore
from m6rec.features.timelines import Timelines
from m6rec.language.chat import Message
from m6rec.readouts import ScoreModel, TaskModelConfig
from m6rec.serving.admission import MAX_AHEAD_S
from m6rec.serving.backend import Chat, Filters, RankRequest, Request
from m6rec.serving.catalogue import Catalogue
from m6rec.serving.journal import FileJournal
from m6rec.serving.recommender import Recommender, ServingLimits
from m6rec.types import Event, Item, User
from tests import tiny
from tests.columns import known
from tests.laws.test_data_laws import ITEM_DETAILS, VALUES

KINDS = ("Drama", "Comedy", "War")
FOUNDATION = tiny.foundation(num_layers=3)


class Shop:
    """A small log of a domain and what serves it."""

    def __init__(self, name):
        self.domain = domains.named(name)
        details = ITEM_DETAILS.get(name, {})
        self.items = {f"i{n}": Item(f"i{n}", f"Film {n}", (KINDS[n % 3],), details) for n in range(12)}
        users = {f"u{n}": User(f"u{n}") for n in range(3)}
        values = VALUES.get(name, (0, 1))
        events = tuple(Event(f"u{n % 3}", f"i{n % 5}", 10 * n, float(values[n % len(values)])) for n in range(20))
        self.log = Log(events=events, items=self.items, users=users)
        rank = ScoreModel.create(TaskModelConfig(task="like", domain=name, foundation="tiny"), FOUNDATION)
        self.tunings = tiny.retrieval(FOUNDATION, list(self.items.values()), name), rank

    def open(self, folder=None, log=None, **options):
        log = log or self.log
        interactions = InteractionStore(log.items, self.domain.feedback).update_all(log.events)
        if folder is not None:
            options |= {"journal": FileJournal(folder / "events"), "catalogue": Catalogue(folder / "items")}
        return Recommender(*self.tunings, log, interactions, **options)


@pytest.fixture(scope="module")
def shops():
    return {name: Shop(name) for name in domains.names()}


@pytest.fixture(scope="module", params=domains.names())
def served(request, shops):
    return shops[request.param], shops[request.param].open()


def said(text):
    return Chat(messages=[Message("user", text)])


def answers(recommender, user, item):
    """All that can be asked; any failure is one."""
    recommender.recommend(user, 3, calibration=1.0)
    recommender.rank(user, [item])
    recommender.explain(user, item)
    recommender.chat(replace(said("I loved Film 1 and hated Film 2. Something good?"), user=user))
    recommender.create(user, "query")
    recommender.rerank("warm shoes", ["boots", "  ", "Film 1"])
    recommender.embed(["boots", "  "])


FINITE = st.floats(allow_nan=True, allow_infinity=True)
VALUE = st.none() | FINITE | st.integers(-2, 12).map(float) | st.sampled_from([-1.0, 9e15, 0.5])
TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(["", "a great case", "<|im_end|>", "\ud800", "\x00"])
KIND = st.sampled_from(["", "view", "click", "skip", "rating", "search", "test drive", "\ud800"])
TIME = st.integers(-5, 10_000) | st.sampled_from([253_402_300_799, 1_700_000_000_000])
DETAIL = (
    st.text(max_size=9) | FINITE | st.integers(-3, 3000) | st.sampled_from(["12,50 EUR", 10**400, float("nan"), "inf"])
)
NAMES = ("year", "price", "author", "brand", "developer", "city", "length", "summary")
LONG = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@LONG
@given(data=st.data())
def test_any_accepted_event_can_be_worded_and_any_accepted_item_read(served, data):
    _, recommender = served
    before = recommender._state.interactions.time
    item = Item(
        data.draw(st.sampled_from(["i1", "new", ""]) | TEXT),
        data.draw(TEXT),
        tuple(data.draw(st.lists(TEXT, max_size=3))),
        data.draw(st.dictionaries(st.sampled_from(NAMES), DETAIL, max_size=3)),
    )
    event = Event(
        data.draw(st.sampled_from(["u0", "guest", ""])),
        data.draw(st.sampled_from(["i1", "new", "never", ""])),
        data.draw(TIME),
        data.draw(VALUE),
        data.draw(TEXT),
        data.draw(KIND),
    )
    for take_in in (lambda: recommender.upsert([item]), lambda: recommender.ingest([event])):
        with suppress(DataError, UnknownError):
            take_in()
    answers(recommender, event.user, "i1")
    interactions = recommender._state.interactions
    assert interactions.time <= max(before, time.time() + MAX_AHEAD_S)
    assert np.isfinite(interactions.features("u1", list(recommender._state.live))).all()
    assert 0 <= interactions.mean_value <= 1


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Event("u0", "i1", 5, 9e15), "takes"),
        (Event("u0", "i1", 5, float("nan")), "takes"),
        (Event("u0", "i1", -1), "seconds since 1970"),
        (Event("u0", "i1", 253_402_300_799), "not milliseconds"),
        (Event("", "i1", 5), "no user"),
    ],
)
def test_what_can_not_have_happened_is_refused_with_what_can(served, event, told):
    _, recommender = served
    before = fingerprint(recommender._state.interactions)
    with pytest.raises(DataError, match=told):
        recommender.ingest([Event("u0", "i1", 5), event])
    assert fingerprint(recommender._state.interactions) == before


CACHES = {"_by_likes"}
"""What a ``InteractionStore`` only keeps to be faster; a question may fill it."""


def fingerprint(interactions):
    """All that a ``InteractionStore`` holds, in depth; numbers to the last bit."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, dict):
            return [(key, plain(one)) for key, one in value.items()]
        if isinstance(value, list | tuple | array):
            return [plain(one) for one in value]
        if isinstance(value, FeatureStore):
            return plain(known(value))
        if isinstance(value, Timelines):
            return plain({**vars(value), "_feature_NT": value._feature_NT[: value._num_events]})
        if isinstance(value, ItemFeedback | ItemColumns):
            return plain(vars(value))
        return value if not callable(value) else None

    return copy.deepcopy([(name, plain(value)) for name, value in vars(interactions).items() if name not in CACHES])


def test_asking_leaves_no_trace(shops):
    for name in ("movielens", "generic", "clothes"):
        recommender = shops[name].open()
        recommender.upsert([replace(shops[name].items["i1"], id="fresh", categories=("Brand new",))])
        state = recommender._state
        before, users, known = (
            fingerprint(state.interactions),
            dict(state.users),
            state.interactions.features("u0", [*state.live]),
        )
        likes = Event("", "i7", 0), Event("", "fresh", 0, kind="like"), Event("", "", 0, text="a search")
        for user in ("u0", "stranger", ""):
            answers(recommender, user, "fresh")
            recommender.recommend(user, 5, history=likes)
            recommender.rank(user, [*state.live], history=likes)
            recommender.recommend_many([Request(user=user, history=likes), Request(user=user)])
            recommender.retrieve(user, filters=Filters(seen=True))
            state.interactions.item_share("fresh")
        for number in range(30):
            recommender.chat(replace(said("I loved Film 1 and Film 9. Another one?"), user=f"stranger-{number}"))
        assert fingerprint(state.interactions) == before
        assert state.users == users
        np.testing.assert_array_equal(state.interactions.features("u0", [*state.live]), known)


def seen_from_outside(recommender):
    """What a client can tell of the state, in numbers that may differ in their last bits."""
    state, items = recommender._state, sorted(recommender._state.items)
    users = sorted(state.users)
    return (
        users,
        sorted(state.live),
        {user: recommender.get_user(user) for user in users},
        state.interactions.most_liked(),
        np.concatenate([state.interactions.features(user, items) for user in [*users, "stranger"]]),
        np.concatenate([state.interactions.event_features(user) for user in users]),
        {
            user: {
                one.item: pytest.approx(one.score, abs=1e-5) for one in recommender.rank(user, sorted(state.live)).items
            }
            if state.live
            else None
            for user in [*users, "stranger"]
        },
        {user: {one.item for one in recommender.recommend(user, 100).items} for user in users},
    )


def same(left, right):
    for one, other in zip(left, right, strict=True):
        if isinstance(one, np.ndarray):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        else:
            assert one == other


ID = st.sampled_from(["i1", "i2", "i9", "new", "newer"])
WRITES = st.one_of(
    st.tuples(st.just("upsert"), ID, st.sampled_from(KINDS), st.sampled_from([1950, 2020])),
    st.tuples(st.just("delete"), ID),
    st.tuples(st.just("delete all")),
    st.tuples(
        st.just("observe"),
        st.sampled_from(["u0", "guest"]),
        ID,
        st.integers(0, 400),
        st.sampled_from([None, 1.0, 5.0]),
        st.sampled_from(["", "view", "a"]),
    ),
    st.tuples(st.just("put"), st.sampled_from(["guest", "told"]), st.integers(5, 80)),
    st.tuples(st.just("forget"), st.sampled_from(["u0", "guest"])),
    st.tuples(st.just("ask"), st.sampled_from(["u0", "guest"])),
    st.tuples(st.just("reload")),
)


def write(recommender, shop, name, *given):
    if name == "upsert":
        item, kind, year = given
        recommender.upsert([Item(item, f"Film {item} of {kind}", (kind,), {"year": year})])
    elif name == "delete":
        recommender.delete(given)
    elif name == "delete all":
        recommender.delete(list(recommender._state.live))
    elif name == "observe":
        user, item, at, value, kind = given
        text, kind = ("a search", "search") if kind == "a" else ("", kind)
        try:
            recommender.ingest([Event(user, "" if text else item, at, value, text, kind)])
        except UnknownError:
            assert item not in recommender._state.live
    elif name == "put":
        recommender.put_user(User(given[0], {"age": given[1], "gender": "F", "occupation": "writer"}))
    elif name == "forget":
        recommender.forget(*given)
    elif name == "ask":
        recommender.recommend(*given)
        recommender.chat(said("I loved Film 1. More?"))
    else:
        recommender.swap(*shop.tunings)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(writes=st.lists(WRITES, max_size=14))
def test_a_restart_is_as_if_there_had_been_none(shops, tmp_path_factory, writes):
    shop, folder = shops["movielens"], tmp_path_factory.mktemp("store")
    recommender = shop.open(folder)
    for one in writes:
        write(recommender, shop, *one)
    again = shop.open(folder)
    same(seen_from_outside(again), seen_from_outside(recommender))


def test_an_item_that_a_new_log_brings_becomes_live_unless_it_was_deleted(shops, tmp_path):
    shop = shops["movielens"]
    shop.open(tmp_path).delete(["i3"])
    items = {**shop.items, "late": Item("late", "Latecomer")}
    live = shop.open(tmp_path, replace(shop.log, items=items))._state.live
    assert "late" in live
    assert "i3" not in live
    shop.open(tmp_path, replace(shop.log, items=items)).delete(["late"])
    assert "late" not in shop.open(tmp_path, replace(shop.log, items=items))._state.live


def test_late_events_take_their_place_in_time(shops):
    shop = shops["movielens"]
    events = [Event("guest", f"i{n}", 100 * n, 5.0 if n % 2 else 1.0) for n in range(1, 9)]
    in_order, shuffled = shop.open(), shop.open()
    in_order.ingest(events)
    for number in (4, 0, 7, 2, 1, 6, 3, 5):
        shuffled.ingest([events[number]])
    assert shuffled.get_user("guest") == in_order.get_user("guest")
    left, right = (one._state.interactions for one in (in_order, shuffled))
    np.testing.assert_array_equal(
        left.event_features("guest")[:, -1], right.event_features("guest")[:, -1]
    )  # the pauses
    one, other = (
        dict(zip(FEATURES, interactions.features("guest", ["i9"])[0], strict=True)) for interactions in (left, right)
    )
    for name in ("user_share", "user_count", "recent_share", "item_share", "category_share", "user_value"):
        assert other[name] == pytest.approx(one[name], abs=0.02 if name == "recent_share" else 1e-6), name


def test_whoever_is_unknown_is_answered_and_a_history_counts_for_one_answer(served):
    _, recommender = served
    popular = [item for item in recommender._state.interactions.most_liked() if item in recommender._state.live][:3]
    for user in ("", "stranger"):
        found = [one.item.id for one in recommender.recommend(user, 12).items]
        assert set(popular) <= set(found[:8])
        assert recommender.rank(user, ["i1"]).items
    told = Event("", "i1", 0), Event("", "never", 0)
    answer = recommender.recommend("", 100, history=told)
    assert answer.unknown == ("never",)
    assert "i1" not in {one.item.id for one in answer.items}
    assert "i1" in {one.item.id for one in recommender.recommend("", 100).items}
    ranked = recommender.rank("u0", ["i1", "never", "i2"])
    assert (ranked.unknown, len(ranked.items)) == (("never",), 2)


def test_what_is_told_inline_ranks_as_what_is_kept(shops):
    shop = shops["movielens"]
    events = [Event("guest", "i1", 300, 5.0), Event("guest", "i2", 310, 1.0)]
    inline, kept = shop.open(), shop.open()
    # Of one user alone nothing else changes but the item's own counts, which an answer by the way must not move.
    with inline._state.interactions.overlay("guest", events):
        expected = inline._state.interactions.event_features("guest")
    told = {one.item.id: one.score for one in inline.rank("guest", ["i7", "i8"], history=events).items}
    kept.ingest(events)
    found = {one.item.id: one.score for one in kept.rank("guest", ["i7", "i8"]).items}
    assert found == pytest.approx(told, rel=1e-3)
    assert len(expected) == 2


def test_part_of_a_write_is_kept_and_the_unknown_named(shops):
    recommender = shops["movielens"].open()
    recommender.delete(["i4"])
    events = [Event("guest", item, 7, 5.0) for item in ("i1", "i4", "never", "i2")]
    made = recommender.ingest(events)
    assert (made.accepted, made.repeated, made.unknown) == (2, 0, ("i4", "never"))
    again = recommender.ingest(events)
    assert (again.accepted, again.repeated) == (0, 2)
    assert [event.item for event in recommender.get_user("guest")[1]] == ["i1", "i2"]
    with pytest.raises(UnknownError, match="'never'"):
        recommender.ingest(events[2:3])


def test_no_more_than_the_latest_events_are_read(shops):
    shop = shops["movielens"]
    short, long = shop.open(limits=ServingLimits(latest_events=8)), shop.open()
    events = [Event("guest", f"i{n % 9}", 1_000 + n, 1.0 + n % 5) for n in range(40)]
    for recommender in (short, long):
        recommender.ingest(events)
    read = [one._state.asked(one._state.models.rank, "guest", [shop.items["i1"]]) for one in (short, long)]
    assert len(read[0].context) == len(read[0].event_features) == 8
    assert read[0].context == read[1].context[-8:]
    np.testing.assert_array_equal(read[0].event_features, read[1].event_features[-8:])


def test_texts_of_strangers_stay_out_of_what_is_shared(shops):
    from m6rec.tasks import task

    recommender = shops["movielens"].open()
    recommender.rerank("x", ["boots"])
    cache = recommender._state.models.rank.cache
    before = task._candidate.cache_info().currsize, replace(cache.statistics(), oldest_s=0)
    recommender.rerank("x", [f"a document of {n}" for n in range(50)])
    recommender.embed([f"a text of {n}" for n in range(50)])
    assert (task._candidate.cache_info().currsize, replace(cache.statistics(), oldest_s=0)) == before


def test_documents_are_ranked_whatever_a_domain_says_of_every_user(shops, monkeypatch):
    for shop in shops.values():
        recommender = shop.open()
        documents = ["boots", "a long coat", ""]
        before = recommender.rerank("warm", documents)
        talkative = replace(shop.domain, user=lambda user: "The user is a customer.")
        monkeypatch.setattr(shop.tunings[1], "domain", talkative)
        recommender.swap(*shop.tunings)
        scores, tokens = recommender.rerank("warm", documents)
        assert len(scores) == 3
        assert tokens > before[1]
        alone = [recommender.rerank("warm", [document])[0][0] for document in documents]
        np.testing.assert_allclose(scores, alone, rtol=1e-5)
        monkeypatch.undo()


class Alone:
    """Fails where two threads are in one model at once, but for one that gives way between two layers."""

    def __init__(self, work):
        self._work, self._inside = work, threading.Lock()

    def __call__(self, *args, between=lambda: None, **kwargs):
        def give_way():
            self._inside.release()
            between()
            self._enter()

        self._enter()
        try:
            time.sleep(0.0005)
            return self._work(*args, between=give_way, **kwargs)
        finally:
            self._inside.release()

    def _enter(self):
        assert self._inside.acquire(blocking=False), "two threads in one cache"


def test_any_thread_may_call_it(shops, monkeypatch):
    """Answers and writes of several threads: nobody fails, nothing is lost, and no two are in the model at once."""
    shop = shops["movielens"]
    recommender = shop.open()
    for one in shop.tunings:
        monkeypatch.setattr(one.cache, "fetch", Alone(one.cache.fetch))
    failures, stop = [], threading.Event()

    def repeated(work):
        def run():
            try:
                for number in range(12):
                    work(number)
            except BaseException as error:
                failures.append(error)
                stop.set()

        return threading.Thread(target=run)

    works = [
        lambda n: recommender.recommend(f"u{n % 3}", 5),
        lambda n: recommender.rank_many([RankRequest(user="u1", items=("i1", "i2"))] * 2),
        lambda n: recommender.ingest([Event(f"guest-{n}", "i1", n, 5.0), Event("u0", "i2", n, 1.0)]),
        lambda n: recommender.upsert([Item(f"new-{n}-{k}", f"Film {n} {k}") for k in range(6)]),
        lambda n: recommender.delete([f"new-{n - 1}-0"]),
        lambda n: recommender.chat(said("I loved Film 1. Another one?")),
        lambda n: recommender.rerank("shoes", [f"boots {n} {k}" for k in range(5)]),
        lambda n: recommender.forget(f"guest-{n}") if n == 7 else None,
        lambda n: recommender.swap(*shop.tunings) if n % 6 == 5 else None,
    ]
    threads = [repeated(work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures
    assert not any(thread.is_alive() for thread in threads)
    assert {f"new-{n}-{k}" for n in range(12) for k in range(1, 6)} <= set(recommender._state.live)
    assert all(item in recommender._state.models.index for item in recommender._state.live)
    assert len([event for event in recommender.get_user("u0")[1] if event.item == "i2"]) >= 12


def test_an_upsert_of_seconds_holds_no_reader_up(shops, monkeypatch):
    """Counted in slices, not in seconds: between any two of them, whoever waits is answered."""
    shop = shops["movielens"]
    recommender = shop.open()
    kind, entered = type(shop.tunings[0]), []
    read = kind.item_vectors
    begun = threading.Event()

    def slow(self, items, *rest):
        entered.append(len(items))
        begun.set()
        time.sleep(0.02)  # longer than a slice may take, so that each is of one item
        return read(self, items, *rest)

    monkeypatch.setattr(kind, "item_vectors", slow)
    items = [Item(f"new-{n}", f"Novelty {n}") for n in range(40)]
    writer = threading.Thread(target=recommender.upsert, args=(items,))
    writer.start()
    begun.wait(10)
    most = 0
    for _ in range(6):
        before = len(entered)
        recommender.rank("u0", ["i1", "i2"])
        most = max(most, len(entered) - before)
    assert most <= 2, "a reader waited for more than the slice that had begun"
    assert len(entered) < len(items), "all was answered while it went on"
    writer.join(30)
    assert set(entered) == {1}
    assert {item.id for item in items} <= set(recommender._state.live)


@pytest.mark.parametrize("write", ["ingest", "upsert"])
def test_nobody_waits_for_the_disk_of_a_writer(shops, tmp_path, write, monkeypatch):
    shop = shops["movielens"]
    recommender = shop.open(tmp_path)
    store, name = (FileJournal, "append") if write == "ingest" else (Catalogue, "upsert")
    at_disk, go, kept = threading.Event(), threading.Event(), getattr(store, name)

    def waits(self, given):
        at_disk.set()
        assert go.wait(20)
        return kept(self, given)

    monkeypatch.setattr(store, name, waits)
    what = [Event("u0", "i1", 99, 5.0)] if write == "ingest" else [Item("new", "Storm")]
    writer = threading.Thread(target=getattr(recommender, write), args=(what,))
    writer.start()
    assert at_disk.wait(20)
    answered = threading.Thread(target=recommender.recommend, args=("u0",))
    answered.start()
    answered.join(10)
    assert not answered.is_alive(), "a reader waits for the disk"
    go.set()
    writer.join(20)


def test_long_readings_go_in_slices(shops):
    recommender = shops["movielens"].open(limits=ServingLimits(slice_s=0.0))
    documents = [f"document {n}" for n in range(30)]
    assert len([*recommender.reranking("x", documents)]) >= 30
    assert len([*recommender.embedding(documents)]) == 30
