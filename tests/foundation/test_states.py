import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lmdb
import pytest
import redis
import torch

from m6rec.adapters import TaskAdapterConfig, create
from m6rec.errors import AssetError, ConfigError, StoreError
from m6rec.foundation import stores
from m6rec.foundation.states import ENTRY_BYTES, CacheConfig, CacheStatistics, StateCache, StatesConfig
from m6rec.foundation.stores import RedisStore
from tests import tiny
from tests.redis_server import Server

TEXTS = [
    "The user liked the hat.",
    "boots",
    "The user was lukewarm about a theatre in town.",
    "Tent <|im_end|>",
]
FOUNDATION = tiny.foundation()


def open_cache(store=None, *, depth=2, keep=1, quantised=False, foundation=FOUNDATION, **options):
    return StateCache(foundation, StatesConfig(depth=depth, keep=keep, quantised=quantised), store, **options)


def tokens(cache, texts=TEXTS):
    """The kept tokens of each text."""
    states = cache.fetch(texts)
    return {text: states.tokens_TD[first : first + count] for text, (first, count) in states.places.items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[text], right[text]) for text in left)


def alone(text, depth, keep, foundation=FOUNDATION):
    """The slow way: one text by itself."""
    ids_BL = torch.tensor(foundation.tokenizer.encode([text]))
    return foundation.model.lower(ids_BL, depth)[0, -keep:]


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep", [1, 3, 0])
@pytest.mark.parametrize("depth", [0, 2, 4])
def test_cached_equals_uncached_bit_for_bit(tmp_path, depth, keep, dtype, quantised):
    foundation = tiny.foundation(dtype=dtype)
    options = {"depth": depth, "keep": keep, "foundation": foundation, "quantised": quantised}
    uncached = tokens(open_cache(**options))
    first = open_cache(tmp_path, **options)
    assert same(tokens(first), uncached)
    del first
    later = open_cache(tmp_path, **options)
    assert same(tokens(later), uncached)
    assert (later.hits, later.misses, later.computed_tokens) == (len(TEXTS), 0, 0)
    assert uncached[TEXTS[0]].dtype == dtype


@pytest.mark.parametrize("keep", [1, 3, 0])
def test_a_state_is_that_of_its_text_alone(keep):
    found = tokens(open_cache(keep=keep))
    for text in TEXTS:
        torch.testing.assert_close(found[text], alone(text, 2, keep), rtol=1e-5, atol=1e-6)
    lengths = [len(row) for row in FOUNDATION.tokenizer.encode(TEXTS)]
    assert [len(found[text]) for text in TEXTS] == [min(keep, n) if keep else n for n in lengths]


def test_the_mean_of_a_text_is_of_its_tokens_alone_and_as_large_for_any(tmp_path):
    cache = StateCache(FOUNDATION, StatesConfig(depth=2, mean=True), tmp_path)
    found = tokens(cache)
    for text in TEXTS:
        mean_1D = alone(text, 2, 0).mean(0, keepdim=True)
        torch.testing.assert_close(found[text], mean_1D, rtol=1e-5, atol=1e-6)
    assert not same(found, tokens(open_cache(tmp_path)))  # each has entries of its own
    again = StateCache(FOUNDATION, StatesConfig(depth=2, mean=True), tmp_path)
    assert same(tokens(again), found)
    assert again.misses == 0


