"""Features in columns: the same however a log is taken in, and bounded however long it is."""

import subprocess
import sys

import numpy as np
import pytest

from m6rec.features import store as module
from m6rec.features.layout import FEATURES, LATEST, NEIGHBOURLY, WAYS, EventColumns, QueryColumns
from m6rec.features.store import FeatureStore
from tests.columns import known

USERS, ITEMS = 40, 60


def made(num_users=USERS, num_items=ITEMS):
    store = FeatureStore()
    store.add_users(num_users)
    store.add_items(num_items)
    for item in range(num_items):
        store.describe(item, [item % 7, 7 + item % 3], {item % 2: item / 9} if item % 5 else {})
    store.scale()
    return store


def random_log(num, seed=0, *, users=USERS, items=ITEMS):
    """Events of which some are late, some are views and some are of no item."""
    rng = np.random.default_rng(seed)
    positive = rng.choice([1, 1, 1, 0, 0, -1], num)
    item = np.where((positive < 0) & (rng.random(num) < 0.5), -1, rng.integers(items, size=num))
    time = np.arange(num) - np.where(rng.random(num) < 0.1, rng.integers(num, size=num), 0)
    return EventColumns(rng.integers(users, size=num), item, positive, rng.integers(6, size=num) / 5, time)


def part(columns, start, end):
    return type(columns)(*(column[start:end] for column in columns))


def asked(num, num_events, seed=1, *, users=USERS, items=ITEMS):
    rng = np.random.default_rng(seed)
    known = np.sort(rng.integers(num_events + 1, size=num))
    return QueryColumns(known, rng.integers(-1, users, size=num), rng.integers(-1, items, size=num))


def test_a_log_at_once_is_a_log_event_by_event_to_the_last_bit(monkeypatch):
    monkeypatch.setattr(module, "MOST_PAIRS", module.LEAST_SETS * WAYS)  # so small that pairs are forgotten
    num, items = 9000, 200
    events, questions = random_log(num, items=items), asked(700, num, items=items)
    bulk, single = made(USERS, items), made(USERS, items)
    trace_NT, features_QF = bulk.update(events, questions)
    traces, found = [], []
    for n in range(num + 1):
        for q in np.flatnonzero(questions.known == n):
            found.append(single.features(questions.users[q], [questions.items[q]])[0])
        if n < num:
            traces.append(single.update(part(events, n, n + 1))[0][0])
    np.testing.assert_array_equal(features_QF, found)
    np.testing.assert_array_equal(trace_NT, traces)
    assert (np.bincount(np.flatnonzero(bulk._state.keys) // WAYS) == WAYS).any()
    assert known(bulk) == known(single)


def test_several_items_are_asked_about_as_each_alone():
    store = made()
    store.update(random_log(3000))
    for user in (-1, 0, 5, USERS - 1):
        together = store.features(user, range(-1, ITEMS))
        alone = [store.features(user, [item])[0] for item in range(-1, ITEMS)]
        np.testing.assert_array_equal(together, alone)


def test_the_state_grows_without_a_change_of_what_it_holds(monkeypatch):
    events = random_log(6000)
    grown = made()
    grown.update(events)
    monkeypatch.setattr(module, "LEAST_SETS", 1 << 12)
    roomy = made()
    roomy.update(events)
    assert len(grown._state.keys) <= len(roomy._state.keys)
    assert known(grown) == known(roomy)


def test_only_the_latest_behaviours_are_looked_at_one_by_one():
    """Which items came before them, and so how long a history is, changes no feature but the sums."""
    num = LATEST + 50
    rng = np.random.default_rng(0)
    one = EventColumns(
        np.zeros(num, np.int64), rng.integers(ITEMS, size=num), np.ones(num, np.int64), np.ones(num), np.arange(num)
    )
    others = random_log(3000, seed=3)._replace(users=rng.integers(1, USERS, size=3000))
    tables = []
    for first in (one.items, np.concatenate([one.items[:50][::-1], one.items[50:]])):
        store = made()
        store.update(others)
        with store.imagining(0):
            store.update(one._replace(items=first), imagined=True)
            tables.append(store.features(0, range(ITEMS)))
    np.testing.assert_array_equal(tables[0][:, NEIGHBOURLY], tables[1][:, NEIGHBOURLY])
    for name in ("category_share", "near_share"):
        column = FEATURES.index(name)
        np.testing.assert_array_equal(tables[0][:, column], tables[1][:, column])
    assert store._state.users["size"].max() <= 2 * LATEST


def test_a_full_table_forgets_rare_pairs_first(monkeypatch):
    monkeypatch.setattr(module, "MOST_PAIRS", module.LEAST_SETS * WAYS)
    num_items = 3000
    store = made(2000, num_items)
    often = EventColumns(*(np.tile(column, 300) for column in ([0, 0], [1, 2], [1, 1], [1.0, 1.0], [0, 0])))
    users = np.repeat(np.arange(300), 2)
    store.update(often._replace(users=users))
    rng = np.random.default_rng(0)
    num = 40_000
    store.update(
        EventColumns(
            rng.integers(300, 2000, size=num),
            rng.integers(3, num_items, size=num),
            np.ones(num, np.int64),
            np.ones(num),
            np.arange(num),
        )
    )
    assert store._state.keys.size == module.MOST_PAIRS
    pairs = known(store)[-2]
    assert pairs[1 << 32 | 2][0] == 300
    assert len(pairs) == store.total["pairs"] <= module.MOST_PAIRS


@pytest.mark.parametrize("user", [3, USERS])
def test_what_is_imagined_leaves_nothing(user):
    store = made(USERS + 1)
    store.update(random_log(4000))
    before, features = known(store), store.features(user, range(ITEMS))
    with store.imagining(user):
        imagined = part(random_log(400, seed=5), 0, 400)._replace(users=np.full(400, user))
        store.update(imagined, imagined=True)
        assert not np.array_equal(store.features(user, range(ITEMS)), features)
    assert known(store) == before
    np.testing.assert_array_equal(store.features(user, range(ITEMS)), features)


def test_what_an_item_is_counts_for_events_that_were_before():
    early, late = made(), made()
    early.describe(5, [1, 2], {1: 3.0})
    for store in (early, late):
        store.update(random_log(2000))
    late.describe(5, [1, 2], {1: 3.0})
    for user in range(USERS):
        np.testing.assert_array_equal(early.features(user, range(ITEMS)), late.features(user, range(ITEMS)))


def test_importing_compiles_nothing():
    code = "import m6rec, m6rec.data.read, m6rec.features.interactions, sys; m6rec.InteractionStore; "
    code += "print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