def test_each_text_is_computed_once():
    cache = open_cache()
    seen = []
    cache.fetch([TEXTS[0], TEXTS[1], TEXTS[0]], lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2, 2)
    states = cache.fetch([TEXTS[1], TEXTS[2]])
    assert (cache.hits, cache.misses) == (1, 3)
    assert cache.computed_tokens == sum(map(len, FOUNDATION.tokenizer.encode(TEXTS[:3])))
    assert (states.places[TEXTS[1]], states.places[TEXTS[2]]) == ((0, 1), (1, 1))
    assert cache.fetch([]).tokens_TD.shape == (0, 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantised_state_is_within_half_a_step(dtype):
    foundation = tiny.foundation(dtype=dtype)
    whole, rounded = (tokens(open_cache(keep=0, foundation=foundation, quantised=q)) for q in (False, True))
    for text in TEXTS:
        step_T1 = whole[text].float().abs().amax(1, keepdim=True) / 127
        spare = 1e-6 if dtype == torch.float32 else 2**-8  # bf16 rounds once more
        allowed_TD = 0.5 * step_T1 + spare * whole[text].float().abs() + 1e-6
        assert ((rounded[text].float() - whole[text].float()).abs() <= allowed_TD).all()
        assert not torch.equal(rounded[text], whole[text])


def test_a_state_of_nought_can_be_quantised():
    foundation = tiny.foundation()
    torch.nn.init.zeros_(foundation.model.embed_tokens.weight)
    cache = open_cache(depth=0, foundation=foundation, quantised=True)
    assert torch.equal(cache.fetch(TEXTS).tokens_TD, torch.zeros(len(TEXTS), 32))


@pytest.mark.parametrize("budget", [0, 1500, 1 << 20])
@pytest.mark.parametrize("stored", [False, True])
def test_more_texts_than_memory_holds(tmp_path, stored, budget):
    texts = [f"item number {n}" for n in range(20)]
    expected = tokens(open_cache(), texts)
    cache = open_cache(tmp_path if stored else None, limits=CacheConfig(memory_bytes=budget))
    for _ in range(2):
        found = tokens(cache, texts)
        for text in texts:  # batches may differ, so the last bit may
            torch.testing.assert_close(found[text], expected[text], rtol=1e-5, atol=1e-6)
        assert cache.statistics().bytes <= budget
    assert cache.hits == (20 if stored else {0: 0, 1500: 3, 1 << 20: 20}[budget])


def test_statistics(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    cache = open_cache(keep=2, limits=CacheConfig(memory_bytes=4096))
    assert cache.statistics() == CacheStatistics(0, 0, 0, 0, 0.0, 0)
    cache.fetch(TEXTS[:2])
    now = 107.0
    cache.fetch(TEXTS[1:3])
    taken = sum(map(len, TEXTS[:3])) + 3 * (2 * 32 * 4 + ENTRY_BYTES)
    assert cache.statistics() == CacheStatistics(
        hits=1, misses=3, entries=3, bytes=taken, oldest_s=7.0, store_failures=0
    )


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path / "redis").start("--maxmemory-policy", "noeviction")
    yield made
    made.stop()


def test_a_shared_store_never_changes_a_state(server, monkeypatch):
    """Stopped, restarted, flushed, full, without an answer: the states stay, only the work varies."""
    monkeypatch.setattr(stores, "FIRST_WAIT_S", 0.0)
    expected = tokens(open_cache())
    admin = redis.Redis(port=server.port)
    shared = RedisStore(server.url, timeout_s=0.1)

    def check(*, computed, failures):
        cache = open_cache(shared, limits=CacheConfig(memory_bytes=0))
        assert same(tokens(cache), expected)
        assert (cache.misses, cache.statistics().store_failures) == (computed, failures)

    check(computed=4, failures=0)
    check(computed=0, failures=0)
    admin.flushall()
    check(computed=4, failures=0)
    server.stop()
    check(computed=4, failures=2)  # neither read nor written
    server.start()
    check(computed=4, failures=0)
    check(computed=0, failures=0)
    server.freeze()
    check(computed=4, failures=2)
    server.thaw()
    check(computed=0, failures=0)
    admin.flushall()
    admin.config_set("maxmemory", "1")
    check(computed=4, failures=1)  # not written
    admin.config_set("maxmemory", "0")
    check(computed=4, failures=0)
    check(computed=0, failures=0)
    for key in admin.scan_iter():
        admin.setrange(key, 20, b"torn")
    check(computed=4, failures=0)
    shared.close()
    admin.close()


def test_a_store_that_fails_midway_loses_nothing():
    """The server dies between two commits of one fetch."""

    class Dying:
        puts = 0

        def get(self, keys):
            return [None] * len(keys)

        def put(self, values):
            self.puts += 1
            if self.puts > 1:
                raise StoreError("gone")

        def close(self):
            pass

    texts = [f"{n} is the number of an item" for n in range(20)]
    limits = CacheConfig(write_every=2, batch_tokens=1)
    cache = open_cache(Dying(), limits=limits)
    assert same(tokens(cache, texts), tokens(open_cache(limits=limits), texts))
    assert cache.statistics().store_failures == 1  # then it is left alone


@pytest.mark.parametrize("spoil", ["flipped", "cut short", "emptied"])
def test_a_corrupt_entry_is_computed_anew(tmp_path, spoil):
    whole = tokens(open_cache(tmp_path))
    (folder,) = tmp_path.iterdir()
    with lmdb.open(str(folder)) as store, store.begin(write=True) as transaction:
        entries = list(transaction.cursor())
        key, value = entries[1]
        flipped = value[:9] + bytes([value[9] ^ 1]) + value[10:]
        assert transaction.put(key, {"flipped": flipped, "cut short": value[:-3], "emptied": b""}[spoil])
    assert len(entries) == len(TEXTS)
    for misses in (1, 0):  # the second time it has been repaired
        cache = open_cache(tmp_path)
        # Computed in a batch of other texts than the first time, it may differ in the last bit.
        torch.testing.assert_close(tokens(cache), whole, rtol=1e-5, atol=1e-6)
        assert (cache.hits, cache.misses) == (len(TEXTS) - misses, misses)
        del cache


def tuning():
    made = create(TaskAdapterConfig(method="adapter", first_layer=0), FOUNDATION.model, seed=0)
    torch.nn.init.ones_(made.module.get_parameter("layers.0.b2_D"))
    return made


OTHERS: dict[str, Any] = {
    "depth": {"depth": 3},
    "keep": {"keep": 2},
    "model": {"foundation": tiny.foundation(seed=1)},
    "type": {"foundation": tiny.foundation(dtype=torch.bfloat16)},
    "tuning": {"hook": tuning(), "tuning_id": "mine"},
    "rounding": {"quantised": True},
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_states_have_other_keys(tmp_path, other):
    ours = tokens(open_cache(tmp_path))
    theirs = open_cache(tmp_path, **OTHERS[other])
    assert not same(tokens(theirs), ours)
    assert (theirs.hits, theirs.misses) == (0, len(TEXTS))
    assert same(tokens(theirs), tokens(open_cache(**OTHERS[other])))
    assert same(tokens(open_cache(tmp_path)), ours)


def test_an_interrupted_build_goes_on_where_it_was(tmp_path):
    limits = CacheConfig(write_every=5, batch_tokens=1)  # a batch is one text
    texts = [f"{n} is the number of an item" for n in range(20)]  # alike in their ends only, so in no tree

    def stop(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path, limits=limits).fetch(texts, stop)
    cache = open_cache(tmp_path, limits=limits)
    assert same(tokens(cache, texts), tokens(open_cache(limits=limits), texts))
    assert (cache.hits, cache.misses) == (10, 10)


def test_caches_of_one_process_share_a_store(tmp_path):
    """Two tasks of one split, say; what one has computed the other finds."""
    one, two = open_cache(tmp_path), open_cache(tmp_path)
    one.fetch(TEXTS[:2])
    two.fetch(TEXTS)
    assert (two.hits, two.misses) == (2, 2)


def test_states_are_located_without_being_used(tmp_path):
    cache = open_cache(tmp_path)
    assert cache.locate(TEXTS[:3]) == ["absent"] * 3
    cache.fetch(TEXTS[:2])
    before = cache.statistics()
    assert cache.locate(TEXTS[:3]) == ["memory", "memory", "absent"]
    after = cache.statistics()
    assert (after.hits, after.misses, after.entries) == (before.hits, before.misses, before.entries)
    assert open_cache(tmp_path).locate(TEXTS[:3]) == ["store", "store", "absent"]
    assert open_cache(None).locate(TEXTS[:3]) == ["absent"] * 3


def test_any_thread_may_fetch(tmp_path):
    """As while a service reads its catalogue by a new tuning and answers by the old one."""
    texts = [f"{word} {n}" for n in range(30) for word in ("the sea", "he came", "boots")]
    expected = tokens(open_cache(), texts)
    cache = open_cache(tmp_path, limits=CacheConfig(memory_bytes=20_000))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: tokens(cache, texts[n % 7 :: 1 + n % 3]), range(64)))
    finally:
        sys.setswitchinterval(interval)
    for some in found:
        for text, states in some.items():  # batches of other shapes differ in the last bits
            torch.testing.assert_close(states, expected[text], rtol=1e-4, atol=1e-5)
    assert cache.hits + cache.misses == sum(map(len, found))


def test_keys_do_not_depend_on_the_process(tmp_path):
    """Frozen, so that a cache made by an earlier run or version is found."""
    open_cache(tmp_path)
    (folder,) = tmp_path.iterdir()
    scope = f"{FOUNDATION.model.id}||2|1|torch.float32|".encode()
    assert folder.name == hashlib.blake2b(scope, digest_size=8).hexdigest()


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="depth is -1 and keep is 1; both must be at least 0"):
        StatesConfig(depth=-1)
    with pytest.raises(ConfigError, match="the mean is one state for a segment, but keep is 2; leave it 1"):
        StatesConfig(depth=1, keep=2, mean=True)
    with pytest.raises(ConfigError, match="depth is 5, but the foundation has 4 layers; give 0 to 4"):
        open_cache(depth=5)
    with pytest.raises(ConfigError, match="the text '' has no token"):
        open_cache().fetch(["boots", ""])
    open_cache(tmp_path).fetch(TEXTS)
    (folder,) = tmp_path.iterdir()
    (folder / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(AssetError, match=r"can't be opened \(.*\); delete the folder"):
        open_cache(tmp_path)
